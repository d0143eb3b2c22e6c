//! What is printed when a cluster is up: where it is, and lines to paste. Pure.
use std::path::{Path, PathBuf};

use super::plan::{HOST, Plan};
use crate::cluster::{Cluster, Edge, Process};

/// What `cluster.json` says; `pids` in the order of the plan's nodes.
#[must_use]
pub fn cluster(plan: &Plan, pids: &[u32]) -> Cluster {
    let process = |(node, pid): (&super::plan::Node, &u32)| Process {
        role: node.role.name().to_owned(),
        node: node.name.clone(),
        pid: *pid,
        internal: node.internal.to_string(),
        health: node.health.to_string(),
        management: node.management.to_string(),
    };
    Cluster {
        processes: plan.nodes.iter().zip(pids).map(process).collect(),
        edge: edge(plan),
        certs: Some(plan.certs()),
    }
}

fn edge(plan: &Plan) -> Edge {
    let files = (plan.tls_mode > 0).then(|| client_files(plan));
    let (ca, cert, key) = files.unwrap_or_default();
    Edge {
        grpc: plan.for_clients(plan.grpc),
        rest: plan.for_clients(plan.rest),
        tls_mode: plan.tls_mode,
        ca,
        cert,
        key,
    }
}

/// Ours, or those that lie beside the server's where the user brought his own.
fn client_files(plan: &Plan) -> (Option<PathBuf>, Option<PathBuf>, Option<PathBuf>) {
    if plan.own_edge {
        let edge = plan.dir.join("certs/edge");
        return (Some(edge.join("ca.pem")), Some(edge.join("client.pem")), Some(edge.join("client.key")));
    }
    let beside = |name: &str| {
        plan.given
            .get("tls.serverPemPath")
            .map(|path| Path::new(path).with_file_name(name))
            .filter(|path| path.exists())
    };
    let ca = plan.given.get("tls.caPemPath").map(PathBuf::from).or_else(|| beside("ca.pem"));
    (ca, beside("client.pem"), beside("client.key"))
}

/// The text. `program` is how this program is called from anywhere.
#[must_use]
pub fn text(plan: &Plan, program: &Path) -> String {
    let edge = edge(plan);
    let (dir, program) = (shell(&plan.dir), shell(program));
    let tls = ["no TLS", "one-way TLS", "two-way TLS"][usize::from(plan.tls_mode.min(2))];
    format!(
        "\nthe cluster is up: {names}\n\n\
         \x20 gRPC and REST  {grpc}  ({tls})\n\
         \x20 REST           {rest}\n\
         \x20 health         http://{health}/healthz\n\
         \x20 status page    http://{management}/\n\
         \x20 logs           {logs}\n\n\
         python, after `pip install pymilvus`:\n\n{python}\n\
         curl:\n\n  {curl}\n\n\
         what is served, what it proves, and how to swap certificates while it serves:\n\n\
         \x20 {program} status --dir {dir}\n\
         \x20 {program} verify --dir {dir}\n\
         \x20 {program} certs renew --dir {dir}\n\n\
         Ctrl-C stops it; the data stays in {data}\n",
        names = plan.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", "),
        grpc = edge.grpc,
        rest = edge.rest,
        health = plan.nodes[0].health,
        management = plan.nodes[0].management,
        logs = plan.dir.join("logs").display(),
        python = python(plan, &edge),
        curl = curl(plan, &edge),
        data = plan.dir.join("data").display(),
    )
}

fn python(plan: &Plan, edge: &Edge) -> String {
    // pymilvus takes no address of IPv6; of the name both libraries that it dials with try every address.
    let at = if plan.address.is_ipv6() { format!("{HOST}:{}", plan.grpc) } else { edge.grpc.clone() };
    let mut arguments = vec![format!("uri=\"{}://{at}\"", scheme(plan))];
    if let Some(token) = token(plan) {
        arguments.push(format!("token=\"{token}\""));
    }
    let path = |name: &str, path: &Option<PathBuf>| {
        format!("{name}=\"{}\"", path.as_ref().map_or("...".into(), |path| path.to_string_lossy()))
    };
    match plan.tls_mode {
        0 => {}
        // pymilvus passes over the client's certificate once server_pem_path is set.
        1 => arguments.push(path("server_pem_path", &edge.ca)),
        _ => arguments.extend([
            path("ca_pem_path", &edge.ca),
            path("client_pem_path", &edge.cert),
            path("client_key_path", &edge.key),
        ]),
    }
    if plan.tls_mode > 0 {
        arguments.push(format!("server_name=\"{HOST}\""));
    }
    let lines: String = arguments.iter().map(|argument| format!("      {argument},\n")).collect();
    format!(
        "  from pymilvus import MilvusClient\n  client = MilvusClient(\n{lines}  )\n  print(client.list_collections())\n"
    )
}

fn curl(plan: &Plan, edge: &Edge) -> String {
    let mut words = vec!["curl".to_owned()];
    let mut option = |name: &str, path: &Option<PathBuf>| {
        if let Some(path) = path {
            words.push(format!("{name} {}", shell(path)));
        }
    };
    if plan.tls_mode > 0 {
        option("--cacert", &edge.ca);
    }
    if plan.tls_mode > 1 {
        option("--cert", &edge.cert);
        option("--key", &edge.key);
    }
    if let Some(token) = token(plan) {
        words.push(format!("-H 'Authorization: Bearer {token}'"));
    }
    // Brackets are a pattern to some shells, and to curl a range unless the address in them is one.
    words.push(shell(Path::new(&format!("{}://{}/v2/vectordb/collections/list", scheme(plan), edge.rest))));
    words.join(" ")
}

fn scheme(plan: &Plan) -> &'static str {
    if plan.tls_mode > 0 { "https" } else { "http" }
}

/// The documented user; a password of one's own is not printed.
fn token(plan: &Plan) -> Option<String> {
    let asked =
        plan.given.get("common.security.authorizationEnabled").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let own = plan.given.contains_key("common.security.defaultRootPassword");
    asked.then(|| if own { "root:PASSWORD".to_owned() } else { "root:Milvus".to_owned() })
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,=@%:".contains(c));
    if plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
