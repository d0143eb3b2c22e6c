//! What each node reads: `milvus.yaml`, the user's file as it is (or the reference, all in comments), and `user.yaml`, ours, over it.
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

use super::links;
use super::plan::{Node, Plan, Role};
use crate::certs::folder;

/// Values as text, by dotted key.
pub type Keys = BTreeMap<&'static str, String>;

const MAP: &str = "cluster.dataNodes";

/// Writes the folders of all nodes.
///
/// # Errors
/// When something cannot be read or written.
pub fn write(plan: &Plan) -> anyhow::Result<()> {
    let base = match &plan.base {
        Some(file) => fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?,
        None => commented(&settings::reference()),
    };
    for node in &plan.nodes {
        links::refuse(&node.config)?;
        folder::create_private(&node.config)?;
        private(&node.config.join("milvus.yaml"), &base)?;
        private(&node.config.join("user.yaml"), &yaml(&keys(plan, node)))?;
    }
    Ok(())
}

/// All lines as comments: what equals a default is not said, so that a build that lacks a key still reads the folder.
fn commented(reference: &str) -> String {
    let line =
        |line: &str| if line.is_empty() || line.starts_with('#') { format!("{line}\n") } else { format!("# {line}\n") };
    reference.lines().map(line).collect()
}

/// Everything that a node's `user.yaml` says.
#[must_use]
pub fn keys(plan: &Plan, node: &Node) -> Keys {
    let mut keys = plan.given.clone();
    for (key, value) in defaults(plan, node) {
        keys.entry(key).or_insert(value);
    }
    keys.extend(decided(plan, node));
    keys
}

/// What counts where the user's file is silent.
fn defaults(plan: &Plan, node: &Node) -> Keys {
    let mut keys = Keys::from([
        ("common.security.internaltlsEnabled", "true".to_owned()),
        ("localStorage.path", text(&plan.dir.join("data"))),
    ]);
    if plan.own_edge {
        let edge = plan.dir.join("certs/edge");
        keys.insert("tls.serverPemPath", text(&edge.join("server.pem")));
        keys.insert("tls.serverKeyPath", text(&edge.join("server.key")));
        keys.insert("tls.caPemPath", text(&edge.join("ca.pem")));
        keys.insert("tls.requireClientAuthEku", "true".to_owned());
    }
    if plan.own_mesh {
        let own = plan.dir.join("certs/mesh").join(&node.name);
        keys.insert("internaltls.serverPemPath", text(&own.join("server.pem")));
        keys.insert("internaltls.serverKeyPath", text(&own.join("server.key")));
        keys.insert("internaltls.caPemPath", text(&own.join("ca.pem")));
    }
    keys
}

/// What no file decides: flags, addresses and ports.
fn decided(plan: &Plan, node: &Node) -> Keys {
    let loopback = || "127.0.0.1".to_owned();
    let mut keys = Keys::from([
        ("common.security.tlsMode", plan.tls_mode.to_string()),
        ("proxy.address", plan.address.to_string()),
        ("proxy.port", plan.grpc.to_string()),
        ("coordinator.address", loopback()),
        ("dataNode.address", loopback()),
        ("cluster.coordinator", address_of(plan, Role::Coordinator)),
        (MAP, data_nodes(plan)),
        ("management.healthAddress", plan.address.to_string()),
        ("management.healthPort", node.health.port().to_string()),
        ("management.address", loopback()),
        ("management.port", node.management.port().to_string()),
        (internal_port_key(node.role), node.internal.port().to_string()),
    ]);
    // Not set it is proxy.address.
    if plan.address.to_string() != loopback() || plan.given.contains_key("proxy.internalAddress") {
        keys.insert("proxy.internalAddress", loopback());
    }
    if plan.rest != plan.grpc {
        keys.insert("proxy.http.port", plan.rest.to_string());
    }
    keys
}

fn internal_port_key(role: Role) -> &'static str {
    match role {
        Role::Proxy => "proxy.internalPort",
        Role::DataNode => "dataNode.port",
        Role::Coordinator => "coordinator.port",
    }
}

fn address_of(plan: &Plan, role: Role) -> String {
    plan.nodes.iter().find(|node| node.role == role).map(|node| node.internal.to_string()).unwrap_or_default()
}

fn data_nodes(plan: &Plan) -> String {
    let data = plan.nodes.iter().filter(|node| node.role == Role::DataNode);
    data.map(|node| format!("{}={}", node.name, node.internal)).collect::<Vec<_>>().join(",")
}

/// Keys as nested YAML. Values are quoted as JSON strings, which YAML reads as they are.
#[must_use]
pub fn yaml(keys: &Keys) -> String {
    let mut out =
        "# Written by `meshctl up`, over milvus.yaml beside it. Changes here are overwritten at the next start.\n"
            .to_owned();
    let mut open: Vec<&str> = Vec::new();
    for (key, value) in keys {
        let mut path: Vec<&str> = key.split('.').collect();
        let leaf = path.pop().unwrap_or_default();
        let shared = path.iter().zip(&open).take_while(|(a, b)| a == b).count();
        for (depth, section) in path.iter().enumerate().skip(shared) {
            out.push_str(&format!("{}{section}:\n", "  ".repeat(depth)));
        }
        out.push_str(&line(key, leaf, value, path.len()));
        open = path;
    }
    out
}

fn line(key: &str, leaf: &str, value: &str, depth: usize) -> String {
    let indent = "  ".repeat(depth);
    if key != MAP {
        return format!("{indent}{leaf}: {}\n", quoted(value));
    }
    let entries = value.split(',').filter_map(|entry| entry.split_once('='));
    let lines: String = entries.map(|(name, address)| format!("{indent}  {name}: {}\n", quoted(address))).collect();
    format!("{indent}{leaf}:\n{lines}")
}

fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A configuration may hold a password.
fn private(path: &Path, content: &str) -> anyhow::Result<()> {
    let _ = fs::remove_file(path);
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use settings::Settings;

    use super::*;
    use crate::up::{Args, plan::plan, ports::Ports};

    fn planned(dir: &Path, address: [u8; 4], given: Keys) -> Plan {
        let args = Args {
            dir: dir.to_owned(),
            data_nodes: 2,
            tls_mode: None,
            config: None,
            port: None,
            http_port: None,
            management_port: None,
            address: address.into(),
            free_ports: true,
        };
        plan(&args, dir, given, &mut Ports::new(true)).unwrap()
    }

    /// So a build that lacks a key of this one reads the folder all the same.
    #[test]
    fn what_is_written_names_no_default() {
        let dir = tempfile::tempdir().unwrap();
        let plan = planned(dir.path(), [127, 0, 0, 1], Keys::new());
        write(&plan).unwrap();
        for node in &plan.nodes {
            let base = fs::read_to_string(node.config.join("milvus.yaml")).unwrap();
            assert!(base.lines().all(|line| line.is_empty() || line.starts_with('#')), "{base}");
            let named = settings::named(Some(&node.config), std::iter::empty()).unwrap();
            let new = ["previousKeySeconds", "statePath", "trialTimeoutSeconds", "maxHalfOpen", "maxPending"];
            let new = new.iter().chain(&["internalAddress"]);
            assert!(new.clone().all(|key| named.keys().all(|named| !named.ends_with(key))), "{named:?}");
            let read = Settings::load_with_env(&node.config, std::iter::empty()).unwrap();
            assert!(read.proxy.internal_address.is_loopback(), "the port in the mesh stays on loopback");
        }
    }

    #[test]
    fn mesh_port_stays_on_loopback() {
        let dir = tempfile::tempdir().unwrap();
        let named = || Keys::from([("proxy.internalAddress", "0.0.0.0".to_owned())]);
        for (address, given) in [([0, 0, 0, 0], Keys::new()), ([127, 0, 0, 1], named()), ([0, 0, 0, 0], named())] {
            let plan = planned(dir.path(), address, given);
            assert!(plan.nodes.iter().all(|node| keys(&plan, node)["proxy.internalAddress"] == "127.0.0.1"));
        }
    }
}
