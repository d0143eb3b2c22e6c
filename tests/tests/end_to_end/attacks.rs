//! Intruders at the internal ports of a running cluster. Each sends a request and reads the answer: in TLS 1.3 a client
//! finishes its handshake before it is judged.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use test_util::authority::{Authority, Leaf};
use test_util::cluster::{Cluster, Member};
use test_util::command::{Said, openssl, program};
use test_util::process::{Process, free_port};
use test_util::wait;

use crate::fixtures::{MESHCTL, SECRETS, post, scratch, shared, text};

/// The preface of HTTP/2 and an empty SETTINGS frame: whoever is let in is answered with SETTINGS.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[test]
fn verify_is_green() {
    let cluster = shared(1);
    let said = cluster.meshctl(&["verify", "--dir", &text(cluster.dir())]).run();
    assert!(said.success, "{}", said.text());
    for member in cluster.members() {
        assert!(said.out.contains(&member.node), "{} is not in the table:\n{}", member.node, said.out);
    }
    assert!(!said.out.contains("not tried"), "{}", said.out);
}

/// A listener with the right leaf that asks nobody for a certificate, and answers.
#[test]
fn verify_is_red_at_an_open_door() {
    let cluster = shared(1);
    let (certs, port) = (cluster.mesh_certs("coordinator-1"), free_port().to_string());
    let mut command = Command::new("openssl");
    command.args(["s_server", "-quiet", "-rev", "-alpn", "h2", "-accept", &port]);
    command.arg("-cert").arg(certs.join("server.pem")).arg("-key").arg(certs.join("server.key"));
    let door = Process::spawn("openssl s_server", command, &scratch().join("open-door.log"));
    wait::until("the open door", Duration::from_secs(10), || {
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).map(drop)
    });
    let target = format!("127.0.0.1:{port}=coordinator");
    let certs = text(&cluster.dir().join("certs"));
    let said = program(MESHCTL)
        .args(["verify", "--certs", &certs, "--target", &target])
        .within(Duration::from_secs(120))
        .run();
    assert_eq!(said.code, Some(1), "an open door passed:\n{}\n{}", said.text(), door.log());
}

#[test]
fn internal_ports_refuse_intruders() {
    let cluster = shared(1);
    let intruders = Intruders::new(cluster);
    for member in cluster.members() {
        for (what, arguments) in intruders.of(member) {
            let said = call(member, &arguments);
            assert!(said.out.is_empty(), "{} answered {what}: {:?}", member.node, said.text());
            let refused = ["alert", "unexpected eof", "errno=104", "reset"].iter().any(|word| said.err.contains(word));
            assert!(refused, "{} did not refuse {what}: {:?}", member.node, said.text());
        }
    }
}

/// The control: what is refused above is not refused for some other reason.
#[test]
fn internal_ports_serve_members() {
    let cluster = shared(1);
    for member in cluster.members() {
        let operator = cluster.mesh_certs("operator-1");
        let said = call(member, &with(&shown(&operator.join("server.pem")), &["-servername", &name(member)]));
        assert!(!said.out.is_empty(), "{} did not answer a member: {:?}", member.node, said.text());
    }
}

/// Each with the one thing wrong that its name says.
struct Intruders {
    member: Vec<String>,
    edge_client: Vec<String>,
    foreign: Vec<String>,
}

impl Intruders {
    fn new(cluster: &Cluster) -> Self {
        let folder = scratch().join("intruder");
        Authority::new("foreign CA").write_node(&folder, &Leaf::node("proxy", "proxy-1"));
        Self {
            member: shown(&cluster.mesh_certs("operator-1").join("server.pem")),
            edge_client: shown(&cluster.edge_certs().join("client.pem")),
            foreign: shown(&folder.join("server.pem")),
        }
    }

    fn of(&self, member: &Member) -> Vec<(&'static str, Vec<String>)> {
        let name = name(member);
        let right = ["-servername", name.as_str()];
        vec![
            ("nobody", with(&[], &right)),
            ("a foreign CA's leaf", with(&self.foreign, &right)),
            ("an edge client", with(&self.edge_client, &right)),
            ("TLS 1.2", with(&self.member, &["-servername", &name, "-tls1_2"])),
            ("a foreign name", with(&self.member, &["-servername", "localhost"])),
            ("another role's name", with(&self.member, &["-servername", "metrics.mesh.internal"])),
            ("no name", with(&self.member, &["-noservername"])),
        ]
    }
}

fn name(member: &Member) -> String {
    format!("{}.mesh.internal", member.role)
}

fn shown(cert: &Path) -> Vec<String> {
    vec!["-cert".into(), text(cert), "-key".into(), text(&cert.with_extension("key"))]
}

fn with(credentials: &[String], more: &[&str]) -> Vec<String> {
    credentials.iter().cloned().chain(more.iter().map(ToString::to_string)).collect()
}

fn call(member: &Member, arguments: &[String]) -> Said {
    openssl(&["s_client", "-quiet", "-alpn", "h2", "-connect", &member.internal])
        .args(arguments)
        .input(HELLO)
        .within(Duration::from_secs(2))
        .run()
}

#[test]
fn policy_refuses_a_role() {
    let cluster = shared(1);
    let (coordinator, list) = (cluster.member("coordinator-1"), "mesh.v1.Coordinator/ListCollections");
    assert_eq!(grpc_status(cluster, coordinator, "proxy-1", list), Some(0), "the control");
    assert_eq!(grpc_status(cluster, coordinator, "data-node-1", list), Some(7));
    assert_eq!(grpc_status(cluster, coordinator, "operator-1", list), Some(7));
    let data_node = cluster.member("data-node-1");
    assert_eq!(grpc_status(cluster, data_node, "data-node-2", "mesh.v1.DataNode/Insert"), Some(7));
    assert_eq!(grpc_status(cluster, data_node, "operator-1", "mesh.v1.Identity/WhoAmI"), Some(0));
    assert_eq!(grpc_status(cluster, data_node, "proxy-1", "mesh.v1.DataNode/OpenShard"), Some(7));
}

/// What an empty request from the node `from` is answered with.
fn grpc_status(cluster: &Cluster, to: &Member, from: &str, method: &str) -> Option<u32> {
    let certs: PathBuf = cluster.mesh_certs(from);
    let (name, port) = (name(to), to.internal.rsplit(':').next().unwrap());
    let request = scratch().join("empty-request");
    std::fs::write(&request, [0_u8; 5]).unwrap();
    let said = program("curl")
        .args(["-sS", "--http2", "--max-time", "10", "-v", "-o", "/dev/null", "-X", "POST"])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["--data-binary", &format!("@{}", text(&request))])
        .args(["--cacert", &text(&certs.join("ca.pem")), "--cert", &text(&certs.join("server.pem"))])
        .args(["--key", &text(&certs.join("server.key")), "--resolve", &format!("{name}:{port}:127.0.0.1")])
        .args([format!("https://{name}:{port}/{method}")])
        .run();
    let status = said.err.lines().find_map(|line| line.strip_prefix("< grpc-status: ")).map(|text| text.trim().parse());
    status.unwrap_or_else(|| panic!("no status from {} to {}: {}", from, to.node, said.text())).ok()
}

/// The shared clusters run with SSLKEYLOGFILE set.
#[test]
fn writes_no_session_secrets() {
    let cluster = shared(1);
    post(cluster.edge(), "collections/list", &serde_json::json!({}));
    let environment = std::fs::read(format!("/proc/{}/environ", cluster.member("proxy-1").pid)).unwrap();
    assert!(String::from_utf8_lossy(&environment).contains("SSLKEYLOGFILE="), "the processes were not tempted");
    assert!(!cluster.dir().join(SECRETS).exists(), "session secrets were written");
}
