//! What a stranger's chain may cost before it is refused (invariant 8).
//!
//! 1. The measure is processor time of the process under attack, from before the first byte until the refusal has arrived.
//! 2. Each chain is shown several times, an honest stranger's (a leaf and one intermediate of an unknown CA) before each; medians are
//!    compared. What costs thirty times as much ends the test at once: an attack that works may take minutes.
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use internaltls::{Channel, Endpoint, Files, Mesh, MeshConfig, NodeId};
use rustls::ServerConnection;
use test_util::authority::Leaf;
use test_util::forge::{self, Bearer, Key, San, Shown};
use test_util::process::Cpu;
use test_util::rogue::{self, Identity};
use test_util::wait;
use tokio::runtime::Runtime;
use tonic::Code;
use tonic_prost::ProstCodec;

use crate::fixtures::SOON;
use crate::site::{Live, Role, Site};

/// How many times as much as an honest stranger a hostile one may cost.
const MOST: f64 = 3.0;
/// What ends a test at once.
const FAR_TOO_MUCH: f64 = 30.0;
const ROUNDS: usize = 7;

/// Shows `honest` and each of `hostile` several times to the process `pid`, each time to what `prepare` has made ready, and compares
/// what they cost it.
fn compare<T>(
    pid: u32,
    honest: &Shown,
    hostile: &[Shown],
    mut prepare: impl FnMut() -> T,
    mut show: impl FnMut(T, &Shown),
) {
    let mut cost = |shown: &Shown| {
        let ready = prepare();
        let before = quiet(pid);
        show(ready, shown);
        Cpu::of(pid).since(&before)
    };
    let mut usual: Vec<Duration> = (0..5).map(|_| cost(honest)).collect();
    let mut costs = vec![Vec::new(); hostile.len()];
    for _ in 0..ROUNDS {
        for (shown, costs) in hostile.iter().zip(&mut costs) {
            usual.push(cost(honest));
            let took = cost(shown);
            costs.push(took);
            let times = times(took, median(&usual));
            assert!(
                times < FAR_TOO_MUCH,
                "{}: {took:?}, {times:.0} times the {:?} of {}",
                shown.what,
                median(&usual),
                honest.what
            );
        }
    }
    let usual = median(&usual);
    let told: Vec<String> = hostile
        .iter()
        .zip(&costs)
        .map(|(shown, costs)| format!("{:.1} times: {}, {:?}", times(median(costs), usual), shown.what, median(costs)))
        .collect();
    println!("{usual:?} for {}\n{}", honest.what, told.join("\n"));
    let worst = costs.iter().map(|costs| times(median(costs), usual)).fold(0.0, f64::max);
    assert!(worst <= MOST, "{usual:?} for {}\n{}", honest.what, told.join("\n"));
}

/// The process at rest, or after a second as it is: what it does beside is not to be measured.
fn quiet(pid: u32) -> Cpu {
    let start = Instant::now();
    let mut before = Cpu::of(pid);
    loop {
        std::thread::park_timeout(Duration::from_millis(4));
        let now = Cpu::of(pid);
        if now.since(&before) < Duration::from_micros(50) || start.elapsed() > Duration::from_secs(1) {
            return now;
        }
        before = now;
    }
}

fn times(took: Duration, usual: Duration) -> f64 {
    took.as_secs_f64() / usual.as_secs_f64()
}

fn median(of: &[Duration]) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// What an attacker without any certificate of ours can show: it knows the name of our CA.
fn bearer<'a>(key: &'a Key, site: &Site, sans: &[San]) -> Bearer<'a> {
    let ca = if sans.is_empty() { site.edge.cert() } else { site.mesh.cert() };
    Bearer { key, sans: sans.to_vec(), trusted: forge::subject_of(ca) }
}

fn identity(shown: &Shown, key: &Key) -> Identity {
    Identity::new(shown.chain.clone(), &key.private())
}

#[test]
fn invariant_8_mesh_refuses_chains_cheaply() {
    let live = Site::new(Role::Coordinator).start();
    let key = Key::p256();
    let bearer = bearer(&key, &live.site, &San::node("proxy", "proxy-1"));
    compare(
        live.pid(),
        &bearer.stranger(),
        &bearer.hostile(),
        || (),
        |(), shown| {
            let let_in = live.knock_as(&identity(shown, &key));
            assert!(let_in.is_err(), "{} is served", shown.what);
        },
    );
}

#[test]
fn invariant_8_edge_refuses_chains_cheaply() {
    let live = Site::new(Role::Proxy).start();
    let key = Key::p256();
    let bearer = bearer(&key, &live.site, &[]);
    await_edge(&live);
    compare(
        live.pid(),
        &bearer.stranger(),
        &bearer.hostile(),
        || (),
        |(), shown| {
            let let_in = rogue::call(&live.site.grpc(), "localhost", &rogue::client(&identity(shown, &key)));
            assert!(let_in.is_err(), "{} is served", shown.what);
        },
    );
}

/// The control: a client of the edge's CA is served.
fn await_edge(live: &Live) {
    let client = live.site.edge.sign(&Leaf::edge_client());
    let config = rogue::client(&Identity::of_pem(&client.cert, &client.key));
    wait::until("the edge serves its client", SOON, || rogue::call(&live.site.grpc(), "localhost", &config).map(drop));
}

/// As `internaltls::question` has them.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(bytes = "vec", repeated, tag = "1")]
    chain: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(bool, tag = "1")]
    accepted: bool,
    #[prost(string, tag = "2")]
    reason: String,
}

/// A node with a valid leaf that asks about chains.
struct Asker {
    runtime: Runtime,
    channel: Channel,
    _mesh: Mesh,
}

impl Asker {
    fn new(live: &Live, role: &str, node: &str) -> Self {
        let folder = live.site.path(node);
        live.site.mesh.write_node(&folder, &Leaf::node(role, node));
        let file = |name: &str| folder.join(name);
        let files = Files::new(file("server.pem"), file("server.key"), file("ca.pem"));
        let runtime = Runtime::new().unwrap();
        let id: NodeId = node.parse().unwrap();
        let mesh = runtime.block_on(Mesh::open(MeshConfig::new(role.parse().unwrap(), id, files))).unwrap();
        let address: SocketAddr = live.site.internal().parse().unwrap();
        let channel = mesh.channel("coordinator".parse().unwrap(), Endpoint::from(address));
        Self { runtime, channel, _mesh: mesh }
    }

    fn ask(&self, shown: &Shown) -> Result<Answer, tonic::Status> {
        let chain = shown.chain.iter().map(|der| der.to_vec()).collect();
        self.runtime.block_on(async {
            let mut grpc = tonic::client::Grpc::new(self.channel.clone());
            grpc.ready().await?;
            let path = http::uri::PathAndQuery::from_static("/mesh.Trial/Check");
            let codec = ProstCodec::<Question, Answer>::default();
            let mut request = tonic::Request::new(Question { chain });
            request.set_timeout(Duration::from_secs(60));
            grpc.unary(request, path, codec).await.map(tonic::Response::into_inner)
        })
    }
}

#[test]
fn invariant_8_trial_answers_chains_cheaply() {
    let live = Site::new(Role::Coordinator).start();
    let (asker, key) = (Asker::new(&live, "data-node", "data-node-1"), Key::p256());
    let bearer = bearer(&key, &live.site, &San::node("data-node", "data-node-1"));
    let own = live.site.peer("data-node", "data-node-1");
    let good = Shown { what: "its own new leaf".into(), chain: Identity::of_pem(&own.cert, &own.key).chain() };
    let answer = asker.ask(&good).unwrap();
    assert!(answer.accepted, "the control: {answer:?}");
    // A caller may ask 64 times at once, and ten times a second from then on: what it is not let ask is not measured.
    let mut asked = 0;
    let pause = || {
        asked += 1;
        if asked % 48 == 0 {
            wait::throughout("a pause", Duration::from_secs(5), || Ok::<(), String>(()));
        }
    };
    compare(live.pid(), &bearer.stranger(), &bearer.hostile(), pause, |(), shown| match asker.ask(shown) {
        Ok(answer) => {
            assert!(!answer.accepted, "{} would be served", shown.what);
            assert!(answer.reason.len() <= 1024, "{}: a reason of {} bytes", shown.what, answer.reason.len());
        }
        Err(status) => assert_ne!(status.code(), Code::ResourceExhausted, "{}: {status}", shown.what),
    });
}

/// Shows each that dials the next of these chains, round and round, one at a time.
#[test]
fn invariant_8_diallers_refuse_chains_cheaply() {
    let doors: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    let mut site = Site::new(Role::Coordinator).without("cluster.dataNodes");
    for (n, door) in doors.iter().enumerate() {
        door.set_nonblocking(true).unwrap();
        site = site.set(&format!("cluster.dataNodes.data-node-{}", n + 1), &door.local_addr().unwrap().to_string());
    }
    let key = Key::p256();
    let bearer = bearer(&key, &site, &San::node("data-node", "data-node-1"));
    let (honest, all) = (bearer.stranger(), bearer.hostile());
    // A dialler rests up to three seconds: of each kind the worst alone.
    let kinds = [
        "9 CAs of one name, as fat",
        "9 CAs of our CA's name with keys of P-521",
        "a chain of",
        "a leaf with",
        "one intermediate",
    ];
    let hostile: Vec<Shown> =
        kinds.iter().map(|kind| all.iter().find(|shown| shown.what.starts_with(kind)).unwrap().clone()).collect();
    let live = site.start();
    let mut turn = 0;
    let dialler = || {
        wait::until("a dialler", SOON, || {
            turn += 1;
            doors[turn % doors.len()].accept().map(|(socket, _)| socket)
        })
    };
    compare(live.pid(), &honest, &hostile, dialler, |mut socket, shown| {
        let config = rogue::server(&identity(shown, &key));
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut tls = ServerConnection::new(config).unwrap();
        let ended = loop {
            match tls.complete_io(&mut socket) {
                Ok(_) if tls.is_handshaking() => {}
                ended => break ended,
            }
        };
        assert!(ended.is_err(), "a dialler takes {} for a data-node", shown.what);
    });
}

/// Four connections at once, again and again; a member knocks meanwhile.
#[test]
fn invariant_8_a_member_is_served_during_attacks() {
    let live = Site::new(Role::Coordinator).start();
    let (key, member) = (Key::p256(), live.site.peer("proxy", "proxy-1"));
    let bearer = bearer(&key, &live.site, &San::node("proxy", "proxy-1"));
    let usual = served_beside(&live, &[identity(&bearer.stranger(), &key)], &member);
    let worst = bearer.hostile().into_iter().filter(|shown| shown.what.starts_with("9 CAs of one name, as fat"));
    let hostile: Vec<Identity> = worst.map(|shown| identity(&shown, &key)).collect();
    assert_eq!(hostile.len(), 1);
    let attacked = served_beside(&live, &hostile, &member);
    assert!(
        times(attacked, usual) < 5.0,
        "a member waits {attacked:?} beside four hostile connections, {usual:?} beside four honest strangers"
    );
}

/// The median time until a member is served while four others show these.
fn served_beside(live: &Live, shown: &[Identity], member: &test_util::authority::Pair) -> Duration {
    let over = AtomicBool::new(false);
    let configs: Vec<_> = shown.iter().map(rogue::client).collect();
    let attack = || {
        for config in configs.iter().cycle() {
            if over.load(Ordering::SeqCst) {
                return;
            }
            let (address, sni) = (live.site.internal(), live.site.sni());
            let _ = rogue::call_within(&address, &sni, config, Duration::from_secs(20));
        }
    };
    let config = rogue::client(&Identity::of_pem(&member.cert, &member.key));
    let knock = || {
        let start = Instant::now();
        wait::until("a member is served", Duration::from_secs(30), || {
            rogue::call_within(&live.site.internal(), &live.site.sni(), &config, Duration::from_secs(30))
        });
        start.elapsed()
    };
    let times: Vec<Duration> = std::thread::scope(|scope| {
        // However this ends, the attackers end.
        let _end = End(&over);
        (0..4).for_each(|_| drop(scope.spawn(attack)));
        (0..15).map(|_| knock()).collect()
    });
    median(&times)
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
