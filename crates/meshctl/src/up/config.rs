//! What each node reads: `milvus.yaml`, the user's file as it is (or the reference), and `user.yaml`, ours, over it.
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

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
        None => settings::reference(),
    };
    for node in &plan.nodes {
        folder::create_private(&node.config)?;
        private(&node.config.join("milvus.yaml"), &base)?;
        private(&node.config.join("user.yaml"), &yaml(&keys(plan, node)))?;
    }
    Ok(())
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
        ("proxy.internalAddress", loopback()),
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
