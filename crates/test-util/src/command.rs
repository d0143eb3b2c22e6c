//! Programs of the machine, run to their end under a deadline, and what they said.
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::wait;

/// A program about to run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    name: String,
    input: Vec<u8>,
    within: Duration,
}

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// It ended by itself, with code 0.
    pub success: bool,
    /// Its exit code; `None` when a signal or the deadline ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Both outputs.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// The last line of standard output, as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let line = self.out.trim_end().lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON in the answer ({e}): {}", self.text()))
    }
}

/// A program of this machine, or of ours.
#[must_use]
pub fn program(path: impl AsRef<OsStr>) -> Run {
    let name = Path::new(path.as_ref()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Run { command: Command::new(path), name, input: Vec::new(), within: Duration::from_secs(60) }
}

/// `openssl ARGUMENTS…`
#[must_use]
pub fn openssl(arguments: &[&str]) -> Run {
    program("openssl").args(arguments)
}

impl Run {
    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Its folder.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What it reads on standard input.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// The deadline, when it is ended; one minute unless said otherwise.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Runs it and reads what it says. Outputs go through files, so that no full pipe and no grandchild can hold it up.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn run(mut self) -> Said {
        let mut input = scratch();
        input.write_all(&self.input).and_then(|()| input.rewind()).expect("a scratch file can be written");
        let (out, err) = (scratch(), scratch());
        self.command.stdin(Stdio::from(input)).stdout(share(&out)).stderr(share(&err));
        let mut child =
            self.command.spawn().unwrap_or_else(|e| panic!("{} does not start: {e}; install it", self.name));
        let start = std::time::Instant::now();
        let status = wait::until(&self.name, self.within + Duration::from_secs(10), || {
            if start.elapsed() > self.within {
                let _ = child.kill();
            }
            child.try_wait().expect("a child can be waited for").ok_or("still running")
        });
        said(status, out, err)
    }
}

fn said(status: ExitStatus, out: File, err: File) -> Said {
    Said { success: status.success(), code: status.code(), out: text(out), err: text(err) }
}

fn scratch() -> File {
    tempfile::tempfile().expect("a scratch file can be made")
}

fn share(file: &File) -> Stdio {
    Stdio::from(file.try_clone().expect("a file can be shared"))
}

fn text(mut file: File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a scratch file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer to curl.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status; 0 when there was no answer.
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// curl's exit code.
    pub exit: i32,
    /// What curl said of a failure.
    pub error: String,
}

/// `curl ARGUMENTS…`, and its answer.
///
/// # Panics
/// When curl is not installed.
pub fn curl(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Answer {
    let said =
        program("curl").args(["-sS", "--max-time", "30", "-w", "\n%{http_code} %{http_version}"]).args(arguments).run();
    let (body, tail) = said.out.rsplit_once('\n').unwrap_or(("", &said.out));
    let (status, version) = tail.split_once(' ').unwrap_or(("0", ""));
    Answer {
        status: status.parse().unwrap_or(0),
        version: version.into(),
        body: serde_json::from_str(body).unwrap_or(Value::Null),
        exit: said.code.unwrap_or(-1),
        error: said.err,
    }
}
