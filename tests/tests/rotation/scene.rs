//! A mesh of two servers, real processes, and one client, in this process so that every failure is seen where it happens.
//!
//! 1. Each node's files lie on disk in another way: as a Kubernetes volume, through chained symlinks, as plain files.
//! 2. The second server is reached through a relay that can stall.
//! 3. Revocation lists and distrusted keys are read by all three from one place.
//! 4. All of that lies on a disk of its own where one can be had, so that it can run full.
use std::collections::{BTreeSet, HashMap};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use internaltls::{Channel, Endpoint, Files, Mesh, MeshConfig};
use serde_json::Value;
use tempfile::TempDir;
use test_util::authority::{Authority, Leaf, Pair, plain_serial, write_public};
use test_util::disk::{Chain, Set, Volume, plain};
use test_util::process::tail;
use test_util::relay::Relay;
use test_util::wait;
use tokio::runtime::Runtime;

use crate::fixtures::LONG;
use crate::namespace::{Ballast, Inotify, Place, mount};
use crate::server::{POLL, Server, log};

const DATA_NODE: &str = "data-node";
/// Calls may run so long after their connection began to drain.
pub(crate) const GRACE: Duration = Duration::from_secs(2);
/// An old connection is gone by then: the grace of two generations that drain one after the other, and a slow machine.
const BOUND: Duration = Duration::from_secs(60);

/// The nodes by number: 0 and 1 serve, 2 calls.
pub(crate) const SERVERS: usize = 2;
pub(crate) const NODES: usize = 3;

/// How one node's files are replaced.
enum Disk {
    Volume(Volume),
    Chain(Chain),
    Plain(PathBuf),
}

impl Disk {
    fn write(&mut self, set: &Set) {
        match self {
            Self::Volume(volume) => volume.swap(set),
            Self::Chain(chain) => chain.swap(set),
            Self::Plain(folder) => plain::create(folder, set),
        }
    }
}

struct Node {
    role: &'static str,
    name: String,
    disk: Disk,
    pair: Pair,
    /// When its leaf was last written, until that is seen to be served.
    wrote: Option<Instant>,
}

pub(crate) struct Scene {
    nodes: Vec<Node>,
    servers: Vec<Server>,
    authority: Authority,
    bundle: Vec<String>,
    revoked: Vec<Pair>,
    distrusted: Vec<String>,
    superseded: HashMap<String, Instant>,
    /// From each write of a leaf to its being served, where the kernel told of it and no peer had to be waited for.
    pub(crate) served_within: Vec<Duration>,
    pub(crate) relay: Relay,
    pub(crate) channels: Vec<Channel>,
    client: Mesh,
    /// Where all files lie that a node reads.
    dir: PathBuf,
    _scratch: TempDir,
    pub(crate) runtime: Runtime,
}

/// What the disk holds when it is one of its own.
const DISK: &str = "64m";
/// A leaf that is served later than this is told of, with the reason.
const SLOW: Duration = Duration::from_secs(3);
/// The poll of a server that hears of no change.
const SHORT_POLL: u64 = 1;

impl Scene {
    pub(crate) fn start(place: Place) -> Self {
        let (scratch, authority) = (TempDir::with_prefix("rotation-").unwrap(), Authority::new("CA 0"));
        let dir = scratch.path().join("disk");
        std::fs::create_dir(&dir).unwrap();
        if place == Place::Inside {
            mount(&dir, DISK);
        }
        let nodes: Vec<_> = (0..NODES).map(|nth| node(&dir, &authority, nth)).collect();
        lists(&dir, &authority, &[], &[]);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut servers: Vec<_> = (0..SERVERS).map(|_| Server::new()).collect();
        for (server, node) in servers.iter_mut().zip(&nodes) {
            server.start(&dir, node.role, &node.name, POLL);
        }
        let relay = Relay::forgetful(servers[1].listens);
        let client = runtime.block_on(Mesh::open(config(&dir, &nodes[2]))).unwrap();
        let channel = |nth: usize, address| {
            client.channel(DATA_NODE.parse().unwrap(), Endpoint::from(address).of(nodes[nth].name.parse().unwrap()))
        };
        let channels = vec![channel(0, servers[0].listens), channel(1, relay.address())];
        let bundle = vec![authority.cert().to_owned()];
        Self {
            nodes,
            servers,
            authority,
            bundle,
            revoked: Vec::new(),
            distrusted: Vec::new(),
            superseded: HashMap::new(),
            served_within: Vec::new(),
            relay,
            channels,
            client,
            dir,
            _scratch: scratch,
            runtime,
        }
    }

    /// What a node tells of itself.
    pub(crate) fn status(&self, nth: usize) -> Result<Value, String> {
        match self.servers.get(nth) {
            Some(server) => server.status(),
            None => serde_json::to_value(self.client.status()).map_err(|e| e.to_string()),
        }
    }

    /// A new leaf for a node on its disk; the key is new as well.
    pub(crate) fn renew(&mut self, nth: usize) {
        let pair = self.authority.sign(&Leaf::node(self.nodes[nth].role, &self.nodes[nth].name));
        let old = std::mem::replace(&mut self.nodes[nth].pair, pair);
        self.superseded.insert(old.serial(), Instant::now());
        self.write(nth);
        self.nodes[nth].wrote = Some(Instant::now());
    }

    /// The node's leaf of now.
    pub(crate) fn leaf(&self, nth: usize) -> Pair {
        self.nodes[nth].pair.clone()
    }

    fn write(&mut self, nth: usize) {
        let set = Set { pair: self.nodes[nth].pair.clone(), ca: self.bundle.concat() };
        self.nodes[nth].disk.write(&set);
    }

    /// A certificate file of which the second half is missing, on a node's disk.
    pub(crate) fn tear(&mut self, nth: usize) {
        let mut pair = self.nodes[nth].pair.clone();
        pair.cert.truncate(pair.cert.len() / 2);
        let set = Set { pair, ca: self.bundle.concat() };
        self.nodes[nth].disk.write(&set);
    }

    /// Revokes a leaf: everywhere, at once.
    pub(crate) fn revoke(&mut self, pair: Pair) {
        self.revoked.push(pair);
        self.put_lists();
    }

    /// Distrusts a leaf's key: everywhere, at once.
    pub(crate) fn distrust(&mut self, pair: &Pair) {
        self.distrusted.push(pair.spki_sha256());
        self.put_lists();
    }

    fn put_lists(&self) {
        lists(&self.dir, &self.authority, &self.revoked, &self.distrusted);
    }

    /// From the CA of now to another one, as `meshctl ca rotate` does it.
    pub(crate) fn roll_over(&mut self, nth: usize) {
        let next = Authority::new(&format!("CA {nth}"));
        write_public(&self.dir.join(format!("crls/{nth}.pem")), &next.crl(&[]));
        self.bundle.push(next.cert().to_owned());
        self.write_all();
        self.until_all_serve_bundles(2);
        self.authority = next;
        self.revoked.clear();
        (0..NODES).for_each(|nth| self.renew(nth));
        self.uncounted(Self::until_settled);
        self.bundle.remove(0);
        self.write_all();
        self.until_all_serve_bundles(1);
    }

    fn write_all(&mut self) {
        (0..NODES).for_each(|nth| self.write(nth));
    }

    fn until_all_serve_bundles(&self, size: usize) {
        for nth in 0..NODES {
            wait::until(&format!("node {nth} serves a bundle of {size}"), LONG, || {
                let status = self.status(nth)?;
                let cas = status["material"]["cas"].as_array().map_or(0, Vec::len);
                if cas == size { Ok(()) } else { Err(status.to_string()) }
            });
        }
    }

    /// SIGKILL to a server, and a new start with what is on disk.
    pub(crate) fn kill(&mut self, nth: usize) {
        self.restart(nth, POLL);
    }

    /// The same while no process gets a watcher: changes are seen by the poll alone, and that is told.
    pub(crate) fn restart_unwatched(&mut self, nth: usize) {
        let exhausted = Inotify::without_instances();
        self.restart(nth, SHORT_POLL);
        self.until_watch_is(nth, "failed");
        self.renew(nth);
        self.uncounted(|scene| scene.until_served(nth));
        drop(exhausted);
        self.until_watch_is(nth, "on");
    }

    /// New leaves in folders that the kernel refuses to watch.
    pub(crate) fn renew_unwatched(&mut self, nth: usize) {
        let exhausted = Inotify::without_watches();
        self.renew(nth);
        self.until_served(nth);
        self.until_watch_is(nth, "failed");
        drop(exhausted);
        self.renew(nth);
        self.until_served(nth);
        self.until_watch_is(nth, "on");
    }

    fn until_watch_is(&self, nth: usize, state: &str) {
        wait::until(&format!("node {nth} tells that its watch is {state}"), LONG, || {
            let status = self.status(nth)?;
            let watch = &status["material"]["watch"];
            let told = watch["reason"].as_str().unwrap_or_default().contains("fs.inotify.max_user_");
            if watch["state"] == state && told == (state == "failed") { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// The disk runs full when a script has opened a node's certificate for writing: the file is left empty.
    pub(crate) fn write_on_full_disk(&mut self, nth: usize) {
        let file = self.dir.join(&self.nodes[nth].name).join("server.pem");
        let mut opened = std::fs::OpenOptions::new().write(true).truncate(true).open(&file).unwrap();
        let full = Ballast::fill(&self.dir);
        let written = opened.write_all(self.nodes[nth].pair.cert.as_bytes());
        assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull);
        self.until_refused(nth);
        drop(full);
    }

    fn restart(&mut self, nth: usize, poll: u64) {
        self.servers[nth].kill();
        let Node { role, name, .. } = &self.nodes[nth];
        self.servers[nth].start(&self.dir, role, name, poll);
    }

    /// How soon leaves are served in this is not what is measured.
    pub(crate) fn uncounted(&mut self, meanwhile: impl FnOnce(&mut Self)) {
        let counted = self.served_within.len();
        meanwhile(self);
        self.served_within.truncate(counted);
    }

    /// Until a node serves the leaf on its disk.
    pub(crate) fn until_served(&mut self, nth: usize) {
        let (wanted, mut reasons) = (self.nodes[nth].pair.serial(), BTreeSet::new());
        wait::until(&format!("node {nth} serves its leaf"), LONG, || {
            let status = self.status(nth)?;
            reasons.insert(status["material"]["last_reload"]["reason"].to_string());
            let served = plain_serial(status["material"]["leaf"]["serial"].as_str().unwrap_or_default());
            if served == wanted { Ok(()) } else { Err(format!("{served}, wanted {wanted}: {status}")) }
        });
        if let Some(wrote) = self.nodes[nth].wrote.take() {
            if wrote.elapsed() > SLOW {
                println!("node {nth} served its leaf after {:.1?}, having said {reasons:?}", wrote.elapsed());
            }
            self.served_within.push(wrote.elapsed());
        }
    }

    /// Until a node has told that its files do not fit.
    pub(crate) fn until_refused(&self, nth: usize) {
        wait::until(&format!("node {nth} refuses its files"), LONG, || {
            let status = self.status(nth)?;
            if status["material"]["last_reload"]["result"] == "failed" { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Until disk and served agree everywhere, and every connection is of leaves that are on disk.
    pub(crate) fn until_settled(&mut self) {
        (0..NODES).for_each(|nth| self.until_served(nth));
        wait::until("every connection of the leaves on disk", LONG, || {
            (0..NODES).try_for_each(|nth| self.settled(nth))?;
            if self.client.status().connections.len() == SERVERS { Ok(()) } else { Err(self.told()) }
        });
    }

    fn settled(&self, nth: usize) -> Result<(), String> {
        let status = self.status(nth)?;
        if !status["material"]["differs_since"].is_null() {
            return Err(format!("node {nth}: disk and served differ: {}", status["material"]));
        }
        let leaves: Vec<_> = self.nodes.iter().map(|node| node.pair.serial()).collect();
        match serials(&status).into_iter().find(|serial| !leaves.contains(serial)) {
            Some(old) => Err(format!("node {nth} has a connection of the old leaf {old}")),
            None => Ok(()),
        }
    }

    /// Connections of leaves that were replaced longer ago than any call may take to end.
    pub(crate) fn overdue(&self) -> Vec<String> {
        let overdue = |serial: &String| self.superseded.get(serial).is_some_and(|at| at.elapsed() > BOUND);
        let of = |nth| self.status(nth).map_or_else(|_| Vec::new(), |status| serials(&status));
        (0..NODES).flat_map(of).filter(overdue).collect()
    }

    /// The processor time that a rotation costs a server, told by the kernel over so many of them without any call.
    pub(crate) fn cost(&mut self, rotations: u32) -> Duration {
        let before = self.servers[0].processor_time();
        for _ in 0..rotations {
            self.renew(0);
            self.until_served(0);
        }
        (self.servers[0].processor_time() - before) / rotations
    }

    /// All that is known, for a message.
    pub(crate) fn told(&self) -> String {
        let tells = |nth| self.status(nth).map_or_else(|e| e, |status| format!("{status:#}"));
        let logs = (0..SERVERS).map(|nth| tail(&log(&self.dir, &self.nodes[nth].name)));
        (0..NODES).map(tells).chain(logs).collect::<Vec<_>>().join("\n")
    }
}

fn node(dir: &Path, authority: &Authority, nth: usize) -> Node {
    let (role, name) =
        if nth < SERVERS { (DATA_NODE, format!("data-node-{}", nth + 1)) } else { ("proxy", "proxy-1".into()) };
    let (folder, pair) = (dir.join(&name), authority.sign(&Leaf::node(role, &name)));
    let set = Set { pair: pair.clone(), ca: authority.cert().into() };
    let disk = match nth {
        0 => Disk::Volume(Volume::create(&folder, &set)),
        1 => Disk::Chain(Chain::create(&folder, &set)),
        _ => {
            plain::create(&folder, &set);
            Disk::Plain(folder)
        }
    };
    Node { role, name, disk, pair, wrote: None }
}

/// Aside and by rename: a list is read whole or not at all.
pub(crate) fn lists(dir: &Path, authority: &Authority, revoked: &[Pair], distrusted: &[String]) {
    let crl = authority.crl(&revoked.iter().collect::<Vec<_>>());
    let name = format!("crls/{}.pem", number(authority));
    let distrust = format!("{}\n# end {}\n", distrusted.join("\n"), distrusted.len());
    for (path, text) in [(dir.join(name), crl), (dir.join("distrust"), distrust)] {
        let aside = path.with_file_name(".new");
        write_public(&aside, &text);
        std::fs::rename(&aside, &path).unwrap();
    }
}

fn number(authority: &Authority) -> String {
    authority.name().trim_start_matches("CA ").to_owned()
}

fn config(dir: &Path, node: &Node) -> MeshConfig {
    let file = |name: &str| dir.join(&node.name).join(name);
    let mut files = Files::new(file("server.pem"), file("server.key"), file("ca.pem"));
    files.crl = Some(dir.join("crls"));
    files.distrust = Some(dir.join("distrust"));
    let mut config = MeshConfig::new(node.role.parse().unwrap(), node.name.parse().unwrap(), files);
    config.limits.drain = GRACE;
    config
}

/// Both ends' leaves of every connection.
fn serials(status: &Value) -> Vec<String> {
    let connections = status["connections"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ends = connections.iter().flat_map(|connection| [&connection["own_serial"], &connection["peer_serial"]]);
    ends.filter_map(|serial| serial.as_str().map(plain_serial)).collect()
}
