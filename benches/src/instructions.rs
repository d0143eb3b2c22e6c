//! How many instructions a call takes, counted by valgrind's callgrind: a count does not jitter, whatever else the machine does.
//!
//! Client and server are in one process, on one thread. Two runs of different length are counted, and what they differ by is
//! what the calls between them took: start, handshake and end fall away. The kernel's part is not counted.
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use test_util::authority::Key;

use crate::echo::Wire as _;
use crate::ends::{self, BareDialler, Dialler, MeshDialler, StockDialler};
use crate::material::Material;
use crate::scenario::{Scenario, named};
use crate::variant::Variant;

/// Calls of the two runs.
const SHORT: u32 = 500;
const LONG: u32 = 2_500;
/// What is counted.
pub const VARIANTS: [Variant; 5] = [Variant::Tonic, Variant::TonicTls, Variant::Plain, Variant::Bare, Variant::Mesh];
/// On what.
pub const SCENARIO: &str = "unary-64b-c1";

/// Instructions of one call, client and server together.
///
/// # Errors
/// When valgrind is not installed, or a run fails.
pub fn count(variant: Variant, folder: &Path) -> Result<u64> {
    let (short, long) = (counted(variant, SHORT, folder)?, counted(variant, LONG, folder)?);
    Ok(long.saturating_sub(short) / u64::from(LONG - SHORT))
}

fn counted(variant: Variant, calls: u32, folder: &Path) -> Result<u64> {
    let (own, out) = (std::env::current_exe()?, folder.join("callgrind.out"));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]).arg(format!("--callgrind-out-file={}", out.display())).arg(own);
    command.args(["in-one", &variant.name(), &calls.to_string()]).current_dir(folder);
    let said = command.output().context("valgrind does not start; `apt-get install valgrind` brings it")?;
    if !said.status.success() {
        bail!("counting {} failed: {}", variant.name(), String::from_utf8_lossy(&said.stderr));
    }
    total(&std::fs::read_to_string(&out)?).context("callgrind told no total")
}

/// The line `totals:`, or `summary:` in older versions.
fn total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")));
    line?.split_whitespace().next()?.parse().ok()
}

/// Client and server in this process, and so many calls, one after the other. Certificates are made in `folder`.
///
/// # Errors
/// The first call that failed.
pub fn in_one(variant: Variant, calls: u32, folder: &Path) -> Result<()> {
    let folder = folder.join("in-one");
    let _ = std::fs::remove_dir_all(&folder);
    let _material = Material::create(&folder, Key::Ecdsa);
    let scenario = named(SCENARIO).context("the scenario is there")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(both(variant, scenario, calls, folder))
}

async fn both(variant: Variant, scenario: &Scenario, calls: u32, folder: std::path::PathBuf) -> Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let at = folder.clone();
    let tell = |address| {
        let _ = tell.send(address);
    };
    tokio::spawn(async move { ends::serve(variant, &at, tell, std::future::pending()).await });
    let address = told.await.context("the server did not start")?;
    match variant {
        Variant::Tonic => work(StockDialler::new(address, None)?, scenario, calls).await,
        Variant::TonicTls => work(StockDialler::new(address, Some(&folder))?, scenario, calls).await,
        Variant::Plain => work(MeshDialler::open(address, None).await?, scenario, calls).await,
        Variant::Mesh => work(MeshDialler::open(address, Some(&folder)).await?, scenario, calls).await,
        other => work(BareDialler::new(other, address, &folder)?, scenario, calls).await,
    }
}

async fn work(dialler: impl Dialler, scenario: &Scenario, calls: u32) -> Result<()> {
    let wire = dialler.dial().await?;
    for _ in 0..calls {
        wire.ask(scenario.ask()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_what_callgrind_writes() {
        assert_eq!(total("version: 1\nevents: Ir\nfn=(1)\n1 2\ntotals: 123456\n"), Some(123_456));
        assert_eq!(total("events: Ir\nsummary: 7\n"), Some(7));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn calls_within_one_process_work() {
        let folder = tempfile::tempdir().unwrap();
        VARIANTS.iter().for_each(|variant| in_one(*variant, 3, folder.path()).unwrap());
    }
}
