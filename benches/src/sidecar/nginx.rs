//! nginx: a worker process for each core.
//!
//! Each call has a connection of its own to where it is sent, which is kept for a later call. Neither side of a gRPC call is ever
//! buffered whole, so there is nothing to turn off.
use super::{CA, CERT, Config, EXIT, Hop, KEY, STREAM_WINDOW, Side};

const FILE: &str = "nginx.conf";

pub(super) fn config(hop: &Hop) -> Config {
    // Before it reads its file it would open the log that it was built with.
    let arguments = ["-p", "./", "-c", FILE, "-e", "stderr"].map(Into::into).to_vec();
    Config { file: FILE, text: text(hop), arguments, environment: &[] }
}

fn text(hop: &Hop) -> String {
    let Hop { listen, to, threads, .. } = hop;
    let Transport { taking, sending, tls } = transport(hop.side);
    // A connection ends after 1,000 calls by default, in the middle of a run.
    format!(
        "\
daemon off;
worker_processes {threads};
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    http2_max_concurrent_streams 1024;
    http2_body_preread_size {STREAM_WINDOW};
    client_max_body_size 0;
    client_body_timeout 1h;
    client_body_buffer_size 64k;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    grpc_buffer_size 64k;
    grpc_read_timeout 1h;
    grpc_send_timeout 1h;
    upstream next {{
        server {to} max_fails=0;
        keepalive 512;
        keepalive_timeout 1h;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen} http2{taking};
        location / {{ grpc_pass {sending}://next; }}
{tls}    }}
}}
"
    )
}

struct Transport {
    taking: &'static str,
    sending: &'static str,
    tls: String,
}

fn transport(side: Side) -> Transport {
    match side {
        Side::Entrance => Transport { taking: "", sending: "grpcs", tls: tls_out() },
        Side::Exit => Transport { taking: " ssl", sending: "grpc", tls: tls_in() },
    }
}

fn tls_in() -> String {
    format!(
        "        ssl_protocols TLSv1.3;
        ssl_certificate {CERT};
        ssl_certificate_key {KEY};
        ssl_client_certificate {CA};
        ssl_verify_client on;
"
    )
}

fn tls_out() -> String {
    format!(
        "        grpc_ssl_protocols TLSv1.3;
        grpc_ssl_certificate {CERT};
        grpc_ssl_certificate_key {KEY};
        grpc_ssl_trusted_certificate {CA};
        grpc_ssl_verify on;
        grpc_ssl_server_name on;
        grpc_ssl_name {EXIT};
"
    )
}
