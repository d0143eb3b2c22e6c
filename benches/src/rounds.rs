//! Runs the scenarios: each round all variants, in an order drawn anew.
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};

use crate::call::Job;
use crate::child::{Server, client};
use crate::end_to_end::{Against, Database};
use crate::figures::Outcome;
use crate::material::Material;
use crate::milvus::{Milvus, Wheel};
use crate::sample::Sample;
use crate::scenario::{Scenario, Window, Work};
use crate::sidecar::{self, Program};
use crate::variant::Variant;

/// How often the leaves are replaced while a rotation is measured.
const RENEWAL: Duration = Duration::from_millis(250);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The work, and who does it.
    pub scenarios: Vec<(&'static Scenario, Vec<Variant>)>,
    /// How often.
    pub rounds: usize,
    /// For how long each time.
    pub window: Window,
    /// Decides the order within each round.
    pub seed: u64,
    /// For certificates and logs; made anew.
    pub folder: PathBuf,
    /// The proxies that are installed.
    pub programs: Vec<Program>,
    /// The real Milvus, if it is installed.
    pub wheel: Option<Wheel>,
    /// The user's own cluster.
    pub against: Against,
}

impl Plan {
    /// Windows in all.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.scenarios.iter().map(|(_, variants)| variants.len() * self.rounds).sum()
    }

    /// Runs everything. `begins` is told of each window; `ends` gets what came of each scenario, which is worth something even if
    /// a later one fails.
    ///
    /// # Errors
    /// The first call that failed.
    pub fn run(&self, mut begins: impl FnMut(&Scenario, Variant), mut ends: impl FnMut(Outcome)) -> Result<()> {
        let mut random = StdRng::seed_from_u64(self.seed);
        for (scenario, variants) in &self.scenarios {
            ends(self.scenario(scenario, variants, &mut random, &mut begins)?);
        }
        Ok(())
    }

    fn scenario(
        &self,
        scenario: &'static Scenario,
        variants: &[Variant],
        random: &mut impl RngCore,
        begins: &mut impl FnMut(&Scenario, Variant),
    ) -> Result<Outcome> {
        let mut samples: Vec<(Variant, Vec<Sample>)> = variants.iter().map(|variant| (*variant, Vec::new())).collect();
        let mut order: Vec<usize> = (0..variants.len()).collect();
        for _ in 0..self.rounds {
            order.shuffle(random);
            for nth in &order {
                begins(scenario, variants[*nth]);
                let sample = self.window(scenario, variants[*nth]);
                samples[*nth].1.push(sample.with_context(|| variants[*nth].about())?);
            }
        }
        Ok(Outcome { scenario, samples })
    }

    fn window(&self, scenario: &Scenario, variant: Variant) -> Result<Sample> {
        let folder = fresh(&self.folder)?;
        if scenario.is_end_to_end() {
            return self.database(variant, &folder)?.window(scenario.work, self.window);
        }
        let material = Material::create(&folder, scenario.key);
        let server = Server::start(variant, &folder)?;
        let pair = self.pair(variant, &folder, server.address)?;
        let mut pids = pair.as_ref().map(sidecar::Pair::pids).unwrap_or_default();
        pids.push(server.pid());
        let _rotating = matches!(scenario.work, Work::Rotating { .. }).then(|| Rotation::begin(material));
        client(&Job {
            scenario: scenario.name.to_owned(),
            variant,
            address: pair.as_ref().map_or(server.address, sidecar::Pair::entrance),
            folder,
            window: self.window,
            server: server.pid(),
            pids,
        })
    }

    fn database(&self, variant: Variant, folder: &Path) -> Result<Database> {
        match variant {
            Variant::Against => Ok(Database::Against(self.against.clone())),
            Variant::Milvus => {
                let wheel = self.wheel.as_ref().context("it is not installed")?;
                Milvus::start(wheel, folder).map(Database::Milvus)
            }
            _ => Database::cluster(folder),
        }
    }

    fn pair(&self, variant: Variant, folder: &Path, server: SocketAddr) -> Result<Option<sidecar::Pair>> {
        let Some(kind) = variant.sidecar() else { return Ok(None) };
        let program = self.programs.iter().find(|program| program.kind == kind).context("it is not installed")?;
        sidecar::start(program, &folder.join("sidecars"), server).map(Some)
    }
}

/// An empty folder.
fn fresh(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("window");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Replaces all leaves again and again until it is dropped.
struct Rotation {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rotation {
    fn begin(mut material: Material) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                material.renew();
                std::thread::park_timeout(RENEWAL);
            }
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Rotation {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
