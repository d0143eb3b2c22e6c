//! HAProxy: one process, a thread for each core.
//!
//! Its manual recommends to leave the size of buffers as it is, and here they hold a whole message of 1 MiB all the same. With 2.6
//! and its own 16 KiB, eight echoes of 1 MiB at a time over one connection did not end within their deadline, or lost their
//! trailers; four did end. With 32 of them and 32 streams, buffers of 64 and of 128 KiB, windows of 64 KiB and of 4 MiB,
//! `http-reuse` safe and never, and `http-no-delay` were tried: none ended. The likely cause is that a full buffer of one stream
//! holds up all of its connection. Frames stay as large as they are by default.
use super::{CA, CERT_AND_KEY, Config, EXIT, Hop, STREAM_WINDOW, Side};

const FILE: &str = "haproxy.cfg";
/// A message of 1 MiB, its framing, and what HAProxy keeps free.
const BUFFER: u32 = 2 << 20;
/// What HTTP/2 has by default; else HAProxy would take frames as large as its buffers.
const FRAME: u32 = 16_384;
/// Otherwise the C library gives each such buffer back to the kernel and asks for it anew: a quarter of the CPU of a small call
/// that is alone.
const KEEP_MEMORY: &[(&str, &str)] = &[
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

pub(super) fn config(hop: &Hop) -> Config {
    // In the foreground.
    let arguments = ["-db", "-f", FILE].map(Into::into).to_vec();
    Config { file: FILE, text: text(hop), arguments, environment: KEEP_MEMORY }
}

fn text(hop: &Hop) -> String {
    let Hop { listen, to, threads, .. } = hop;
    let (taking, sending) = transport(hop.side);
    // A connection to the exit or the server carries the calls of any client from the first on: they all trust each other.
    format!(
        "\
global
    nbthread {threads}
    maxconn 1024
    tune.bufsize {BUFFER}
    tune.h2.max-frame-size {FRAME}
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
