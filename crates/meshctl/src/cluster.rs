//! `cluster.json`: what runs, where, and how to reach it.
//!
//! It exists from the moment all processes are ready until they are asked to stop, and is always whole: written aside,
//! synced, and put in place by a rename.
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::certs::folder;

const NAME: &str = "cluster.json";

/// A cluster that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Every process (in `run standalone`: every role).
    pub processes: Vec<Process>,
    /// Where clients go.
    pub edge: Edge,
    /// The folder of its certificates, as `certs init` lays it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certs: Option<PathBuf>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it is.
    pub role: String,
    /// Which one.
    pub node: String,
    /// Its process id.
    pub pid: u32,
    /// `host:port` of its mesh listener.
    pub internal: String,
    /// `host:port` of /healthz and /livez.
    pub health: String,
    /// `host:port` of /status and /metrics.
    pub management: String,
}

/// The way in for clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// `host:port` for pymilvus.
    pub grpc: String,
    /// `host:port` for REST.
    pub rest: String,
    /// 0 without TLS, 1 one-way, 2 two-way.
    pub tls_mode: u8,
    /// What a client trusts; `None` without TLS, as the next two.
    pub ca: Option<PathBuf>,
    /// A client's leaf.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Cluster {
    /// Reads what runs in `dir`.
    ///
    /// # Errors
    /// When nothing runs there, or the file is not one of ours.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(NAME);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!(
                    "no cluster is up in {} ({} does not exist); start one with `meshctl up --dir {}`",
                    dir.display(),
                    path.display(),
                    dir.display()
                )
            }
            read => read.with_context(|| format!("could not read {}", path.display()))?,
        };
        serde_json::from_slice(&text).with_context(|| {
            format!("{} is not a file of `meshctl up`; stop the cluster and start it again", path.display())
        })
    }

    /// Says that it is up.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let (path, fresh) = (dir.join(NAME), dir.join(".cluster.json.new"));
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let failed =
            || format!("could not write {}; check that the folder is yours and the disk has room", path.display());
        let mut file = File::create(&fresh).with_context(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).with_context(failed)?;
        fs::rename(&fresh, &path).with_context(failed)?;
        folder::sync(dir)
    }

    /// Says that it is not up any more.
    pub fn remove(dir: &Path) {
        let _ = fs::remove_file(dir.join(NAME));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parser's own limit on depth is on, here and for every other document that this program reads.
    #[test]
    fn deep_file_is_a_plain_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), format!("{{\"processes\":{}", "[".repeat(1_000_000))).unwrap();
        let error = format!("{:#}", Cluster::read(dir.path()).unwrap_err());
        assert!(error.contains(NAME) && error.contains("start it again"), "{error}");
        assert!(serde_json::from_str::<serde_json::Value>(&"[".repeat(1_000_000)).is_err());
    }
}
