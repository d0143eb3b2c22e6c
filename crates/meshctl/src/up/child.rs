//! One process of the cluster.
//!
//! 1. In a process group of its own, so that Ctrl-C reaches only us and we stop them in order.
//! 2. It dies with us: it asks the kernel for a signal when its parent dies (`--with-parent`).
//! 3. Environment variables that override a key were folded into its configuration and are not passed on; else a port
//!    named there would be every node's.
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command, ExitStatus, Stdio};

use anyhow::Context;
use internaltls::foreign;
use rustix::process::{Pid, Signal, kill_process};

use super::plan::Node;

/// How much of a log is shown when its process failed.
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 8 * 1024;

#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    ended: Option<ExitStatus>,
}

impl Child {
    pub(super) fn start(node: &Node) -> anyhow::Result<Self> {
        let log = open_log(&node.log)
            .with_context(|| format!("could not write {}; give --dir a folder that is yours", node.log.display()))?;
        let program = std::env::current_exe().context("could not find this program's own file")?;
        let mut command = Command::new(program);
        command
            .args([
                "run",
                "--with-parent",
                &process::id().to_string(),
                node.role.name(),
                "--node",
                &node.name,
                "--config",
            ])
            .arg(&node.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        for name in settings::KEYS.iter().flat_map(settings::KeyInfo::env_names) {
            command.env_remove(name);
        }
        let process = command.spawn().with_context(|| format!("could not start {}", node.name))?;
        Ok(Self { process, ended: None })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Never to a process that ended: its number may be another's by now.
    pub(super) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let _ = kill_process(Pid::from_child(&self.process), signal);
        }
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        file.read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("  (no log: {error})");
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    shown.iter().map(|line| format!("  {}", foreign::cause(line))).collect::<Vec<_>>().join("\n")
}

/// The log of the run before is kept beside it.
fn open_log(path: &Path) -> std::io::Result<File> {
    // A link too is put aside, and never followed.
    if path.symlink_metadata().is_ok() {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}
