//! Two sidecars that run.
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use test_util::authority::{Authority, Leaf, write_public, write_secret};
use test_util::disk::{Set, plain};
use test_util::process::{KILL, Process, free_port, is_running, signal, tail};

use super::{CERT_AND_KEY, Hop, Program, Side};

/// How long one may take to accept: a busy machine.
const READY: Duration = Duration::from_secs(30);
/// How long one may take to end after SIGTERM before it is killed.
const END: Duration = Duration::from_secs(5);
/// How long between two looks.
const PACE: Duration = Duration::from_millis(10);

/// Two sidecars of one kind, one after the other. Its drop ends them.
#[derive(Debug)]
pub struct Pair {
    entrance: Sidecar,
    exit: Sidecar,
}

/// Starts a pair before `server`, with files in `folder`, and waits until both accept.
///
/// # Errors
/// When one ends or does not accept in time; the message has the tail of its log.
///
/// # Panics
/// When `folder` cannot be written.
pub fn start(program: &Program, folder: &Path, server: SocketAddr) -> Result<Pair> {
    let authority = Authority::new("sidecars");
    let exit = Sidecar::start(program, folder, Side::Exit, server, &identity(&authority, Side::Exit))?;
    let entrance =
        Sidecar::start(program, folder, Side::Entrance, exit.address(), &identity(&authority, Side::Entrance))?;
    Ok(Pair { entrance, exit })
}

impl Pair {
    /// Where the client speaks plaintext HTTP/2.
    #[must_use]
    pub fn entrance(&self) -> SocketAddr {
        self.entrance.address()
    }

    /// Where the exit takes mutual TLS.
    #[must_use]
    pub fn exit(&self) -> SocketAddr {
        self.exit.address()
    }

    /// All their processes, workers too.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        [&self.entrance, &self.exit].iter().flat_map(|sidecar| sidecar.pids()).collect()
    }
}

/// The certificate of one of them, and the CA that it believes.
pub(super) fn identity(authority: &Authority, side: Side) -> Set {
    let name = format!("{}.sidecar.internal", side.word());
    Set { pair: authority.sign(&Leaf::nameless(&name).dns(&name)), ca: authority.cert().into() }
}

/// One sidecar that runs.
#[derive(Debug)]
pub(super) struct Sidecar {
    hop: Hop,
    process: Process,
}

impl Sidecar {
    /// Starts one that sends to `to`, and waits until it accepts.
    pub(super) fn start(program: &Program, folder: &Path, side: Side, to: SocketAddr, set: &Set) -> Result<Self> {
        let folder = std::path::absolute(folder)?.join(side.word());
        let threads = thread::available_parallelism()?.get();
        let hop = Hop { side, listen: (Ipv4Addr::LOCALHOST, free_port()).into(), to, threads };
        let log = folder.join("log");
        plain::create(&folder, set);
        write_secret(&folder.join(CERT_AND_KEY), &format!("{}{}", set.pair.cert, set.pair.key));
        let process = Process::spawn(program.kind.name(), command(program, &folder, &hop), &log);
        let mut sidecar = Self { hop, process };
        sidecar.wait(program.kind.workers(threads)).with_context(|| {
            format!("the {} of {} does not accept at {}; {}", side.word(), program.kind, hop.listen, tail(&log))
        })?;
        Ok(sidecar)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.hop.listen
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        let first = self.process.pid();
        [first].into_iter().chain(children(first)).collect()
    }

    /// Waits until it accepts and has all its workers: a socket accepts before they are there.
    fn wait(&mut self, workers: usize) -> Result<()> {
        let start = Instant::now();
        while TcpStream::connect(self.address()).is_err() || children(self.process.pid()).len() < workers {
            if let Some(status) = self.process.ended() {
                bail!("it ended with {status}");
            }
            if start.elapsed() > READY {
                bail!("not within {READY:?}");
            }
            thread::park_timeout(PACE);
        }
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let pids = self.pids();
        self.process.terminate();
        let start = Instant::now();
        while start.elapsed() < END && self.process.ended().is_none() {
            thread::park_timeout(PACE);
        }
        // A master that has to be killed leaves its workers behind.
        pids.into_iter().filter(|pid| is_running(*pid)).for_each(|pid| signal(pid, KILL));
    }
}

fn command(program: &Program, folder: &Path, hop: &Hop) -> Command {
    let config = program.kind.config(hop);
    write_public(&folder.join(config.file), &config.text);
    let mut command = Command::new(&program.path);
    command.args(config.arguments).envs(config.environment.iter().copied()).current_dir(folder);
    command
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The fourth field of `stat`; the second, a name in parentheses, may have anything in it (proc(5)).
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
