//! `run ROLE`: one role, or all of them, in this process.
//!
//! 1. A role runs as its own binary would, with the same flags.
//! 2. `standalone` plans as `up` does, certificates and mutual TLS on loopback between the roles included; it only saves
//!    processes. On SIGTERM or SIGINT the roles drain in the order in which `up` stops its processes; on SIGHUP each looks at
//!    its files.
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use internaltls::NodeId;
use node::{Health, Node};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use settings::Settings;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::up::plan::{self, Plan, Role};
use crate::up::{self, guide};
use crate::{note, roles};

/// How long the roles of one process may take until all are ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = format!("Example:\n  meshctl run data-node --node data-node-1 --config .mesh/config/data-node-1\n  meshctl run standalone\n\n{}", node::signals::SIGNALS)
)]
pub struct Args {
    /// End when the process of this number, our parent, ends
    #[arg(long, value_name = "PID", hide = true)]
    pub with_parent: Option<i32>,
    #[command(subcommand)]
    pub what: What,
}

/// What to run.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Knows collections, and which data-node owns which shard
    Coordinator(coordinator::Args),
    /// Owns shards
    DataNode(data_node::Args),
    /// Serves clients
    Proxy(proxy::Args),
    /// All roles in one process, over mutual TLS on loopback
    Standalone(up::Args),
}

impl Args {
    /// Serves until it ends or a signal ends it.
    ///
    /// # Errors
    /// What kept it from starting.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(parent) = self.with_parent {
            die_with(parent)?;
        }
        Ok(match self.what {
            What::Coordinator(args) => coordinator::main_with(&args),
            What::DataNode(args) => data_node::main_with(&args),
            What::Proxy(args) => proxy::main_with(args),
            What::Standalone(args) => standalone(&args),
        })
    }
}

/// The kernel tells us when our parent dies. It may have died before we asked; then we have another one by now.
fn die_with(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("the kernel does not tell of a parent's death")?;
    let now = getppid().map(|pid| pid.as_raw_nonzero().get());
    ensure!(now == Some(parent), "the process {parent} that started this one has ended");
    Ok(())
}

fn standalone(args: &up::Args) -> ExitCode {
    node::process(async |shutdown| {
        let prepared = args.prepare()?;
        let ended = all(&prepared.plan, shutdown).await;
        Cluster::remove(&prepared.plan.dir);
        ended
    })
}

async fn all(plan: &Plan, shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut roles = Roles::default();
    for node in &plan.nodes {
        roles.start(node).await.with_context(|| format!("{} cannot start", node.name))?;
    }
    let lived = tokio::select! {
        lived = roles.live(plan) => lived,
        () = shutdown.cancelled() => Ok(()),
    };
    Cluster::remove(&plan.dir);
    lived.and(roles.stop().await)
}

/// The roles of one process, each with its own end.
#[derive(Default)]
struct Roles {
    health: Vec<Health>,
    /// In the order in which they stop.
    stops: Vec<(Role, CancellationToken)>,
    running: JoinSet<(Arc<str>, anyhow::Result<()>)>,
}

impl Roles {
    async fn start(&mut self, planned: &plan::Node) -> anyhow::Result<()> {
        let settings = Settings::load_with_env(&planned.config, std::iter::empty())?;
        node::log::init(settings.log_level);
        if self.running.is_empty() {
            // All read the same file: once is enough.
            node::log::remarks(&settings);
        }
        let stop = CancellationToken::new();
        let id: NodeId = planned.name.parse()?;
        let node = Node::with_settings(planned.role.name(), id, settings, stop.clone()).await?;
        self.health.push(node.health.clone());
        self.stops.push((planned.role, stop));
        let (role, name) = (planned.role, Arc::from(planned.name.as_str()));
        self.running.spawn(async move { (name, roles::serve(role, node).await) });
        Ok(())
    }

    /// Until one of them ends, which none should.
    async fn live(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let health = self.health.clone();
        let ready = async {
            for health in &health {
                health.wait_ready().await;
            }
        };
        tokio::select! {
            ready = tokio::time::timeout(READY_WITHIN, ready) => ready.map_err(|_| self.too_slow(plan))?,
            ended = self.running.join_next() => return told(ended),
        }
        let program = std::env::current_exe().context("could not find this program's own file")?;
        note(&guide::text(plan, &program));
        guide::cluster(plan, &vec![std::process::id(); plan.nodes.len()]).write(&plan.dir)?;
        told(self.running.join_next().await)
    }

    fn too_slow(&self, plan: &Plan) -> anyhow::Error {
        let late = plan.nodes.iter().zip(&self.health).filter(|(_, health)| !health.ready());
        let lines: String =
            late.map(|(node, health)| format!("\n  {}: {}", node.name, health.reasons().join("; "))).collect();
        anyhow::anyhow!("not ready within {} s:{lines}", READY_WITHIN.as_secs())
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        for role in [Role::Proxy, Role::DataNode, Role::Coordinator] {
            let of_role = self.stops.iter().filter(|(of, _)| *of == role);
            of_role.for_each(|(_, stop)| stop.cancel());
            self.drained(role).await?;
        }
        Ok(())
    }

    /// Until as many still run as are to stop later.
    async fn drained(&mut self, role: Role) -> anyhow::Result<()> {
        let later = self.stops.iter().filter(|(_, stop)| !stop.is_cancelled()).count();
        while self.running.len() > later {
            if let Some(Ok((name, ended))) = self.running.join_next().await {
                ended.with_context(|| format!("{name} ({}) did not end well", role.name()))?;
            }
        }
        Ok(())
    }
}

type Ended = Option<Result<(Arc<str>, anyhow::Result<()>), tokio::task::JoinError>>;

fn told(ended: Ended) -> anyhow::Result<()> {
    let (name, ended) = ended.context("no role was started")??;
    ended.with_context(|| format!("{name} ended"))?;
    anyhow::bail!("{name} ended, though nobody asked it to")
}
