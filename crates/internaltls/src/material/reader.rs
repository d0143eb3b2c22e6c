//! Calls to file systems that may never answer, each on a thread that nobody waits for.
//!
//! 1. On a hung NFS or FUSE mount every call hangs that goes by a path: stat, readlink, open, read, readdir,
//!    inotify_add_watch, unlink. So each look at a path is handed to a thread, and its answer is waited for [`PATIENCE`] long.
//! 2. A path has one thread at most, in the whole process. What is asked while it is busy queues up behind it. Once it has been
//!    busy with one call for [`PATIENCE`], whatever is asked fails at once, with an error that names the path, until it answers.
//! 3. Paths do not wait for each other: a key that hangs holds up no list.
//! 4. They are plain threads: a runtime that shuts down waits for those of `spawn_blocking`, but not for these, and a process
//!    that exits waits for neither. (In a call that the kernel does not let be killed, the process stays a zombie until the mount
//!    answers. That is the mount's doing, and no program can help it.)
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long a file system has for one call. Long beside a slow disk, and short beside an operator's.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

static LANES: Mutex<BTreeMap<PathBuf, Lane>> = Mutex::new(BTreeMap::new());

/// What the thread of one path is doing.
struct Lane {
    began: Instant,
    /// The same moment, for people.
    since: SystemTime,
    waiting: VecDeque<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The file system has been silent since then.
    Hangs(SystemTime),
    /// There is no thread to be had.
    NoThread(io::Error),
}

/// An answer that has been asked for.
#[derive(Debug)]
#[must_use]
pub(crate) struct Asked<T> {
    path: PathBuf,
    answer: Result<(Receiver<T>, Arc<()>), Unanswered>,
}

/// Asks, waits for [`PATIENCE`] at most, and gives the answer.
pub(crate) fn call<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unanswered> {
    ask(path, work).wait(Instant::now() + PATIENCE)
}

/// Has `work`, which may hang, done on the thread of `path`. It is not begun any more once the answer is no longer waited for.
pub(crate) fn ask<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> Asked<T> {
    let (sender, receiver) = sync_channel(1);
    let wanted = Arc::new(());
    let job = job(work, sender, Arc::downgrade(&wanted));
    let answer = hand_over(path, job).map(|()| (receiver, wanted));
    Asked { path: path.to_owned(), answer }
}

impl<T> Asked<T> {
    /// Waits for the answer.
    pub(crate) fn wait(self, deadline: Instant) -> Result<T, Unanswered> {
        let (receiver, _wanted) = self.answer?;
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| {
            let since = lanes().get(&self.path).map_or_else(SystemTime::now, |lane| lane.since);
            Unanswered::Hangs(since)
        })
    }
}

fn lanes() -> MutexGuard<'static, BTreeMap<PathBuf, Lane>> {
    LANES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn job<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static, sender: SyncSender<T>, wanted: Weak<()>) -> Job {
    Box::new(move || {
        if wanted.strong_count() > 0 {
            // Whoever asked may have gone since.
            let _ = sender.send(work());
        }
    })
}

fn hand_over(path: &Path, job: Job) -> Result<(), Unanswered> {
    let mut lanes = lanes();
    if let Some(lane) = lanes.get_mut(path) {
        if lane.began.elapsed() >= PATIENCE {
            return Err(Unanswered::Hangs(lane.since));
        }
        lane.waiting.push_back(job);
        return Ok(());
    }
    let of = path.to_owned();
    let run = move || {
        let _end = End(&of);
        let mut next = Some(job);
        while let Some(job) = next {
            job();
            next = next_of(&of);
        }
    };
    thread::Builder::new().name("material read".to_owned()).spawn(run).map_err(Unanswered::NoThread)?;
    let lane = Lane { began: Instant::now(), since: SystemTime::now(), waiting: VecDeque::new() };
    // The thread cannot have ended before this: it ends under the lock that is held here.
    lanes.insert(path.to_owned(), lane);
    Ok(())
}

/// The next call for this path; with none left its lane ends under the same lock, so that no call is lost between.
fn next_of(path: &Path) -> Option<Job> {
    let mut lanes = lanes();
    let lane = lanes.get_mut(path)?;
    let next = lane.waiting.pop_front();
    match next {
        Some(_) => (lane.began, lane.since) = (Instant::now(), SystemTime::now()),
        None => drop(lanes.remove(path)),
    }
    next
}

/// Ends the lane of a thread that panics as well, or its path would be out of reach for ever.
struct End<'a>(&'a Path);

impl Drop for End<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            lanes().remove(self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// A path that hangs until the sender is dropped or used.
    fn hang(path: &Path) -> (std::sync::mpsc::Sender<()>, Asked<()>) {
        let (release, released) = channel::<()>();
        let (began, begun) = channel();
        let asked = ask(path, move || {
            began.send(()).unwrap();
            let _ = released.recv();
        });
        begun.recv_timeout(SOON).unwrap();
        (release, asked)
    }

    fn is_hung<T>(answer: Result<T, Unanswered>) -> bool {
        matches!(answer, Err(Unanswered::Hangs(_)))
    }

    #[test]
    fn invariant_9_hung_path_fails_and_recovers() {
        let path = Path::new("/a hung path");
        let (release, asked) = hang(path);
        assert!(is_hung(asked.wait(Instant::now())), "nobody waits for ever");
        assert!(is_hung(ask(path, || ()).wait(Instant::now() + PATIENCE)), "what queues behind it");
        // By now it has been busy for long enough that nobody waits any more.
        let begin = Instant::now();
        assert!(is_hung(call(path, || ())));
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        drop(release);
        let deadline = Instant::now() + SOON;
        while is_hung(call(path, || ())) {
            assert!(Instant::now() < deadline, "still outstanding");
            thread::yield_now();
        }
    }

    #[test]
    fn hung_path_holds_up_no_other() {
        let (_release, _asked) = hang(Path::new("/hung/key"));
        assert_eq!(ask(Path::new("/hung/list"), || 7).wait(Instant::now() + SOON).unwrap(), 7);
    }

    #[test]
    fn runs_one_call_a_path_at_once() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let asked: Vec<_> = (0..50)
            .map(|number| {
                let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                ask(Path::new("/one at a time"), move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    number
                })
            })
            .collect();
        let answers: Vec<_> = asked.into_iter().map(|asked| asked.wait(Instant::now() + SOON).unwrap()).collect();
        assert_eq!(answers, (0..50).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn drops_calls_nobody_waits_for() {
        let path = Path::new("/given up");
        let (release, _asked) = hang(path);
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        assert!(is_hung(ask(path, move || count.fetch_add(1, Ordering::SeqCst)).wait(Instant::now())));
        release.send(()).unwrap();
        ask(path, || ()).wait(Instant::now() + SOON).unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn recovers_from_panic() {
        let path = Path::new("/panics");
        assert!(is_hung(ask(path, || panic!("on purpose")).wait(Instant::now() + SOON)));
        let deadline = Instant::now() + SOON;
        while ask(path, || ()).wait(Instant::now() + SOON).is_err() {
            assert!(Instant::now() < deadline, "its lane is still there");
        }
    }
}
