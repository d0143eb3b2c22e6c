//! The REST edge, version 2: a thin translation of the same service.
//!
//! 1. Every call is a POST with a JSON object. A GET of a call that only reads answers like the POST; without a body,
//!    like the one with `{}`. Every other method is 405.
//! 2. A refusal is HTTP 200 with its code, as in Milvus. Other than 200 are: 401 without credentials, 404 for a path
//!    that Milvus does not have, 405 for a method and 415 for a content type or encoding that is not taken, 408 when
//!    `Request-Timeout` runs out, 500 when a handler panics, and 501 with code 10 for what is not
//!    built here.
//! 3. Names in JSON count in any case.
//! 4. A refusal is said after the request has been read, as far as it is small: HTTP/2 resets a request whose answer
//!    overtakes it, and clients (curl 7.88 in one call of five) then report the reset and lose the answer. A client that
//!    holds its body back until it hears from us (`Expect: 100-continue`) over HTTP/1.1 hears the refusal at once.
//! 5. A call that changes anything needs `application/json`. A page of another site can make a browser send a form or
//!    a text here without asking first, with the client certificate and from within the network of its user; JSON it
//!    cannot send without a preflight (the Fetch standard, CORS), which nothing here answers.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::response::Response;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

use crate::service::Service;
use crate::users::Users;

mod collections;
mod create;
mod entities;
mod failure;
mod fields;
mod indexes;
mod paths;
mod rows;

use failure::{Failure, Outcome};
use fields::Fields;

const ROOT: &str = "/v2/vectordb/";
const LARGEST: usize = 256 << 20;
/// How long a call may take when its caller does not say.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a refused request is read, in bytes, and how long at most.
const REFUSED: usize = 64 << 10;
const REFUSED_TIME: Duration = Duration::from_secs(1);

struct Edge {
    service: Arc<Service>,
    users: Users,
}

/// One call: what it is about, and how its caller wants to be answered.
pub(crate) struct Call<'a> {
    pub(crate) service: &'a Service,
    pub(crate) fields: Fields,
    /// From the body, else the header `DB-Name`.
    pub(crate) db: String,
    /// Whether integers of 64 bits are JSON texts.
    pub(crate) longs_as_text: bool,
}

/// Everything REST that the edge serves.
pub(crate) fn router(service: Arc<Service>, users: Users) -> Router {
    Router::new().fallback(handle).with_state(Arc::new(Edge { service, users }))
}

async fn handle(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let outcome = match time_limit(request.headers()) {
        Ok(limit) => {
            // A panic ends this call alone: over HTTP/1.1 it would take the connection along.
            let answer = AssertUnwindSafe(edge.answer(request)).catch_unwind();
            let answer = tokio::time::timeout(limit, answer).await;
            answer.map_or(Err(Failure::Timeout), |ended| ended.unwrap_or(Err(Failure::Panicked)))
        }
        Err(failure) => {
            let (head, body) = request.into_parts();
            refuse(&head, body, failure).await
        }
    };
    match outcome {
        Ok(body) => respond(StatusCode::OK, &body),
        Err(failure) => {
            let body = json!({"code": failure.code(), "message": failure.message()});
            let mut response = respond(failure.status(), &body);
            response.headers_mut().extend(failure.header());
            response
        }
    }
}

fn respond(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

impl Edge {
    async fn answer(&self, request: Request) -> Outcome<Value> {
        let (head, body) = request.into_parts();
        let path = match self.admit(&head) {
            Ok(path) => path.to_owned(),
            Err(failure) => return refuse(&head, body, failure).await,
        };
        let fields = read(&head.method, body).await?;
        let call = self.call(&head.headers, fields)?;
        let data = paths::route(&path, &call).await?;
        Ok(succeeded(&path, data))
    }

    /// The path of a call that exists, of a caller who may ask.
    fn admit<'a>(&self, head: &'a Parts) -> Outcome<&'a str> {
        let path = call_path(&head.method, head.uri.path())?;
        self.users.check_rest(header(&head.headers, "authorization")).map_err(|_| Failure::Unauthenticated)?;
        check_encoding(&head.headers)?;
        if !paths::only_reads(path) {
            check_type(&head.headers)?;
        }
        Ok(path)
    }

    fn call(&self, headers: &HeaderMap, fields: Fields) -> Outcome<Call<'_>> {
        let db = fields.text("dbName")?.map(str::to_owned);
        let db = db.filter(|name| !name.is_empty()).or_else(|| header(headers, "db-name").map(str::to_owned));
        let longs_as_text = header(headers, "accept-type-allow-int64").is_some_and(|v| v.eq_ignore_ascii_case("false"));
        Ok(Call { service: &self.service, fields, db: db.unwrap_or_default(), longs_as_text })
    }
}

/// What of an answer is its data, and what stands beside it.
enum Data {
    Only(Value),
    /// Fields of the answer itself: `data`, `topks`, …
    With(serde_json::Map<String, Value>),
}

fn succeeded(path: &str, data: Data) -> Value {
    let mut answer = match data {
        Data::Only(value) => serde_json::Map::from_iter([("data".to_owned(), value)]),
        Data::With(fields) => fields,
    };
    answer.insert("code".into(), 0.into());
    if path.starts_with("entities/") {
        answer.insert("cost".into(), 0.into());
    }
    answer.into()
}

/// The path below the root, of a method that is served.
fn call_path<'a>(method: &Method, path: &'a str) -> Outcome<&'a str> {
    let path = path.strip_prefix(ROOT).filter(|path| paths::is_known(path)).ok_or(Failure::NotFound)?;
    match (method, paths::only_reads(path)) {
        (&Method::POST, _) | (&Method::GET, true) => Ok(path),
        (_, true) => Err(Failure::Method("GET, POST")),
        (_, false) => Err(Failure::Method("POST")),
    }
}

/// The body must be sent as it is: no content coding is undone here.
fn check_encoding(headers: &HeaderMap) -> Outcome<()> {
    let coded = |value: &&HeaderValue| !matches!(value.as_bytes().trim_ascii(), b"" | b"identity");
    match headers.get_all(CONTENT_ENCODING).iter().find(coded) {
        None => Ok(()),
        Some(value) => Err(Failure::Encoding(String::from_utf8_lossy(value.as_bytes()).into_owned())),
    }
}

/// Whether every content type that is named is JSON, and one is.
fn check_type(headers: &HeaderMap) -> Outcome<()> {
    let mut sent = headers.get_all(CONTENT_TYPE).iter();
    let json = |value: &HeaderValue| {
        let essence = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    match sent.next() {
        None => Err(Failure::Type("none".into())),
        // Two of them are read one way by a proxy before us and another way here: both must be what is wanted.
        Some(first) => match std::iter::once(first).chain(sent).find(|value| !json(value)) {
            None => Ok(()),
            Some(other) => Err(Failure::Type(format!("`{}`", String::from_utf8_lossy(other.as_bytes())))),
        },
    }
}

async fn read(method: &Method, body: Body) -> Outcome<Fields> {
    let bytes = axum::body::to_bytes(body, LARGEST).await.map_err(|error| Failure::bad_json(error.to_string()))?;
    if bytes.is_empty() && method == Method::GET {
        return Ok(Fields::default());
    }
    Fields::parse(&bytes)
}

/// The failure, once the rest of its request is out of the way.
async fn refuse<T>(head: &Parts, body: Body, failure: Failure) -> Outcome<T> {
    let waits = header(&head.headers, "expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    if waits && head.version < Version::HTTP_2 {
        // Nothing is on its way, and to read would be to ask for it (RFC 9110 section 10.1.1). Over HTTP/2 hyper sends no
        // 100; there curl 7.88 sends its body after a second, but loses an answer that comes before it.
        return Err(failure);
    }
    // A body that is larger or slower than this is cut off, and its sender told by the protocol.
    let _ = tokio::time::timeout(REFUSED_TIME, axum::body::to_bytes(body, REFUSED)).await;
    Err(failure)
}

fn time_limit(headers: &HeaderMap) -> Outcome<Duration> {
    match header(headers, "request-timeout") {
        None => Ok(PATIENCE),
        Some(text) => match text.trim().parse::<u32>() {
            Ok(seconds @ 1..) => Ok(Duration::from_secs(u64::from(seconds))),
            _ => Err(Failure::bad_json(format!("header Request-Timeout must be a number of seconds, got `{text}`"))),
        },
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
