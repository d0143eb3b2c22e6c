//! What policy says while a call runs.
//!
//! 1. A call was allowed when it began. Every change of the policy file asks again, and a call that is no longer allowed
//!    ends with PERMISSION_DENIED, whatever it is doing.
//! 2. Both directions end: the answer with that status, and what the caller still sends reaches the service no more, even
//!    where a task of its own reads it.
//! 3. Only a file can change. Behind a policy given in code nothing is watched.
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;
use tonic::Status;

use super::throttle::Throttle;
use crate::connections::{Connection, PeerInfo};
use crate::ending::EndReason;
use crate::foreign;
use crate::material::Store;
use crate::policy::Policy;
use crate::telemetry::Telemetry;

/// Where the policy of now is found.
#[derive(Clone)]
pub(crate) enum Policies {
    /// Given in code.
    Fixed(Arc<Policy>),
    /// Read from a file, and followed.
    File(Arc<Store>, Arc<Policy>),
}

impl Policies {
    /// The file of `store` where it has one, else `given`.
    pub(crate) fn of(store: Option<Arc<Store>>, given: Arc<Policy>) -> Self {
        match store.map(|store| (store.policy(), store)) {
            Some((Some(_), store)) => Self::File(store, given),
            _ => Self::Fixed(given),
        }
    }

    /// The policy of now.
    pub(crate) fn now(&self) -> Arc<Policy> {
        match self {
            Self::Fixed(policy) => Arc::clone(policy),
            Self::File(store, given) => store.policy().unwrap_or_else(|| Arc::clone(given)),
        }
    }

    /// What is to be asked again of a call; `None` where policy cannot change. To be called before policy is asked first.
    pub(crate) fn watched(&self, peer: &PeerInfo, path: &str) -> Option<Watched> {
        let Self::File(store, _) = self else { return None };
        let changes = store.subscribe_policy()?;
        Some(Watched { policies: self.clone(), changes, peer: peer.clone(), path: path.to_owned() })
    }

    /// Drains the connection of a role that policy lets call nothing any more: its calls have ended by themselves. Never
    /// ends.
    pub(crate) async fn follow(&self, connection: &Connection) {
        if let Self::File(store, _) = self
            && let Some(mut changes) = store.subscribe_policy()
        {
            while changes.changed().await.is_ok() {
                if !self.now().lets_in(&connection.facts.peer) {
                    connection.drain(EndReason::Policy);
                }
            }
        }
        std::future::pending().await
    }
}

/// A call that was allowed and may not stay so.
#[derive(Clone)]
pub(crate) struct Watched {
    policies: Policies,
    changes: watch::Receiver<u64>,
    peer: PeerInfo,
    path: String,
}

impl Watched {
    /// Ready once a change no longer allows the call. It was allowed when it began, and changes since then are all seen.
    async fn refused(mut self) -> Status {
        loop {
            if self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            if !self.policies.now().allows(self.peer.identity(), &self.path) {
                break;
            }
        }
        let path = foreign::name(&self.path);
        Status::permission_denied(format!("policy no longer allows {} to call {path}", self.peer.identity()))
    }

    /// The same, counted and told.
    async fn refused_and_told(self, telemetry: Telemetry, log: Arc<Throttle>) -> Status {
        let peer = self.peer.clone();
        let status = self.refused().await;
        telemetry.policy_refusal(peer.identity().policy_name());
        if let Some(suppressed) = log.permit(Instant::now()) {
            tracing::warn!(peer = %peer.identity(), reason = status.message(), suppressed, "policy ended a running call");
        }
        status
    }

    /// For the answer: counts and tells.
    pub(crate) fn answer(&self, telemetry: Telemetry, log: Arc<Throttle>) -> Leave {
        Leave(Some(Box::pin(self.clone().refused_and_told(telemetry, log))))
    }

    /// Guards what the caller sends.
    pub(crate) fn request(&self, inner: Incoming) -> GuardedBody {
        GuardedBody { inner: Some(inner), leave: Leave(Some(Box::pin(self.clone().refused()))) }
    }
}

/// The leave to go on. The default is never withdrawn.
#[derive(Default)]
pub(crate) struct Leave(Option<Pin<Box<dyn Future<Output = Status> + Send>>>);

impl Leave {
    /// Ready, once, when the leave is withdrawn.
    pub(crate) fn poll_withdrawn(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let Some(refused) = &mut self.0 else { return Poll::Pending };
        let polled = refused.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

/// A request's body, which breaks off for good when the leave is withdrawn.
pub(crate) struct GuardedBody {
    /// `None` once it broke off.
    inner: Option<Incoming>,
    leave: Leave,
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(status) = this.leave.poll_withdrawn(cx) {
            this.inner = None;
            return Poll::Ready(Some(Err(Box::new(status))));
        }
        match &mut this.inner {
            Some(inner) => Pin::new(inner).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}
