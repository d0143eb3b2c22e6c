//! A process that cannot have fit material does not start, and never listens.
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use test_util::authority::{Authority, Key, Leaf, Usage, write_public, write_secret};
use test_util::command::openssl;
use test_util::wait;

use crate::hand::Hand;

/// A coordinator whose files `spoil` has made unfit: it must end with code 1, having named each of `words`.
fn refuses(spoil: impl FnOnce(&Authority, &Path), words: &[&str]) {
    let hand = Hand::new();
    let (authority, folder) = (Authority::new("mesh CA"), hand.certs("coordinator-1"));
    std::fs::remove_dir_all(&folder).unwrap();
    authority.write_node(&folder, &Leaf::node("coordinator", "coordinator-1"));
    spoil(&authority, &folder);
    ends_without_listening(&hand, words);
}

/// The same, with lines that replace the configuration's.
fn refuses_config(edit: impl FnOnce(String) -> String, words: &[&str]) {
    let hand = Hand::new().edited(edit);
    ends_without_listening(&hand, words);
}

fn ends_without_listening(hand: &Hand, words: &[&str]) {
    let member = &hand.members()[0];
    let mut process = hand.spawn(member);
    let status = wait::until("the end of a process that may not start", Duration::from_secs(10), || {
        assert!(TcpStream::connect(&member.internal).is_err(), "it listens:\n{}", process.log());
        process.ended().ok_or_else(|| process.log())
    });
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for word in words {
        assert!(log.contains(word), "`{word}` is not in what it said:\n{log}");
    }
    assert!(!log.contains("Internal TLS Enabled"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "a key stands in the log:\n{log}");
}

fn leaf() -> Leaf {
    Leaf::node("coordinator", "coordinator-1")
}

#[test]
fn a_fit_coordinator_stays() {
    // The control: without anything spoilt the same process listens.
    let hand = Hand::new();
    let member = &hand.members()[0];
    let mut process = hand.spawn(member);
    wait::until("it listens", Duration::from_secs(20), || {
        assert!(process.ended().is_none(), "{}", process.log());
        TcpStream::connect(&member.internal).map(drop)
    });
}

#[test]
fn refuses_files_that_cannot_be_read() {
    refuses(
        |_, folder| std::fs::remove_file(folder.join("server.pem")).unwrap(),
        &["coordinator-1/server.pem", "serverPemPath"],
    );
    refuses(
        |_, folder| std::fs::remove_file(folder.join("server.key")).unwrap(),
        &["coordinator-1/server.key", "serverKeyPath"],
    );
    refuses(|_, folder| std::fs::remove_file(folder.join("ca.pem")).unwrap(), &["coordinator-1/ca.pem", "caPemPath"]);
    refuses(|_, folder| write_public(&folder.join("server.pem"), ""), &["coordinator-1/server.pem", "empty"]);
    refuses(
        |_, folder| {
            std::fs::remove_file(folder.join("ca.pem")).unwrap();
            std::fs::create_dir(folder.join("ca.pem")).unwrap();
        },
        &["coordinator-1/ca.pem", "folder"],
    );
}

#[test]
fn refuses_keys_that_do_not_fit() {
    refuses(
        |authority, folder| write_secret(&folder.join("server.key"), &authority.sign(&leaf()).key),
        &["coordinator-1/server.key"],
    );
    refuses(
        |_, folder| {
            let key = folder.join("server.key");
            let said = openssl(&["pkcs8", "-topk8", "-passout", "pass:secret"]).args(["-in"]).args([&key]).run();
            assert!(said.success, "{}", said.text());
            write_secret(&key, &said.out);
        },
        &["coordinator-1/server.key", "encrypted"],
    );
    refuses(
        |_, folder| {
            let permissions = std::fs::Permissions::from_mode(0o666);
            std::fs::set_permissions(folder.join("server.key"), permissions).unwrap();
        },
        &["coordinator-1/server.key", "writ"],
    );
}

#[test]
fn refuses_leaves_that_do_not_fit() {
    let rewrite = |leaf: Leaf| move |authority: &Authority, folder: &Path| drop(authority.write_node(folder, &leaf));
    refuses(rewrite(leaf().expired()), &["coordinator-1/server.pem", "expired"]);
    refuses(rewrite(leaf().not_yet_valid()), &["coordinator-1/server.pem", "not valid before"]);
    refuses(rewrite(Leaf::nameless("coordinator-1")), &["coordinator-1/server.pem", "SAN"]);
    refuses(rewrite(leaf().marked_as_ca()), &["coordinator-1/server.pem", "CA"]);
    refuses(rewrite(leaf().usages(&[Usage::Server])), &["coordinator-1/server.pem", "clientAuth"]);
    refuses(rewrite(leaf().usages(&[Usage::CodeSigning])), &["coordinator-1/server.pem", "serverAuth"]);
    refuses(
        rewrite(Leaf::node("proxy", "proxy-1")),
        &["coordinator-1/server.pem", "is of spiffe://mesh.internal/proxy/proxy-1"],
    );
    refuses(
        |_, folder| write_public(&folder.join("ca.pem"), Authority::new("another CA").cert()),
        &["coordinator-1/server.pem", "ca.pem"],
    );
}

/// Keys of each kind are fit.
#[test]
fn takes_keys_of_each_kind() {
    for key in [Key::Ecdsa, Key::Rsa, Key::Ed25519] {
        let hand = Hand::new();
        Authority::new("mesh CA").write_node(&fresh(&hand), &leaf().key(key));
        let member = &hand.members()[0];
        let mut process = hand.spawn(member);
        wait::until(&format!("it listens with {key:?}"), Duration::from_secs(20), || {
            assert!(process.ended().is_none(), "{}", process.log());
            TcpStream::connect(&member.internal).map(drop)
        });
    }
}

fn fresh(hand: &Hand) -> std::path::PathBuf {
    let folder = hand.certs("coordinator-1");
    std::fs::remove_dir_all(&folder).unwrap();
    folder
}

#[test]
fn refuses_settings_that_do_not_fit() {
    let paths = |yaml: String| {
        yaml.lines().filter(|line| !line.contains("certs/mesh")).map(|line| format!("{line}\n")).collect::<String>()
    };
    refuses_config(|yaml| yaml.replace("tlsMode: 1", "tlsMode: 3"), &["tlsMode", "3"]);
    refuses_config(paths, &["internaltls.serverPemPath"]);
    refuses_config(|yaml| yaml.replace("    internaltlsEnabled: true\n", ""), &["internaltlsEnabled"]);
    refuses_config(|yaml| yaml.replace("internaltlsEnabled", "internalTlsEnable"), &["internaltlsEnabled"]);
    refuses_config(|yaml| yaml.replace("  caPemPath:", "  caPath:"), &["caPath", "caPemPath"]);
}
