//! One type for every service that a connection can serve.
use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tonic::body::Body;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer on its way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What a connection calls for each request. Cloning it is free of allocation, and a call has one of its own.
#[derive(Clone)]
pub(crate) struct Service(Arc<dyn Fn(Request<Body>) -> Answering + Send + Sync>);

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Calls it once it is ready.
    pub(crate) fn call(&self, request: Request<Body>) -> Answering {
        (self.0)(request)
    }
}

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
    Service(Arc::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await?;
            service.call(request).await.map(|response| response.map(Body::new))
        })
    }))
}
