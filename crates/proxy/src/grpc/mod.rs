//! The gRPC edge: the table of calls, and what is the same for all of them.
//!
//! 1. Every call of the API stands in one of the tables of `calls`. What is in none, and what is declared and not
//!    built, answers UNIMPLEMENTED and names the call.
//! 2. The database travels in the metadata `dbname`; a request's own `db_name` wins over it.
//! 3. Credentials are checked before anything else, in every call but those of `grpc.health.v1.Health`: a probe has none
//!    (Kubernetes' `grpc:` cannot send any), and hears no more than /healthz tells whoever asks.
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use internaltls::foreign;
use node::{CatchPanic, Health, HealthService};
use rpc::milvus::milvus_service_server::{MilvusServiceServer, SERVICE_NAME};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::service::{InterceptorLayer, Routes};
use tower::layer::layer_fn;

use crate::error::Error;
use crate::service::Service;
use crate::users::Users;

mod calls;

pub(crate) use calls::Calls;

/// The largest request; an answer may be of any size.
const LARGEST: usize = 256 << 20;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Everything gRPC that the edge serves.
pub(crate) fn router(service: Arc<Service>, users: Users, health: Health) -> Router {
    let calls = MilvusServiceServer::new(Calls::new(service))
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(usize::MAX);
    let check = move |request: tonic::Request<()>| admit(&users, request);
    let health = HealthService::server(health, &[SERVICE_NAME]);
    Routes::new(calls)
        .into_axum_router()
        .layer(InterceptorLayer::new(check))
        // Below this line: what needs no credentials.
        .route_service("/grpc.health.v1.Health/{*method}", health)
        .layer(from_fn(name_unknown))
        .layer(layer_fn(CatchPanic::new))
}

fn admit(users: &Users, request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
    match users.check_grpc(text(request.metadata(), "authorization")) {
        Ok(()) => Ok(request),
        Err(denied) => Err(Status::unauthenticated(denied.message())),
    }
}

/// The database that the metadata name; empty is the default one.
pub(crate) fn database(metadata: &MetadataMap) -> String {
    text(metadata, "dbname").unwrap_or_default().to_owned()
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key)?.to_str().ok()
}

/// What of an error is a gRPC status; a refusal is none, it goes into the answer.
pub(crate) fn status(error: &Error) -> Status {
    match error {
        Error::Refused(refusal) => Status::internal(refusal.reason.clone()),
        Error::Unbuilt(text) => Status::unimplemented(text.clone()),
        Error::Unavailable(text) => Status::unavailable(text.clone()),
    }
}

/// Generated code answers a call it does not know with the bare number 12; here it gets its name.
async fn name_unknown(request: Request, next: Next) -> Response {
    let path = foreign::name(request.uri().path());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let unnamed = headers.get(&STATUS).is_some_and(|status| status == "12") && !headers.contains_key(&MESSAGE);
    if let (true, Ok(message)) = (unnamed, HeaderValue::from_str(&format!("{path} is not implemented"))) {
        headers.insert(MESSAGE, message);
    }
    response
}
