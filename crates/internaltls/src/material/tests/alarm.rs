//! What an operator hears: metrics, status and log agree with what is so.
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::issue::*;
use crate::clock::{Clock as _, TestClock};
use crate::config::{Files, Reload};
use crate::material::Store;
use crate::telemetry::{Surface, Telemetry};

const DAY: Duration = Duration::from_secs(86_400);

/// A proxy by a clock of its own, with a leaf to dial with and a list.
struct Stage {
    ca: Authority,
    folder: Folder,
    clock: Arc<TestClock>,
    telemetry: Telemetry,
    store: Arc<Store>,
}

impl Stage {
    async fn open() -> Self {
        let ca = authority("mesh ca");
        let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
        let dials = ca.node("proxy", "proxy-1");
        folder.put("client.pem", &dials.pem);
        folder.put("client.key", &dials.key);
        let clock = Arc::new(TestClock::at(SystemTime::now()));
        folder.put("crl.pem", ca.crl(&[], clock.now() + DAY / 2));
        let files = Files {
            client_cert: Some(folder.path("client.pem")),
            client_key: Some(folder.path("client.key")),
            crl: Some(folder.path("crl.pem")),
            ..folder.files()
        };
        let (reload, telemetry) = (Reload { watch: false, ..quick() }, Telemetry::new());
        let counts = Arc::new(telemetry.clone());
        let store = Store::open(mesh("proxy", "proxy-1"), files, None, reload, clock.clone(), counts).await.unwrap();
        Self { ca, folder, clock, telemetry, store }
    }

    /// The value of the one series whose name and labels contain all of these.
    fn metric(&self, words: &[&str]) -> f64 {
        let text = self.telemetry.encode();
        let fits = |line: &&str| !line.starts_with('#') && words.iter().all(|word| line.contains(word));
        let found: Vec<&str> = text.lines().filter(fits).collect();
        assert_eq!(found.len(), 1, "{words:?} in {text}");
        found[0].rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn days(&self, certificate: &str) -> f64 {
        self.metric(&["internaltls_days_left{", &format!("certificate=\"{certificate}\"")])
    }
}

fn near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < 0.01
}

#[tokio::test]
async fn days_left_are_those_of_now() {
    let stage = Stage::open().await;
    assert!(near(stage.days("leaf"), 1.0) && near(stage.days("client-leaf"), 1.0), "{}", stage.telemetry.encode());
    assert!(near(stage.days("ca"), 2.0), "{}", stage.telemetry.encode());
    // Nothing is published; a day passes.
    stage.clock.advance(DAY + DAY / 2);
    assert!(near(stage.days("leaf"), -0.5) && near(stage.days("ca"), 0.5), "{}", stage.telemetry.encode());
    assert!(near(stage.metric(&["internaltls_crl_seconds_left{"]) / 86_400.0, -1.0), "{}", stage.telemetry.encode());
    let status = stage.store.status();
    assert_eq!((status.leaf.days_left, status.client_leaf.unwrap().days_left, status.cas[0].days_left), (-1, -1, 0));
    let ca = format!("subject=\"CN=mesh ca\",sha256=\"{}\"", status.cas[0].sha256);
    assert!(stage.telemetry.encode().contains(&ca), "{}", stage.telemetry.encode());
}

#[tokio::test]
async fn the_last_look_at_the_files_is_told() {
    let stage = Stage::open().await;
    let loaded = stage.metric(&["internaltls_loaded_timestamp_seconds{"]);
    let failed = || stage.metric(&["internaltls_last_reload_failed{"]);
    let looked = || stage.metric(&["internaltls_last_reload_timestamp_seconds{"]);
    assert!(near(loaded, looked()) && near(failed(), 0.0));
    stage.folder.put("server.key", "");
    stage.clock.advance(Duration::from_secs(60));
    stage.store.reload().await.unwrap_err();
    stage.clock.advance(Duration::from_secs(25));
    assert!(near(failed(), 1.0) && near(looked() - loaded, 60.0), "{}", stage.telemetry.encode());
    assert!(near(stage.metric(&["internaltls_material_differs{"]), 1.0));
    assert!(near(stage.metric(&["internaltls_material_differs_seconds{"]), 25.0));
    assert!(near(stage.metric(&["internaltls_reloads_total{", "result=\"failed\""]), 1.0));
    assert_eq!(stage.store.status().differs_seconds, 25);
    let leaf = stage.ca.node("proxy", "proxy-1");
    stage.folder.put("server.pem", &leaf.pem);
    stage.folder.put("server.key", &leaf.key);
    stage.store.reload().await.unwrap();
    assert!(near(failed(), 0.0) && near(stage.metric(&["internaltls_material_differs_seconds{"]), 0.0));
    assert!(near(stage.metric(&["internaltls_generation{"]), 2.0));
    assert!(near(stage.metric(&["internaltls_loaded_timestamp_seconds{"]) - loaded, 85.0));
}

/// What is logged on this thread, a line an event: level, message and fields.
#[derive(Default, Clone)]
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(super) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_failed_reload_is_a_warning_with_the_whole_chain_of_causes() {
    let stage = Stage::open().await;
    let foreign = authority("another ca").node("proxy", "proxy-1");
    stage.folder.put("server.pem", &foreign.pem);
    stage.folder.put("server.key", &foreign.key);
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || stage.store.take_turn()).unwrap_err();
    let lines = log.lines();
    let warned: Vec<&String> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warned.len(), 1, "{lines:#?}");
    let serial = crate::verify::CertificateFacts::read(&foreign.der).unwrap().serial;
    // What is refused and by which file and setting; by whose certificate; why.
    for part in ["server.pem", "internaltls.serverPemPath", "ca.pem", &serial, "no CA in our bundle signed it"] {
        assert!(warned[0].contains(part), "`{part}` is not in: {}", warned[0]);
    }
    assert_eq!(stage.store.status().last_reload.reason.as_deref().map(|reason| warned[0].contains(reason)), Some(true));
}

#[tokio::test]
async fn a_list_is_told_of_when_it_is_late_and_when_it_is_too_old() {
    let stage = Stage::open().await;
    let log = Log::default();
    let look = || {
        tracing::subscriber::with_default(log.clone(), || (0..3).for_each(|_| stage.store.look_at_the_clock()));
        log.lines()
    };
    assert_eq!(look(), Vec::<String>::new());
    stage.clock.advance(DAY / 2);
    let late = look();
    assert!(late.len() == 1 && late[0].starts_with("WARN") && late[0].contains("CN=mesh ca"), "{late:?}");
    stage.clock.advance(Reload::default().crl_grace);
    let too_old = look();
    assert!(too_old.len() == 1 && too_old[0].starts_with("ERROR"), "{too_old:?}");
    stage.folder.put("crl.pem", stage.ca.crl(&[], stage.clock.now() + DAY));
    stage.store.reload().await.unwrap();
    assert_eq!((look(), stage.store.status().crls[0].state), (Vec::new(), "fresh"));
}

/// Every name in the text of the metrics stands in the manual, and the other way round.
#[tokio::test]
async fn the_manual_names_every_metric() {
    const MANUAL: &str = include_str!("../../manual/alarm.md");
    let stage = Stage::open().await;
    // A series is there from its first count on.
    let telemetry = &stage.telemetry;
    telemetry.server_handshake(Surface::Mesh, "ok", false);
    telemetry.client_handshake("ok", false);
    telemetry.live_connections(Surface::Mesh, "inbound");
    telemetry.drained("rotation");
    telemetry.cut("expiry");
    telemetry.calls("proxy");
    telemetry.accept_error("exhausted");
    telemetry.policy_refusal("proxy");
    telemetry.reload("mesh", "ok");
    telemetry.trial("asked", "ok");
    let text = telemetry.encode();
    let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut names: Vec<String> = named
        .map(|line| match line.split_once(' ') {
            Some((name, "counter")) => format!("{name}_total"),
            Some((name, _)) => name.to_owned(),
            None => panic!("{line}"),
        })
        .collect();
    // Not there before the first connection.
    names.push("internaltls_connections_by_generation".to_owned());
    for name in &names {
        assert!(MANUAL.contains(&format!("`{name}`")), "the manual does not name {name}");
    }
    let words = MANUAL.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    for word in words.filter(|word| word.starts_with("internaltls_") || word.starts_with("grpc_")) {
        assert!(names.iter().any(|name| name == word), "the manual names {word}, which there is not");
    }
}

#[test]
fn invariant_9_tells_when_nobody_looks() {
    let ca = authority("ca");
    let folder = Folder::of(&ca.pem, &ca.node("proxy", "proxy-1"));
    let telemetry = Telemetry::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let reload = Reload { watch: false, poll: Duration::from_millis(50), ..quick() };
    let (clock, counts) = (Arc::new(crate::clock::SystemClock), Arc::new(telemetry.clone()));
    let open = Store::open(mesh("proxy", "proxy-1"), folder.files(), None, reload, clock, counts);
    let store = runtime.block_on(open).unwrap();
    // Whatever ends the tasks that follow, and without a word to anybody.
    drop(runtime);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !store.status().look.overdue {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.status());
        std::thread::yield_now();
    }
    assert!(telemetry.encode().contains("internaltls_look_overdue{material=\"mesh\"} 1"), "{}", telemetry.encode());
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        for _ in 0..3 {
            store.look_at_the_clock();
        }
    });
    let errors: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("ERROR")).collect();
    assert_eq!(errors.len(), 2, "one of the pair, one of the lists: {errors:#?}");
    store.take_turn().unwrap();
    tracing::subscriber::with_default(log.clone(), || store.look_at_the_clock());
    assert!(log.lines().iter().all(|line| !line.starts_with("ERROR")));
}
