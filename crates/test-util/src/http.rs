//! A GET in plaintext, for probes and status.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);

/// Status and body of `GET path`.
///
/// # Errors
/// What went wrong, as a sentence.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    ask(address, path).map_err(|e| format!("GET http://{address}{path}: {e}"))
}

/// The JSON of `GET path`, whatever its status.
///
/// # Errors
/// What went wrong, as a sentence.
pub fn get_json(address: &str, path: &str) -> Result<Value, String> {
    let (status, body) = get(address, path)?;
    serde_json::from_str(&body).map_err(|e| format!("GET http://{address}{path}: {status}, {e}: {body}"))
}

fn ask(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection, and nothing is chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| std::io::Error::other("no HTTP answer"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
