//! `ca rotate --adopt`: the CA that comes is one that is there already, most often because every file was replaced by its own.
//!
//! What was replaced on disk is still served, held back for the sake of peers: so the CA of now is read from what the
//! processes tell, not from the disk. With both known the roll-over is the usual one, and the union is its first step. Pure but for
//! [`authority`].
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use time::OffsetDateTime;

use super::bundle::Bundle;
use crate::certs::authority::Authority;
use crate::status::document::{Document, ProcessStatus};

/// The CA in `dir`: a folder with ca.pem and ca.key, or one that `certs init` made.
///
/// # Errors
/// When it is not there, or cannot sign.
pub fn authority(dir: &Path, now: OffsetDateTime) -> anyhow::Result<Authority> {
    let places = [dir.to_path_buf(), dir.join("mesh"), dir.join("certs/mesh")];
    let is_whole = |place: &&PathBuf| place.join("ca.key").is_file() && place.join("ca.pem").is_file();
    let place = places.iter().find(is_whole).with_context(|| {
        format!(
            "there is no CA to adopt in {}: expected ca.pem and ca.key there, or in its folder mesh; leaves are signed anew by it, so the key is needed",
            dir.display()
        )
    })?;
    Authority::load(place, now)
}

/// The CA that every process serves now: the first of its bundle. `new` is the one that comes.
///
/// # Errors
/// Who tells nothing, or another one.
pub fn in_use(document: &Document, new: &str) -> anyhow::Result<Bundle> {
    let mut found: Option<(&str, Bundle)> = None;
    for process in &document.processes {
        let bundle = served(process, new)?;
        match &found {
            Some((node, first)) if first.signer() != bundle.signer() => bail!(
                "{node} and {} serve bundles that begin with different CAs, so it cannot be told which one goes; end the roll-over that is under way, or put one bundle into both",
                process.node
            ),
            Some(_) => {}
            None => found = Some((&process.node, bundle)),
        }
    }
    found
        .map(|(_, bundle)| bundle)
        .context("no process of the cluster told what it serves; start it, or look at its log")
}

fn served(process: &ProcessStatus, new: &str) -> anyhow::Result<Bundle> {
    if let Some(error) = &process.error {
        bail!("{} does not tell its status ({error}); start it again, or look at its log", process.node);
    }
    let old = process.cas.iter().find(|ca| ca.sha256 != new);
    let old = old.with_context(|| {
        format!("{} serves no CA but the one to adopt: there is nothing left to take out", process.node)
    })?;
    let bundle =
        Bundle::of_hex(&old.der).with_context(|| format!("{} does not tell the CA that it serves", process.node))?;
    ensure!(bundle.signer() == old.sha256, "{} tells a CA that is not the one of its fingerprint", process.node);
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::certs::authority::KeyKind;

    fn ca(name: &str) -> Bundle {
        let ca = Authority::create(name, KeyKind::EcP256, OffsetDateTime::now_utc()).unwrap();
        Bundle::parse(ca.cert_pem()).unwrap()
    }

    fn told(ca: &Bundle) -> Value {
        let der: String = ca.signer_der().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"subject": "CN=CA", "sha256": ca.signer(), "der": der})
    }

    fn document(nodes: &[&[&Bundle]]) -> Document {
        let process = |(nth, cas): (usize, &&[&Bundle])| {
            let cas: Vec<_> = cas.iter().map(|ca| told(ca)).collect();
            json!({"role": "proxy", "node": format!("p-{nth}"), "cas": cas})
        };
        let processes: Vec<_> = nodes.iter().enumerate().map(process).collect();
        serde_json::from_value(json!({"processes": processes, "connections": []})).unwrap()
    }

    fn refusal(document: &Document, new: &Bundle) -> String {
        format!("{:#}", in_use(document, new.signer()).unwrap_err())
    }

    #[test]
    fn the_ca_in_use_is_what_all_processes_serve() {
        let (old, other, new) = (ca("old"), ca("other"), ca("new"));
        let found = in_use(&document(&[&[&old, &other], &[&old], &[&new, &old]]), new.signer()).unwrap();
        assert_eq!(found.fingerprints(), [old.signer()]);
    }

    #[test]
    fn what_is_not_told_by_all_is_not_guessed() {
        let (old, other, new) = (ca("old"), ca("other"), ca("new"));
        assert!(refusal(&document(&[&[&old], &[&other]]), &new).contains("p-0 and p-1"));
        assert!(refusal(&document(&[&[&old], &[&new]]), &new).contains("p-1 serves no CA but the one to adopt"));
        assert!(refusal(&document(&[]), &new).contains("no process"));
        let mut silent = document(&[&[&old]]);
        silent.processes[0].error = Some("refused".to_owned());
        assert!(refusal(&silent, &new).contains("p-0 does not tell its status (refused)"));
        let mut forged = document(&[&[&old]]);
        forged.processes[0].cas[0].der = told(&other)["der"].as_str().unwrap().to_owned();
        assert!(refusal(&forged, &new).contains("not the one of its fingerprint"));
    }

    #[test]
    fn a_folder_without_a_key_is_no_ca() {
        let dir = tempfile::tempdir().unwrap();
        let missing = format!("{:#}", authority(dir.path(), OffsetDateTime::now_utc()).map(|_| ()).unwrap_err());
        assert!(missing.contains("ca.key"), "{missing}");
    }
}
