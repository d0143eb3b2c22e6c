//! Servers that do what a test says: HTTP/2 frame by frame (RFC 9113 sections 4 and 6), and plain h2.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const PREFACE: usize = 24;

/// One frame that was read.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

/// A connection on which the test reads and writes single frames.
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Reads the client's preface and sends empty settings.
    pub(crate) async fn begin(mut stream: TcpStream) -> Self {
        let mut preface = [0; PREFACE];
        stream.read_exact(&mut preface).await.unwrap();
        assert!(preface.starts_with(b"PRI * HTTP/2.0"), "{preface:?}");
        let mut raw = Self(stream);
        raw.write(SETTINGS, 0, &[]).await;
        raw
    }

    /// Reads frames until one `fits`.
    pub(crate) async fn read_until(&mut self, fits: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.read().await;
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// Reads one whole request. Its stream.
    pub(crate) async fn read_request(&mut self) -> u32 {
        let ends = |frame: &Frame| [DATA, HEADERS].contains(&frame.kind) && frame.flags & END_STREAM != 0;
        self.read_until(ends).await.stream
    }

    /// GOAWAY with the last stream that was or might be processed, and NO_ERROR.
    pub(crate) async fn go_away(&mut self, last: u32) {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(0u32.to_be_bytes());
        self.write(GOAWAY, 0, &payload).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, reason: h2::Reason) {
        self.write(RST_STREAM, stream, &u32::from(reason).to_be_bytes()).await;
    }

    /// Swallows what comes until the client closes.
    pub(crate) async fn until_closed(mut self) {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest).await;
    }

    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        Frame { kind: head[3], flags: head[4], stream }
    }

    async fn write(&mut self, kind: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, 0];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }
}

/// Answers every whole request of a connection with an empty gRPC message, and counts them. After `calls` requests it sends
/// GOAWAY and finishes what it has.
pub(crate) async fn serve(stream: TcpStream, calls: usize, served: Arc<AtomicUsize>) {
    let (stream, mut rest) = twice(stream);
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut left = calls;
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&served)));
        left = left.saturating_sub(1);
        if left == 0 {
            connection.graceful_shutdown();
        }
    }
    // As our own server does: who closes before the client does resets it, and the client may miss the last GOAWAY.
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
}

/// Two ends of the same socket.
fn twice(stream: TcpStream) -> (TcpStream, TcpStream) {
    let one = stream.into_std().unwrap();
    let two = one.try_clone().unwrap();
    (TcpStream::from_std(one).unwrap(), TcpStream::from_std(two).unwrap())
}

async fn answer(
    mut request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    served: Arc<AtomicUsize>,
) {
    while let Some(data) = request.body_mut().data().await {
        // A request that was taken back before its end is none.
        let Ok(data) = data else { return };
        let _ = request.body_mut().flow_control().release_capacity(data.len());
    }
    served.fetch_add(1, Ordering::Relaxed);
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let _ = stream.send_trailers(trailers);
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}
