//! Text of a peer in logs and status: cut, and without a control character.
use serde_json::Value;
use test_util::authority::{Pair, write_public, write_secret};
use test_util::command::{openssl, program};
use test_util::forge::{Forged, Key, SERVER_AUTH, San, name, subject_of};
use test_util::rogue::{self, Identity, Node, Reply};
use test_util::wait;

use crate::fixtures::{SOON, text};
use crate::site::{Live, Role, Site};

/// The most characters of a line, and of a text in the status document; a path of a file may be long, a peer's text may not.
const LONGEST_LINE: usize = 4_096;
const LONGEST_TEXT: usize = 2_048;
/// Begins a line of its own, where a line feed of a peer reaches the log.
const FORGED: &str = "2026-01-01T00:00:00Z [ERROR] forged";
/// Forges a line, clears a terminal, overwrites a line, and turns what follows around.
const JUNK: &str =
    "x\n2026-01-01T00:00:00Z [ERROR] forged\r\u{1b}[2J\u{1b}]0;owned\u{7}\u{0}\u{7f}\u{85}\u{9b}\u{202e}y";

/// That nothing in it is too long or not meant to be read.
fn assert_clean(what: &str, text: &str) {
    for line in text.lines() {
        let length = line.chars().count();
        assert!(length <= LONGEST_LINE, "{what}: a line of {length} characters: {}…", &line[..200]);
        assert!(!line.starts_with(FORGED), "{what}: a forged line: {line}");
        assert_printable(what, line);
    }
}

fn assert_printable(what: &str, text: &str) {
    let bad = text.chars().find(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(c));
    assert!(bad.is_none(), "{what}: {bad:?} in {text:?}");
}

/// The same of each text of a document but `der`, a certificate of our own bundle.
fn assert_clean_json(what: &str, value: &Value) {
    match value {
        Value::String(text) => {
            let length = text.chars().count();
            assert!(length <= LONGEST_TEXT, "{what}: a text of {length} characters: {}…", &text[..200]);
            assert_printable(what, text);
        }
        Value::Array(values) => values.iter().for_each(|value| assert_clean_json(what, value)),
        Value::Object(values) => {
            values.iter().filter(|(key, _)| *key != "der").for_each(|(key, value)| {
                assert_clean_json(&format!("{what}.{key}"), value);
            });
        }
        _ => {}
    }
}

fn assert_all_clean(live: &Live) {
    assert_clean("log", &live.process.log());
    assert_clean_json("status", &live.status());
}

/// Certificates whose texts are of every wrong kind, in the name of `issuer`.
fn texts(key: &Key, issuer: &[u8], names: &[San]) -> Vec<(&'static str, Forged)> {
    let of = |names: &[San]| Forged::leaf(&name("x"), issuer, key).sans(names);
    let serial = vec![0x41; 55_000];
    let more = |san: San| [names, &[san]].concat();
    vec![
        ("a serial of 110 KB in hex", of(names).serial(&serial)),
        ("a DNS name with control characters", of(&more(San::dns(JUNK)))),
        ("a URI with control characters", of(&more(San::uri(JUNK)))),
        ("a SPIFFE id with control characters", of(&[San::uri(&format!("spiffe://mesh.internal/proxy/{JUNK}"))])),
        ("a DNS name of 50 KB", of(&more(San::dns(&"a.".repeat(25_000))))),
        ("a SPIFFE id of 50 KB", of(&[San::uri(&format!("spiffe://mesh.internal/proxy/{}", "p".repeat(50_000)))])),
        ("2,000 names", of(&(0..2_000).map(|n| San::dns(&format!("name-{n}.mesh.internal"))).collect::<Vec<_>>())),
        ("a subject with control characters", Forged::leaf(&name(JUNK), issuer, key).sans(names)),
        ("a subject of 50 KB", Forged::leaf(&name(&"s".repeat(50_000)), issuer, key).sans(names)),
        ("names that are no text", of(&more(San::Dns((0..=255).collect())))),
        ("an expired leaf with control characters", of(&more(San::dns(JUNK))).expired()),
    ]
}

/// What a peer says reaches the log only once the process has written it: waits until `refusals` of them are there.
fn await_lines(live: &Live, refusals: usize) {
    wait::until("a line for each refusal", SOON, || {
        let lines = live.process.log().lines().filter(|line| line.contains("[WARN]")).count();
        if lines >= refusals { Ok(()) } else { Err(format!("{lines} of {refusals}")) }
    });
}

#[test]
fn texts_of_strangers_stay_short_and_clean() {
    let live = Site::new(Role::Coordinator).start();
    let (key, foreign) = (Key::p256(), Key::p256());
    let names = San::node("proxy", "proxy-1");
    for issuer in [name("nobody"), name(JUNK), name(&"i".repeat(50_000)), subject_of(live.site.mesh.cert())] {
        for (what, leaf) in texts(&key, &issuer, &names) {
            let leaf = leaf.signed_by(&foreign);
            if leaf.len() < test_util::forge::ROOM {
                let shown = Identity::new(vec![leaf], &key.private());
                assert!(live.knock_as(&shown).is_err(), "a stranger with {what} is served");
            }
        }
    }
    await_lines(&live, 4);
    assert_all_clean(&live);
}

/// A CA of ours signs what it is asked to; it need not be the attacker's friend.
#[test]
fn texts_of_members_stay_short_and_clean() {
    let live = Site::new(Role::Coordinator).start();
    let (key, ca) = (Key::p256(), Key::of_pem(&live.site.mesh.key()));
    let issuer = subject_of(live.site.mesh.cert());
    let mut held = Vec::new();
    for (_, leaf) in texts(&key, &issuer, &San::node("proxy", "proxy-1")) {
        held.extend(live.knock_as(&Identity::new(vec![leaf.signed_by(&ca)], &key.private())).ok());
        assert_clean_json("status", &live.status());
    }
    assert_all_clean(&live);
}

#[test]
fn texts_of_edge_clients_stay_short_and_clean() {
    let live = Site::new(Role::Proxy).start();
    let (key, foreign) = (Key::p256(), Key::p256());
    let (ours, ca) = (subject_of(live.site.edge.cert()), Key::of_pem(&live.site.edge.key()));
    let knock = |leaf| {
        let shown = Identity::new(vec![leaf], &key.private());
        rogue::call(&live.site.grpc(), "localhost", &rogue::client(&shown))
    };
    let mut held = Vec::new();
    for (what, leaf) in texts(&key, &ours, &[San::dns("client.test")]) {
        assert!(knock(leaf.signed_by(&foreign)).is_err(), "a stranger with {what} is served");
        held.extend(knock(leaf.clone().signed_by(&ca)).ok());
        held.extend(knock(leaf.usages(&[SERVER_AUTH]).signed_by(&ca)).ok());
    }
    await_lines(&live, 2);
    assert_all_clean(&live);
}

/// The server name comes first, before any certificate; the path of a call after it.
#[test]
fn names_and_paths_stay_short_and_clean() {
    let live = Site::new(Role::Coordinator).start();
    for sni in [JUNK.replace('\0', ""), "n".repeat(60_000), "\u{1b}[31m.mesh.internal".into()] {
        let _ =
            openssl(&["s_client", "-quiet", "-connect", &live.site.internal(), "-servername", &sni]).input("").run();
    }
    let member = live.site.peer("proxy", "proxy-1");
    write_public(&live.site.path("member.pem"), &member.cert);
    write_secret(&live.site.path("member.key"), &member.key);
    let (sni, at) = (live.site.sni(), live.site.internal());
    let (cert, key, ca) = (live.site.path("member.pem"), live.site.path("member.key"), live.site.path("certs/ca.pem"));
    let said = program("curl")
        .args(["-sS", "-v", "--http2", "-X", "POST", "-H", "content-type: application/grpc", "-o", "/dev/null"])
        .args(["--cert", &text(&cert), "--key", &text(&key), "--cacert", &text(&ca)])
        .args(["--connect-to", &format!("{sni}:443:{at}")])
        .args([format!("https://{sni}/{}", "p".repeat(12_000))])
        .run();
    assert!(said.err.contains("grpc-status: 7"), "the call was not refused by policy: {}", said.err);
    wait::until("a line of the call", SOON, || {
        if live.process.log().contains("policy refused a call") { Ok(()) } else { Err(live.process.log()) }
    });
    assert_all_clean(&live);
}

/// A data-node that has a leaf of ours, and a say in what the coordinator serves next.
#[test]
fn answers_of_peers_stay_short_and_clean() {
    let site = Site::new(Role::Coordinator);
    let (key, ca) = (Key::p256(), Key::of_pem(&site.mesh.key()));
    let leaf = Forged::leaf(&name(JUNK), &subject_of(site.mesh.cert()), &key)
        .sans(&San::node("data-node", "data-node-1"))
        .signed_by(&ca);
    let node = Node::start(&Identity::new(vec![leaf], &key.private()), |path| {
        let junk = JUNK.repeat(1_000);
        if path == "/mesh.Trial/Check" {
            // `message Answer { bool accepted = 1; string reason = 2; }`
            let length =
                [0x80 | (junk.len() & 0x7f) as u8, 0x80 | (junk.len() >> 7 & 0x7f) as u8, (junk.len() >> 14) as u8];
            let body = [&[0x12][..], &length, junk.as_bytes()].concat();
            Reply { body: Some(body), ..Reply::default() }
        } else {
            // Percent-encoded, as gRPC has it.
            Reply { status: 13, message: "x%0A2026-01-01T00:00:00Z [ERROR] forged%1B[2J".repeat(150), body: None }
        }
    });
    let live = site.set("cluster.dataNodes.data-node-1", &node.address().to_string()).start();
    wait::until("a call of the coordinator", SOON, || {
        let asked = node.asked();
        if asked.is_empty() { Err(live.process.log()) } else { Ok(()) }
    });
    let pair: Pair = live.site.mesh.sign(&live.site.leaf());
    pair.write(&live.site.path("certs"), "server");
    wait::until("a leaf that is held back", SOON, || {
        let last = live.status()["last_reload"].clone();
        if last["result"] == "failed" { Ok(()) } else { Err(format!("{last} {:?}", node.asked())) }
    });
    assert!(node.asked().iter().any(|path| path == "/mesh.Trial/Check"), "nobody asked: {:?}", node.asked());
    assert_all_clean(&live);
    let page = live.metrics();
    assert!(page.lines().all(|line| line.len() <= LONGEST_LINE), "a long line in the metrics");
}
