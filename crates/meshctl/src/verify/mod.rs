//! `verify`: proof, from outside, that nobody but a node of the mesh is served on an internal port.
//!
//! 1. Each internal port is tried in every way in which it must refuse, and in the one way in which it must serve.
//! 2. A request is sent and the answer awaited: in TLS 1.3 a client finishes its handshake before the server has judged it,
//!    so a finished handshake proves nothing. One byte of application data in answer to an intruder is a surprise.
//! 3. Silence is no refusal: it is a surprise. A port where nobody listens proves nothing either way, and is told apart from one
//!    that lets an intruder in. What could not be tried says so.
//!
//! Parts: [`credentials`] is what the probes bring along, [`probe`] says what each tries and must see, `dial` tries it,
//! `danger` is the verifier that lets an intruder talk to any server, [`report`] prints.
pub mod credentials;
mod danger;
mod dial;
pub mod probe;
pub mod report;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use internaltls::identity::Role;
use time::OffsetDateTime;

use crate::cluster::Cluster;
use credentials::Credentials;
use probe::{Line, Probe};

/// The arguments of `verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl verify\n  meshctl verify --certs ./certs --target 10.0.0.5:22125=coordinator\n\n\
    Exits 1 when any probe saw what it must not, or nobody listens. A probe that could not be tried (an expired leaf is signed on the spot, which \
    needs the mesh CA's key) is listed as `not tried`."
)]
pub struct Args {
    /// The cluster's folder
    #[arg(long, default_value = ".mesh", value_name = "DIR")]
    pub dir: PathBuf,
    /// Where the certificates are, if not in the cluster's folder
    #[arg(long, value_name = "DIR")]
    pub certs: Option<PathBuf>,
    /// Try this port instead of those in cluster.json; repeatable
    #[arg(long, value_name = "HOST:PORT=ROLE", value_parser = target)]
    pub target: Vec<Target>,
}

/// An internal port.
#[derive(Debug, Clone)]
pub struct Target {
    /// How the report calls it: the node's name, or the address.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Who is expected to serve there.
    pub role: Role,
    /// Which one, where that is known.
    pub node: Option<String>,
}

impl Args {
    /// Tries everything and prints the table.
    ///
    /// # Errors
    /// When there is no cluster to try, or the certificates to try it with cannot be read.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let targets = self.targets()?;
        let credentials = Credentials::load(&self.certs_folder()?, OffsetDateTime::now_utc())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let lines = runtime.block_on(verify(targets, credentials));
        Ok(report::print(&lines))
    }

    fn targets(&self) -> anyhow::Result<Vec<Target>> {
        if !self.target.is_empty() {
            return Ok(self.target.clone());
        }
        let cluster = Cluster::read(&self.dir)?;
        ensure!(
            !cluster.processes.is_empty(),
            "the cluster in {} has no processes; start it with `meshctl up`",
            self.dir.display()
        );
        cluster.processes.iter().map(|p| resolve(&p.internal, &p.role, Some(&p.node))).collect()
    }

    fn certs_folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(given) = &self.certs {
            return Ok(given.clone());
        }
        let recorded = Cluster::read(&self.dir).ok().and_then(|cluster| cluster.certs);
        let folder = recorded.unwrap_or_else(|| self.dir.join("certs"));
        ensure!(folder.is_dir(), "no certificates at {}; name their folder with --certs", folder.display());
        Ok(folder)
    }
}

/// Every probe against every target; targets at once, the probes of one after another.
pub async fn verify(targets: Vec<Target>, credentials: Credentials) -> Vec<Line> {
    let credentials = Arc::new(credentials);
    let tasks: Vec<_> =
        targets.into_iter().map(|target| tokio::spawn(verify_one(target, credentials.clone()))).collect();
    let mut lines = Vec::new();
    for task in tasks {
        lines.extend(task.await.unwrap_or_default());
    }
    lines
}

async fn verify_one(target: Target, credentials: Arc<Credentials>) -> Vec<Line> {
    let mut lines = Vec::new();
    for probe in Probe::ALL {
        let seen = dial::attempt(probe, &target, &credentials).await;
        lines.push(Line::new(&target, probe, seen));
    }
    lines
}

fn target(text: &str) -> Result<Target, String> {
    let (address, role) =
        text.rsplit_once('=').ok_or("write it as HOST:PORT=ROLE, such as 127.0.0.1:22125=coordinator")?;
    resolve(address, role, None).map_err(|error| format!("{error:#}"))
}

fn resolve(address: &str, role: &str, node: Option<&str>) -> anyhow::Result<Target> {
    let found =
        address.to_socket_addrs().with_context(|| format!("`{address}` is no address; write HOST:PORT"))?.next();
    let Some(socket) = found else { bail!("`{address}` has no address") };
    Ok(Target {
        name: node.unwrap_or(address).to_owned(),
        address: socket,
        role: Role::new(role)?,
        node: node.map(str::to_owned),
    })
}
