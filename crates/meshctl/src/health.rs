//! `health`: whether a process is ready, for whoever restarts those that are not.
//!
//! An image without a shell has no curl; this is the probe that it runs in itself.
use std::process::ExitCode;

use anyhow::{Context, bail};
use internaltls::foreign;

use crate::http;

/// Where a process tells it, unless its configuration says otherwise.
const DEFAULT: &str = "127.0.0.1:9091";
/// What curl exits with when its `-f` meets an error of HTTP.
const NOT_READY: u8 = 22;

/// The arguments of `health`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl health\n  meshctl health --address 127.0.0.1:9093\n\nExits 0 if the process is ready; else it says what it waits for, and exits 1."
)]
pub struct Args {
    /// The process' health port, as in management.healthPort
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT)]
    pub address: String,
}

impl Args {
    /// Asks once.
    ///
    /// # Errors
    /// When nobody answers, or the process is not ready.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (code, body) = ask(&self.address, "/healthz")?;
        let said = String::from_utf8_lossy(&body);
        if code != 200 {
            bail!("not ready: {}", reasons(&said));
        }
        crate::note("ready");
        Ok(ExitCode::SUCCESS)
    }
}

/// `curl -f URL`, as compose files of Milvus probe: of curl this much is here, and no more.
///
/// # Errors
/// When it is called in any other way, or nobody answers.
pub(crate) fn as_curl(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [flag, url] = arguments else { bail!("of curl there is `curl -f http://HOST:PORT/healthz` here, and no more") };
    let rest = url.strip_prefix("http://").filter(|_| flag == "-f");
    let (address, path) = rest.and_then(|rest| rest.split_once('/')).with_context(|| {
        format!("`curl {flag} {url}`: of curl there is `curl -f http://HOST:PORT/healthz` here, and no more")
    })?;
    let (code, body) = ask(address, &format!("/{path}"))?;
    crate::note(&foreign::cause(String::from_utf8_lossy(&body).trim()));
    Ok(if code < 400 { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}

fn ask(address: &str, path: &str) -> anyhow::Result<(u16, bytes::Bytes)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(http::get(address, path))
}

/// What /healthz lists, or all it said.
fn reasons(said: &str) -> String {
    let listed = serde_json::from_str::<serde_json::Value>(said).ok();
    let listed = listed.as_ref().and_then(|value| value["reasons"].as_array());
    match listed {
        Some(reasons) => {
            foreign::cause(&reasons.iter().filter_map(|reason| reason.as_str()).collect::<Vec<_>>().join("; "))
        }
        None => foreign::cause(said.trim()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers one request with this.
    fn answering(status: &'static str, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(head.as_bytes()).unwrap();
        });
        address
    }

    const WAITS: &str = r#"{"status":"not ready","reasons":["peer: refused","shutdown: ending"]}"#;

    #[test]
    fn says_what_a_process_waits_for() {
        let ready = Args { address: answering("200 OK", r#"{"status":"ready","reasons":[]}"#) };
        assert_eq!(ready.run().unwrap(), ExitCode::SUCCESS);
        let waiting = Args { address: answering("503 Service Unavailable", WAITS) };
        assert_eq!(waiting.run().unwrap_err().to_string(), "not ready: peer: refused; shutdown: ending");
    }

    #[test]
    fn what_a_process_says_cannot_steer_the_terminal() {
        for said in ["\u{1b}]0;owned\u{7}\nx".to_owned(), r#"{"reasons":["\u001b]0;owned\u0007\nx"]}"#.to_owned()] {
            assert_eq!(reasons(&said), "\\u{1b}]0;owned\\u{7}\\u{a}x");
            assert!(reasons(&"x".repeat(70_000)).len() < 5_000);
        }
    }

    #[test]
    fn nobody_there_is_an_error() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let error = Args { address: gone.clone() }.run().unwrap_err().to_string();
        assert!(error.contains(&gone), "{error}");
    }

    #[test]
    fn probes_as_curl_does() {
        let url = |address: String| ["-f".to_owned(), format!("http://{address}/healthz")];
        assert_eq!(as_curl(&url(answering("200 OK", "{}"))).unwrap(), ExitCode::SUCCESS);
        assert_eq!(as_curl(&url(answering("503 Service Unavailable", WAITS))).unwrap(), ExitCode::from(NOT_READY));
        for wrong in [vec![], vec!["-f"], vec!["-o", "http://a/b"], vec!["-f", "https://a/b"], vec!["-f", "http://a"]] {
            let wrong: Vec<_> = wrong.into_iter().map(str::to_owned).collect();
            assert!(as_curl(&wrong).unwrap_err().to_string().contains("and no more"), "{wrong:?}");
        }
    }
}
