//! `ca rotate`: the steps, in their order.
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rcgen::{DistinguishedName, DnType, DnValue};
use time::OffsetDateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::adopt;
use super::bundle::Bundle;
use super::crl;
use super::journal::{Journal, Lock, Step};
use super::lag::{Wanted, behind};
use super::site::Site;
use crate::certs::authority::{Authority, Facts, date};
use crate::certs::init::Validity;
use crate::cluster::Cluster;
use crate::{lifetime, status};

/// How often processes are asked while one is behind.
const PACE: Duration = Duration::from_millis(250);

/// The arguments of `ca rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  meshctl ca rotate --dir .mesh\n\n\
    The steps: 1 the new CA goes into every bundle, 2 every process serves that bundle, 3 every leaf is signed anew, \
    4 every live connection is of the new leaves, 5 the old CA goes out of every bundle, 6 all of it is verified. No call fails.\n\n\
    It goes on past nobody: a process that is behind is named, with what to do. After that, after Ctrl-C or a crash, run the \
    same command again: it goes on where it stopped. Until then the cluster serves as it is, and DIR/ca-rotation holds the new \
    CA's key; there is no way back, and none is needed.\n\n\
    Were all files replaced at once by those of another CA? Then every process holds them back, for they would cut off its peers. \
    `--adopt DIR` goes to that CA: DIR is its folder, and may be the cluster's own certs folder, where it lies now. Both CAs go into \
    every bundle first.\n\n\
    It is the mesh's CA that is replaced. The edge's is another: its clients trust it by a file of theirs. Where \
    internaltls.crlPath is set, the new CA comes with a list that revokes nothing, good for 30 days: sign the next before then.")]
pub struct Args {
    /// The cluster's folder
    #[arg(long, default_value = ".mesh", value_name = "DIR")]
    pub dir: PathBuf,
    /// How long one step may wait for a process that is behind: 20s, 15m
    #[arg(long, default_value = "2m", value_name = "DURATION", value_parser = lifetime::parse)]
    pub wait: Duration,
    /// Go to the CA in this folder (ca.pem and ca.key) instead of to a new one
    #[arg(long, value_name = "DIR")]
    pub adopt: Option<PathBuf>,
    #[command(flatten)]
    pub validity: Validity,
}

impl Args {
    /// Walks the steps that are left.
    ///
    /// # Errors
    /// Who is behind, or what cannot be read or written; every time with what to do.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.walk())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn walk(&self) -> anyhow::Result<()> {
        let site = Site::find(&self.dir, &Cluster::read(&self.dir)?)?;
        let _lock = Lock::take(&self.dir)?;
        let mut walk = Walk { args: self, site, interrupts: signal(SignalKind::interrupt())? };
        let journal = match Journal::open(&self.dir)? {
            Some(journal) => walk.resume(journal)?,
            None => walk.begin().await?,
        };
        walk.go_on(journal).await.with_context(|| {
            format!("stopped; when that is mended, `meshctl ca rotate --dir {}` goes on from here", self.dir.display())
        })
    }
}

struct Walk<'a> {
    args: &'a Args,
    site: Site,
    interrupts: Signal,
}

impl Walk<'_> {
    fn resume(&self, journal: Journal) -> anyhow::Result<Journal> {
        let new = journal.state().new.clone();
        if let Some(dir) = &self.args.adopt {
            let adopted = adopt::authority(dir, OffsetDateTime::now_utc())?;
            ensure!(
                Bundle::parse(adopted.cert_pem())?.signer() == new,
                "a roll-over to another CA, {}, is under way; end it first: the same command without --adopt",
                short(&new)
            );
        }
        crate::note(&format!("going on with the roll-over to the CA {}", short(&new)));
        Ok(journal)
    }

    /// Nothing is touched unless everything is in order before.
    async fn begin(&mut self) -> anyhow::Result<Journal> {
        if let Some(dir) = &self.args.adopt {
            return self.begin_adoption(dir).await;
        }
        let old = self.site.bundle()?;
        let in_order = Wanted { with: vec![old.signer().to_owned()], ..self.leaves()? };
        self.wait(|_| Ok(in_order.clone())).await.context("nothing was changed, for the cluster is not in order")?;
        let new = successor(&old, OffsetDateTime::now_utc())?;
        Journal::begin(&self.args.dir, &old, &new)
    }

    /// The disk may be anything; what counts is that every process tells what it serves.
    async fn begin_adoption(&self, dir: &Path) -> anyhow::Result<Journal> {
        let new = adopt::authority(dir, OffsetDateTime::now_utc())?;
        let told = status::collect(&Cluster::read(&self.args.dir)?).await;
        let old = adopt::in_use(&told, Bundle::parse(new.cert_pem())?.signer()).context("nothing was changed")?;
        Journal::begin(&self.args.dir, &old, &new)
    }

    async fn go_on(&mut self, mut journal: Journal) -> anyhow::Result<()> {
        loop {
            match journal.state().step {
                Step::Add => self.add(&mut journal)?,
                Step::Renew => self.renew(&mut journal).await?,
                Step::Remove => self.remove(&mut journal).await?,
                Step::Verify => return self.verify(journal).await,
            }
        }
    }

    fn add(&self, journal: &mut Journal) -> anyhow::Result<()> {
        let (now, count) = (OffsetDateTime::now_utc(), self.site.len());
        crate::note(&format!(
            "[1/6] the new CA, {}, goes into the bundles of {count} nodes, beside the old one",
            short(&journal.state().new)
        ));
        let new = journal.authority(now)?;
        self.site.crls.iter().try_for_each(|at| crl::bring(at, &new, now))?;
        self.site.add(&journal.old()?, &Bundle::parse(new.cert_pem())?)?;
        journal.advance(Step::Renew)
    }

    async fn renew(&mut self, journal: &mut Journal) -> anyhow::Result<()> {
        crate::note("[2/6] every process serves that bundle");
        let with = vec![journal.state().new.clone()];
        self.wait(|_| Ok(Wanted { with: with.clone(), ..Wanted::default() })).await?;
        let now = OffsetDateTime::now_utc();
        let mut new = journal.authority(now)?;
        new.vouch_for(journal.old()?.signer_der()?);
        crate::note(&format!("[3/6] the leaves of {} nodes are signed anew", self.site.len()));
        self.site.sign_by(&new)?;
        self.site.renew(&new, self.args.validity.duration(), now)?;
        journal.advance(Step::Remove)
    }

    async fn remove(&mut self, journal: &mut Journal) -> anyhow::Result<()> {
        crate::note("[4/6] every live connection is of the new leaves");
        let with = vec![journal.state().new.clone()];
        self.wait(|walk| Ok(Wanted { with: with.clone(), ..walk.leaves()? })).await?;
        crate::note("[5/6] the old CA goes out of every bundle");
        self.site.remove(&journal.state().old)?;
        journal.advance(Step::Verify)
    }

    async fn verify(&mut self, journal: Journal) -> anyhow::Result<()> {
        crate::note("[6/6] all of it is verified");
        let (with, without) = (vec![journal.state().new.clone()], vec![journal.state().old.clone()]);
        self.wait(|walk| Ok(Wanted { with: with.clone(), without: without.clone(), ..walk.leaves()? })).await?;
        let anchors = self.site.bundle()?.first();
        self.site.verify(&anchors, &without[0])?;
        self.site.crls.iter().try_for_each(|at| crl::take_away(at, &without[0]))?;
        journal.finish(&self.args.dir)?;
        crate::note(&format!("done: every node and every connection of the mesh is of the CA {}", short(&with[0])));
        Ok(())
    }

    /// Read off the disk each time: another renewal may come between.
    fn leaves(&self) -> anyhow::Result<Wanted> {
        Ok(Wanted { leaves: Some(self.site.serials()?), ..Wanted::default() })
    }

    /// Until nobody is behind.
    async fn wait(&mut self, wanted: impl Fn(&Self) -> anyhow::Result<Wanted>) -> anyhow::Result<()> {
        let (deadline, mut told) = (Instant::now() + self.args.wait, Vec::new());
        loop {
            let late = late(&self.args.dir, &wanted(self)?).await;
            if late.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{}", too_late(self.args.wait, &late));
            }
            tell_once(&late, &mut told);
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                _ = self.interrupts.recv() => bail!("interrupted"),
            }
        }
    }
}

/// Who is behind now. A cluster that is down, or just comes up again, is behind as a whole.
async fn late(dir: &Path, wanted: &Wanted) -> Vec<String> {
    match Cluster::read(dir) {
        Ok(cluster) => behind(&status::collect(&cluster).await, wanted),
        Err(error) => vec![format!("{error:#}")],
    }
}

fn too_late(wait: Duration, late: &[String]) -> String {
    let lines: String = late.iter().map(|line| format!("\n  {line}")).collect();
    format!("behind after {} s:{lines}", wait.as_secs())
}

/// A line whenever other processes are waited for than before.
fn tell_once(late: &[String], told: &mut Vec<String>) {
    let names: Vec<_> = late.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    if names != *told {
        crate::note(&format!("      waiting for {}", names.join(", ")));
        *told = names;
    }
}

/// A new CA with a key of the same kind, named after the one before and this moment: CRLs and logs tell CAs apart by their names.
fn successor(old: &Bundle, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let der = old.signer_der()?;
    let request = Facts::read(&der, Path::new("the CA of now"))?.request;
    let name = common_name_of(&request.subject).unwrap_or_else(|| "mesh CA".to_owned());
    let stem = name.split(" of 2").next().unwrap_or_default();
    Authority::create(&format!("{stem} of {}", date(now)), request.key, now)
}

fn common_name_of(subject: &DistinguishedName) -> Option<String> {
    match subject.get(&DnType::CommonName)? {
        DnValue::Utf8String(name) => Some(name.clone()),
        DnValue::PrintableString(name) => Some(name.as_str().to_owned()),
        _ => None,
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..16).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::authority::KeyKind;

    fn name(ca: &Authority) -> String {
        let der = Bundle::parse(ca.cert_pem()).unwrap().signer_der().unwrap();
        common_name_of(&Facts::read(&der, Path::new("it")).unwrap().request.subject).unwrap()
    }

    #[test]
    fn a_successor_keeps_the_name_and_tells_its_time() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let first = Authority::create("mesh.internal CA", KeyKind::EcP256, at(1_800_000_000)).unwrap();
        let second = successor(&Bundle::parse(first.cert_pem()).unwrap(), at(1_800_000_000)).unwrap();
        assert_eq!(name(&second), "mesh.internal CA of 2027-01-15T08:00:00Z");
        let third = successor(&Bundle::parse(second.cert_pem()).unwrap(), at(1_800_000_001)).unwrap();
        assert_eq!(name(&third), "mesh.internal CA of 2027-01-15T08:00:01Z");
        for kind in [KeyKind::EcP384, KeyKind::Rsa3072] {
            let first = Authority::create("CA", kind, at(1_800_000_000)).unwrap();
            let next = successor(&Bundle::parse(first.cert_pem()).unwrap(), at(1_800_000_000)).unwrap();
            let der = Bundle::parse(next.cert_pem()).unwrap().signer_der().unwrap();
            assert_eq!(Facts::read(&der, Path::new("it")).unwrap().request.key, kind);
        }
    }
}
