mod echo;

use std::future::Future;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use test_util::authority::{Authority, Leaf};
use test_util::command::{Said, openssl};
use test_util::disk::{Set, plain};
use test_util::process::is_running;
use test_util::relay::Relay;
use test_util::tls::Credentials;
use test_util::wait;
use tonic::Code;

use super::pair::{Sidecar, identity};
use super::*;
use echo::{Caller, Served};

const MIB: usize = 1 << 20;

/// Runs `test` with each kind that is installed. A line tells of one that is not, past the harness, which would keep it.
async fn with_each<F: Future>(test: impl Fn(Program) -> F) {
    for kind in Kind::ALL {
        match find(kind, &target()) {
            Ok(program) => drop(test(program).await),
            Err(missing) => writeln!(std::io::stderr(), "sidecar {kind}: NOT RUN: {missing}").unwrap(),
        }
    }
}

/// The build folder: this binary lies in its `PROFILE/deps`.
fn target() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(3).unwrap().into()
}

/// Many bytes that no window or buffer boundary can hide among.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn carries_calls_of_every_shape() {
    with_each(async |program: Program| {
        let (folder, server) = (TempDir::new().unwrap(), Served::start());
        let pair = start(&program, folder.path(), server.address).unwrap();
        let mut caller = Caller::plain(pair.entrance());
        for length in [0, 1, 16_384, MIB] {
            assert_eq!(caller.say(bytes(length)).await.unwrap(), bytes(length), "{program:?}");
        }
        assert_eq!(caller.count(1_000, bytes(1_024)).await.unwrap(), (0..1_000).collect::<Vec<_>>(), "{program:?}");
        let denied = caller.deny().await;
        assert_eq!((denied.code(), denied.message()), (Code::FailedPrecondition, "because"), "{program:?}");
        assert_eq!(server.calls(), 6, "{program:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn carries_64_calls_and_64_streams_at_a_time() {
    with_each(async |program: Program| {
        let (folder, server) = (TempDir::new().unwrap(), Served::start());
        let pair = start(&program, folder.path(), server.address).unwrap();
        let caller = Caller::plain(pair.entrance());
        let large = |_| {
            let mut caller = caller.clone();
            async move { caller.say(bytes(MIB)).await.unwrap() == bytes(MIB) }
        };
        let streams = |_| {
            let mut caller = caller.clone();
            async move { caller.count(100, bytes(1_024)).await.unwrap().len() == 100 }
        };
        let all = futures_util::future::join(
            futures_util::future::join_all((0..64).map(large)),
            futures_util::future::join_all((0..64).map(streams)),
        );
        let (large, streams) = all.await;
        assert!(large.into_iter().chain(streams).all(|whole| whole), "{program:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_refuses_whoever_shows_no_fit_certificate() {
    with_each(async |program: Program| {
        let (folder, server) = (TempDir::new().unwrap(), Served::start());
        let pair = start(&program, folder.path(), server.address).unwrap();
        let own = folder.path().join("entrance");
        let stranger = folder.path().join("stranger");
        plain::create(&stranger, &identity(&Authority::new("another"), Side::Entrance));
        let attack = async |shown: Option<&Path>| {
            let client = shown.map(|folder| (folder.join(CERT), folder.join(KEY)));
            let credentials = Credentials { ca: own.join(CA), client };
            Caller::tls(pair.exit(), &credentials).say(bytes(1)).await
        };
        assert_eq!(attack(Some(&own)).await.unwrap(), bytes(1), "{program:?}");
        assert!(attack(None).await.is_err(), "{program:?}: no certificate");
        assert!(attack(Some(&stranger)).await.is_err(), "{program:?}: another CA's");
        assert!(Caller::plain(pair.exit()).say(bytes(1)).await.is_err(), "{program:?}: plaintext");
        assert_eq!(server.calls(), 1, "{program:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_speaks_tls13_alone() {
    with_each(async |program: Program| {
        let (folder, server) = (TempDir::new().unwrap(), Served::start());
        let pair = start(&program, folder.path(), server.address).unwrap();
        let own = folder.path().join("entrance");
        let [newest, older] = ["-tls1_3", "-tls1_2"].map(|version| s_client(&own, pair.exit(), version));
        assert!(newest.success && newest.out.contains("TLSv1.3"), "{program:?}: {}", newest.text());
        assert!(newest.out.contains("ALPN protocol: h2"), "{program:?}: {}", newest.text());
        assert!(!older.success && older.text().contains("alert protocol version"), "{program:?}: {}", older.text());
    })
    .await;
}

fn s_client(own: &Path, to: SocketAddr, version: &str) -> Said {
    let common = ["s_client", "-connect", &to.to_string(), "-servername", EXIT, "-verify_hostname", EXIT];
    let proofs = ["-verify_return_error", "-alpn", "h2", version, "-CAfile", CA, "-cert", CERT, "-key", KEY];
    openssl(&common).args(proofs).folder(own).run()
}

#[tokio::test(flavor = "multi_thread")]
async fn entrance_refuses_an_exit_that_proves_nothing() {
    with_each(async |program: Program| {
        let (authority, another) = (Authority::new("sidecars"), Authority::new("another"));
        let other_name = Leaf::nameless("other.sidecar.internal").dns("other.sidecar.internal");
        let by_another = Set { ca: authority.cert().into(), ..identity(&another, Side::Exit) };
        let misnamed = Set { pair: authority.sign(&other_name), ca: authority.cert().into() };
        assert!(through(&program, &authority, &identity(&authority, Side::Exit)).await, "{program:?}");
        assert!(!through(&program, &authority, &misnamed).await, "{program:?}: another name");
        assert!(!through(&program, &authority, &by_another).await, "{program:?}: another CA");
    })
    .await;
}

/// Whether a call passes when the exit shows `shown`. It believes whom it always does, so that no refusal is its own.
async fn through(program: &Program, authority: &Authority, shown: &Set) -> bool {
    let (folder, server) = (TempDir::new().unwrap(), Served::start());
    let exit = Sidecar::start(program, folder.path(), Side::Exit, server.address, shown).unwrap();
    let own = identity(authority, Side::Entrance);
    let entrance = Sidecar::start(program, folder.path(), Side::Entrance, exit.address(), &own).unwrap();
    let passed = Caller::plain(entrance.address()).say(bytes(1)).await.is_ok();
    assert_eq!(server.calls(), usize::from(passed));
    passed
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_between_them_is_readable() {
    with_each(async |program: Program| {
        let (folder, server) = (TempDir::new().unwrap(), Served::start());
        let authority = Authority::new("sidecars");
        let start = |side, to| Sidecar::start(&program, folder.path(), side, to, &identity(&authority, side)).unwrap();
        let behind = Relay::to(server.address);
        let exit = start(Side::Exit, behind.address());
        let between = Relay::to(exit.address());
        let entrance = start(Side::Entrance, between.address());
        let marker = b"a marker that nobody else says".to_vec();
        assert_eq!(Caller::plain(entrance.address()).say(marker.clone()).await.unwrap(), marker, "{program:?}");
        assert!(behind.saw(&marker) && !between.saw(&marker), "{program:?}");
        assert!(between.records().iter().any(|record| record.len() > marker.len()), "{program:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_with_all_its_workers() {
    with_each(async |program: Program| {
        let (folder, server) = (TempDir::new().unwrap(), Served::start());
        let pair = start(&program, folder.path(), server.address).unwrap();
        let (pids, workers) = (pair.pids(), program.kind.workers(std::thread::available_parallelism().unwrap().get()));
        assert_eq!(pids.len(), 2 * (1 + workers), "{program:?}: {pids:?}");
        assert!(pids.iter().all(|pid| is_running(*pid)), "{program:?}: {pids:?}");
        drop(pair);
        let gone = || if pids.iter().any(|pid| is_running(*pid)) { Err(format!("{pids:?}")) } else { Ok(()) };
        wait::until("the end of all processes", Duration::from_secs(5), gone);
    })
    .await;
}

#[test]
fn passes_over_a_program_that_does_not_run() {
    let target = TempDir::new().unwrap();
    let bin = target.path().join("bench-peers/bin");
    std::fs::create_dir_all(&bin).unwrap();
    let envoy = bin.join("envoy");
    symlink("/bin/false", &envoy).unwrap();
    match find(Kind::Envoy, target.path()) {
        Ok(another) => assert_ne!(another.path, envoy),
        Err(missing) => assert!(missing.to_string().starts_with("envoy does not run: "), "{missing}"),
    }
    std::fs::remove_file(&envoy).unwrap();
    symlink("/bin/ls", &envoy).unwrap();
    assert_eq!(find(Kind::Envoy, target.path()).unwrap().path, envoy);
}

#[test]
fn says_what_is_missing_and_the_remedy() {
    let missing = Missing { kind: Kind::Nginx, why: "is not installed".into() };
    let line = missing.to_string();
    assert!(line.starts_with("nginx is not installed; `apt-get install nginx-light`"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_to_start_tells_the_log() {
    let (folder, server) = (TempDir::new().unwrap(), Served::start());
    let program = Program { kind: Kind::Envoy, path: "/bin/ls".into(), version: String::new() };
    let error = format!("{:#}", start(&program, folder.path(), server.address).unwrap_err());
    assert!(error.contains("it ended with exit status: 2") && error.contains("unrecognized option"), "{error}");
}
