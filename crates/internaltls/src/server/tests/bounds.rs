//! What a peer may cost when it says nothing, or answers nothing.
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsConnector;

use super::attacks::{NAME, Scene};
use super::pki::{Authority, Folder, Leaf, dialer};
use super::rig::{Client, Rig, within};
use crate::config::Limits;
use crate::policy::Policy;
use crate::transport::descriptors;

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn invariant_8_a_mute_connection_is_closed() {
    let limits = Limits { first_request: SHORT, keepalive_timeout: SHORT, ..Limits::default() };
    let rig = Rig::plaintext(limits, Policy::allow_all()).await;
    let mut mute = TcpStream::connect(rig.address).await.unwrap();
    let _ = within("the server closes", mute.read_to_end(&mut Vec::new())).await;
    let text = rig.telemetry.encode();
    assert!(text.contains("internaltls_connections_drained_total{reason=\"no-request\"} 1"), "{text}");
}

#[tokio::test]
async fn invariant_8_a_peer_that_answers_no_ping_is_closed() {
    let limits = Limits { keepalive_interval: SHORT, keepalive_timeout: SHORT, ..Limits::default() };
    let rig = Rig::plaintext(limits, Policy::allow_all()).await;
    let mut deaf = TcpStream::connect(rig.address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    deaf.write_all(&settings).await.unwrap();
    let mut heard = Vec::new();
    let _ = within("the server closes", deaf.read_to_end(&mut heard)).await;
    let pinged = [0, 0, 8, 6, 0];
    assert!(heard.windows(5).any(|frame| frame == pinged), "{heard:?}");
}

#[tokio::test]
async fn pings_of_a_client_without_calls_are_answered() {
    let rig = Rig::plaintext(Limits::default(), Policy::allow_all()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (_send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let driver = tokio::spawn(connection);
    for _ in 0..100 {
        within("a pong", pings.ping(h2::Ping::opaque())).await.unwrap();
    }
    driver.abort();
}

#[tokio::test]
async fn invariant_8_a_foreign_clients_metadata_fails_its_own_call() {
    let rig = Rig::plaintext(Limits::default(), Policy::allow_all()).await;
    let stream = TcpStream::connect(rig.address).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let call = async |method: &str, notes: usize| {
        let request = http::Request::post(format!("http://test/test.Echo/{method}"))
            .header("content-type", "application/grpc")
            .header("x-notes", "n".repeat(notes));
        let (answer, _) = send.clone().send_request(request.body(()).unwrap(), true).unwrap();
        answer.await.map(|answer| answer.status())
    };
    let held = call("Hold", 1);
    let beside = async {
        within("the bystander begins", rig.behaviour.begun.notified()).await;
        for notes in [40 * 1024, 120 * 1024] {
            let refused = within("an answer", call("Who", notes)).await;
            let too_large = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            assert!(refused.is_err() || refused.as_ref().unwrap() == &too_large, "{notes}: {refused:?}");
        }
        rig.behaviour.release.add_permits(1);
    };
    let (held, ()) = tokio::join!(held, beside);
    assert_eq!(held.unwrap(), http::StatusCode::OK);
    driver.abort();
}

/// A TLS record that says a long handshake message follows.
const NEVER_ENDING: [u8; 9] = [0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];

/// Connections that say nothing, held open.
async fn stalled(scene: &Scene, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpStream::connect(scene.rig.address).await.unwrap());
    }
    held
}

#[tokio::test]
async fn invariant_8_the_timeout_frees_stalled_handshakes() {
    let scene = Scene::with(Limits { half_open: 64, hello_timeout: SHORT, ..Limits::default() }).await;
    let held = stalled(&scene, 12).await;
    scene.rig.counted("tls_handshakes_total{result=\"timeout\",resumed=\"false\",surface=\"mesh\"} 12").await;
    assert!(scene.client().await.is_served().await);
    drop(held);
}

/// What a client hears that is turned away before there are keys.
const INTERNAL_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

#[tokio::test]
async fn invariant_8_the_turned_away_hear_an_alert() {
    let scene = Scene::with(Limits { half_open: 2, ..Limits::default() }).await;
    let mut held = stalled(&scene, 2).await;
    // Also one that has begun.
    held[1].write_all(&NEVER_ENDING).await.unwrap();
    held.extend(stalled(&scene, 2).await);
    for mut displaced in held.drain(..2) {
        let mut heard = Vec::new();
        within("the oldest is closed", displaced.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, INTERNAL_ERROR);
    }
    scene.rig.counted("tls_handshakes_total{result=\"crowded\",resumed=\"false\",surface=\"mesh\"} 2").await;
    scene.rig.shutdown.cancel();
    for mut left in held {
        let mut heard = Vec::new();
        within("the others are closed", left.read_to_end(&mut heard)).await.unwrap();
        assert_eq!(heard, INTERNAL_ERROR);
    }
    within("the server stops", scene.rig.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn invariant_8_silence_holds_no_place() {
    let scene = Scene::with(Limits { half_open: 4, handshakes: 1, ..Limits::default() }).await;
    let held = stalled(&scene, 12).await;
    // From the very address of the silent ones.
    assert!(scene.client().await.is_served().await);
    drop(held);
}

/// What a client of the mesh sends first.
fn client_hello(scene: &Scene) -> Vec<u8> {
    let name = ServerName::try_from(NAME).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(scene.proxy()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn invariant_8_a_hello_alone_keeps_no_slot() {
    let limits = Limits { handshakes: 2, handshake_timeout: Duration::from_secs(2), ..Limits::default() };
    let scene = Scene::with(limits).await;
    let hello = client_hello(&scene);
    let mut held = stalled(&scene, 2).await;
    for silent in &mut held {
        silent.write_all(&hello).await.unwrap();
        // Its answer has come: it has a slot.
        within("an answer", silent.readable()).await.unwrap();
    }
    assert!(scene.client().await.is_served().await, "the slots' time shrinks to a twentieth");
    drop(held);
}

#[tokio::test]
async fn invariant_8_a_handshake_permit_is_not_held_by_the_connection() {
    let scene = Scene::with(Limits { handshakes: 1, handshakes_per_address: 1, ..Limits::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let client = scene.client().await;
        assert!(client.is_served().await);
        clients.push(client);
    }
    assert_eq!(scene.rig.registry.snapshot().len(), 4);
}

#[tokio::test]
async fn invariant_8_a_flood_of_bytes_is_cut() {
    let scene = Scene::with(Limits { handshake_bytes: 4 * 1024, ..Limits::default() }).await;
    let mut flood = TcpStream::connect(scene.rig.address).await.unwrap();
    let flooding = async {
        flood.write_all(&NEVER_ENDING).await?;
        loop {
            flood.write_all(&[0; 1024]).await?;
        }
    };
    let cut: std::io::Result<()> = within("the server closes", flooding).await;
    assert!(cut.is_err());
    scene.rig.counted("tls_handshakes_total{result=\"too-many-bytes\",resumed=\"false\",surface=\"mesh\"} 1").await;
}

/// Names the folder of the coordinator's files to the process that serves with few descriptors.
const CONFINED: &str = "INTERNALTLS_TEST_CONFINED";
const DESCRIPTORS: u64 = 256;

/// A process of its own that serves with few descriptors.
struct Confined {
    process: Child,
    told: Lines<BufReader<ChildStdout>>,
    asked: ChildStdin,
}

impl Confined {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "server::tests::bounds::invariant_5_no_number_of_connections_keeps_a_peer_from_being_cut",
            ])
            .arg("--nocapture")
            .env(CONFINED, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let told = BufReader::new(process.stdout.take().unwrap()).lines();
        let asked = process.stdin.take().unwrap();
        Self { process, told, asked }
    }

    /// What it says after this word.
    async fn says(&mut self, word: &str) -> String {
        let said = async {
            while let Some(line) = self.told.next_line().await.unwrap() {
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
            }
            panic!("it ended: {:?}", self.process.wait().await);
        };
        within(word, said).await
    }
}

/// A client that is served; `None` where it is refused or nobody accepts it.
async fn served(port: u16, config: &Arc<ClientConfig>) -> Option<Client> {
    let dialled = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let name = ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.ok()?;
        let client = Client::over(stream).await;
        client.is_served().await.then_some(client)
    };
    tokio::time::timeout(Duration::from_secs(3), dialled).await.ok().flatten()
}

/// As a process of its own: the limit is the process'.
#[tokio::test]
async fn invariant_5_no_number_of_connections_keeps_a_peer_from_being_cut() {
    if let Some(folder) = std::env::var_os(CONFINED) {
        return confined(Path::new(&folder)).await;
    }
    descriptors::raise();
    let ca = Authority::new("mesh CA");
    let (folder, greedy) = (Folder::with(&ca.node("coordinator", "c-1"), &ca.pem()), ca.node("proxy", "p-1"));
    let config = Arc::new(dialer(&ca.pem(), Some(&greedy), &[&TLS13]));
    let mut server = Confined::start(folder.path("").as_path());
    let port = server.says("port ").await.parse().unwrap();
    let list = server.says("list ").await;
    let mut held = Vec::new();
    while let Some(client) = served(port, &config).await {
        held.push(client);
        assert!(held.len() < 300, "more connections than descriptors");
    }
    assert!(held.len() > 100, "{} connections were all", held.len());
    folder.distrust(&greedy);
    std::fs::copy(folder.path("distrust"), list).unwrap();
    server.asked.write_all(b"look\n").await.unwrap();
    let reloaded = server.says("reloaded ").await;
    assert!(reloaded.starts_with("Ok(Published"), "{reloaded}");
    for client in held {
        let _ = within("the listed peer is cut", client.connection).await.unwrap();
    }
    let exhausted = server.says("internaltls_accept_errors_total{kind=\"exhausted\"} ").await;
    assert!(exhausted.parse::<u64>().unwrap() > 0, "{exhausted}");
}

/// Serves, and looks at its files when it is asked to.
async fn confined(folder: &Path) {
    let limit = Some(DESCRIPTORS);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let own = Folder::with(&Leaf { cert: read("leaf.pem"), key: read("leaf.key") }, &read("ca.pem"));
    let store = own.mesh_store().await;
    let rig = Rig::tls(Arc::clone(&store), Limits::default()).await;
    println!("\nport {}\nlist {}", rig.address.port(), own.path("distrust").display());
    let asked = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    asked.await.unwrap().unwrap();
    println!("reloaded {:?}", store.reload().await);
    println!("{}", rig.telemetry.encode());
    std::future::pending().await
}
