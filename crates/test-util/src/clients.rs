//! What stock clients are told, and the answers that curl gets.
use serde_json::{Value, json};

use crate::cluster::Edge;
use crate::command::{Answer, curl};

/// The arguments of `MilvusClient` for this edge, as its documentation has them.
#[must_use]
pub fn milvus(edge: &Edge) -> Value {
    let uri = format!("{}://127.0.0.1:{}", edge.scheme(), edge.port());
    match edge.tls_mode {
        0 => json!({"uri": uri}),
        1 => json!({"uri": uri, "server_pem_path": edge.ca, "server_name": "localhost"}),
        _ => json!({
            "uri": uri, "client_pem_path": edge.cert, "client_key_path": edge.key, "ca_pem_path": edge.ca,
            "server_name": "localhost",
        }),
    }
}

/// The argument of a client script.
///
/// # Panics
/// When `more` is no object.
#[must_use]
pub fn argument(edge: &Edge, more: Value) -> Value {
    let mut argument = json!({"client": milvus(edge)});
    argument.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    argument
}

/// `curl` with this edge's credentials.
#[must_use]
pub fn rest(edge: &Edge, more: &[&str], path: &str) -> Answer {
    let url = format!("{}://{}/v2/vectordb/{path}", edge.scheme(), edge.rest);
    curl(edge.curl().into_iter().chain(more.iter().map(ToString::to_string)).chain([url]))
}

/// A POST with this body.
pub fn post(edge: &Edge, path: &str, body: &Value) -> Answer {
    rest(edge, &["-X", "POST", "-H", "Content-Type: application/json", "-d", &body.to_string()], path)
}
