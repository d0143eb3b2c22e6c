//! Asking a live peer about a candidate: one dial with it, one call, and the connection is closed.
//!
//! 1. It goes to the address of a connection that exists, is not registered and carries no call of anybody's.
//! 2. All of it has one time limit. A peer that is silent, or slow, at whatever step is told apart from one that cannot be
//!    reached and from one that breaks off: breaking off is an answer.
use std::net::SocketAddr;
use std::time::Duration;

use http::uri::{PathAndQuery, Uri};
use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tonic::body::Body;
use tonic_prost::ProstCodec;

use super::error::DialError;
use crate::config::Limits;
use crate::foreign;
use crate::material::Generation;
use crate::question::{ANSWER_LIMIT, Answer, PATH, Question};
use crate::transport::tcp;
use crate::verify::{Expected, PeerSide};

/// A peer to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) expected: Expected,
    /// For errors and logs.
    pub(crate) name: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Nobody listens there any more.
    #[error("it cannot be reached")]
    Unreachable(#[source] DialError),
    /// It accepted the connection, or the kernel of its host did, and no answer came in time.
    #[error("it did not answer within {after:?}")]
    Silent {
        /// The time that it had.
        after: Duration,
    },
    /// The handshake failed.
    #[error("the connection failed")]
    Dial(#[source] DialError),
    /// The call failed.
    #[error("it did not answer whether it would accept the certificate")]
    Call(#[source] Box<Status>),
    /// It said no.
    #[error("it would refuse the certificate: {0}")]
    Refused(String),
}

impl ProbeError {
    /// A peer's no, in its own words.
    pub(crate) fn refused(reason: &str) -> Self {
        Self::Refused(foreign::sentence(reason))
    }

    /// A call that failed. Its message and details are the peer's.
    fn call(status: &Status) -> Self {
        Self::Call(Box::new(Status::new(status.code(), foreign::sentence(status.message()))))
    }
}

/// Asks one peer, with the candidate as our certificate and our trust. `time` bounds all of it.
pub(crate) async fn ask(
    target: &Target,
    candidate: &Generation,
    question: Question,
    limits: &Limits,
    time: Duration,
) -> Result<Answer, ProbeError> {
    let whole = async {
        let dialled = tcp::dial(target.address, limits).await;
        let tcp = dialled.map_err(|error| ProbeError::Unreachable(DialError::Connect(error)))?;
        let tls = shake(tcp, target, candidate).await.map_err(ProbeError::Dial)?;
        call(tls, target, candidate, question).await
    };
    timeout(time, whole).await.unwrap_or(Err(ProbeError::Silent { after: time }))
}

async fn shake(tcp: TcpStream, target: &Target, candidate: &Generation) -> Result<TlsStream<TcpStream>, DialError> {
    let config = candidate.client.clone().ok_or(DialError::NoHttp2)?;
    let name = candidate.server_name(&target.expected.role);
    let tls = TlsConnector::from(config).connect(name, tcp).await.map_err(DialError::of_tls)?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    candidate.vouch(chain, PeerSide::Server, Some(&target.expected)).map_err(DialError::Certificate)?;
    Ok(tls)
}

async fn call(
    tls: TlsStream<TcpStream>,
    target: &Target,
    candidate: &Generation,
    question: Question,
) -> Result<Answer, ProbeError> {
    let begun = Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).handshake(TokioIo::new(tls)).await;
    let (send, connection) = begun.map_err(|error| ProbeError::Dial(DialError::Http(error)))?;
    let _driving = AbortOnDropHandle::new(tokio::spawn(connection));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let mut send = send.clone();
        async move { send.send_request(request).await }
    });
    let name = candidate.server_name(&target.expected.role);
    let origin: Uri = format!("https://{}", name.to_str()).parse().unwrap_or_default();
    let mut grpc = tonic::client::Grpc::with_origin(service, origin).max_decoding_message_size(ANSWER_LIMIT);
    grpc.ready().await.map_err(|error| ProbeError::call(&Status::from_error(Box::new(error))))?;
    let (path, codec) = (PathAndQuery::from_static(PATH), ProstCodec::<Question, Answer>::default());
    let answer = grpc.unary(tonic::Request::new(question), path, codec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| ProbeError::call(&status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::chain;

    #[test]
    fn invariant_8_a_peers_words_are_cut() {
        let words = "\x1b[2Jno\n".repeat(10_000);
        for error in [ProbeError::refused(&words), ProbeError::call(&Status::internal(&words))] {
            let told = chain(&error);
            assert!(told.len() < 2_048 && !told.chars().any(char::is_control), "{told:?}");
        }
    }
}
