//! What signals do to real processes, and what files do to them that were made to hurt.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use meshctl::cluster::Cluster;
use meshctl::status::document::Document;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const DEADLINE: Duration = Duration::from_secs(120);

/// A process that writes into `output` of its folder; killed if the test fails.
struct Running {
    dir: tempfile::TempDir,
    process: Child,
}

impl Running {
    fn start(dir: tempfile::TempDir, args: &[&str]) -> Self {
        let output = File::create(dir.path().join("output")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command.args(args).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
        let process = command.spawn().unwrap();
        Self { dir, process }
    }

    /// A cluster that looks at no file by itself.
    fn up(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (folder, config) = (dir.path().join("mesh"), dir.path().join("mine.yaml"));
        fs::write(&config, "internaltls: {reload: {watch: false, pollSeconds: 86400}}\n").unwrap();
        let (folder, config) = (folder.to_str().unwrap().to_owned(), config.to_str().unwrap().to_owned());
        let given = [&["up", "--free-ports", "--dir", &folder, "--config", &config], more].concat();
        Self::start(dir, &given)
    }

    fn mesh(&self) -> std::path::PathBuf {
        self.dir.path().join("mesh")
    }

    fn ready(&mut self) -> Cluster {
        until(|| {
            assert_eq!(self.process.try_wait().unwrap(), None, "{}", self.said());
            Cluster::read(&self.mesh()).map_err(|_| self.said())
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    fn log(&self, node: &str) -> String {
        fs::read_to_string(self.mesh().join(format!("logs/{node}.log"))).unwrap()
    }

    fn meshctl(&self, args: &[&str]) -> std::process::Output {
        let folder = self.mesh();
        Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(args)
            .args(["--dir", folder.to_str().unwrap()])
            .output()
            .unwrap()
    }

    fn generations(&self) -> Vec<Option<u64>> {
        let document: Document = serde_json::from_slice(&self.meshctl(&["status", "--json"]).stdout).unwrap();
        document.processes.iter().map(|process| process.generation).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Until a SIGHUP no longer ends it.
    fn listens(&mut self) {
        let status = format!("/proc/{}/status", self.process.id());
        until(|| {
            let text = fs::read_to_string(&status).unwrap();
            let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
            if u64::from_str_radix(&caught, 16).unwrap() & 1 == 1 { Ok(()) } else { Err(text) }
        });
    }

    fn ended(&mut self) -> i32 {
        let status = until(|| self.process.try_wait().unwrap().ok_or("still runs".to_owned()));
        status.code().unwrap_or_else(|| panic!("{status}: {}", self.said()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What `look` finds, or the last that it saw.
fn until<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) if began.elapsed() > DEADLINE => panic!("not within {DEADLINE:?}; last seen: {last}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// Calls by REST, one after another, while `work` is done; how many were answered, and what went wrong.
fn while_called(said: &str, work: impl FnOnce(&dyn Fn())) -> Vec<String> {
    let line = said.lines().find(|line| line.trim_start().starts_with("curl --cacert")).unwrap();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            let mut wrong = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let output = Command::new("sh").args(["-c", line]).output().unwrap();
                let answer = String::from_utf8_lossy(&output.stdout).into_owned();
                if !answer.contains("\"code\":0") {
                    wrong.push(format!("{answer}{}", String::from_utf8_lossy(&output.stderr)));
                }
                answered.fetch_add(1, Ordering::Relaxed);
            }
            wrong
        });
        let next_call = || {
            // The one under way may have begun before.
            let seen = answered.load(Ordering::Relaxed);
            until(|| if answered.load(Ordering::Relaxed) > seen + 1 { Ok(()) } else { Err("no call ends".to_owned()) });
        };
        next_call();
        work(&next_call);
        next_call();
        done.store(true, Ordering::Relaxed);
        calls.join().unwrap()
    })
}

#[test]
fn hangup_serves_renewed_certificates() {
    let mut up = Running::up(&[]);
    let cluster = up.ready();
    let nodes: Vec<_> = cluster.processes.iter().map(|process| process.node.clone()).collect();
    let wrong = while_called(&up.said(), |next_call| {
        assert_eq!(up.meshctl(&["certs", "renew"]).status.code(), Some(0));
        assert!(up.generations().iter().all(|generation| *generation == Some(1)), "{:?}", up.generations());
        up.signal(Signal::HUP);
        until(|| {
            let now = up.generations();
            if now.iter().all(|generation| *generation == Some(2)) { Ok(()) } else { Err(format!("{now:?}")) }
        });
        next_call();
        for node in &nodes {
            until(|| {
                let log = up.log(node);
                let told =
                    log.contains("SIGHUP: the files have changed and are served\"] [material=internal] [generation=2]");
                if told { Ok(()) } else { Err(log) }
            });
        }
        assert!(up.log("proxy-1").contains("are served\"] [material=edge] [generation=2]"), "{}", up.log("proxy-1"));
    });
    assert_eq!(wrong, Vec::<String>::new());
    each_process_lives_on(&up, &cluster);
    up.signal(Signal::TERM);
    up.signal(Signal::HUP);
    assert_eq!(up.ended(), 0, "{}", up.said());
    for process in &cluster.processes {
        assert!(test_kill_process(pid(process.pid)).is_err(), "{} still runs", process.node);
    }
}

/// Each signal that is no request to end, to each process by itself.
fn each_process_lives_on(up: &Running, cluster: &Cluster) {
    for process in &cluster.processes {
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE] {
            kill_process(pid(process.pid), signal).unwrap();
        }
        until(|| {
            let log = up.log(&process.node);
            let told = [("SIGHUP: nothing has changed", 1), ("a signal without a meaning here", 2)];
            if told.iter().all(|(text, times)| count(&log, text) >= *times) { Ok(()) } else { Err(log) }
        });
    }
    for signal in [Signal::USR1, Signal::USR2, Signal::PIPE] {
        up.signal(signal);
    }
    assert_eq!(up.generations().len(), cluster.processes.len());
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

/// The help does not fit the pipe that it is written to, so the process stands where it has read its arguments, and has
/// neither runtime nor configuration.
#[test]
fn hangup_at_the_first_instant_ends_nothing() {
    use std::io::{Read, Write};
    for command in ["up", "run"] {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while writer.write(&[b'.'; 1024]).is_ok() {}
        while writer.write(b".").is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        let mut starting = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        starting.args([command, "--help"]).stdout(writer).stderr(Stdio::inherit());
        let dir = tempfile::tempdir().unwrap();
        let process = starting.spawn().unwrap();
        drop(starting);
        File::create(dir.path().join("output")).unwrap();
        let mut running = Running { dir, process };
        running.listens();
        running.signal(Signal::HUP);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert!(said.contains("Example:"), "{said}");
        assert_eq!(running.ended(), 0);
    }
}

#[test]
fn hangup_during_start_is_answered_after_it() {
    let mut up = Running::up(&["--data-nodes", "1"]);
    up.listens();
    up.signal(Signal::HUP);
    let cluster = up.ready();
    for process in &cluster.processes {
        until(|| {
            let log = up.log(&process.node);
            if log.contains("SIGHUP: nothing has changed") { Ok(()) } else { Err(log) }
        });
    }
    up.signal(Signal::TERM);
    assert_eq!(up.ended(), 0, "{}", up.said());
}

#[test]
fn hangup_ends_no_role() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("milvus.yaml");
    let ports = "coordinator.port: 0\nmanagement: {port: 0, healthPort: 0}\n";
    fs::write(&config, format!("{ports}tls.serverPemPath: edge.pem\nlocalStorage.path: data\n")).unwrap();
    let config = config.to_str().unwrap().to_owned();
    let mut role = Running::start(dir, &["run", "coordinator", "--config", &config]);
    role.listens();
    role.signal(Signal::HUP);
    let serving = until(|| Some(role.said()).filter(|said| said.contains("coordinating")).ok_or_else(|| role.said()));
    assert!(!serving.contains("ending"), "{serving}");
    role.signal(Signal::HUP);
    until(|| {
        let said = role.said();
        if said.contains("SIGHUP: there are no files to look at, for TLS is off") { Ok(()) } else { Err(said) }
    });
    let warned = "[WARN] [node::log] [\"";
    assert!(
        role.said().contains(warned)
            && role.said().contains("common.security.tlsMode is not set: clients are served in plaintext"),
        "{}",
        role.said()
    );
    role.signal(Signal::TERM);
    role.signal(Signal::HUP);
    assert_eq!(role.ended(), 0, "{}", role.said());
}

/// What a coordinator says that has little memory and little stack.
fn confined(config: &Path) -> (Option<i32>, String) {
    let line = "ulimit -v 3000000 && ulimit -s 512 && exec \"$0\" run coordinator --config \"$1\"";
    let output = Command::new("sh").args(["-c", line, env!("CARGO_BIN_EXE_meshctl")]).arg(config).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code(), said)
}

/// Each within the bound on bytes, and one above it.
fn hostile() -> [(&'static str, String); 6] {
    let mut laughs = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    for level in 1..9 {
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(",")));
    }
    [
        ("line 1: nested more than 32 deep", "- ".repeat(120_000)),
        ("line 1: nested more than 32 deep", "{a: ".repeat(60_000)),
        ("larger than", "- ".repeat(300_000)),
        ("line 1: anchors are not read", laughs),
        ("line 2: a second document begins here", "---\n".repeat(60_000)),
        ("line 1: nested more than 32 deep", "[".repeat(200_000)),
    ]
}

#[test]
fn hostile_files_are_a_plain_error() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let made = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["certs", "init", "--out", certs.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success());
    let (config, settings) = (dir.path().join("policed.yaml"), dir.path().join("settings.yaml"));
    let own = certs.join("mesh/coordinator-1");
    let paths = ["server.pem", "server.key", "ca.pem"].map(|name| own.join(name).display().to_string());
    let text = format!(
        "common.security.internaltlsEnabled: true\ninternaltls: {{serverPemPath: {}, serverKeyPath: {}, caPemPath: {}, policyPath: policy.yaml}}\nmanagement: {{port: 0, healthPort: 0}}\ncoordinator.port: 0\n",
        paths[0], paths[1], paths[2]
    );
    fs::write(&config, text).unwrap();
    for (expected, text) in hostile() {
        fs::write(&settings, &text).unwrap();
        let (code, said) = confined(&settings);
        let expected_here = expected.replace("line ", "settings.yaml:");
        assert!(code == Some(1) && said.contains(&expected_here), "{code:?} {said}");
        fs::write(dir.path().join("policy.yaml"), &text).unwrap();
        let (code, said) = confined(&config);
        assert!(code == Some(1) && said.contains("policy.yaml") && said.contains(expected), "{code:?} {said}");
        assert!(said.len() < 2_000, "{said}");
    }
}

/// Invariant 7, from outside: nothing that a process or `up` prints holds a password that was mistyped.
#[test]
fn invariant_7_output_holds_no_password() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mine.yaml");
    for value in [
        " {hunter2: }",
        " [hunter2]",
        "\n      hunter2:\n",
        " &hunter2",
        " *hunter2",
        "\thunter2\n\t- x",
        " \"hunter2",
        " {hunter2: {tls: {sni: a}}}",
    ] {
        fs::write(&config, format!("tls.minVersion: 7\ncommon:\n  security:\n    defaultRootPassword:{value}\n"))
            .unwrap();
        let (code, said) = confined(&config);
        assert!(
            code == Some(1) && said.contains("mine.yaml:") && !said.contains("hunter2"),
            "{value}: {code:?} {said}"
        );
        let folder = dir.path().join("mesh");
        let up = ["up", "--free-ports", "--dir", folder.to_str().unwrap(), "--config", config.to_str().unwrap()];
        let output = Command::new(env!("CARGO_BIN_EXE_meshctl")).args(up).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.code() == Some(1) && !said.contains("hunter2"), "{value}: {said}");
    }
}
