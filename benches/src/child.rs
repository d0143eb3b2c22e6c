//! This program once more, as a server or as a client.
//!
//! A child ends when its standard input does: so none outlives us, however we end.
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::call::Job;
use crate::ends;
use crate::material::End;
use crate::sample::Sample;
use crate::variant::Variant;

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Starts the server of `variant` with the certificates below `folder`.
    ///
    /// # Errors
    /// When it ends before it listens; it has said why on standard error.
    pub fn start(variant: Variant, folder: &Path) -> Result<Self> {
        let (child, out) = start(&["serve", &variant.name()], folder)?;
        let mut server = Self { child, address: ([127, 0, 0, 1], 0).into() };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        server.address = line.trim().parse().with_context(|| format!("the server of {} ended", variant.name()))?;
        Ok(server)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does `job` in a process of its own.
///
/// # Errors
/// What the client said when it failed.
pub fn client(job: &Job) -> Result<Sample> {
    let (mut child, mut out) = start(&["call", &serde_json::to_string(job)?], &job.folder)?;
    let mut said = String::new();
    out.read_to_string(&mut said)?;
    if !child.wait()?.success() {
        bail!("{} over {} failed; see above", job.scenario, job.variant.name());
    }
    serde_json::from_str(&said).context("the client told nothing")
}

fn start(arguments: &[&str], folder: &Path) -> Result<(Child, ChildStdout)> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let mut command = Command::new(own);
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start this program once more")?;
    let out = child.stdout.take().context("a piped output is there")?;
    Ok((child, out))
}

/// Serves until standard input ends. What `meshctl`'s roles do on SIGTERM is not measured here.
///
/// # Errors
/// When the certificates are not fit, or the listener breaks.
pub fn serve(variant: Variant, folder: &Path) -> Result<()> {
    let (tell, over) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(tell);
    });
    let until = async move {
        let _ = over.await;
    };
    ends::runtime(variant, End::Server)?.block_on(ends::serve(variant, folder, |address| println!("{address}"), until))
}

/// Does a job and prints what it saw. Ends at once when whoever asked is gone.
///
/// # Errors
/// The first call that failed.
pub fn call(job: &str) -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let sample = crate::call::run(&serde_json::from_str(job)?)?;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}
