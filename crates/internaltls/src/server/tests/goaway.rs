//! What a listener says on the wire when it drains: frame by frame (RFC 9113 sections 4 and 6.8).
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::attacks::{NAME, Scene};
use super::rig::within;
use crate::material::Reloaded;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 0x1 | 0x4;
const ACK: u8 = 0x1;
const EVERY_STREAM: u32 = 0x7fff_ffff;

struct Wire(TlsStream<TcpStream>);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Wire {
    async fn open(scene: &Scene) -> Self {
        let stream = TcpStream::connect(scene.rig.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(scene.proxy()));
        let mut wire = Self(connector.connect(ServerName::try_from(NAME).unwrap(), stream).await.unwrap());
        wire.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        wire.write(SETTINGS, 0, 0, &[]).await;
        wire
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// A whole request: indexed fields of RFC 7541 appendix A, and literals without Huffman code.
    async fn call(&mut self, stream: u32, path: &str) {
        let literal = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let head = [&[0x83, 0x87, 0x04][..], &literal(path), &[0x01], &literal("test"), &[0x0f, 0x10]];
        let head = [&head.concat()[..], &literal("application/grpc")].concat();
        self.write(HEADERS, WHOLE, stream, &head).await;
    }

    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Frame { kind: head[3], flags: head[4], stream, payload }
    }

    async fn next(&mut self, kind: u8) -> Frame {
        let found = async {
            loop {
                let frame = self.read().await;
                if frame.kind == kind && frame.flags & ACK == 0 || frame.kind == HEADERS && kind == HEADERS {
                    return frame;
                }
            }
        };
        within("a frame", found).await
    }
}

/// The last stream that it names, and the error code.
fn goaway(frame: &Frame) -> (u32, u32) {
    let word = |at: usize| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

#[tokio::test]
async fn a_rotation_sends_goaway_in_two_steps() {
    let scene = Scene::new().await;
    let mut wire = Wire::open(&scene).await;
    wire.call(1, "/test.Echo/Hold").await;
    within("the call begins", scene.rig.behaviour.begun.notified()).await;
    scene.folder.write(&scene.ca.node("coordinator", "c-1"), &scene.ca.pem());
    assert!(matches!(scene.store.reload().await.unwrap(), Reloaded::Published(2)));
    // The first names every stream: whatever is on its way is still taken.
    assert_eq!(goaway(&wire.next(GOAWAY).await), (EVERY_STREAM, 0));
    wire.call(3, "/test.Echo/Who").await;
    let ping = wire.next(PING).await;
    wire.write(PING, ACK, 0, &ping.payload).await;
    let (mut answered, mut last) = (Vec::new(), None);
    while last.is_none() {
        match within("a frame", wire.read()).await {
            frame if frame.kind == HEADERS => answered.push(frame.stream),
            frame if frame.kind == GOAWAY => last = Some(goaway(&frame)),
            _ => {}
        }
    }
    // The second, a round trip later, names the last that was taken; nothing that was taken is lost.
    assert_eq!((last, answered), (Some((3, 0)), vec![3]));
    scene.rig.behaviour.release.add_permits(1);
    assert_eq!(wire.next(HEADERS).await.stream, 1);
    let mut rest = Vec::new();
    within("the server closes", wire.0.read_to_end(&mut rest)).await.unwrap();
}
