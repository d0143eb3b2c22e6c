//! Envoy, as its own advice on benchmarks has it: no limits of circuit breakers, no request ids, no statistics, a worker for each
//! core.
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{CA, CERT, Config, EXIT, Hop, KEY, STREAM_WINDOW, Side};

const FILE: &str = "envoy.json";
const TYPES: &str = "type.googleapis.com/envoy.extensions";
const UPSTREAM: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// All streams of a connection together.
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;
/// What is as good as no limit.
const UNLIMITED: u32 = 1_000_000_000;
/// "Never" in durations that have a default.
const NEVER: &str = "0s";

pub(super) fn config(hop: &Hop) -> Config {
    let text = json!({
        "static_resources": {"listeners": [listener(hop)], "clusters": [cluster(hop)]},
        // What is counted for nobody costs all the same.
        "stats_config": {"stats_matcher": {"reject_all": true}},
    });
    let arguments =
        ["-c", FILE, "--log-level", "warn", "--disable-hot-restart", "--concurrency", &hop.threads.to_string()];
    Config { file: FILE, text: text.to_string(), arguments: arguments.map(Into::into).to_vec(), environment: &[] }
}

fn listener(hop: &Hop) -> Value {
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager()}]});
    if hop.side == Side::Exit {
        chain["transport_socket"] =
            tls("DownstreamTlsContext", &json!({"require_client_certificate": true}), &anchor());
    }
    json!({
        "name": "in",
        "address": address(hop.listen),
        "filter_chains": [chain],
        // A mesh has few connections that live long: the kernel's choice may leave all of them to one worker.
        "connection_balance_config": {"exact_balance": {}},
    })
}

fn manager() -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "out", "timeout": NEVER}});
    json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2(),
        "common_http_protocol_options": {"idle_timeout": NEVER},
        "stream_idle_timeout": NEVER,
        "generate_request_id": false,
        "server_header_transformation": "PASS_THROUGH",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
            "dynamic_stats": false,
            "suppress_envoy_headers": true,
        }}],
    })
}

fn cluster(hop: &Hop) -> Value {
    let limits = |priority: &str| {
        json!({
            "priority": priority, "max_connections": UNLIMITED, "max_pending_requests": UNLIMITED,
            "max_requests": UNLIMITED, "max_retries": UNLIMITED,
        })
    };
    let mut cluster = json!({
        "name": "out",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "out", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(hop.to)}}]},
        ]},
        "circuit_breakers": {"thresholds": [limits("DEFAULT"), limits("HIGH")]},
        "typed_extension_protocol_options": {UPSTREAM: {
            "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {"http2_protocol_options": http2()},
            "common_http_protocol_options": {"idle_timeout": NEVER},
        }},
    });
    if hop.side == Side::Entrance {
        cluster["transport_socket"] = tls("UpstreamTlsContext", &json!({"sni": EXIT}), &anchor_and_name());
    }
    cluster
}

fn http2() -> Value {
    json!({
        "max_concurrent_streams": 1024,
        "initial_stream_window_size": STREAM_WINDOW,
        "initial_connection_window_size": CONNECTION_WINDOW,
    })
}

fn tls(context: &str, own: &Value, validation: &Value) -> Value {
    let mut config = own.clone();
    config["@type"] = format!("{TYPES}.transport_sockets.tls.v3.{context}").into();
    config["common_tls_context"] = json!({
        // Without a maximum of its own, Envoy's client stops at TLS 1.2.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": {"filename": CERT}, "private_key": {"filename": KEY}}],
        "validation_context": validation,
        "alpn_protocols": ["h2"],
    });
    json!({"name": "tls", "typed_config": config})
}

fn anchor() -> Value {
    json!({"trusted_ca": {"filename": CA}})
}

fn anchor_and_name() -> Value {
    json!({
        "trusted_ca": {"filename": CA},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": EXIT}}],
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
