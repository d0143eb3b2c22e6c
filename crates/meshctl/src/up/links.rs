//! Links within the cluster's folder.
//!
//! An operator may keep data or logs elsewhere and link them here. A link of anybody else would have a caller with more
//! rights write where that one chose.
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, ensure};

const ROOT: u32 = 0;

/// Who calls, as the kernel judges it.
pub(super) fn caller() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Refuses a link that neither the caller nor root made. What is no link, or not there, is not judged.
///
/// # Errors
/// When it is such a link, or cannot be looked at.
pub(super) fn refuse(path: &Path) -> anyhow::Result<()> {
    refuse_for(caller(), path)
}

fn refuse_for(caller: u32, path: &Path) -> anyhow::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        found => found.with_context(|| format!("could not look at {}", path.display()))?,
    };
    ensure!(
        !found.is_symlink() || [caller, ROOT].contains(&found.uid()),
        "{} is a link that belongs to user {}, who is neither you nor root, and what is written there would go where it \
         leads; remove it, or give --dir a folder that is yours",
        path.display(),
        found.uid()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_of_the_caller_and_of_root_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("data");
        std::os::unix::fs::symlink("/etc", &link).unwrap();
        refuse(&link).unwrap();
        // Root may give it away; anybody else is somebody else to a caller of another number.
        let owner = if caller() == ROOT { 4_711 } else { caller() };
        std::os::unix::fs::lchown(&link, Some(owner), None).unwrap();
        refuse_for(owner, &link).unwrap();
        let error = refuse_for(owner + 1, &link).unwrap_err().to_string();
        assert!(error.contains("data is a link") && error.contains("--dir"), "{error}");
        refuse_for(owner + 1, dir.path()).unwrap();
        refuse_for(owner + 1, &dir.path().join("missing")).unwrap();
    }
}
