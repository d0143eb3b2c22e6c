//! A process of ours, its log and its end.
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::wait;

/// SIGKILL.
pub const KILL: Signal = Signal::KILL;
/// What asks a process to end.
pub const TERMINATE: Signal = Signal::TERM;
/// What Ctrl-C sends.
pub const INTERRUPT: Signal = Signal::INT;
/// What a terminal that is closed sends; to a service it means "read your files again".
pub const HANGUP: Signal = Signal::HUP;
/// Stops a process without ending it.
pub const STOP: Signal = Signal::STOP;
/// Lets a stopped process go on.
pub const CONTINUE: Signal = Signal::CONT;
/// How long a process may take to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running process. Its drop ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    watchdog: Child,
}

impl Process {
    /// Starts `command`, with both outputs in the file `log`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).expect("the log's folder can be made");
        }
        let file = File::create(log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let err = file.try_clone().expect("a file can be shared");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(err).spawn();
        let child = child.unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let watchdog = watch(child.id());
        Self { name: name.into(), child, log: log.into(), watchdog }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), Signal::TERM);
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        signal(self.pid(), Signal::KILL);
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time; the message has the tail of its log.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(&what, within, || self.ended().ok_or_else(|| tail(&self.log)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
            let start = std::time::Instant::now();
            while start.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        dismiss(&mut self.watchdog);
    }
}

/// Ends the process `pid` when this one is gone, however it went: the pipe it reads from closes with us.
fn watch(pid: u32) -> Child {
    Command::new("sh")
        .args(["-c", r#"read -r _ || kill -TERM "$0" 2>/dev/null"#, &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh is there")
}

fn dismiss(watchdog: &mut Child) {
    use std::io::Write;
    if let Some(mut pipe) = watchdog.stdin.take() {
        let _ = pipe.write_all(b"done\n");
    }
    let _ = watchdog.wait();
}

/// Lets this process, and those that it starts from now on, have so many files open.
///
/// # Panics
/// When the system does not allow as many.
pub fn allow_open_files(count: u64) {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < count) {
        let wanted = Rlimit { current: Some(count), ..now };
        setrlimit(Resource::Nofile, wanted).unwrap_or_else(|e| panic!("{count} open files: {e}; raise `ulimit -Hn`"));
    }
}

/// The memory of a process that is in use, in KiB.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process tells of itself");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// The processor time that a process has used, by the scheduler's own count.
#[derive(Debug, Clone)]
pub struct Cpu(BTreeMap<String, u64>);

impl Cpu {
    /// As of now.
    ///
    /// # Panics
    /// When there is no such process, or the kernel does not count (`CONFIG_SCHED_INFO`).
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|e| panic!("process {pid}: {e}"));
        let used = |thread: &Path| {
            // A thread may end while we look.
            let text = fs::read_to_string(thread.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        let each = threads
            .flatten()
            .filter_map(|thread| Some((thread.file_name().to_string_lossy().into_owned(), used(&thread.path())?)));
        let threads: BTreeMap<_, _> = each.collect();
        assert!(!threads.is_empty(), "process {pid}: the kernel does not tell of processor time");
        Self(threads)
    }

    /// What the process has used since `earlier`. What a thread used that ended in between is lost.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        let used = self.0.iter().map(|(thread, now)| now.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0)));
        Duration::from_nanos(used.sum())
    }
}

/// Sends a signal to a process that may be gone.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process is there and not a zombie.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}

/// The last lines of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|e| e.to_string());
    let lines: Vec<_> = text.lines().collect();
    format!("{}:\n{}", log.display(), lines[lines.len().saturating_sub(25)..].join("\n"))
}

/// A port of the loopback address that nobody listens on, below those that the kernel gives to outgoing connections (which
/// would take it before it is used), and given once.
///
/// # Panics
/// When the machine has none.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    let candidate = || 12_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..18_000).filter_map(|_| u16::try_from(candidate()).ok()).find(free).expect("a free port")
}
