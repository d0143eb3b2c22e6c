//! /healthz and /livez.
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::Health;

/// Both, and nothing else.
pub(crate) fn router(health: Health) -> Router {
    let healthz = move || {
        let answer = healthz(&health.reasons());
        async move { answer }
    };
    Router::new().route("/healthz", get(healthz)).route("/livez", get(async || Json(json!({"status": "alive"}))))
}

fn healthz(reasons: &[String]) -> (StatusCode, Json<Value>) {
    if reasons.is_empty() {
        (StatusCode::OK, Json(json!({"status": "ready", "reasons": []})))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "not ready", "reasons": reasons})))
    }
}
