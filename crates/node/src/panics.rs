//! A handler that panics fails its own call.
//!
//! Unwinding would end the task that polls it. Over HTTP/2 that is the stream's own, and the caller sees a reset without a
//! reason; over HTTP/1.1 it is the connection's. Caught here, it is an answer like any other: INTERNAL, counted as an error.
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use axum::http::{Request, Response};
use futures_util::FutureExt as _;
use futures_util::future::{CatchUnwind, Map};
use tonic::Status;
use tower_service::Service;

/// Around a gRPC service: a panic of one call is INTERNAL to its caller.
#[derive(Debug, Clone)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S> CatchPanic<S> {
    /// Wraps `inner`. What it left half done when it panicked must be sound without it, as with any thread that panics:
    /// its locks are poisoned, its guards dropped.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

type Caught<T> = Result<T, Box<dyn Any + Send>>;

impl<S, Q, R> Service<Request<Q>> for CatchPanic<S>
where
    S: Service<Request<Q>, Response = Response<R>>,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Map<CatchUnwind<AssertUnwindSafe<S::Future>>, fn(Caught<Answer<R, S::Error>>) -> Answer<R, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        AssertUnwindSafe(self.inner.call(request)).catch_unwind().map(answered)
    }
}

type Answer<R, E> = Result<Response<R>, E>;

/// The panic's own text stays out of the answer: it is ours, and may hold what the caller must not read.
fn answered<R: Default, E>(outcome: Caught<Answer<R, E>>) -> Answer<R, E> {
    outcome.unwrap_or_else(|_| {
        // Where it was, and its text, the panic hook has written already.
        tracing::error!("the handler of a call panicked; the call was answered INTERNAL");
        Ok(Status::internal("the server failed to answer this call; its log tells why").into_http())
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn panic_fails_its_own_call() {
        let inner = service_fn(async |request: Request<()>| {
            assert!(request.uri().path() != "/panics", "a secret");
            Ok::<_, Infallible>(Response::new(String::from("served")))
        });
        let service = CatchPanic::new(inner);
        let call = async |path: &str| service.clone().oneshot(Request::get(path).body(()).unwrap()).await.unwrap();
        let failed = call("/panics").await;
        assert_eq!(failed.headers()["grpc-status"], "13");
        assert!(!failed.headers()["grpc-message"].to_str().unwrap().contains("secret"));
        assert_eq!(call("/other").await.body(), "served");
    }
}
