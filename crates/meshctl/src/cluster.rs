//! `cluster.json`: what runs, where, and how to reach it.
//!
//! It exists from the moment all processes are ready until they are asked to stop, and is always whole: written aside,
//! synced, and put in place by a rename.
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use internaltls::foreign;
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
        let not_ours =
            || format!("{} is not a file of `meshctl up`; stop the cluster and start it again", path.display());
        let cluster: Self = serde_json::from_slice(&text)
            .map_err(|error| anyhow::Error::msg(foreign::cause(&error.to_string())))
            .with_context(not_ours)?;
        ensure!(cluster.is_plain(), "{}: it holds control characters, or a name that is too long", not_ours());
        Ok(cluster)
    }

    /// Whether all of it can be shown as it is. The folder may be another user's.
    fn is_plain(&self) -> bool {
        let named = self.processes.iter().flat_map(|p| [&p.role, &p.node, &p.internal, &p.health, &p.management]);
        let edge = &self.edge;
        let paths = [&self.certs, &edge.ca, &edge.cert, &edge.key].into_iter().flatten();
        named.chain([&edge.grpc, &edge.rest]).all(|text| foreign::name(text) == *text)
            && paths.map(|path| path.to_string_lossy()).all(|text| foreign::cause(&text) == *text)
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
        // Left by a run that was killed, or a link of somebody else's, which must not be followed.
        let _ = fs::remove_file(&fresh);
        let mut file = File::create_new(&fresh).with_context(failed)?;
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

    #[test]
    fn file_that_would_write_to_the_terminal_is_refused() {
        let process = |node: &str| {
            serde_json::json!({"role": "proxy", "node": node, "pid": 1, "internal": "127.0.0.1:1",
                "health": "127.0.0.1:2", "management": "127.0.0.1:3"})
        };
        let dir = tempfile::tempdir().unwrap();
        let read = |node: &str, certs: &str| {
            let edge = serde_json::json!({"grpc": "a:1", "rest": "a:1", "tls_mode": 0});
            let whole = serde_json::json!({"processes": [process(node)], "edge": edge, "certs": certs});
            fs::write(dir.path().join(NAME), whole.to_string()).unwrap();
            Cluster::read(dir.path()).map(drop).map_err(|error| format!("{error:#}"))
        };
        read("proxy-1", "/a/b").unwrap();
        for (node, certs) in [("\u{1b}]0;owned\u{7}", "/a"), (&"x".repeat(70_000), "/a"), ("proxy-1", "/a\n/b")] {
            let error = read(node, certs).unwrap_err();
            assert!(error.contains("start it again") && !error.contains(char::is_control), "{error}");
        }
    }

    #[test]
    fn a_link_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".cluster.json.new")).unwrap();
        let edge = Edge { grpc: "a:1".into(), rest: "a:1".into(), tls_mode: 0, ca: None, cert: None, key: None };
        let cluster = Cluster { processes: Vec::new(), edge, certs: None };
        cluster.write(dir.path()).unwrap();
        assert_eq!(Cluster::read(dir.path()).unwrap(), cluster);
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

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
