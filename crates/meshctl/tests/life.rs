//! A whole cluster's life, with real processes: up, proven, renewed, wounded, stopped; and in one process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use meshctl::cluster::{Cluster, Process};
use meshctl::status::document::Document;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const DEADLINE: Duration = Duration::from_secs(90);

/// A cluster in a folder of its own; killed with all that belongs to it if the test fails.
struct Up {
    dir: tempfile::TempDir,
    process: Child,
}

impl Up {
    fn start(command: &[&str], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let output = File::create(dir.path().join("output")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(command)
            .args(["--free-ports", "--dir", dir.path().to_str().unwrap()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(0)
            .spawn()
            .unwrap();
        Self { dir, process }
    }

    fn ready(&mut self) -> Cluster {
        until(|| {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("ended with {status}: {}", self.said());
            }
            Cluster::read(self.dir.path()).map_err(|_| self.said())
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    fn meshctl(&self, command: &[&str]) -> Output {
        let mut meshctl = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        meshctl.args(command).args(["--dir", self.dir.path().to_str().unwrap()]).output().unwrap()
    }

    fn status(&self) -> Document {
        serde_json::from_slice(&self.meshctl(&["status", "--json"]).stdout).unwrap()
    }

    fn stop(&mut self) -> i32 {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap().code().unwrap()
    }

    fn cluster_file(&self) -> PathBuf {
        self.dir.path().join("cluster.json")
    }
}

impl Drop for Up {
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

fn pid(process: &Process) -> Pid {
    Pid::from_raw(i32::try_from(process.pid).unwrap()).unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The printed line, as a shell runs it.
fn paste(said: &str, begins: &str) -> Output {
    let line = said.lines().find(|line| line.trim_start().starts_with(begins)).unwrap();
    Command::new("sh").args(["-c", line]).output().unwrap()
}

fn ended_in_order(dir: &Path) -> Vec<(String, std::time::SystemTime)> {
    let written = |name: &str| fs::metadata(dir.join("logs").join(name)).unwrap().modified().unwrap();
    ["proxy-1.log", "coordinator-1.log"].map(|name| (name.to_owned(), written(name))).into()
}

#[test]
fn lives_from_up_to_stop() {
    let mut up = Up::start(&["up"], &[]);
    let cluster = up.ready();
    let roles: Vec<_> = cluster.processes.iter().map(|process| process.node.as_str()).collect();
    assert_eq!(roles, ["proxy-1", "data-node-1", "data-node-2", "coordinator-1"]);
    assert_eq!(cluster.edge.tls_mode, 1);

    let said = up.said();
    let answer = text(&paste(&said, "curl --cacert"));
    assert!(answer.contains("\"code\":0"), "{answer}");

    let verified = text(&up.meshctl(&["verify"]));
    assert!(verified.contains("all 36 probes green"), "{verified}");

    assert_eq!(up.meshctl(&["certs", "renew"]).status.code(), Some(0));
    let renewed = until(|| {
        let document = up.status();
        let all_new = document.processes.iter().all(|process| process.generation == Some(2))
            && document.connections.iter().all(|told| told.generation == Some(2));
        if all_new && !document.connections.is_empty() { Ok(document) } else { Err(format!("{document:?}")) }
    });
    for told in &renewed.connections {
        let other = if told.told_by == told.from { &told.to } else { &told.from };
        let node = renewed.processes.iter().find(|p| *other == format!("{}/{}", p.role, p.node)).unwrap();
        assert_eq!(told.peer_serial.as_deref(), node.leaf.as_ref().map(|leaf| leaf.serial.as_str()), "{told:?}");
    }

    kill_process(pid(&cluster.processes[2]), Signal::KILL).unwrap();
    until(|| if up.said().contains("data-node-2 has ended") { Ok(()) } else { Err(up.said()) });
    assert!(up.said().contains("the others go on") && up.cluster_file().exists());
    let wounded = up.meshctl(&["status"]);
    assert_eq!(wounded.status.code(), Some(1));
    assert!(text(&wounded).contains("no answer"), "{}", text(&wounded));

    assert_eq!(up.stop(), 0, "{}", up.said());
    assert!(!up.cluster_file().exists());
    for process in &cluster.processes {
        assert!(test_kill_process(pid(process)).is_err(), "{} still runs", process.node);
    }
    let ends = ended_in_order(up.dir.path());
    assert!(ends[0].1 <= ends[1].1, "the proxy stops before the coordinator: {ends:?}");
}

#[test]
fn no_process_outlives_a_killed_parent() {
    let mut up = Up::start(&["up"], &["--data-nodes", "1"]);
    let cluster = up.ready();
    up.process.kill().unwrap();
    up.process.wait().unwrap();
    until(|| {
        let alive: Vec<_> =
            cluster.processes.iter().filter(|process| test_kill_process(pid(process)).is_ok()).collect();
        if alive.is_empty() { Ok(()) } else { Err(format!("{alive:?}")) }
    });
}

#[test]
fn all_roles_in_one_process_are_a_mesh_too() {
    let mut up = Up::start(&["run", "standalone"], &["--tls-mode", "2"]);
    let cluster = up.ready();
    assert!(cluster.processes.iter().all(|process| process.pid == up.process.id()));
    let verified = text(&up.meshctl(&["verify"]));
    assert!(verified.contains("all 36 probes green"), "{verified}");
    let answer = text(&paste(&up.said(), "curl --cacert"));
    assert!(answer.contains("\"code\":0"), "{answer}");
    assert_eq!(up.stop(), 0, "{}", up.said());
    assert!(!up.cluster_file().exists());
}

#[test]
fn file_of_the_user_counts() {
    let mut given = tempfile::NamedTempFile::new().unwrap();
    let yaml = "common: { security: { internaltlsEnabled: false, authorizationEnabled: true, tlsMode: 0 } }\n";
    std::io::Write::write_all(&mut given, yaml.as_bytes()).unwrap();
    let mut up = Up::start(&["up"], &["--data-nodes", "1", "--config", given.path().to_str().unwrap()]);
    let cluster = up.ready();
    assert_eq!((cluster.edge.tls_mode, cluster.edge.ca), (0, None));
    let answer = text(&paste(&up.said(), "curl -H 'Authorization: Bearer root:Milvus' http://"));
    assert!(answer.contains("\"code\":0"), "{answer}");
    let verified = up.meshctl(&["verify"]);
    assert_eq!(verified.status.code(), Some(1), "the mesh is plaintext, and that is told");
    assert!(text(&verified).contains("SURPRISE"), "{}", text(&verified));
    assert_eq!(up.stop(), 0);
}

/// What is printed answers, for a client and for a probe; what is internal is on loopback alone.
#[test]
fn printed_addresses_answer() {
    for address in ["::1", "127.0.0.2", "0.0.0.0"] {
        let mut up = Up::start(&["run", "standalone"], &["--data-nodes", "1", "--address", address]);
        let cluster = up.ready();
        let said = up.said();
        let answer = text(&paste(&said, "curl --cacert"));
        assert!(answer.contains("\"code\":0"), "{address}: {answer}\n{said}");
        let printed = said.lines().find_map(|line| line.trim().strip_prefix("health "));
        let printed = printed.unwrap().trim().strip_prefix("http://").unwrap().strip_suffix("/healthz").unwrap();
        for at in cluster.processes.iter().map(|process| process.health.as_str()).chain([printed]) {
            let health =
                Command::new(env!("CARGO_BIN_EXE_meshctl")).args(["health", "--address", at]).output().unwrap();
            assert!(health.status.success(), "{address}: {}", text(&health));
        }
        let verified = text(&up.meshctl(&["verify"]));
        assert!(verified.contains("all 27 probes green"), "{address}: {verified}");
        // The whole of 127.0.0.0/8 is this host: a listener on every address would answer at 127.0.0.3 too.
        for process in &cluster.processes {
            for port in [&process.internal, &process.management] {
                assert!(port.starts_with("127.0.0.1:"), "{address}: {port}");
                let port: u16 = port.rsplit(':').next().unwrap().parse().unwrap();
                for elsewhere in ["127.0.0.2", "127.0.0.3", "::1"] {
                    let elsewhere: std::net::IpAddr = elsewhere.parse().unwrap();
                    assert!(
                        TcpStream::connect((elsewhere, port)).is_err(),
                        "{address}: {} is at {elsewhere}",
                        process.node
                    );
                }
            }
        }
        assert_eq!(up.stop(), 0, "{}", up.said());
    }
}

#[test]
fn leaf_that_does_not_name_the_address_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let made =
        Command::new(env!("CARGO_BIN_EXE_meshctl")).args(["certs", "init", "--out", certs.to_str().unwrap()]).output();
    assert!(made.unwrap().status.success());
    let up = ["up", "--free-ports", "--address", "127.0.0.2", "--dir", dir.path().to_str().unwrap()];
    let refused = Command::new(env!("CARGO_BIN_EXE_meshctl")).args(up).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("does not name 127.0.0.2"), "{}", text(&refused));
}
