//! `grpc.health.v1.Health`: the same readiness that /healthz tells, for those who probe by gRPC.
//!
//! 1. SERVING while the process is ready, NOT_SERVING otherwise: of the server as a whole (the empty name) and of each
//!    service by name. Another name is NOT_FOUND to Check, and SERVICE_UNKNOWN to Watch, as the protocol has it.
//! 2. Nothing else is said: why a process is not ready stands in /healthz and in the status document.
//! 3. A Watch ends when the process begins to end, after the last change: a drain must not wait for it.
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rpc::health::health_check_response::ServingStatus;
use rpc::health::health_server::{self, HealthServer};
use rpc::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::{Request, Response, Status};

use crate::Health;

/// Answers for the services of one server.
#[derive(Debug, Clone)]
pub struct HealthService {
    health: Health,
    services: &'static [&'static str],
}

impl HealthService {
    /// The gRPC service. `services` are those that are known by name, `package.Service`, beside the server as a whole.
    #[must_use]
    pub fn server(health: Health, services: &'static [&'static str]) -> HealthServer<Self> {
        HealthServer::new(Self { health, services })
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.services.contains(&service)
    }

    fn status(&self) -> ServingStatus {
        if self.health.ready() && !self.health.ending() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if self.knows(&request.into_inner().service) {
            Ok(Response::new(reply(self.status())))
        } else {
            Err(Status::not_found("no service of this name is served here"))
        }
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = self.knows(&request.into_inner().service);
        Ok(Response::new(changes(self.clone(), known).boxed()))
    }
}

/// The status now, and each one that differs from the one before.
fn changes(service: HealthService, known: bool) -> impl stream::Stream<Item = Result<HealthCheckResponse, Status>> {
    // Subscribed before the first look, so that no change falls between.
    let changed = service.health.subscribe();
    stream::unfold((service, changed, None), move |(service, mut changed, before)| async move {
        loop {
            // Read before the status: one that is read afterwards is the last.
            let ending = service.health.ending();
            let now = if known { service.status() } else { ServingStatus::ServiceUnknown };
            if before != Some(now) {
                return Some((Ok(reply(now)), (service, changed, Some(now))));
            }
            if ending {
                return None;
            }
            // The sender lives in `service`, so this cannot fail.
            let _ = changed.changed().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use health_server::Health as _;

    use super::*;

    fn ask(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    #[tokio::test]
    async fn check_follows_readiness() {
        let health = Health::default();
        let gate = health.require("peer");
        let service = HealthService { health: health.clone(), services: &["a.B"] };
        for name in ["", "a.B"] {
            gate.close("gone");
            assert_eq!(service.check(ask(name)).await.unwrap().get_ref().status(), ServingStatus::NotServing);
            gate.open();
            assert_eq!(service.check(ask(name)).await.unwrap().get_ref().status(), ServingStatus::Serving);
        }
        assert_eq!(service.check(ask("a.C")).await.unwrap_err().code(), tonic::Code::NotFound);
        health.end();
        assert_eq!(service.check(ask("")).await.unwrap().get_ref().status(), ServingStatus::NotServing);
    }

    #[tokio::test]
    async fn watch_reports_changes_and_ends() {
        let health = Health::default();
        let gate = health.require("peer");
        let service = HealthService { health: health.clone(), services: &[] };
        let mut watch = service.watch(ask("")).await.unwrap().into_inner();
        let mut next = async || watch.next().await.map(|reply| reply.unwrap().status());
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        gate.open();
        assert_eq!(next().await, Some(ServingStatus::Serving));
        health.end();
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
        let mut unknown = service.watch(ask("a.C")).await.unwrap().into_inner();
        assert_eq!(unknown.next().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    }
}
