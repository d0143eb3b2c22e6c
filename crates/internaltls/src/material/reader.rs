//! Calls to file systems that may never answer, each on a thread that nobody waits for.
//!
//! 1. On a hung NFS or FUSE mount every call hangs that goes by a path: stat, readlink, open, read, readdir,
//!    inotify_add_watch, unlink. So each look at a path is handed to a thread, and its answer is waited for [`PATIENCE`] long.
//! 2. A path has one thread at most, in the whole process. What is asked while it is busy queues up behind it. Once it has been
//!    busy with one call for [`PATIENCE`] without [`progress`], whatever is asked fails at once, with an error that names the path, until it answers.
//! 3. Time runs from the last byte that came, not from the first: a large file on a slow mount is no hung one. It has
//!    [`LONGEST`] in all. Who has waited for so long is the last to wait: the path counts as hung until the call returns.
//! 4. Paths do not wait for each other: a key that hangs holds up no list.
//! 5. They are plain threads: a runtime that shuts down waits for those of `spawn_blocking`, but not for these, and a process
//!    that exits waits for neither. (In a call that the kernel does not let be killed, the process stays a zombie until the mount
//!    answers. That is the mount's doing, and no program can help it.)
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How long a file system has for one call, or for the next bytes of one file. Long beside a slow disk, and short beside an operator's.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How long one file may take that comes slowly.
const LONGEST: Duration = Duration::from_secs(60);

static LANES: Mutex<BTreeMap<PathBuf, Lane>> = Mutex::new(BTreeMap::new());

/// What the thread of one path is doing.
struct Lane {
    began: Instant,
    /// When it was last heard of.
    moved: Instant,
    /// The same moment, for people.
    since: SystemTime,
    /// Whether somebody has waited for [`LONGEST`] in vain for what it does.
    given_up: bool,
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

impl Lane {
    fn begin(waiting: VecDeque<Job>) -> Self {
        let began = Instant::now();
        Self { began, moved: began, since: SystemTime::now(), given_up: false, waiting }
    }

    fn hangs(&self) -> bool {
        self.given_up || self.moved.elapsed() >= PATIENCE
    }

    /// Until when it is worth waiting for it.
    fn worth(&self) -> Instant {
        (self.moved + PATIENCE).min(self.began + LONGEST)
    }
}

thread_local! {
    /// The path of this thread.
    static OWN: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Tells, in the midst of a call, that the file system answers: its time begins anew. Elsewhere it does nothing.
pub(super) fn progress() {
    OWN.with_borrow(|own| {
        let mut lanes = lanes();
        if let Some(lane) = own.as_ref().and_then(|path| lanes.get_mut(path)) {
            (lane.moved, lane.since) = (Instant::now(), SystemTime::now());
        }
    });
}

/// Asks, waits for [`PATIENCE`] at most, as long as there is no progress, and gives the answer.
pub(crate) fn call<T: Send + 'static>(path: &Path, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Unanswered> {
    ask(path, work).wait_on(Instant::now() + PATIENCE)
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
    /// Waits for the answer, whatever progress there is.
    pub(crate) fn wait(self, deadline: Instant) -> Result<T, Unanswered> {
        let (receiver, _wanted) = self.answer?;
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).map_err(|_| silent(&self.path))
    }

    /// Waits for the answer, past the deadline for as long as the path is not silent for [`PATIENCE`].
    pub(crate) fn wait_on(self, mut deadline: Instant) -> Result<T, Unanswered> {
        let (receiver, _wanted) = self.answer?;
        let latest = Instant::now() + LONGEST;
        loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(answer) => return Ok(answer),
                // Its thread panicked.
                Err(RecvTimeoutError::Disconnected) => return Err(silent(&self.path)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let worth = lanes().get(&self.path).map(|lane| lane.worth().min(latest));
            match worth.filter(|worth| *worth > Instant::now()) {
                Some(worth) => deadline = worth,
                // The answer may have come since.
                None => return receiver.try_recv().map_err(|_| give_up(&self.path)),
            }
        }
    }
}

fn silent(path: &Path) -> Unanswered {
    Unanswered::Hangs(lanes().get(path).map_or_else(SystemTime::now, |lane| lane.since))
}

/// The same, where nobody is to wait for it again.
fn give_up(path: &Path) -> Unanswered {
    if let Some(lane) = lanes().get_mut(path).filter(|lane| lane.began.elapsed() >= LONGEST) {
        lane.given_up = true;
    }
    silent(path)
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
        if lane.hangs() {
            return Err(Unanswered::Hangs(lane.since));
        }
        lane.waiting.push_back(job);
        return Ok(());
    }
    let of = path.to_owned();
    let run = move || {
        let _end = End(&of);
        OWN.set(Some(of.clone()));
        let mut next = Some(job);
        while let Some(job) = next {
            job();
            next = next_of(&of);
        }
    };
    thread::Builder::new().name("material read".to_owned()).spawn(run).map_err(Unanswered::NoThread)?;
    // The thread cannot have ended before this: it ends under the lock that is held here.
    lanes.insert(path.to_owned(), Lane::begin(VecDeque::new()));
    Ok(())
}

/// The next call for this path; with none left its lane ends under the same lock, so that no call is lost between.
fn next_of(path: &Path) -> Option<Job> {
    let mut lanes = lanes();
    let lane = lanes.get_mut(path)?;
    let next = lane.waiting.pop_front();
    match next {
        Some(_) => *lane = Lane::begin(std::mem::take(&mut lane.waiting)),
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

    /// No sleep tells a slow file system from a hung one: the time between two bytes is the reader's, so it is set back here.
    #[test]
    fn invariant_9_slow_path_is_not_hung() {
        let path = Path::new("/a slow path");
        let (step, steps) = channel::<()>();
        let (stepped, done) = channel();
        let asked = ask(path, move || {
            while steps.recv().is_ok() {
                progress();
                stepped.send(()).unwrap();
            }
            7
        });
        // As if it had taken two thirds of the patience for each of six chunks.
        for _ in 0..6 {
            age(path, PATIENCE * 2 / 3);
            step.send(()).unwrap();
            done.recv_timeout(SOON).unwrap();
        }
        let behind = ask(path, || 8);
        assert!(behind.answer.is_ok(), "it has made progress, and is not hung");
        let waits = thread::spawn(move || asked.wait_on(Instant::now()));
        step.send(()).unwrap();
        drop(step);
        assert_eq!(waits.join().unwrap().unwrap(), 7, "who waits waits on");
        assert_eq!(behind.wait_on(Instant::now() + SOON).unwrap(), 8);
    }

    #[test]
    fn slow_path_is_given_up_once() {
        let path = Path::new("/a path that drips");
        let (release, asked) = hang(path);
        lanes().get_mut(path).unwrap().began = before(LONGEST);
        let begin = Instant::now();
        assert!(is_hung(asked.wait_on(Instant::now())) && is_hung(call(path, || ())));
        assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
        drop(release);
    }

    fn before(age: Duration) -> Instant {
        Instant::now().checked_sub(age).unwrap()
    }

    fn age(path: &Path, age: Duration) {
        let mut lanes = lanes();
        let lane = lanes.get_mut(path).unwrap();
        (lane.began, lane.moved) = (lane.began.checked_sub(age).unwrap(), lane.moved.checked_sub(age).unwrap());
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
