//! A thousand connections to one server: what each costs, and how soon all are cut once their peer is listed.
//!
//! ```sh
//! cargo test --release -p tests --test rotation thousand -- --nocapture
//! ```
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use http::uri::PathAndQuery;
use internaltls::{Channel, Endpoint, Files, Mesh, MeshConfig};
use tempfile::TempDir;
use test_util::authority::{Authority, Leaf, Pair};
use test_util::disk::{Set, Volume};
use test_util::process::{allow_open_files, resident};
use test_util::wait;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::fixtures::LONG;
use crate::scene::lists;
use crate::server::{POLL, Server};
use crate::wire::{SAY, Text};

const CONNECTIONS: usize = 1_000;
/// Dials under way at once: a listener bounds those of one address.
const AT_ONCE: usize = 32;
const SERVER: (&str, &str) = ("data-node", "data-node-1");
const CLIENT: (&str, &str) = ("proxy", "proxy-1");
/// From the write of a list to the last connection's end. A second is what is promised; the rest is for a machine that does
/// other things, and a build that is slow.
const BOUND: Duration = Duration::from_secs(3);
/// What a connection without a call may cost a server, in bytes.
const MOST: u64 = 128 * 1024;

/// One server, and one client that has many connections to it.
struct Crowd {
    dir: PathBuf,
    authority: Authority,
    server: Server,
    client: Mesh,
    disk: Volume,
    pair: Pair,
    runtime: Runtime,
    _scratch: TempDir,
}

impl Crowd {
    fn start() -> Self {
        allow_open_files(4 * CONNECTIONS as u64);
        let (scratch, authority) = (TempDir::with_prefix("thousand-").unwrap(), Authority::new("CA 0"));
        let dir = scratch.path().join("disk");
        lists(&dir, &authority, &[], &[]);
        authority.write_node(&dir.join(SERVER.1), &Leaf::node(SERVER.0, SERVER.1));
        let pair = authority.sign(&Leaf::node(CLIENT.0, CLIENT.1));
        let set = Set { pair: pair.clone(), ca: authority.cert().into() };
        let disk = Volume::create(&dir.join(CLIENT.1), &set);
        let mut server = Server::new();
        server.start(&dir, SERVER.0, SERVER.1, POLL);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let client = runtime.block_on(Mesh::open(config(&dir))).unwrap();
        Self { dir, authority, server, client, disk, pair, runtime, _scratch: scratch }
    }

    /// So many connections, over each of which a call was answered.
    fn connect(&self, count: usize) -> Vec<Channel> {
        let address = self.server.listens;
        let dial = |_| async move {
            let channel = self.client.channel(SERVER.0.parse().unwrap(), Endpoint::from(address));
            say(&channel).await.map(|()| channel)
        };
        let dials = stream::iter(0..count).map(dial).buffer_unordered(AT_ONCE);
        self.runtime.block_on(dials.try_collect()).unwrap()
    }

    fn live(&self) -> usize {
        self.client.registry().by_generation().values().sum()
    }

    /// How long it takes from this write until no connection is left.
    fn cut(&self, write: impl FnOnce()) -> Duration {
        assert_eq!(self.live(), CONNECTIONS);
        write();
        let written = Instant::now();
        while self.live() > 0 && written.elapsed() < LONG {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let took = written.elapsed();
        let told = self.server.status().unwrap();
        assert_eq!(told["ended"]["cut"]["distrusted"], CONNECTIONS, "{}", told["ended"]);
        assert!(took < BOUND, "{CONNECTIONS} connections were cut within {took:?}");
        took
    }

    fn renew(&mut self) {
        self.pair = self.authority.sign(&Leaf::node(CLIENT.0, CLIENT.1));
        self.disk.swap(&Set { pair: self.pair.clone(), ca: self.authority.cert().into() });
        self.runtime.block_on(self.client.reload()).unwrap();
    }
}

fn config(dir: &Path) -> MeshConfig {
    let file = |name: &str| dir.join(CLIENT.1).join(name);
    let files = Files::new(file("server.pem"), file("server.key"), file("ca.pem"));
    MeshConfig::new(CLIENT.0.parse().unwrap(), CLIENT.1.parse().unwrap(), files)
}

async fn say(channel: &Channel) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let (path, codec) = (PathAndQuery::from_static(SAY), ProstCodec::<Text, Text>::default());
    grpc.unary(Request::new(Text::default()), path, codec).await.map(drop)
}

#[test]
fn thousand_connections_of_a_listed_peer_are_cut_at_once() {
    let crowd = Crowd::start();
    let channels = crowd.connect(CONNECTIONS);
    let key = crowd.pair.spki_sha256();
    let took = crowd.cut(|| lists(&crowd.dir, &crowd.authority, &[], &[key]));
    println!("{CONNECTIONS} connections were cut {took:.1?} after the list of distrusted keys was written");
    crowd.runtime.block_on(say(&channels[0])).expect_err("a listed peer is let in");
}

#[test]
fn thousand_connections_of_a_revoked_leaf_are_cut_at_once() {
    let mut crowd = Crowd::start();
    // The first of them make room that those after them use again.
    drop(crowd.connect(CONNECTIONS / 5));
    wait::until("the first have ended", LONG, || {
        match crowd.server.status()?["connections"].as_array().map(Vec::len) {
            Some(0) => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    let before = resident(crowd.server.pid());
    let _channels = crowd.connect(CONNECTIONS);
    let each = 1024 * resident(crowd.server.pid()).saturating_sub(before) / CONNECTIONS as u64;
    println!("a connection without a call costs its server {each} bytes");
    assert!(each < MOST, "a connection costs {each} bytes");
    let took = crowd.cut(|| lists(&crowd.dir, &crowd.authority, &[crowd.pair.clone()], &[]));
    println!("{CONNECTIONS} connections were cut {took:.1?} after the revocation list was written");
    crowd.renew();
    drop(crowd.connect(1));
}
