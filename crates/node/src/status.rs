//! What a process tells about itself: /status, /metrics and the page for people.
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use internaltls::{Edge, Mesh, PeerInfo};
use serde_json::{Map, Value, json};

use crate::Health;

const PAGE: &str = include_str!("page.html");
/// Who may look from elsewhere.
const READERS: [&str; 2] = ["operator", "metrics"];
/// The page needs its own script and style, and this process' status; nothing else may run in it.
const CSP: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

/// Everything a status document is made of.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) mesh: Mesh,
    pub(crate) health: Health,
    pub(crate) edge: Option<Edge>,
}

impl Source {
    /// The status document.
    pub(crate) fn document(&self) -> Value {
        let status = serde_json::to_value(self.mesh.status()).unwrap_or_default();
        let reasons = self.health.reasons();
        let mut document = flattened(status);
        document.insert("edge".to_owned(), self.edge());
        document.insert("ready".to_owned(), reasons.is_empty().into());
        document.insert("not_ready".to_owned(), reasons.into());
        document.into()
    }

    /// The edge's material; null where there is no edge, or no TLS at it.
    fn edge(&self) -> Value {
        let Some((edge, status)) = self.edge.as_ref().and_then(|edge| Some((edge, edge.status()?))) else {
            return Value::Null;
        };
        let mut document = serde_json::to_value(status).unwrap_or_default();
        document["connections_by_generation"] = json!(edge.connections_by_generation());
        document
    }
}

/// Lifts what `material` holds to the top, where a reader looks for it; null where there is none.
fn flattened(status: Value) -> Map<String, Value> {
    let Value::Object(mut top) = status else { return Map::new() };
    for name in ["generation", "loaded_at", "leaf", "last_reload"] {
        top.insert(name.to_owned(), Value::Null);
    }
    if let Some(Value::Object(material)) = top.remove("material") {
        top.extend(material);
    }
    top
}

/// On loopback, in plaintext.
pub(crate) fn local(source: Source) -> Router {
    routes(source).layer(axum::middleware::from_fn(only_local_host))
}

/// On any other address, over mutual TLS.
pub(crate) fn remote(source: Source) -> Router {
    routes(source).layer(axum::middleware::from_fn(only_readers))
}

fn routes(source: Source) -> Router {
    Router::new()
        .route("/", get(async || ([(header::CONTENT_SECURITY_POLICY, CSP)], Html(PAGE))))
        .route("/status", get(async |State(source): State<Source>| Json(source.document())))
        .route("/metrics", get(metrics))
        .with_state(source)
}

async fn metrics(State(source): State<Source>) -> impl IntoResponse {
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, text)], source.mesh.telemetry().encode())
}

/// A page of somewhere else whose name was made to point at loopback sends that name: it is refused.
async fn only_local_host(request: Request, next: Next) -> Response {
    if is_local(request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "ask for this page by localhost or an IP address\n").into_response()
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok()
}

async fn only_readers(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<PeerInfo>().map(|peer| peer.identity().policy_name().to_owned());
    if caller.as_deref().is_some_and(|name| READERS.contains(&name)) {
        return next.run(request).await;
    }
    let reason = json!({"error": "only operator and metrics may look", "caller": caller});
    (StatusCode::FORBIDDEN, Json(reason)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        is_local(&headers)
    }

    #[test]
    fn page_of_elsewhere_is_refused() {
        assert!(from("localhost:9092") && from("127.0.0.1:9092") && from("[::1]:9092") && from("[::1]"));
        assert!(!from("evil.example:9092") && !from("localhost.evil.example"));
    }

    #[test]
    fn material_stands_at_the_top() {
        let status =
            json!({"role": "proxy", "material": {"generation": 3, "leaf": {"serial": "ab"}}, "connections": []});
        let document = flattened(status);
        assert_eq!(document["generation"], 3);
        assert_eq!(document["leaf"]["serial"], "ab");
        assert!(!document.contains_key("material"));
        let plain = flattened(json!({"role": "proxy", "material": null}));
        assert_eq!(plain["generation"], Value::Null);
    }

    #[test]
    fn page_loads_nothing_from_elsewhere() {
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://") && !PAGE.contains("innerHTML"));
    }
}
