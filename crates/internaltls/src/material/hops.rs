//! The folders in which a change of a file can show itself.
//!
//! A file is often a symlink to a symlink: `server.pem` → `..data/server.pem`, and `..data` → `..2026-…/`. The swap
//! happens in the folder of one of these hops, which need not be the file's. So each hop's folder is watched, with
//! symlinks in it resolved, since the kernel watches folders and not names.
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows.
const SYMLINKS: usize = 40;

/// The real folder of every hop from this path to its file. What is not there yet counts by its nearest folder.
pub(super) fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(path) = std::path::absolute(path) else {
        return found;
    };
    let mut at = PathBuf::from("/");
    let mut names = names(&path);
    let mut left = SYMLINKS;
    while let Some(name) = names.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        match std::fs::read_link(&next) {
            Ok(target) if left > 0 => {
                found.insert(at.clone());
                left -= 1;
                at = if target.is_absolute() { PathBuf::from("/") } else { at };
                prepend(&mut names, &target);
            }
            _ if next.is_dir() => at = next,
            // The file itself, or where the path breaks off.
            _ => break,
        }
    }
    found.insert(at);
    found
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

fn prepend(names: &mut VecDeque<OsString>, target: &Path) {
    let mut all = self::names(target);
    all.append(names);
    *names = all;
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_the_folder_of_every_hop() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        for folder in ["named", "hop", "store/1"] {
            fs::create_dir_all(at.join(folder)).unwrap();
        }
        fs::write(at.join("store/1/a.pem"), "x").unwrap();
        symlink("../store/1", at.join("hop/live")).unwrap();
        symlink(at.join("hop/live/a.pem"), at.join("named/a.pem")).unwrap();
        let expected = ["hop", "named", "store/1"].map(|name| at.join(name));
        assert_eq!(folders(&at.join("named/a.pem")).into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_path_that_breaks_off_counts_by_its_nearest_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        assert_eq!(folders(&at.join("not/yet/a.pem")), BTreeSet::from([at]));
    }

    #[test]
    fn a_loop_ends() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().canonicalize().unwrap();
        symlink(at.join("b"), at.join("a")).unwrap();
        symlink(at.join("a"), at.join("b")).unwrap();
        assert_eq!(folders(&at.join("a")), BTreeSet::from([at]));
    }
}
