//! What stands between a connection and the service: who calls, may it, and for how long.
//!
//! 1. Policy is asked for each call, and it is the policy of now, not the one of when the connection was made. A change of
//!    it ends running calls that it no longer allows (see `leave`).
//! 2. `grpc-timeout` is the caller's: when it has passed, the service's future is dropped and the answer is
//!    DEADLINE_EXCEEDED.
//! 3. A request's extensions bear [`PeerInfo`] and what tonic's own server would put there, so that
//!    `tonic::Request::peer_certs` and `remote_addr` work.
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};

use super::body::{Bounds, CallBody, Ledger, Outcome, Tally};
use super::deadline;
use super::leave::{Leave, Policies, Watched};
use super::service::Service;
use super::throttle::Throttle;
use crate::config::Limits;
use crate::connections::{Connection, PeerInfo};
use crate::foreign;
use crate::material::Store;
use crate::policy::Policy;
use crate::question;
use crate::telemetry::Telemetry;

/// Bytes of a refused request that are read and thrown away.
const READ_BEFORE_REFUSAL: usize = 64 * 1024;
/// How long a refused request may take to end.
const PATIENCE_BEFORE_REFUSAL: Duration = Duration::from_millis(100);

/// What tonic finds in the extensions of a request.
#[derive(Debug, Clone)]
pub(crate) struct ConnectInfo {
    pub(crate) tcp: TcpConnectInfo,
    pub(crate) tls: Option<TlsConnectInfo<TcpConnectInfo>>,
}

/// The services of a listener.
#[derive(Clone)]
pub(crate) enum Services {
    /// One service, and the policy that stands before it.
    /// `trial` answers `mesh.Trial/Check` ahead of policy; `None` without TLS.
    Mesh { service: Service, policies: Policies, log: Arc<Throttle>, trial: Option<Service> },
    /// Two services told apart by content type; who may do what is theirs to say.
    Edge { grpc: Service, rest: Service },
}

impl Services {
    /// A mesh's service behind the policy file's policy, or where there is no such file behind `policy`.
    pub(crate) fn mesh(
        service: Service,
        store: Option<Arc<Store>>,
        policy: Arc<Policy>,
        trial: Option<Service>,
    ) -> Self {
        let log = Arc::new(Throttle::new(Duration::from_millis(100)));
        Self::Mesh { service, policies: Policies::of(store, policy), log, trial }
    }

    /// An edge's two services.
    pub(crate) fn edge(grpc: Service, rest: Service) -> Self {
        Self::Edge { grpc, rest }
    }

    /// The service for a request, or why there is none for this caller.
    fn admit(&self, peer: &PeerInfo, request: &Request<Incoming>) -> Result<Admitted, Status> {
        match self {
            Self::Mesh { trial: Some(trial), .. } if request.uri().path() == question::PATH => Ok(trial.clone().into()),
            Self::Mesh { service, policies, log, .. } => {
                let path = request.uri().path();
                let watched = policies.watched(peer, path);
                if policies.now().allows(peer.identity(), path) {
                    Ok(Admitted { service: service.clone(), watched: watched.map(|w| (w, Arc::clone(log))) })
                } else {
                    Err(refusal(peer, path, log))
                }
            }
            Self::Edge { grpc, .. } if is_grpc(request) => Ok(grpc.clone().into()),
            Self::Edge { rest, .. } => Ok(rest.clone().into()),
        }
    }

    /// Does to a connection what changes of policy ask for. Never ends.
    pub(crate) async fn follow_policy(&self, connection: &Connection) {
        match self {
            Self::Mesh { policies, .. } => policies.follow(connection).await,
            Self::Edge { .. } => std::future::pending().await,
        }
    }
}

/// The service for one request, and what is asked again while it runs.
struct Admitted {
    service: Service,
    watched: Option<(Watched, Arc<Throttle>)>,
}

impl From<Service> for Admitted {
    fn from(service: Service) -> Self {
        Self { service, watched: None }
    }
}

fn refusal(peer: &PeerInfo, path: &str, log: &Throttle) -> Status {
    let path = foreign::name(path);
    if let Some(suppressed) = log.permit(Instant::now()) {
        tracing::warn!(peer = %peer.identity(), address = %peer.remote_addr(), path, suppressed, "policy refused a call");
    }
    Status::permission_denied(format!("policy does not allow {} to call {path}", peer.identity()))
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request.headers().get(http::header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

/// The service of one connection.
pub(crate) struct Calls {
    services: Services,
    connection: Arc<Connection>,
    info: ConnectInfo,
    peer: PeerInfo,
    ledger: Arc<Ledger>,
    telemetry: Telemetry,
}

impl Calls {
    /// Serves `services` to the peer of `connection`.
    pub(crate) fn new(
        services: Services,
        connection: Arc<Connection>,
        info: ConnectInfo,
        telemetry: Telemetry,
        limits: &Limits,
    ) -> Self {
        let peer = connection.peer_info();
        let ledger = Ledger::new(telemetry.calls(peer.identity().policy_name()));
        let ledger = Arc::new(match services {
            Services::Mesh { .. } => ledger,
            Services::Edge { .. } => ledger.allowing(limits.streams, &connection),
        });
        Self { services, connection, info, peer, ledger, telemetry }
    }

    fn introduce(&self, request: &mut Request<Body>) {
        let extensions = request.extensions_mut();
        extensions.insert(self.peer.clone());
        // Of a connection with TLS tonic finds the addresses in there, too.
        match &self.info.tls {
            Some(tls) => extensions.insert(tls.clone()).is_some(),
            None => extensions.insert(self.info.tcp.clone()).is_some(),
        };
    }

    fn refuse(&self, status: Status, mut tally: Tally) -> Response<CallBody> {
        self.telemetry.policy_refusal(self.peer.identity().policy_name());
        tally.end(Outcome::Refused);
        CallBody::reply(status.into_http(), Bounds::default(), tally)
    }

    /// The request as the service gets it, and the leave of its answer.
    fn guard(&self, request: Request<Incoming>, watched: Option<(Watched, Arc<Throttle>)>) -> (Request<Body>, Leave) {
        match watched {
            None => (request.map(Body::new), Leave::default()),
            Some((watched, log)) => {
                let leave = watched.answer(self.telemetry.clone(), log);
                (request.map(|body| Body::new(watched.request(body))), leave)
            }
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<CallBody>;
    type Error = Infallible;
    // Must not hold the connection: calls outlive it by the moment it takes to notice.
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let tally = Tally::new(Arc::clone(&self.ledger), self.connection.begin_call());
        let Admitted { service, watched } = match self.services.admit(&self.peer, &request) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(refused(request.into_body(), self.refuse(status, tally))),
        };
        let (mut request, leave) = self.guard(request, watched);
        self.introduce(&mut request);
        Box::pin(answer(service, request, leave, tally))
    }
}

/// Reads a small request to its end before it is refused. Answering earlier resets the stream (RFC 9113 section 8.1), and
/// some clients, curl among them, then lose the answer.
async fn refused(mut body: Incoming, answer: Response<CallBody>) -> Result<Response<CallBody>, Infallible> {
    let reading = async {
        let mut left = READ_BEFORE_REFUSAL;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) else { break };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(PATIENCE_BEFORE_REFUSAL, reading).await;
    Ok(answer)
}

/// Calls the service within the caller's time, and for as long as policy lets it.
async fn answer(
    service: Service,
    request: Request<Body>,
    leave: Leave,
    mut tally: Tally,
) -> Result<Response<CallBody>, Infallible> {
    let deadline = deadline::timeout(request.headers()).map(|timeout| Box::pin(tokio::time::sleep(timeout)));
    let mut bounds = Bounds { deadline, leave };
    let response = tokio::select! {
        biased;
        response = service.call(request) => response?,
        (outcome, status) = poll_fn(|cx| bounds.poll_over(cx)) => {
            tally.end(outcome);
            status.into_http()
        }
    };
    Ok(CallBody::reply(response, bounds, tally))
}
