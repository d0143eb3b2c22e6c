//! Settings and policies that are made to cost memory, and what settings must not give away.
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use test_util::authority::{Authority, Leaf, plain_serial, serial_of_file, write_public, write_secret};
use test_util::command::program;
use test_util::load::Load;
use test_util::process::{HANGUP, Process, is_running, resident, signal};
use test_util::{http, wait};

use crate::fixtures::{SOON, is_root, meshctl, not_run, text};
use crate::hand::{Hand, NODES};
use crate::site::{Role, Site, ends_by_itself, short};

/// KiB of address space: a process has its threads, and a bomb does not take the machine with it.
const ROOM: &str = "6000000";

/// Texts that a parser of YAML may choke on.
fn bombs() -> Vec<(&'static str, String)> {
    let laughs = |count: usize| {
        let line = |n: usize| format!("l{n}: &l{n} [{}]\n", vec![format!("*l{}", n - 1); 9].join(","));
        format!("l0: &l0 [lol,lol,lol]\n{}", (1..count).map(line).collect::<String>())
    };
    vec![
        ("600 KB of nested lists", "- ".repeat(300_000)),
        ("nested brackets", "a: ".to_owned() + &"[".repeat(300_000)),
        ("nested braces", "{a: ".repeat(150_000)),
        ("nested mappings", (0..1_000).map(|n| format!("{}k:\n", " ".repeat(n))).collect()),
        ("aliases of aliases", laughs(12)),
        ("one alias many times", format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(300_000), "*a,".repeat(200_000))),
        ("an alias of itself", "a: &a [*a]\n".into()),
        ("900 KB of one key", format!("{}: 1\n", "k".repeat(900_000))),
        ("40 MB of comments", "# nothing\n".repeat(4_000_000)),
    ]
}

/// With little address space.
fn confined(site: &Site) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {ROOM}; exec \"$0\" \"$@\""), &meshctl()]);
    command.args(["run", site.role.name(), "--node", site.role.node(), "--config"]).arg(site.config());
    command.current_dir(site.dir()).env_remove("RUST_LOG");
    Process::spawn(site.role.node(), command, &site.path("logs/process.log"))
}

#[test]
fn bombs_stop_the_start() {
    let site = Site::new(Role::Coordinator);
    for (what, bomb) in bombs() {
        write_public(&site.config(), &bomb);
        let said = ends_by_itself(&mut confined(&site), &format!("{what} as settings"));
        assert!(said.contains("milvus.yaml"), "{what}: the file is not named: {}", short(&said));
        assert!(said.len() < 4_096, "{what}: it says {} bytes", said.len());
    }
    let site = site.with_file("internaltls.policyPath", "policy.yaml", "");
    site.write_config();
    for (what, bomb) in bombs() {
        write_public(&site.path("policy.yaml"), &bomb);
        let said = ends_by_itself(&mut confined(&site), &format!("{what} as policy"));
        assert!(said.contains("policy.yaml"), "{what}: the file is not named: {}", short(&said));
        assert!(said.len() < 4_096, "{what}: it says {} bytes", said.len());
    }
}

#[test]
fn bombs_leave_the_last_policy() {
    let policy = include_str!("../../../config/policy.yaml");
    let mut live = Site::new(Role::Coordinator).with_file("internaltls.policyPath", "policy.yaml", policy).start();
    let (member, path) = (live.site.peer("proxy", "proxy-1"), live.site.path("policy.yaml"));
    live.serves("a member", &member);
    let usual = resident(live.pid());
    for (what, bomb) in bombs() {
        let before = live.process.log().lines().count();
        write_public(&path, &bomb);
        wait::until(&format!("an alarm of {what}"), SOON, || {
            let end = live.process.ended();
            assert!(end.is_none(), "{what}: it ended with {end:?}");
            if !is_running(live.pid()) {
                return Err("it has just ended".to_owned());
            }
            let memory = resident(live.pid());
            assert!(memory < 2 * usual + 128 * 1_024, "{what}: {memory} KiB, {usual} KiB before");
            let log = live.process.log();
            let told =
                |line: &str| (line.contains("[WARN]") || line.contains("[ERROR]")) && line.contains("policy.yaml");
            if log.lines().skip(before).any(told) { Ok(()) } else { Err(short(&log)) }
        });
        live.serves("a member", &member);
        write_public(&path, policy);
        wait::until(&format!("no alarm after {what}"), SOON, || {
            let failed = live.metric("internaltls_last_reload_failed{material=\"mesh\"}");
            if failed == Some(0.0) { Ok(()) } else { Err(format!("{failed:?}")) }
        });
    }
}

const SECRET: &str = "hunter2-under-the-bridge";

/// What it says until it listens or ends.
fn says(site: &Site, config: &Path, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(meshctl());
    command.args(["run", site.role.name(), "--node", site.role.node(), "--config"]).arg(config);
    command.args(["--log-level", "debug"]).envs(environment.iter().copied()).current_dir(site.dir());
    let mut process = Process::spawn(site.role.node(), command, &site.path("logs/process.log"));
    wait::until("a process that listens, or its end", SOON, || {
        if process.ended().is_some() || TcpStream::connect(site.internal()).is_ok() { Ok(()) } else { Err("neither") }
    });
    process.log()
}

#[test]
fn invariant_7_no_secret_of_settings_is_told() {
    let keys = ["common.security.defaultRootPassword", "minio.secretAccessKey", "minio.accessKeyID"];
    let wrong = [
        format!("{{ value: {SECRET} }}"),
        format!("[ {SECRET} ]"),
        format!("\"{SECRET}"),
        format!("{SECRET}: {SECRET}"),
        format!("&a {SECRET}\n  *b"),
        format!("!!int {SECRET}"),
        format!("|\n{SECRET}"),
        format!("%{SECRET}\n\t- {SECRET}"),
        format!("{SECRET}\n\u{1}"),
    ];
    for key in keys {
        for value in &wrong {
            let site = Site::new(Role::Coordinator).set(key, value);
            site.write_config();
            let said = says(&site, &site.config(), &[]);
            assert!(!said.contains(SECRET), "{key}: {value}: {}", short(&said));
        }
    }
    // Over a password that is fit, in each layer and in the environment.
    for later in ["\n", " ''\n", " {}\n", " []\n", " [1, 2\n", " !!null\n"] {
        for key in keys {
            let site = Site::new(Role::Coordinator).set(key, SECRET);
            site.write_config();
            let folder = site.path("config");
            fs::create_dir(&folder).unwrap();
            fs::copy(site.config(), folder.join("milvus.yaml")).unwrap();
            write_secret(&folder.join("user.yaml"), &over(key, later));
            let said = says(&site, &folder, &[]);
            assert!(!said.contains(SECRET), "{key}:{later}: {}", short(&said));
        }
    }
    // From the environment, beside a setting that is wrong.
    let site = Site::new(Role::Coordinator).set("proxy.port", "none");
    site.write_config();
    let environment = [("COMMON_SECURITY_DEFAULTROOTPASSWORD", SECRET), ("MINIO_SECRETACCESSKEY", SECRET)];
    let said = says(&site, &site.config(), &environment);
    assert!(said.contains("proxy.port") && !said.contains(SECRET), "{}", short(&said));
}

/// A later layer that gives one key another value.
fn over(key: &str, value: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let lines = parts.iter().enumerate().map(|(depth, part)| format!("{}{part}:", "  ".repeat(depth)));
    lines.collect::<Vec<_>>().join("\n") + value
}

/// What turns revocation off without a word, and a variable that nothing reads.
#[test]
fn silent_switches_stop_the_start() {
    let site = Site::new(Role::Coordinator);
    let crl = site.mesh.numbered_crl(&[], 1);
    let site = site.with_file("internaltls.crlPath", "crl.pem", &crl).with_file(
        "internaltls.distrustPath",
        "distrust",
        "# end 0\n",
    );
    site.write_config();
    let folder = site.path("config");
    fs::create_dir(&folder).unwrap();
    fs::copy(site.config(), folder.join("milvus.yaml")).unwrap();
    for key in ["internaltls.crlPath", "internaltls.distrustPath"] {
        for value in ["\n", " ''\n", " ~\n"] {
            write_public(&folder.join("user.yaml"), &over(key, value));
            let said = ends_by_itself(&mut site.spawn_at(&folder), &format!("an empty {key}"));
            assert!(said.contains(key), "{key} is not named: {}", short(&said));
        }
    }
    for name in ["TLS_SERVERPEMPAHT", "INTERNALTLS_CRLPAHT"] {
        let mut command = Command::new(meshctl());
        command.args(["run", "coordinator", "--config"]).arg(site.config()).env(name, "x").current_dir(site.dir());
        let mut process = Process::spawn("coordinator", command, &site.path("logs/process.log"));
        let said = ends_by_itself(&mut process, &format!("the variable {name}"));
        assert!(said.contains(name), "{name} is not named: {}", short(&said));
    }
}

/// A signal that means "look at the files now", to a cluster that looks by itself once an hour, under load.
#[test]
fn hangup_reloads_and_loses_no_call() {
    let running = Hand::new().internaltls(&["reload: { watch: false, pollSeconds: 3600 }"]).start();
    let hand = &running.hand;
    let read = |name: &str| fs::read_to_string(hand.dir().join("certs/mesh").join(name)).unwrap();
    let authority = Authority::load(&read("ca.pem"), &read("ca.key"));
    let load = Load::start(&hand.edge());
    let serial = |management: &str| {
        let status = http::get_json(management, "/status").unwrap();
        plain_serial(status["leaf"]["serial"].as_str().unwrap_or_default())
    };
    for (role, node) in NODES {
        let pair = authority.sign(&Leaf::node(role, node));
        write_secret(&hand.certs(node).join("server.key"), &pair.key);
        write_public(&hand.certs(node).join("server.pem"), &pair.cert);
    }
    load.more_calls(20);
    for (member, process) in hand.members().iter().zip(&running.processes) {
        let on_disk = serial_of_file(&hand.certs(&member.node).join("server.pem"));
        assert_ne!(serial(&member.management), on_disk, "{} looked by itself: the test proves nothing", member.node);
        signal(process.pid(), HANGUP);
        wait::until(&format!("the new leaf of {}", member.node), SOON, || {
            let served = http::get_json(&member.management, "/status")?["leaf"]["serial"].clone();
            let served = plain_serial(served.as_str().unwrap_or_default());
            if served == on_disk { Ok(()) } else { Err(format!("{served}, on disk is {on_disk}")) }
        });
        load.more_calls(20);
    }
    load.stop().assert_no_failure();
}

/// Root renews what another user's service reads: the service must be able to go on.
#[test]
fn renewal_by_root_keeps_owners_and_modes() {
    if !is_root() {
        return not_run("files that root renews for another user", "this is not root");
    }
    let site = Site::new(Role::Coordinator);
    let made = program(meshctl()).args(["certs", "init", "--out", "certs-of-others"]).folder(site.dir()).run();
    assert!(made.success, "{}", made.text());
    let folder = site.path("certs-of-others");
    let owned = program("chown").args(["-hR", "12345:23456"]).args([&folder]).run();
    assert!(owned.success, "{}", owned.text());
    let key = folder.join("mesh/coordinator-1/server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let before = owners(&folder);
    let serial = serial_of_file(&folder.join("mesh/coordinator-1/server.pem"));
    let said = program(meshctl()).args(["certs", "renew", "--dir"]).args([&folder]).run();
    assert!(said.success, "{}", said.text());
    assert_ne!(serial_of_file(&folder.join("mesh/coordinator-1/server.pem")), serial, "nothing was renewed");
    assert_eq!(owners(&folder), before);
}

/// Owner, group and mode of each file by the path that a process reads it by, and of all folders on the way.
fn owners(folder: &Path) -> Vec<(String, u32, u32, u32)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Folders of versions have names that are new each time; what lies in them is reached through links.
            if name.starts_with("..2") {
                continue;
            }
            let (path, seen) = (entry.path(), fs::metadata(entry.path()).unwrap());
            if seen.is_dir() && name != "..data" {
                folders.push(path.clone());
            }
            all.push((text(&path), seen.uid(), seen.gid(), seen.mode() & 0o7777));
        }
    }
    all.sort();
    all
}
