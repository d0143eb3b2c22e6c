//! `up`: a cluster on this host, a process a node, on loopback only.
//!
//! 1. Nothing starts before everything that can be known to fail was tried: the folder, the ports, the configuration, the
//!    certificates.
//! 2. The cluster is all or nothing while it starts: one process that ends takes the others with it, and its last lines
//!    are shown. Afterwards the others go on, and `status` tells who is missing.
//! 3. `cluster.json` exists while all of them were ready and nobody asked to stop.
//! 4. No process outlives this one: it stops them in order, and if it is killed the kernel tells them. SIGHUP is passed on
//!    once all are ready.
//!
//! Parts: [`plan`] decides (pure), [`config`] writes what each node reads, `ports` and `lock` find out what is taken, `links` what
//! leads elsewhere,
//! `material` makes certificates, `child` is one process, `supervisor` the life of all, `progress` and [`guide`] talk.
mod child;
pub mod config;
pub mod guide;
mod links;
mod lock;
mod material;
pub mod plan;
mod ports;
mod progress;
mod supervisor;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use settings::Settings;

use plan::Plan;

/// How `up` is used.
pub const EXAMPLE: &str = "Example:\n  meshctl up\n  meshctl up --dir /tmp/second --free-ports --tls-mode 2\n\n\
    Everything listens on loopback only; --address opens what clients and probes use. A process that dies while the cluster starts stops all of it; one that dies later is \
    told of, and the others go on. Ctrl-C stops proxy, data-nodes and coordinator, in this order. SIGHUP is passed on: every \
    process looks at its files now.";

/// The arguments of `up`, and of `run standalone`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where everything is kept: certificates, configuration, logs, data
    #[arg(long, default_value = ".mesh", value_name = "DIR")]
    pub dir: PathBuf,
    /// How many data-nodes
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub data_nodes: u16,
    /// TLS for clients: 0 off, 1 one-way, 2 two-way [default: 1]
    #[arg(long, value_name = "MODE", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub tls_mode: Option<u8>,
    /// A milvus.yaml to start from; what it names counts, ports and addresses in the mesh apart
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The port for pymilvus, and for REST too [default: 19530]
    #[arg(long)]
    pub port: Option<u16>,
    /// A port for REST alone [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// The first of the ports for health and status, two a process [default: 9091]
    #[arg(long, value_name = "PORT")]
    pub management_port: Option<u16>,
    /// Where clients and probes are served; what is internal stays on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// Take free ports wherever none is named here, so that several clusters fit on a host
    #[arg(long)]
    pub free_ports: bool,
}

/// What is held while a cluster is up: its folder and, where they were found free, its ports.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    _lock: lock::Lock,
    _ports: ports::Ports,
}

impl Args {
    /// Starts the cluster and stays until asked to stop.
    ///
    /// # Errors
    /// Whatever kept it from starting.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let signals = supervisor::Signals::listen()?;
            supervisor::supervise(&self.prepare()?.plan, signals).await
        })
    }

    /// Everything short of starting a process.
    pub(crate) fn prepare(&self) -> anyhow::Result<Prepared> {
        let dir = std::path::absolute(&self.dir)?;
        let given = self.given()?;
        let lock = lock::Lock::take(&dir)?;
        let mut ports = ports::Ports::new(self.free_ports);
        let plan = plan::plan(self, &dir, given, &mut ports)?;
        material::ensure(&plan)?;
        config::write(&plan)?;
        for node in &plan.nodes {
            Settings::load_with_env(&node.config, std::iter::empty())
                .with_context(|| "the configuration for this cluster does not fit".to_owned())?;
        }
        Ok(Prepared { plan, _lock: lock, _ports: ports })
    }

    fn given(&self) -> anyhow::Result<config::Keys> {
        if let Some(file) = &self.config {
            ensure!(!file.is_dir(), "{} is a folder; --config takes one file", file.display());
        }
        let file = self.config.as_ref().map(std::path::absolute).transpose()?;
        let named = settings::named(file.as_deref(), settings::variables()?.into_iter())?;
        Ok(named.into_iter().map(|(key, text)| (key, absolute(key, text))).collect())
    }
}

/// A path in an environment variable counts from here, and the nodes' configuration lies elsewhere.
fn absolute(key: &str, text: String) -> String {
    let is_file = settings::KEYS.iter().any(|known| known.path == key && known.file);
    match std::path::absolute(&text) {
        Ok(path) if is_file => path.to_string_lossy().into_owned(),
        _ => text,
    }
}
