//! The pieces by themselves, each as often as fits into a moment: for whoever changes one of them.
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use internaltls::bench::Material as Loaded;
use internaltls::{Identity, NodeId, Policy, Role, TrustDomain};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use test_util::authority::Key;

use crate::echo::SERVICE;
use crate::material::{End, Folder, Material};

/// How long one batch lasts at least, and how many there are.
const BATCH: Duration = Duration::from_millis(20);
const BATCHES: usize = 15;

/// What one piece takes.
#[derive(Debug, Clone)]
pub struct Piece {
    /// What is done.
    pub name: &'static str,
    /// The median over all batches.
    pub each: Duration,
    /// From the fastest batch to the slowest, as a part of the median.
    pub spread: f64,
}

/// Times all of them, with certificates in `folder`.
///
/// # Errors
/// When one of them does not work.
pub fn run(folder: &Path) -> Result<Vec<Piece>> {
    let folder = folder.join("pieces");
    let _ = std::fs::remove_dir_all(&folder);
    let _material = Material::create(&folder, Key::Ecdsa);
    let config = Folder::of(&folder, End::Client).mesh(End::Client, true)?;
    let leaf = CertificateDer::from_pem_file(folder.join("front/server.pem"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let load = || runtime.block_on(Loaded::load(&config));
    let loaded = load()?;
    let (policy, front) = (Policy::from_rules([("front", format!("/{SERVICE}/*"))])?, front()?);
    let path = format!("/{SERVICE}/Echo");
    Ok(vec![
        piece("read, check and build a generation, and try it", || load().map(drop).map_err(Into::into))?,
        piece("a full mutual handshake in memory, both ends", || Ok(loaded.handshake()?))?,
        piece("who a leaf says it is", || loaded.identity(&leaf).map(drop).map_err(|e| anyhow!(e)))?,
        piece("whether policy allows a call", || match policy.allows(&front, &path) {
            true => Ok(()),
            false => Err(anyhow!("policy refuses what it names")),
        })?,
    ])
}

fn front() -> Result<Identity> {
    let (trust_domain, role) = (TrustDomain::default(), Role::new(End::Client.role())?);
    Ok(Identity::Node { trust_domain, role, node: NodeId::new(&End::Client.node())? })
}

fn piece(name: &'static str, work: impl Fn() -> Result<()>) -> Result<Piece> {
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        times.push(batch(&work)?);
    }
    times.sort();
    let (each, spread) = (times[BATCHES / 2], times[BATCHES - 1] - times[0]);
    Ok(Piece { name, each, spread: spread.as_secs_f64() / each.as_secs_f64() })
}

fn batch(work: impl Fn() -> Result<()>) -> Result<Duration> {
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < BATCH {
        // The clock is read for every 16th: some pieces take no longer than it does.
        for _ in 0..16 {
            std::hint::black_box(work()?);
        }
        count += 16;
    }
    Ok(began.elapsed() / count)
}
