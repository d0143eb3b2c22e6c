//! Certificates for a cluster: those that are there, or new ones.
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rcgen::SanType;
use time::OffsetDateTime;

use super::plan::Plan;
use crate::certs::authority::{Facts, date};
use crate::certs::init;
use crate::lifetime;

/// How long leaves are valid that `up` makes.
const DAYS: u32 = 90;

/// Makes what is missing of what is ours to make, and looks at what is there.
pub(super) fn ensure(plan: &Plan) -> anyhow::Result<()> {
    if !plan.own_edge && !plan.own_mesh {
        return Ok(());
    }
    let (certs, now) = (plan.dir.join("certs"), OffsetDateTime::now_utc());
    match (certs.join("edge").exists(), certs.join("mesh").exists()) {
        (true, true) => complete(plan, &certs, now),
        (false, false) => make(plan, &certs, now),
        (edge, _) => {
            let (there, missing) = if edge { ("edge", "mesh") } else { ("mesh", "edge") };
            bail!(
                "{} has {there} certificates but none for {missing}; put them back, or remove the folder to have both made",
                certs.display()
            )
        }
    }
}

fn make(plan: &Plan, certs: &Path, now: OffsetDateTime) -> anyhow::Result<()> {
    let args = init::Args {
        out: certs.to_owned(),
        cn: super::plan::HOST.to_owned(),
        san: plan.dialled().iter().map(ToString::to_string).collect(),
        layout: init::Layout::Mesh,
        data_nodes: data_nodes(plan)?,
        trust_domain: plan.trust_domain.clone(),
        nodes: None,
        if_missing: false,
        and_say: None,
        validity: init::Validity { days: DAYS, valid_for: None },
    };
    args.make(now)
}

fn complete(plan: &Plan, certs: &Path, now: OffsetDateTime) -> anyhow::Result<()> {
    let mesh = certs.join("mesh");
    let added =
        init::add_missing(&mesh, &plan.trust_domain, &init::members(data_nodes(plan)?)?, lifetime::days(DAYS), now)?;
    let nodes = plan.nodes.iter().filter(|_| plan.own_mesh).map(|node| mesh.join(&node.name));
    let edge = Some(certs.join("edge")).filter(|_| plan.own_edge && plan.tls_mode > 0);
    nodes.chain(edge).try_for_each(|folder| fresh(&folder.join("server.pem"), plan, now))?;
    if plan.own_edge && plan.tls_mode > 0 {
        names(&certs.join("edge/server.pem"), plan)?;
    }
    for node in added {
        println!("made a certificate for {node}, which had none");
    }
    Ok(())
}

/// A client verifies what it dials.
fn names(leaf: &Path, plan: &Plan) -> anyhow::Result<()> {
    let Some(address) = plan.dialled() else { return Ok(()) };
    ensure!(
        Facts::of_file(leaf)?.request.sans.contains(&SanType::IpAddress(address)),
        "{} does not name {address}, so clients that dial it would refuse it; move {} away to have certificates made that do, or name another --dir",
        leaf.display(),
        plan.dir.join("certs").display()
    );
    Ok(())
}

fn fresh(leaf: &Path, plan: &Plan, now: OffsetDateTime) -> anyhow::Result<()> {
    let not_after = Facts::of_file(leaf)?.not_after;
    ensure!(
        now < not_after,
        "{} expired on {}; replace it: meshctl certs renew --dir {}",
        leaf.display(),
        date(not_after),
        plan.dir.display()
    );
    Ok(())
}

fn data_nodes(plan: &Plan) -> anyhow::Result<u16> {
    u16::try_from(plan.nodes.len() - 2).context("too many data-nodes")
}
