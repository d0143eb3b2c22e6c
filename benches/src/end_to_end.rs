//! A whole database behind a TLS edge, with the stock client: our cluster, the real Milvus, or the user's own.
//!
//! 1. The client is pymilvus, over two-way TLS wherever we start the server. Its own time is part of every latency.
//! 2. Processor time is that of the server's processes alone: Python's would drown it.
//! 3. Each window begins with an empty database, except against the user's own, where a collection is made and dropped whose
//!    name nobody else has.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use test_util::cluster::{Cluster, Plan};
use test_util::python::Python;

use crate::milvus::Milvus;
use crate::sample::Sample;
use crate::scenario::{Window, Work};

/// The shortest window that tells anything of a client in Python.
const SHORTEST: Duration = Duration::from_secs(5);
/// Rows of one insert.
const BATCH: u64 = 1_000;

/// A running database.
#[derive(Debug)]
pub enum Database {
    /// Ours.
    Cluster(Box<Cluster>),
    /// The real one.
    Milvus(Milvus),
    /// Somebody's, which we do not stop.
    Against(Against),
}

/// The user's own cluster, and what its clients must show.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Against {
    /// Insert into and search in this cluster, instead of comparing variants; a collection of a name of its own is made there and
    /// dropped
    #[arg(long = "against", value_name = "URI", help_heading = "A cluster of your own")]
    pub uri: Option<String>,
    /// The CA that its edge is judged by
    #[arg(long, value_name = "FILE", requires = "uri", help_heading = "A cluster of your own")]
    pub ca: Option<PathBuf>,
    /// A client's certificate, where it asks for one
    #[arg(long, value_name = "FILE", requires = "uri", help_heading = "A cluster of your own")]
    pub cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "uri", help_heading = "A cluster of your own")]
    pub key: Option<PathBuf>,
    /// The name in the edge's certificate, where it is not the one in the URI
    #[arg(long, value_name = "NAME", requires = "uri", help_heading = "A cluster of your own")]
    pub server_name: Option<String>,
    /// `user:password`, where it asks for users
    #[arg(long, value_name = "TOKEN", requires = "uri", help_heading = "A cluster of your own")]
    pub token: Option<String>,
}

/// What a script's last line says.
#[derive(Debug, Deserialize)]
struct Told {
    count: u64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    #[serde(default)]
    cpu_s: f64,
}

impl Database {
    /// Starts our cluster in `folder`, of the `meshctl` beside this program.
    ///
    /// # Errors
    /// When there is no such program and none can be built.
    ///
    /// # Panics
    /// When the cluster does not become ready; the message has its logs.
    pub fn cluster(folder: &Path) -> Result<Self> {
        let plan = Plan::new(meshctl()?).in_folder(&folder.join("cluster")).tls_mode(2);
        Ok(Self::Cluster(Box::new(plan.start())))
    }

    fn client(&self) -> Value {
        match self {
            Self::Cluster(cluster) => {
                let edge = cluster.edge();
                let uri = format!("https://127.0.0.1:{}", edge.port());
                json!({"uri": uri, "ca": edge.ca, "cert": edge.cert, "key": edge.key, "server_name": "localhost"})
            }
            Self::Milvus(milvus) => milvus.client(),
            Self::Against(Against { uri, ca, cert, key, server_name, token }) => json!({
                "uri": uri, "ca": ca, "cert": cert, "key": key, "server_name": server_name, "token": token,
                "collection": format!("mesh_bench_{}", std::process::id()),
            }),
        }
    }

    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Cluster(cluster) => cluster.members().iter().map(|member| member.pid).collect(),
            Self::Milvus(milvus) => vec![milvus.pid()],
            Self::Against(_) => Vec::new(),
        }
    }

    /// Does the work of one window.
    ///
    /// # Errors
    /// What the client script said when it failed.
    pub fn window(&self, work: Work, window: Window) -> Result<Sample> {
        let (script, threads, rows) = match work {
            Work::Search { threads } => ("search.py", threads, 1),
            _ => ("insert.py", 1, BATCH),
        };
        let mut argument = self.client();
        let more = json!({
            "threads": threads, "seconds": window.counted.max(SHORTEST).as_secs_f64(), "pids": self.pids(), "batch": BATCH,
        });
        merge(&mut argument, more);
        let said = python()?.start(script, &argument);
        if !said.success {
            bail!("{script} failed:\n{}", said.text());
        }
        let line = said.out.trim_end().lines().last().unwrap_or_default();
        let told: Told = serde_json::from_str(line).with_context(|| format!("{script} told no figures: {line}"))?;
        Ok(told.sample(rows))
    }
}

impl Told {
    /// A row counts as a call.
    fn sample(&self, rows: u64) -> Sample {
        Sample {
            calls: self.count * rows,
            seconds: self.seconds,
            cpu_seconds: self.cpu_s,
            curve: vec![(50.0, self.p50_us), (99.0, self.p99_us), (99.9, self.p999_us)],
            ..Sample::default()
        }
    }
}

fn merge(into: &mut Value, more: Value) {
    if let (Some(into), Value::Object(more)) = (into.as_object_mut(), more) {
        into.retain(|_, value| !value.is_null());
        into.extend(more);
    }
}

/// Stock pymilvus, in an environment of its own below the build folder.
fn python() -> Result<Python> {
    Ok(Python::with_pymilvus(&target()?, Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/clients"))))
}

/// The build folder: this program lies in a profile's folder below it.
///
/// # Errors
/// When the system does not tell where this program lies.
pub fn target() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    own.ancestors().nth(2).map(Path::to_owned).context("this program lies in no build folder")
}

/// The `meshctl` of the same build, which is built where it is not there yet.
fn meshctl() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program lies")?;
    let meshctl = own.with_file_name("meshctl");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let profile = own.parent().and_then(Path::file_name).map_or("dist".into(), |name| name.to_string_lossy());
    let profile = if profile == "debug" { "dev".into() } else { profile };
    let arguments = ["build", "--quiet", "--package", "meshctl", "--manifest-path", manifest, "--profile", &profile];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(arguments).status().context("cargo does not start")?;
    if built.success() && meshctl.exists() { Ok(meshctl) } else { bail!("meshctl does not build") }
}
