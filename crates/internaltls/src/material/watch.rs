//! Noticing that files changed.
//!
//! 1. What is watched is the whole way to each file: every folder that its path or a symlink leads through, for the names that
//!    are looked up in it, and the file itself. So whatever is replaced on the way, a parent of a parent too, is heard of.
//! 2. The kernel watches inodes and not names, and its answer alone says which: each turn asks for every folder again. A folder
//!    that is watched already gets its watch descriptor again; one that was removed and made anew, even with the same inode
//!    number, gets a new one, since descriptors are not used twice.
//! 3. Events are a hint. The poll reads whatever they say, since some mounts never raise one and a watch may be refused: then
//!    log, status and a metric say so, and each turn asks the kernel again.
//! 4. A turn does not know what changed. It reads everything and compares: that cannot miss.
//! 5. Reading raises no event that is asked for, or reading would never end.
//! 6. A mount over a folder raises no event in it, so a change of the mount table is one as well.
//! 7. To ask for a watch goes by a path, and may hang: each path is asked for on a thread of its own ([`reader`]).
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::fs::inotify::{self, CreateFlags, Event, ReadFlags, WatchFlags};
use tokio::sync::Notify;

use super::hops::{End, Folder, walk};
use super::reader::{self, Unanswered};
use super::status::{WatchState, WatchStatus};
use super::store::Reloaded;
use super::trusted::unanswered_at;
use crate::config::Reload;
use crate::error::LoadError;

/// A burst that does not end is a reason to look, too: after so many times the quiet that is waited for.
const LONGEST_BURST: u32 = 20;
/// How long the kernel has to answer for all paths. Less than for reading: lists must not wait for long for the watch of a policy.
const PATIENCE: Duration = Duration::from_secs(1);
/// A wait that does not end: a hundred years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Bytes of events that are read at once.
const EVENTS: usize = 4096;

/// What of a folder matters where the path only passes through it.
const PASSED: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    // Several paths may pass through one folder, each for a reason of its own.
    .union(WatchFlags::MASK_ADD);
/// What matters where the file lies.
const HOLDS: WatchFlags = PASSED.union(WatchFlags::MODIFY).union(WatchFlags::CLOSE_WRITE);

/// The watches of one store.
pub(super) struct Watch {
    debounce: Duration,
    changed: Arc<Notify>,
    kernel: Option<Arc<Kernel>>,
    /// Ends the thread that listens, by being dropped.
    listening: Option<PipeWriter>,
    /// Of each path the watches on its way, as they were when it last answered.
    armed: BTreeMap<PathBuf, Vec<Armed>>,
    /// Folders that paths pass through and that may not be watched.
    unheard: BTreeSet<PathBuf>,
    status: WatchStatus,
}

/// The kernel's side.
struct Kernel {
    inotify: Arc<OwnedFd>,
    /// Whether nobody listens any more.
    deaf: AtomicBool,
    interests: Mutex<BTreeMap<i32, Interests>>,
}

/// One watch.
#[derive(Debug, Clone)]
struct Armed {
    descriptor: i32,
    interests: Interests,
}

/// Which events of a watch matter.
#[derive(Debug, Clone, Default)]
struct Interests {
    /// All: of a file, or of a folder of which every file counts.
    all: bool,
    names: BTreeSet<OsString>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("armed", &self.armed).finish_non_exhaustive()
    }
}

impl Watch {
    /// A watch on nothing yet. `changed` is told after a burst of events has been quiet for a while.
    pub(super) fn new(reload: &Reload, changed: Arc<Notify>) -> Self {
        let state = if reload.watch { WatchState::On } else { WatchState::Off };
        Self {
            debounce: reload.debounce,
            changed,
            kernel: None,
            listening: None,
            armed: BTreeMap::new(),
            unheard: BTreeSet::new(),
            status: WatchStatus { state, reason: None },
        }
    }

    /// Whether changes are heard of.
    pub(super) fn status(&self) -> WatchStatus {
        self.status.clone()
    }

    /// Watches the ways to these paths and no others. Tells whether anything on them is new: what changed in it before now was
    /// not heard. Blocks, for a second at most where a file system does not answer.
    pub(super) fn arm(&mut self, paths: &[PathBuf]) -> bool {
        if self.status.state == WatchState::Off {
            return false;
        }
        let (any, refused) = match self.open() {
            Ok(kernel) => self.follow(&kernel, paths),
            Err(error) => (false, Some(format!("inotify: {error}"))),
        };
        self.tell(refused);
        any
    }

    /// What was refused once may be granted now.
    fn open(&mut self) -> io::Result<Arc<Kernel>> {
        if let Some(kernel) = self.kernel.as_ref().filter(|kernel| !kernel.deaf.load(Ordering::Relaxed)) {
            return Ok(Arc::clone(kernel));
        }
        let inotify = Arc::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
        let kernel = Arc::new(Kernel { inotify, deaf: AtomicBool::new(false), interests: Mutex::default() });
        let (ended, listening) = io::pipe()?;
        let listener = Listener {
            kernel: Arc::clone(&kernel),
            mounts: File::open("/proc/self/mountinfo").ok(),
            ended,
            debounce: self.debounce,
            changed: Arc::clone(&self.changed),
        };
        thread::Builder::new().name("material watch".to_owned()).spawn(move || listener.run())?;
        self.listening = Some(listening);
        self.kernel = Some(Arc::clone(&kernel));
        Ok(kernel)
    }

    fn follow(&mut self, kernel: &Kernel, paths: &[PathBuf]) -> (bool, Option<String>) {
        let deadline = Instant::now() + PATIENCE;
        let paths: BTreeSet<_> = paths.iter().collect();
        let mut asked = Vec::new();
        for path in &paths {
            let (of, inotify) = (PathBuf::clone(path), Arc::clone(&kernel.inotify));
            asked.push((PathBuf::clone(path), reader::ask(path, move || add(&inotify, &of))));
        }
        self.armed.retain(|path, _| paths.contains(path));
        let (mut refused, mut unheard) = (None, BTreeSet::new());
        for (path, asked) in asked {
            match asked.wait(deadline) {
                Ok(Added { armed, refused: why, unheard: more }) => {
                    refused = refused.or(why);
                    unheard.extend(more);
                    self.armed.insert(path, armed);
                }
                // The watches that it had stay: what is changed above a mount that hangs is heard.
                Err(none) => refused = refused.or_else(|| Some(silent(&path, none))),
            }
        }
        self.unheard = unheard;
        (kernel.publish(self.armed.values().flatten()), refused)
    }

    /// In the log once for each change, not once a turn.
    fn tell(&mut self, refused: Option<String>) {
        let failed = refused.map(|why| {
            format!("{why}; until it is readable, or fs.inotify.max_user_watches or max_user_instances is raised, the poll alone sees changes")
        });
        match (&failed, self.status.state) {
            (Some(reason), WatchState::On) => tracing::warn!(%reason, "cannot watch all folders of the material"),
            (None, WatchState::Failed) => tracing::info!("all folders of the material are watched again"),
            _ => {}
        }
        let state = if failed.is_some() { WatchState::Failed } else { WatchState::On };
        let reason = failed.or_else(|| self.only_passed());
        if let (Some(reason), WatchState::On, true) = (&reason, state, reason != self.status.reason) {
            tracing::info!(%reason, "cannot watch all folders that lead to the material");
        }
        self.status = WatchStatus { state, reason };
    }

    /// To watch a folder one must be allowed to list it, which a user of the files in it need not be.
    fn only_passed(&self) -> Option<String> {
        let folders: Vec<_> = self.unheard.iter().map(|folder| folder.display().to_string()).collect();
        (!folders.is_empty()).then(|| {
            format!(
                "{} cannot be listed, so that the poll alone sees what is replaced in it as a whole",
                folders.join(", ")
            )
        })
    }
}

/// Reads while the ways to `paths` are watched; once more where some were not watched before: they may have changed before
/// the watch was there.
pub(super) fn watched(
    watch: &mut Watch,
    paths: impl Fn() -> Vec<PathBuf>,
    mut read: impl FnMut() -> Result<Reloaded, LoadError>,
) -> Result<Reloaded, LoadError> {
    watch.arm(&paths());
    let result = read();
    if !watch.arm(&paths()) {
        return result;
    }
    match (result, read()) {
        (Ok(published @ Reloaded::Published(_)), Ok(Reloaded::Unchanged)) => Ok(published),
        (_, again) => again,
    }
}

fn silent(path: &Path, none: Unanswered) -> String {
    unanswered_at(path, none).to_string()
}

impl Kernel {
    fn interests(&self) -> MutexGuard<'_, BTreeMap<i32, Interests>> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts these watches in the place of those before. Whether any is new.
    fn publish<'a>(&self, armed: impl Iterator<Item = &'a Armed>) -> bool {
        let mut wanted: BTreeMap<i32, Interests> = BTreeMap::new();
        for Armed { descriptor, interests } in armed {
            let all = wanted.entry(*descriptor).or_default();
            all.all |= interests.all;
            all.names.extend(interests.names.iter().cloned());
        }
        let mut interests = self.interests();
        for gone in interests.keys().filter(|descriptor| !wanted.contains_key(descriptor)) {
            // The kernel removes the watch of a folder that is gone by itself.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        let any = wanted.keys().any(|descriptor| !interests.contains_key(descriptor));
        *interests = wanted;
        any
    }

    /// Whether any of the events that have come matters.
    fn read(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut any = false;
        loop {
            match events.next() {
                Ok(event) => any |= self.matters(&event),
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(any),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn matters(&self, event: &Event<'_>) -> bool {
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            // Events that were lost are a reason to look.
            return true;
        }
        match self.interests().get(&event.wd()) {
            Some(interests) => {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                interests.all || name.is_none_or(|name| interests.names.contains(name))
            }
            // The kernel's answer to the removal of a watch; anything else is of a watch that is just being armed.
            None => !event.events().contains(ReadFlags::IGNORED),
        }
    }
}

/// What asking for the watches of one path brought.
struct Added {
    armed: Vec<Armed>,
    /// What the kernel refuses, and why.
    refused: Option<String>,
    /// Folders that the path passes through and that may not be listed.
    unheard: Vec<PathBuf>,
}

/// Asks the kernel to watch the way to a path. May hang.
fn add(inotify: &OwnedFd, path: &Path) -> Added {
    let mut added = Added { armed: Vec::new(), refused: None, unheard: Vec::new() };
    let end = added.way(inotify, path);
    if let Some(End { path: folder, .. }) = end.filter(|end| end.kind() == FileType::Directory) {
        // A folder of CRLs; each of them may be a symlink to somewhere else.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                added.way(inotify, &entry.path());
            }
        }
    }
    added
}

impl Added {
    fn way(&mut self, inotify: &OwnedFd, path: &Path) -> Option<End> {
        let way = match walk(path) {
            Ok(way) => way,
            Err(error) => {
                self.refuse(path, &error);
                return None;
            }
        };
        for folder in &way.folders {
            self.folder(inotify, folder);
        }
        let end = way.end.ok()?;
        // A file that is mounted by itself is changed in no folder that can be seen from here.
        let (flags, all) = (HOLDS, Interests { all: true, names: BTreeSet::new() });
        if let Ok(descriptor) = inotify::add_watch(inotify, &end.path, flags | WatchFlags::DONT_FOLLOW) {
            self.armed.push(Armed { descriptor, interests: all });
        } else if end.kind() == FileType::Directory {
            self.refuse(&end.path, &io::ErrorKind::PermissionDenied.into());
        }
        Some(end)
    }

    fn folder(&mut self, inotify: &OwnedFd, folder: &Folder) {
        let flags = if folder.holds { HOLDS } else { PASSED };
        match inotify::add_watch(inotify, &folder.path, flags | WatchFlags::ONLYDIR) {
            Ok(descriptor) => {
                let names = folder.names.iter().cloned().collect();
                self.armed.push(Armed { descriptor, interests: Interests { all: false, names } });
            }
            // It went just now, which is heard of in the folder above.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {}
            Err(rustix::io::Errno::ACCESS) if !folder.holds => self.unheard.push(folder.path.clone()),
            Err(error) => self.refuse(&folder.path, &error.into()),
        }
    }

    fn refuse(&mut self, path: &Path, error: &io::Error) {
        self.refused.get_or_insert_with(|| format!("{}: {error}", path.display()));
    }
}

/// The thread that waits for events.
struct Listener {
    kernel: Arc<Kernel>,
    /// Ready with priority whenever the table of mounts has changed (proc(5)).
    mounts: Option<File>,
    ended: PipeReader,
    debounce: Duration,
    changed: Arc<Notify>,
}

impl Listener {
    /// Tells of bursts of events that matter, once they have been quiet.
    fn run(&self) {
        // When the burst has been quiet for long enough, and when it has lasted for too long.
        let mut burst: Option<(Instant, Instant)> = None;
        while let Ok(Some(any)) = self.wait(burst.map(|(quiet, latest)| quiet.min(latest))) {
            let now = Instant::now();
            if any {
                let longest = self.debounce.saturating_mul(LONGEST_BURST);
                let latest = burst.map_or_else(|| after(now, longest), |(_, latest)| latest);
                burst = Some((after(now, self.debounce), latest));
            }
            if burst.is_some_and(|(quiet, latest)| quiet.min(latest) <= now) {
                burst = None;
                self.changed.notify_one();
            }
        }
    }

    /// Waits until then for events. Whether any matters; `None` when the watch is no longer wanted.
    fn wait(&self, until: Option<Instant>) -> io::Result<Option<bool>> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
        let mut ready = vec![
            PollFd::from_borrowed_fd(self.ended.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.kernel.inotify.as_fd(), PollFlags::IN),
        ];
        ready.extend(self.mounts.as_ref().map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        match poll(&mut ready, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Some(false)),
            other => other?,
        };
        if !ready[0].revents().is_empty() {
            return Ok(None);
        }
        let mounted = ready.get(2).is_some_and(|mounts| mounts.revents().contains(PollFlags::PRI));
        let changed = !ready[1].revents().is_empty() && self.kernel.read()?;
        Ok(Some(changed || mounted))
    }
}

/// Where this is no orderly end, a panic too, the next turn asks the kernel for a new one.
impl Drop for Listener {
    fn drop(&mut self) {
        self.kernel.deaf.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// So long after `now`; a moment that nobody lives to see where the clock does not reach so far.
fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or_else(|| now + NEVER)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Watches without anybody who listens: events are read by the test.
    fn armed(paths: &[&Path]) -> Kernel {
        let inotify = Arc::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap());
        let kernel = Kernel { inotify, deaf: AtomicBool::new(false), interests: Mutex::default() };
        arm(&kernel, paths);
        kernel
    }

    fn arm(kernel: &Kernel, paths: &[&Path]) -> bool {
        let added: Vec<_> = paths.iter().map(|path| add(&kernel.inotify, path)).collect();
        assert!(added.iter().all(|added| added.refused.is_none()));
        kernel.publish(added.iter().flat_map(|added| &added.armed))
    }

    #[test]
    fn hears_files_and_not_their_neighbours() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("certs/server.pem");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "x").unwrap();
        let kernel = armed(&[&file]);
        assert!(!kernel.read().unwrap());
        for neighbour in ["beside", "certs/beside"] {
            fs::write(root.path().join(neighbour), "x").unwrap();
            fs::remove_file(root.path().join(neighbour)).unwrap();
        }
        fs::read(&file).unwrap();
        assert!(!kernel.read().unwrap(), "a neighbour, or reading");
        fs::write(&file, "y").unwrap();
        assert!(kernel.read().unwrap(), "the file");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(kernel.read().unwrap(), "who may enter a folder on the way");
    }

    /// One that listens, by this setting.
    fn listener(debounce: Duration) -> (Listener, PipeWriter) {
        let inotify = Arc::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap());
        let kernel = Arc::new(Kernel { inotify, deaf: AtomicBool::new(false), interests: Mutex::default() });
        let (ended, listening) = io::pipe().unwrap();
        (Listener { kernel, mounts: None, ended, debounce, changed: Arc::new(Notify::new()) }, listening)
    }

    #[test]
    fn listens_whatever_the_debounce() {
        for debounce in [Duration::MAX, Duration::MAX / 2, Duration::from_secs(u64::MAX / 40), Duration::ZERO] {
            let root = tempfile::tempdir().unwrap();
            let (listener, listening) = listener(debounce);
            let kernel = Arc::clone(&listener.kernel);
            arm(&kernel, &[&root.path().join("file")]);
            fs::write(root.path().join("file"), "x").unwrap();
            let thread = thread::spawn(move || listener.run());
            // The thread reads its events before it ends.
            let deadline = Instant::now() + Duration::from_secs(30);
            while rustix::io::ioctl_fionread(&kernel.inotify).unwrap() > 0 {
                assert!(Instant::now() < deadline && !thread.is_finished(), "events are left unread");
                thread::yield_now();
            }
            drop(listening);
            thread.join().unwrap_or_else(|_| panic!("the listener ended by {debounce:?}"));
        }
    }

    #[test]
    fn any_end_of_the_listener_is_told() {
        let (listener, _listening) = listener(Duration::ZERO);
        let kernel = Arc::clone(&listener.kernel);
        let panics = move || {
            let _listener = listener;
            panic!("on purpose")
        };
        assert!(thread::spawn(panics).join().is_err());
        assert!(kernel.deaf.load(Ordering::Relaxed));
    }

    #[test]
    fn tells_new_folder_of_same_name() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("certs/server.pem");
        let folder = file.parent().unwrap();
        fs::create_dir(folder).unwrap();
        let kernel = armed(&[&file]);
        assert!(!arm(&kernel, &[&file]), "nothing is new");
        for _ in 0..20 {
            fs::remove_dir(folder).unwrap();
            fs::create_dir(folder).unwrap();
            assert!(kernel.read().unwrap());
            assert!(arm(&kernel, &[&file]), "whatever its inode");
            kernel.read().unwrap();
            assert!(!arm(&kernel, &[&file]));
        }
    }

    #[test]
    fn hears_all_of_a_folder_of_crls() {
        let root = tempfile::tempdir().unwrap();
        let crls = root.path().join("crls");
        for folder in ["crls", "elsewhere"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("elsewhere/1.pem"), "x").unwrap();
        std::os::unix::fs::symlink("../elsewhere/1.pem", crls.join("1.pem")).unwrap();
        let kernel = armed(&[&crls]);
        fs::write(crls.join("2.pem"), "x").unwrap();
        assert!(kernel.read().unwrap(), "one more");
        arm(&kernel, &[&crls]);
        fs::write(root.path().join("elsewhere/1.pem"), "y").unwrap();
        assert!(kernel.read().unwrap(), "one that a link leads to");
    }
}
