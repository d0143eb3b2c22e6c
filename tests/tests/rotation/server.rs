//! A process with an echo service, a node of the mesh.
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use test_util::process::{Process, free_port, tail};
use test_util::wait;

use crate::fixtures::LONG;
use crate::scene::GRACE;

const ECHO: &str = env!("CARGO_BIN_EXE_echo-under-test");
/// Seconds between two looks at its files, whatever the kernel tells of them.
pub(crate) const POLL: u64 = 30;

/// A process with the echo service.
pub(crate) struct Server {
    process: Option<Process>,
    pub(crate) listens: SocketAddr,
    tells: SocketAddr,
}

impl Server {
    pub(crate) fn new() -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { process: None, listens: address(), tells: address() }
    }

    /// A node whose files are in the folder of its name in `dir`, beside `crls` and `distrust`.
    pub(crate) fn start(&mut self, dir: &Path, role: &str, name: &str, poll: u64) {
        let mut command = Command::new(ECHO);
        command.args([role, name]).arg(dir.join(name));
        command.args([self.listens.to_string(), self.tells.to_string()]);
        command.arg("--crl").arg(dir.join("crls")).arg("--distrust").arg(dir.join("distrust"));
        command.args(["--grace-seconds", &GRACE.as_secs().to_string(), "--poll-seconds", &poll.to_string()]);
        self.process = Some(Process::spawn(name, command, &log(dir, name)));
        wait::until(&format!("{name} listens"), LONG, || {
            let up = self.status().and_then(|_| TcpStream::connect(self.listens).map_err(|e| e.to_string()));
            up.map_err(|e| format!("{e}\n{}", tail(&log(dir, name))))
        });
    }

    /// User and system time, in the kernel's hundredths of a second.
    pub(crate) fn processor_time(&self) -> Duration {
        let pid = self.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields = stat.rsplit(')').next().unwrap().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// SIGKILL, if it runs.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            process.wait(LONG);
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    pub(crate) fn status(&self) -> Result<Value, String> {
        let mut text = String::new();
        let read = TcpStream::connect(self.tells).and_then(|mut stream| {
            stream.set_read_timeout(Some(LONG))?;
            stream.read_to_string(&mut text)
        });
        read.map_err(|e| format!("{}: {e}", self.tells))?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    }
}

/// Beside the disk, which may be full.
pub(crate) fn log(dir: &Path, name: &str) -> PathBuf {
    dir.with_file_name(format!("{name}.log"))
}
