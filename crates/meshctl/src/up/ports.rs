//! Which ports are free.
//!
//! A free port is only free until somebody takes it. Those we choose are therefore below the range from which the kernel
//! gives ports to outgoing connections, and each is locked by a file that every `meshctl` on this host looks at, from the
//! choice until the cluster is down.
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::plan::Choose;

const CHOICE: std::ops::Range<u16> = 10_240..32_000;

#[derive(Debug)]
pub(super) struct Ports {
    all_free: bool,
    chosen: Vec<u16>,
    locks: Vec<File>,
}

impl Ports {
    pub(super) fn new(all_free: bool) -> Self {
        Self { all_free, chosen: Vec::new(), locks: Vec::new() }
    }

    fn fixed(&mut self, at: IpAddr, port: u16, what: &str, flag: &str) -> anyhow::Result<u16> {
        if self.chosen.contains(&port) {
            bail!("port {port} is named twice, the second time for {what}; choose another with {flag}");
        }
        match try_bind(at, port) {
            Ok(()) => self.chosen.push(port),
            Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
                "port {port} ({what}) is in use; stop what uses it (ss -ltnp 'sport = :{port}' tells), or choose another with {flag}"
            ),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("port {port} ({what}) is not open to this user; choose one above 1023 with {flag}")
            }
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                bail!("{at} ({what}) is no address of this host; choose one that is with --address, or 0.0.0.0 for all")
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("could not listen on port {port} ({what}); choose another with {flag}"));
            }
        }
        Ok(port)
    }

    fn free(&mut self, at: IpAddr, what: &str) -> anyhow::Result<u16> {
        if let Err(error) = try_bind(at, 0) {
            return Err(error).with_context(|| format!("could not listen on {at} ({what}); choose an address of this host with --address, or 0.0.0.0 for all"));
        }
        let folder = lock_folder()?;
        let span = CHOICE.end - CHOICE.start;
        let start = random(span);
        for step in 0..span {
            let port = CHOICE.start + (start + step) % span;
            if self.chosen.contains(&port) {
                continue;
            }
            let lock = File::create(folder.join(port.to_string()))
                .with_context(|| format!("could not lock a port in {}", folder.display()))?;
            if lock.try_lock().is_ok() && try_bind(at, port).is_ok() {
                self.chosen.push(port);
                self.locks.push(lock);
                return Ok(port);
            }
        }
        bail!("no free port for {what} between {} and {}", CHOICE.start, CHOICE.end)
    }
}

impl Choose for Ports {
    fn port(&mut self, at: IpAddr, wanted: Option<u16>, what: &str, flag: &str) -> anyhow::Result<u16> {
        match wanted {
            Some(port) => self.fixed(at, port, what, flag),
            None => self.free(at, what),
        }
    }

    fn all_free(&self) -> bool {
        self.all_free
    }
}

fn try_bind(at: IpAddr, port: u16) -> std::io::Result<()> {
    TcpListener::bind((at, port)).map(drop)
}

fn lock_folder() -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("meshctl-ports-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&folder)
        .with_context(|| format!("could not make {}; set TMPDIR to a folder that is yours", folder.display()))?;
    Ok(folder)
}

/// Good enough to spread clusters that start at the same moment.
fn random(below: u16) -> u16 {
    let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u16::try_from(seed % u64::from(below)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn taken_port_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Ports::new(false).port(LOOPBACK, Some(port), "clients", "--port").unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("port {port} (clients) is in use; stop what uses it"))
                && error.ends_with("with --port"),
            "{error}"
        );
    }

    #[test]
    fn ports_are_tried_where_they_are_used() {
        let taken = TcpListener::bind("127.0.0.2:0").unwrap();
        let (at, port) = (taken.local_addr().unwrap().ip(), taken.local_addr().unwrap().port());
        let error = Ports::new(false).port(at, Some(port), "clients", "--port").unwrap_err().to_string();
        assert!(error.contains("is in use"), "{error}");
        for wanted in [Some(port), None] {
            let error = Ports::new(true).port("192.0.2.1".parse().unwrap(), wanted, "clients", "--port").unwrap_err();
            assert!(error.to_string().contains("with --address, or 0.0.0.0 for all"), "{error}");
        }
    }

    #[test]
    fn port_named_twice_is_refused() {
        let mut ports = Ports::new(false);
        let free = ports.port(LOOPBACK, None, "clients", "--port").unwrap();
        assert!(
            ports.port(LOOPBACK, Some(free), "REST", "--http-port").unwrap_err().to_string().contains("named twice")
        );
    }

    #[test]
    fn clusters_at_the_same_moment_share_no_port() {
        let mut clusters: Vec<_> = (0..4).map(|_| Ports::new(true)).collect();
        for cluster in &mut clusters {
            for _ in 0..20 {
                cluster.port(LOOPBACK, None, "a node", "--port").unwrap();
            }
        }
        let all: std::collections::BTreeSet<_> = clusters.iter().flat_map(|cluster| &cluster.chosen).collect();
        assert_eq!(all.len(), 80);
    }
}
