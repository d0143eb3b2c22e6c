//! HAProxy: one process, a thread for each core. Buffers and the number of streams stay as they are by default: its manual strongly
//! recommends so.
use super::{CA, CERT_AND_KEY, Config, EXIT, Hop, STREAM_WINDOW, Side};

const FILE: &str = "haproxy.cfg";

pub(super) fn config(hop: &Hop) -> Config {
    // In the foreground.
    let arguments = ["-db", "-f", FILE].map(Into::into).to_vec();
    Config { file: FILE, text: text(hop), arguments }
}

fn text(hop: &Hop) -> String {
    let Hop { listen, to, threads, .. } = hop;
    let (taking, sending) = transport(hop.side);
    // A connection to the exit or the server carries the calls of any client from the first on: they all trust each other.
    format!(
        "\
global
    nbthread {threads}
    maxconn 4096
    tune.h2.initial-window-size {STREAM_WINDOW}

defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    http-reuse always

frontend in
    bind {listen} {taking}
    default_backend out

backend out
    server next {to} {sending}
"
    )
}

/// What stands after the address that it takes calls at, and after the one that it sends them to.
fn transport(side: Side) -> (String, String) {
    let tls =
        format!("ssl crt {CERT_AND_KEY} ca-file {CA} verify required alpn h2 ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3");
    let plain = "proto h2".to_owned();
    match side {
        Side::Entrance => (plain, format!("{tls} sni str({EXIT}) verifyhost {EXIT}")),
        Side::Exit => (tls, plain),
    }
}
