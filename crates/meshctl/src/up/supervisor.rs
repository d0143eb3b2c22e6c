//! The life of all processes: start, ready, stay, stop.
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use internaltls::foreign;
use node::signals::{Terminal, listen};
use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::child::{Child, tail};
use super::guide;
use super::plan::{Plan, Role};
use super::progress::Progress;
use crate::cluster::Cluster;
use crate::http;

/// How often processes are looked at.
const PACE: Duration = Duration::from_millis(100);
/// How long all of them may take until they are ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long one may drain before it is killed: more than the nodes' own limit, 30 s unless configured.
const GRACE: Duration = Duration::from_secs(40);
/// The same, for a cluster that never was ready.
const GRACE_OF_A_FAILED_START: Duration = Duration::from_secs(5);

pub(super) async fn supervise(plan: &Plan, signals: Signals) -> anyhow::Result<ExitCode> {
    let Signals { stop: mut asked, mut hangup } = signals;
    let mut children = start(plan)?;
    let lived = tokio::select! {
        lived = live(plan, &mut children, &mut hangup) => lived,
        () = asked.requested() => Ok(()),
    };
    Cluster::remove(&plan.dir);
    let grace = if lived.is_ok() { GRACE } else { GRACE_OF_A_FAILED_START };
    tokio::select! {
        () = stop(plan, &mut children, grace) => {}
        () = asked.requested() => kill(&mut children),
    }
    lived.map(|()| ExitCode::SUCCESS)
}

/// A process that cannot even be started takes those before it along when `children` is dropped and we exit.
fn start(plan: &Plan) -> anyhow::Result<Vec<Child>> {
    let mut children: Vec<Child> = Vec::new();
    for node in &plan.nodes {
        match Child::start(node) {
            Ok(child) => children.push(child),
            Err(error) => {
                kill(&mut children);
                return Err(error);
            }
        }
    }
    Ok(children)
}

/// Until all are ready, and then for as long as one of them lives.
async fn live(plan: &Plan, children: &mut [Child], hangup: &mut unix::Signal) -> anyhow::Result<()> {
    become_ready(plan, children).await?;
    let program = std::env::current_exe().context("could not find this program's own file")?;
    crate::note(&guide::text(plan, &program));
    let pids: Vec<_> = children.iter().map(Child::id).collect();
    guide::cluster(plan, &pids).write(&plan.dir)?;
    watch(plan, children, hangup).await
}

async fn become_ready(plan: &Plan, children: &mut [Child]) -> anyhow::Result<()> {
    let progress = Progress::new(plan);
    let became = wait_for_all(plan, children, &progress).await;
    progress.give_way();
    became
}

async fn wait_for_all(plan: &Plan, children: &mut [Child], progress: &Progress) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut waiting: Vec<Option<String>> = vec![Some("starting".to_owned()); plan.nodes.len()];
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while waiting.iter().any(Option::is_some) {
        pace.tick().await;
        nobody_ended(plan, children)?;
        for (nth, waits) in waiting.iter_mut().enumerate() {
            let before = waits.is_some();
            *waits = not_ready(&plan.nodes[nth].health.to_string()).await;
            match waits {
                Some(reason) => progress.waits(nth, reason),
                None if before => progress.ready(nth),
                None => {}
            }
        }
        if Instant::now() > deadline {
            bail!("{}", too_slow(plan, &waiting));
        }
    }
    Ok(())
}

/// `None` when it is ready, else why it is not.
async fn not_ready(health: &str) -> Option<String> {
    match http::get(health, "/healthz").await {
        Ok((200, _)) => None,
        Ok((_, body)) => Some(reasons(&body)),
        Err(_) => Some("starting".to_owned()),
    }
}

fn reasons(body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let reasons = ["reasons", "not_ready"].iter().find_map(|name| parsed.get(*name)?.as_array());
    let texts: Vec<_> = reasons.into_iter().flatten().filter_map(|reason| reason.as_str()).collect();
    if texts.is_empty() { "not ready".to_owned() } else { foreign::cause(&texts.join("; ")) }
}

fn too_slow(plan: &Plan, waiting: &[Option<String>]) -> String {
    let late = plan.nodes.iter().zip(waiting).filter_map(|(node, reason)| Some((node, reason.as_ref()?)));
    let lines: String =
        late.map(|(node, reason)| format!("\n  {}: {reason} (log: {})", node.name, node.log.display())).collect();
    format!("not ready within {} s, so everything was stopped:{lines}", READY_WITHIN.as_secs())
}

fn nobody_ended(plan: &Plan, children: &mut [Child]) -> anyhow::Result<()> {
    for (node, child) in plan.nodes.iter().zip(children) {
        if let Some(status) = child.ended() {
            bail!(
                "{} ended while it started ({status}), so everything was stopped; the end of its log, {}:\n{}",
                node.name,
                node.log.display(),
                tail(&node.log)
            );
        }
    }
    Ok(())
}

/// One that ends is told of, once; the others go on. A SIGHUP is passed on, also one that came before all were ready: until
/// then it would end a process that does not listen yet.
async fn watch(plan: &Plan, children: &mut [Child], hangup: &mut unix::Signal) -> anyhow::Result<()> {
    let mut told = vec![false; children.len()];
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while told.iter().any(|told| !told) {
        tokio::select! {
            _ = pace.tick() => {}
            _ = hangup.recv() => children.iter_mut().for_each(|child| child.signal(Signal::HUP)),
        }
        for (nth, child) in children.iter_mut().enumerate() {
            if let (Some(status), false) = (child.ended(), told[nth]) {
                told[nth] = true;
                eprintln!("{}", farewell(plan, nth, status));
            }
        }
    }
    bail!("every process of the cluster has ended; their logs are in {}", plan.dir.join("logs").display())
}

fn farewell(plan: &Plan, nth: usize, status: ExitStatus) -> String {
    let node = &plan.nodes[nth];
    let program = std::env::current_exe().unwrap_or_else(|_| "meshctl".into());
    format!(
        "{} has ended ({status}); the others go on. Its log: {}. To start it again: {} run {} --node {} --config {}",
        node.name,
        node.log.display(),
        program.display(),
        node.role.name(),
        node.name,
        node.config.display()
    )
}

/// Clients first, then what serves the proxy, then what the data-nodes ask.
async fn stop(plan: &Plan, children: &mut [Child], grace: Duration) {
    for role in [Role::Proxy, Role::DataNode, Role::Coordinator] {
        let mut of_role: Vec<_> = children
            .iter_mut()
            .zip(&plan.nodes)
            .filter(|(_, node)| node.role == role)
            .map(|(child, _)| child)
            .collect();
        of_role.iter_mut().for_each(|child| child.signal(Signal::TERM));
        if tokio::time::timeout(grace, ended(&mut of_role)).await.is_err() {
            of_role.iter_mut().for_each(|child| child.signal(Signal::KILL));
            ended(&mut of_role).await;
        }
    }
}

async fn ended(children: &mut [&mut Child]) {
    let mut pace = interval(Duration::from_millis(20));
    while children.iter_mut().any(|child| child.ended().is_none()) {
        pace.tick().await;
    }
}

fn kill(children: &mut [Child]) {
    children.iter_mut().for_each(|child| child.signal(Signal::KILL));
}

/// What this process is asked by signals. SIGUSR1 and SIGUSR2 ask nothing, and no longer end it.
pub(super) struct Signals {
    stop: Stop,
    hangup: unix::Signal,
}

/// Ctrl-C, a service manager, a terminal that is closed.
struct Stop {
    terminal: Terminal,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    hangup: Option<unix::Signal>,
}

impl Signals {
    /// From now on no signal ends this process but through [`supervise`].
    pub(super) fn listen() -> anyhow::Result<Self> {
        let terminal = Terminal::at_start();
        drop(listen(SignalKind::user_defined1(), "SIGUSR1")?);
        drop(listen(SignalKind::user_defined2(), "SIGUSR2")?);
        let stop = Stop {
            terminal,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            hangup: Some(listen(SignalKind::hangup(), "SIGHUP")?),
        };
        Ok(Self { stop, hangup: listen(SignalKind::hangup(), "SIGHUP")? })
    }
}

impl Stop {
    async fn requested(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            // Shell and kernel may both send it: it is never the second request, which kills.
            () = closed(&mut self.hangup, self.terminal) => self.hangup = None,
        }
    }
}

/// Until a SIGHUP comes with the end of the terminal.
async fn closed(hangup: &mut Option<unix::Signal>, terminal: Terminal) {
    let Some(hangup) = hangup else { return std::future::pending().await };
    // It may have gone before anybody listened.
    while !terminal.gone() && hangup.recv().await.is_some() {}
}
