//! From the bytes of a set to a candidate that has passed every check that needs no peer.
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::check::{Checked, check, same_layout};
use super::generation::{Generation, Purpose, Surroundings, build};
use super::in_force::InForce;
use super::parse::parse;
use super::published::Kept;
use super::source::Snapshot;
use super::status::Layout;
use super::trial;
use crate::error::LoadError;
use crate::verify::KeyRing;

/// A set that passed what can be asked of it here.
pub(super) struct Prepared {
    pub(super) generation: Generation,
    pub(super) kept: Kept,
}

/// Parses, checks, builds and tries a set under `lists`. `served` is the layout in use, `number` that of the candidate.
pub(super) fn prepare(
    snapshot: &Snapshot,
    lists: &InForce,
    around: &Surroundings,
    served: Option<&Layout>,
    number: u64,
) -> Result<Prepared, LoadError> {
    let parsed = parse(snapshot, lists, around.crl_grace)?;
    let checked = check(parsed, &around.purpose, around.clock.now())?;
    same_layout(served, &checked)?;
    let kept = Kept::of(&checked);
    let generation = tried(kept.with(checked.lists), &kept, number, around)?;
    Ok(Prepared { generation, kept })
}

/// Builds a candidate that has done a handshake in memory with itself. It knows no shared key but its own: what is accepted
/// from peers is none of its business before it is published, and built anew.
pub(super) fn tried(
    checked: Checked,
    kept: &Kept,
    number: u64,
    around: &Surroundings,
) -> Result<Generation, LoadError> {
    let ring = Arc::new(KeyRing::of(kept.keys()));
    let generation = build(checked, number, &Surroundings { ring, ..around.clone() })?;
    let failed = |source| LoadError::Trial { file: kept.server.certificate.clone(), source };
    handshake(&generation, kept.chain(), around).map_err(failed)?;
    Ok(generation)
}

fn handshake(
    generation: &Generation,
    chain: &[CertificateDer<'static>],
    around: &Surroundings,
) -> Result<(), rustls::Error> {
    match (&generation.client, &around.purpose) {
        (Some(client), Purpose::Mesh { role, .. }) => {
            trial::handshake(client, &generation.server, generation.server_name(role)).map(drop)
        }
        _ => {
            let leaf = chain.first().cloned().ok_or(rustls::Error::NoCertificatesPresented)?;
            trial::edge(leaf, Arc::clone(&generation.server.cert_resolver), around)
        }
    }
}
