//! A test in user and mount namespaces of its own, where it may take away what the kernel grants, and mount a small disk.
//!
//! 1. The test runs itself once more, alone, by `unshare`; nobody else on the machine is touched, and no privilege is needed.
//! 2. Where the kernel forbids it, the test goes on without what needs it, and says so in a line that no harness hides.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use test_util::command::program;
use test_util::process::Process;

use crate::fixtures::not_run;

/// Set within.
const MARK: &str = "ROTATION_NAMESPACE";
const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--mount"];

/// Where a test finds itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Within: everything may be tried.
    Inside,
    /// Without, because the kernel allows no namespaces.
    Outside,
    /// The whole test has run within, and passed.
    Done,
}

/// Runs the test of this name within, unless this is within already. `parts` is what cannot be tried without.
pub(crate) fn enter(test: &str, parts: &str, longest: Duration) -> Place {
    if std::env::var_os(MARK).is_some() {
        return Place::Inside;
    }
    if let Err(why) = allowed() {
        not_run(parts, &format!("user namespaces are not to be had ({why}); allow them, or run as root"));
        return Place::Outside;
    }
    run(test, longest);
    Place::Done
}

fn allowed() -> Result<(), String> {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("unshare").is_file()));
    if !there {
        return Err("unshare of util-linux is not installed".into());
    }
    let tries = "mount -t tmpfs -o size=64k none /mnt && echo 1000 > /proc/sys/user/max_inotify_watches";
    let said = program("unshare").args(UNSHARE).args(["sh", "-c", tries]).run();
    if said.success { Ok(()) } else { Err(said.text().trim().to_owned()) }
}

fn run(test: &str, longest: Duration) {
    let scratch = TempDir::with_prefix("namespace-").unwrap();
    let mut command = Command::new("unshare");
    command.args(UNSHARE).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(MARK, "1");
    let mut within = Process::spawn(test, command, &scratch.path().join("log"));
    let ended = within.wait(longest);
    let said = within.log();
    assert!(ended.success() && said.contains("1 passed"), "{test}, in a namespace of its own: {ended}\n{said}");
    println!("{said}");
}

/// How many folders processes of this namespace may watch, or how many watchers they may have. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Inotify {
    limit: PathBuf,
    before: String,
}

impl Inotify {
    /// No folder more is watched.
    pub(crate) fn without_watches() -> Self {
        Self::none("max_inotify_watches")
    }

    /// No process more gets a watcher.
    pub(crate) fn without_instances() -> Self {
        Self::none("max_inotify_instances")
    }

    fn none(name: &str) -> Self {
        let limit = Path::new("/proc/sys/user").join(name);
        let before = fs::read_to_string(&limit).unwrap();
        fs::write(&limit, "0").unwrap();
        Self { limit, before }
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        fs::write(&self.limit, &self.before).unwrap();
    }
}

/// A small disk over a folder that is there.
pub(crate) fn mount(folder: &Path, size: &str) {
    let said =
        program("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "none"]).args([folder]).run();
    assert!(said.success, "{}", said.text());
}

/// All the room that a disk has left, taken. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Ballast(PathBuf);

impl Ballast {
    /// Fills the disk of this folder.
    pub(crate) fn fill(folder: &Path) -> Self {
        let ballast = Self(folder.join(".ballast"));
        ballast.more();
        ballast
    }

    /// So many bytes are to be had again.
    pub(crate) fn give_back(&self, bytes: u64) {
        let file = fs::OpenOptions::new().write(true).open(&self.0).unwrap();
        let taken = file.metadata().unwrap().len();
        file.set_len(taken.saturating_sub(bytes)).unwrap();
    }

    fn more(&self) {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        let full = std::iter::repeat_with(|| file.write_all(&[7; 4096])).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}
