//! The new CA's revocation list, which it needs where lists are read: a CA without one vouches for nobody.
//!
//! It revokes nothing, and is there before the CA is. A folder gets a file of its own; a file gets one more block.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use time::OffsetDateTime;

use super::bundle::Bundle;
use crate::certs::authority::Authority;
use crate::certs::dir::Dir;
use crate::certs::folder::{self, NewFile};

/// How long the list is good; its owner signs the next one before then.
pub const GOOD_FOR: Duration = Duration::from_secs(30 * 86_400);

/// Puts the list of `authority` where `at` is read. Nothing, where it is there already.
///
/// # Errors
/// When it cannot be signed, read or written.
pub fn bring(at: &Path, authority: &Authority, now: OffsetDateTime) -> anyhow::Result<()> {
    let signer = Bundle::parse(authority.cert_pem())?.signer().to_owned();
    if at.is_dir() { into_folder(at, &signer, authority, now) } else { into_file(at, &signer, authority, now) }
}

/// Takes away the list that an earlier roll-over brought for the CA `old`, from a folder.
///
/// # Errors
/// When it cannot be removed.
pub fn take_away(at: &Path, old: &str) -> anyhow::Result<()> {
    let path = file_of(at, old);
    if !path.is_file() {
        return Ok(());
    }
    fs::remove_file(&path).with_context(|| format!("could not remove {}", path.display()))
}

fn into_folder(at: &Path, signer: &str, authority: &Authority, now: OffsetDateTime) -> anyhow::Result<()> {
    if file_of(at, signer).is_file() {
        return Ok(());
    }
    let name = file_of(Path::new(""), signer).display().to_string();
    folder::replace(at, vec![NewFile::public(&name, &authority.empty_crl(GOOD_FOR, now)?)], now)
}

fn into_file(at: &Path, signer: &str, authority: &Authority, now: OffsetDateTime) -> anyhow::Result<()> {
    let mark = format!("# of the CA {signer}");
    let cannot = || format!("could not read {}; internaltls.crlPath must name PEM here", at.display());
    let folder = at.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Opened once: what is read is what is replaced, and no link of a service is read through.
    let dir = Dir::open(folder)?;
    let before = dir.read(at.file_name().with_context(cannot)?).with_context(cannot)?.bytes;
    let before = String::from_utf8(before).with_context(cannot)?;
    if before.contains(&mark) {
        return Ok(());
    }
    let text = format!("{}\n{mark}\n{}", before.trim_end(), authority.empty_crl(GOOD_FOR, now)?);
    let name = at.file_name().unwrap_or_default().to_string_lossy();
    folder::replace_in(&dir, &[NewFile::public(&name, &text)], now)
}

fn file_of(folder: &Path, ca: &str) -> PathBuf {
    folder.join(format!("ca-{}.crl.pem", ca.get(..16).unwrap_or(ca)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::authority::KeyKind;

    fn ca(name: &str) -> Authority {
        Authority::create(name, KeyKind::EcP256, OffsetDateTime::now_utc()).unwrap()
    }

    fn lists(text: &str) -> usize {
        text.matches("BEGIN X509 CRL").count()
    }

    #[test]
    fn a_folder_gets_one_file_and_loses_it_again() {
        let (dir, ca, now) = (tempfile::tempdir().unwrap(), ca("new"), OffsetDateTime::now_utc());
        bring(dir.path(), &ca, now).unwrap();
        bring(dir.path(), &ca, now).unwrap();
        let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(lists(&fs::read_to_string(&files[0]).unwrap()), 1);
        take_away(dir.path(), Bundle::parse(ca.cert_pem()).unwrap().signer()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_gets_one_more_block_and_keeps_the_others() {
        let (dir, old, new) = (tempfile::tempdir().unwrap(), ca("old"), ca("new"));
        let (path, now) = (dir.path().join("all.crl"), OffsetDateTime::now_utc());
        let first = old.empty_crl(GOOD_FOR, now).unwrap();
        fs::write(&path, &first).unwrap();
        bring(&path, &new, now).unwrap();
        bring(&path, &new, now).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(first.trim_end()) && lists(&text) == 2, "{text}");
    }
}
