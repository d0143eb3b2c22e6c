//! One type for every service that a connection can serve.
use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a connection calls for each request.
pub(crate) type Service = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Makes any infallible service of HTTP requests into a [`Service`]: tonic's `Routes` and generated servers, axum's
/// `Router`, and whatever is layered around them.
pub(crate) fn erase<S, B>(service: S) -> Service
where
    S: tower_service::Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Service::new(service.map_response(|response: Response<B>| response.map(Body::new)))
}
