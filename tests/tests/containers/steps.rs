//! What is seen of the cluster of compose.yaml.
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use test_util::clients::{post, rest};
use test_util::command::program;
use test_util::process::Process;
use test_util::wait;

use crate::cluster::{Cluster, NODES, python};
use crate::engine::root;
use crate::ledger::Ledger;

const MARKER: &str = "quince-marmalade-1887";
const MIB: u64 = 1 << 20;

pub(crate) fn image(cluster: &Cluster) {
    let (engine, image) = (&cluster.engine, cluster.image.lock().unwrap().clone());
    let inspected: Value = serde_json::from_str(&engine.done(&["image", "inspect", &image])).unwrap();
    let (size, config) = (inspected[0]["Size"].as_u64().unwrap(), &inspected[0]["Config"]);
    println!("containers: the image has {:.1} MB", size as f64 / 1e6);
    assert!(size < 60 * MIB, "{size} bytes");
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Env"], json!(["PATH=/usr/bin"]), "an environment variable of the build stayed");
    assert!(config["Healthcheck"]["Test"].as_array().is_some_and(|test| test.contains(&json!("health"))), "{config}");
    let shell = engine.docker(&["run", "--rm", "--entrypoint", "sh", &image, "-c", "true"]).run();
    assert!(!shell.success && shell.text().contains("not found"), "{}", shell.text());
    let files = files(cluster, &image);
    let keys: Vec<_> = files.iter().filter(|file| file.ends_with(".key") || file.ends_with(".pem")).collect();
    assert!(keys.is_empty() && files.iter().any(|file| file == "usr/bin/meshctl"), "{files:?}");
}

/// All that a container of the image begins with.
fn files(cluster: &Cluster, image: &str) -> Vec<String> {
    let container = cluster.engine.done(&["create", image]);
    let archive = cluster.folder.path().join("image.tar");
    cluster.engine.done(&["export", "--output", &archive.display().to_string(), &container]);
    cluster.engine.done(&["rm", &container]);
    let listed = program("tar").args(["--list", "--file"]).args([&archive]).run();
    listed.out.lines().map(str::to_owned).collect()
}

pub(crate) fn published(cluster: &Cluster) {
    let internal = cluster.engine.done(&["network", "inspect", "--format", "{{.Internal}}", &cluster.network("mesh")]);
    assert_eq!(internal, "true", "the mesh's network leads out");
    for node in NODES {
        let bindings: BTreeMap<String, Value> = json_of(cluster, node, "{{json .HostConfig.PortBindings}}");
        let expected = if node == "proxy-1" { vec!["19530/tcp", "8080/tcp", "9092/tcp"] } else { vec![] };
        assert_eq!(bindings.keys().collect::<Vec<_>>(), expected, "{node} publishes");
        if let Some(management) = bindings.get("9092/tcp") {
            assert_eq!(management[0]["HostIp"], "127.0.0.1", "management is on the host's loopback only");
        }
        let host: Value = json_of(cluster, node, "{{json .HostConfig}}");
        assert_eq!(host["ReadonlyRootfs"], true, "{node}");
        assert_eq!(host["CapDrop"], json!(["ALL"]), "{node}");
        let mounts: Vec<Value> = json_of(cluster, node, "{{json .Mounts}}");
        let volumes: BTreeMap<_, _> = mounts.iter().filter(|mount| mount["Type"] == "volume").map(volume).collect();
        let own = format!("{}_{node}", cluster.project);
        assert_eq!(volumes.get("/certs"), Some(&(own, false)), "{node} mounts its own files, read-only");
        let others = volumes.keys().filter(|at| !["/certs", "/data"].contains(at)).count();
        assert_eq!(others, 0, "{node} mounts {volumes:?}");
        let environment: Vec<String> = json_of(cluster, node, "{{json .Config.Env}}");
        assert!(environment.iter().all(|line| line.starts_with("PATH=")), "{node}: {environment:?}");
    }
}

fn volume(mount: &Value) -> (&str, (String, bool)) {
    (mount["Destination"].as_str().unwrap(), (mount["Name"].as_str().unwrap().to_owned(), mount["RW"] == true))
}

fn json_of<T: serde::de::DeserializeOwned>(cluster: &Cluster, node: &str, format: &str) -> T {
    let text = cluster.inspect(node, format);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub(crate) fn clients(cluster: &Cluster) {
    let said = cluster.said(&["logs", "--no-color", "certs"]);
    assert!(said.contains("curl --cacert ca.pem https://localhost:8080/"), "nothing says what to paste: {said}");
    let seen = cluster.run("quick_setup.py", json!({"collection": "quick"}));
    assert_eq!((&seen["inserted"], &seen["dropped"]), (&json!(10), &json!(true)), "{seen}");
    let seen = cluster.run("by_schema.py", json!({"collection": "schema"}));
    assert_eq!((&seen["inserted"], &seen["states"]), (&json!(6), &json!(["NotLoad", "Loaded", "NotLoad"])), "{seen}");
    let seen = cluster.run("metrics.py", json!({"collection": "metric"}));
    assert_eq!(seen["L2"], json!([[1, 1.0], [3, 2.0], [2, 5.0]]), "{seen}");
    let answer = rest(&cluster.edge, &["-H", "Request-Timeout: 10"], "collections/list");
    assert_eq!((answer.status, &answer.body["code"]), (200, &json!(0)), "{answer:?}");
}

pub(crate) fn captured(cluster: &Cluster) {
    let frames = cluster.folder.path().join("frames");
    let capture = Capture::start(cluster, &frames);
    let edge = &cluster.edge;
    let made = post(edge, "collections/create", &json!({"collectionName": "wire", "dimension": 2}));
    assert_eq!(made.body["code"], 0, "{made:?}");
    for page in 0..4 {
        let rows: Vec<_> =
            (0..50).map(|n| json!({"id": page * 50 + n, "vector": [1.0, 0.5], "note": MARKER})).collect();
        let stored = post(edge, "entities/insert", &json!({"collectionName": "wire", "data": rows}));
        assert_eq!(stored.body["code"], 0, "{stored:?}");
    }
    let read =
        post(edge, "entities/get", &json!({"collectionName": "wire", "id": [1, 2, 3], "outputFields": ["note"]}));
    assert_eq!(read.body["data"][0]["note"], MARKER, "{read:?}");
    // The control: a probe in plaintext, between two containers, must be in the capture.
    let probed = cluster.tool(&["health", "--address", "data-node-1:9091"]);
    assert!(probed.success, "{}", probed.text());
    // The other one: a new connection, whose first bytes are seen.
    let verified = cluster.tool(&["status", "--dir", "/authority"]);
    assert!(verified.success, "{}", verified.text());
    let captured = capture.end();
    println!("containers: {} bytes captured", captured.len());
    let saw = |needle: &[u8]| captured.windows(needle.len()).any(|window| window == needle);
    assert!(saw(b"GET /healthz"), "the capture sees no plaintext: it proves nothing");
    assert!(saw(b"data-node.mesh.internal"), "no handshake was captured: it proves nothing");
    for clear in [MARKER.as_bytes(), b"PRI * HTTP/2.0", b"mesh.v1."] {
        assert!(!saw(clear), "{} in the clear", String::from_utf8_lossy(clear));
    }
}

/// A recording of the mesh's bridge.
struct Capture {
    process: Process,
    frames: std::path::PathBuf,
    until: std::path::PathBuf,
}

impl Capture {
    fn start(cluster: &Cluster, frames: &Path) -> Self {
        let (started, until) = (frames.with_extension("started"), frames.with_extension("until"));
        let bridge = format!("br-{}", &cluster.network("mesh")[..12]);
        let mut command = Command::new(python().interpreter());
        command.arg(root().join("tests/clients/capture.py")).arg(bridge).args([frames, &started, &until]);
        let mut process = Process::spawn("the capture", command, &frames.with_extension("log"));
        wait::until("the capture", Duration::from_secs(20), || {
            if let Some(status) = process.ended() {
                panic!("the capture ended with {status}; it needs root, or CAP_NET_RAW: {}", process.log());
            }
            if started.exists() { Ok(()) } else { Err("not started") }
        });
        Self { process, frames: frames.into(), until }
    }

    fn end(mut self) -> Vec<u8> {
        fs::write(&self.until, "").unwrap();
        let status = self.process.wait(Duration::from_secs(20));
        assert!(status.success(), "{}", self.process.log());
        fs::read(&self.frames).unwrap()
    }
}

pub(crate) fn verified(cluster: &Cluster) {
    let said = cluster.tool(&["verify", "--dir", "/authority"]);
    assert!(said.success && said.out.contains("all 45 probes green"), "{}", said.text());
    assert_eq!(said.out.matches("leaf of an edge client").count(), 5, "{}", said.out);
    // A leaf of the mesh that is neither operator nor metrics may not read the status, nor may anybody without one.
    let address = format!("localhost:{}", cluster.ports[2]);
    let url = format!("https://{address}/status");
    let refused = program("curl").args(["-sS", "-k", "--max-time", "10", &url]).run();
    assert!(!refused.success, "management answers whoever asks: {}", refused.text());
}

pub(crate) fn renewed(cluster: &Cluster) {
    let ledger = Ledger::start(&cluster.edge);
    let before = serials(&cluster.status().unwrap());
    let renewed = cluster.tool(&["certs", "renew", "--dir", "/authority"]);
    assert!(renewed.success, "{}", renewed.text());
    wait::until("new leaves everywhere", Duration::from_secs(90), || {
        let now = serials(&cluster.status()?);
        let old: Vec<_> = now.iter().filter(|(node, serial)| before.get(*node) == Some(serial)).collect();
        if now.len() == NODES.len() + 1 && old.is_empty() { Ok(()) } else { Err(format!("{old:?}")) }
    });
    let cas = cas(&cluster.status().unwrap());
    let rotated = cluster
        .compose(&["run", "--rm", "-T", "mesh", "ca", "rotate", "--dir", "/authority"])
        .within(Duration::from_secs(300))
        .run();
    assert!(rotated.success, "{}", rotated.text());
    let after = self::cas(&cluster.status().unwrap());
    assert!(after.len() == 1 && after != cas, "the CA was not replaced: {cas:?}, {after:?}");
    ledger.all_serve("a row in every collection after both");
    let books = ledger.close();
    assert!(
        books.failures.is_empty(),
        "{} of {} calls failed: {:?}",
        books.failures.len(),
        books.calls,
        books.failures.first()
    );
    println!("containers: {} calls, none failed", books.calls);
}

/// The serials that nodes serve, the proxy's edge among them.
fn serials(status: &Value) -> BTreeMap<String, String> {
    let mut serials = BTreeMap::new();
    for process in status["processes"].as_array().into_iter().flatten() {
        let node = process["node"].as_str().unwrap_or_default();
        for (name, leaf) in
            [(node.to_owned(), &process["leaf"]), (format!("the edge of {node}"), &process["edge"]["leaf"])]
        {
            if let Some(serial) = leaf["serial"].as_str() {
                serials.insert(name, serial.to_owned());
            }
        }
    }
    serials
}

fn cas(status: &Value) -> std::collections::BTreeSet<String> {
    let processes = status["processes"].as_array().into_iter().flatten();
    let cas = processes.flat_map(|process| process["cas"].as_array().into_iter().flatten());
    cas.filter_map(|ca| ca["sha256"].as_str()).map(str::to_owned).collect()
}

pub(crate) fn broken(cluster: &Cluster) {
    let ledger = Ledger::start(&cluster.edge);
    let killed = ledger.failures_of(|| {
        cluster.engine.done(&["kill", &cluster.container("data-node-2")]);
        ledger.rows_more("rows of other nodes while one is dead", 20);
        cluster.engine.done(&["start", &cluster.container("data-node-2")]);
        cluster.healthy("data-node-2");
        ledger.all_serve("a row in every collection after the kill");
    });
    only_about(&killed, &["data-node-2"]);
    let (network, container) = (cluster.network("mesh"), cluster.container("data-node-3"));
    let cut_off = ledger.failures_of(|| {
        cluster.engine.done(&["network", "disconnect", &network, &container]);
        wait::until("a call that fails", Duration::from_secs(60), || {
            let said = ledger.books().failures.iter().any(|why| why.contains("data-node-3"));
            if said { Ok(()) } else { Err("none yet") }
        });
        ledger.rows_more("rows of other nodes while one is cut off", 20);
        cluster.engine.done(&["network", "connect", "--alias", "data-node-3", &network, &container]);
        cluster.healthy("data-node-3");
        ledger.all_serve("a row in every collection after the healing");
    });
    only_about(&cut_off, &["data-node-3"]);
    let books = ledger.close();
    println!(
        "containers: {} rows, none lost; {} calls of the killed and {} of the cut-off node failed, each naming it",
        books.acknowledged.len(),
        killed.len(),
        cut_off.len()
    );
}

/// That every failure names one of these.
fn only_about(failures: &[String], names: &[&str]) {
    let others: Vec<_> = failures.iter().filter(|why| !names.iter().any(|name| why.contains(name))).collect();
    assert!(
        others.is_empty(),
        "{} of {} failures are not about {names:?}: {:?}",
        others.len(),
        failures.len(),
        others.first()
    );
}

pub(crate) fn rolled(cluster: &Cluster) {
    let ledger = Ledger::start(&cluster.edge);
    let next = cluster.engine.successor(&cluster.image.lock().unwrap());
    *cluster.image.lock().unwrap() = next.clone();
    let mut failed = 0;
    for node in NODES {
        let failures = ledger.failures_of(|| {
            cluster.said(&["up", "-d", "--no-build", "--no-deps", node]);
            cluster.healthy(node);
            ledger.all_serve(&format!("a row in every collection with the new {node}"));
        });
        assert_eq!(cluster.inspect(node, "{{.Config.Image}}"), next);
        failed += failures.len();
        // Who dials the proxy meets a closed port; everybody else is told by the proxy which node is away.
        if node != "proxy-1" {
            only_about(&failures, &[node]);
        }
    }
    let books = ledger.close();
    println!(
        "containers: {} rows, none lost; {failed} of {} calls met the node that was restarting",
        books.acknowledged.len(),
        books.calls
    );
}

pub(crate) fn outlived(cluster: &Cluster) {
    let seen = cluster.run("insert_rows.py", json!({"collection": "kept", "calls": 5}));
    let before = cas(&cluster.status().unwrap());
    cluster.said(&["down"]);
    cluster.up();
    let found = cluster.run("read_rows.py", json!({"collection": "kept", "ids": seen["acknowledged"]}));
    assert_eq!(found["found"].as_array().unwrap().len(), 100, "{found}");
    assert_eq!(cas(&cluster.status().unwrap()), before, "another CA was made");
}
