//! Who is behind, by what the processes tell. Pure.
use std::collections::{BTreeMap, BTreeSet};

use crate::status::document::{Document, ProcessStatus, Told};

/// What every process is to serve, and every connection to be of.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// CAs that every bundle must hold.
    pub with: Vec<String>,
    /// CAs that none may hold.
    pub without: Vec<String>,
    /// The serial of each node's leaf on disk, where that counts.
    pub leaves: Option<BTreeMap<String, String>>,
}

/// A sentence for each process that is behind, with what to do; none: go on.
#[must_use]
pub fn behind(document: &Document, wanted: &Wanted) -> Vec<String> {
    let lag = |process: &ProcessStatus| lag(process, document, wanted);
    document.processes.iter().filter_map(|process| Some(format!("{} {}", process.node, lag(process)?))).collect()
}

fn lag(process: &ProcessStatus, document: &Document, wanted: &Wanted) -> Option<String> {
    silent(process)
        .or_else(|| bundle(process, wanted))
        .or_else(|| leaf(process, wanted))
        .or_else(|| connection(process, document, wanted))
}

fn silent(process: &ProcessStatus) -> Option<String> {
    let error = process.error.as_ref()?;
    Some(format!("does not tell its status ({error}); start it again, or look at its log"))
}

fn bundle(process: &ProcessStatus, wanted: &Wanted) -> Option<String> {
    let holds = |sha256: &String| process.cas.iter().any(|ca| ca.sha256 == *sha256);
    if !wanted.with.iter().all(holds) {
        return Some(format!("does not serve the bundle with the new CA yet{}", reason(process)));
    }
    wanted.without.iter().any(holds).then(|| format!("still serves a bundle with the old CA{}", reason(process)))
}

fn leaf(process: &ProcessStatus, wanted: &Wanted) -> Option<String> {
    let on_disk = wanted.leaves.as_ref()?.get(&process.node)?;
    let served = process.leaf.as_ref().map(|leaf| plain(&leaf.serial));
    (served != Some(plain(on_disk))).then(|| format!("does not serve its new leaf yet{}", reason(process)))
}

fn connection(process: &ProcessStatus, document: &Document, wanted: &Wanted) -> Option<String> {
    let leaves: BTreeSet<&str> = wanted.leaves.as_ref()?.values().map(|serial| plain(serial)).collect();
    let teller = format!("{}/{}", process.role, process.node);
    let is_new = |serial: &Option<String>| serial.as_ref().is_some_and(|serial| leaves.contains(plain(serial)));
    let old = |told: &&Told| told.told_by == teller && !(is_new(&told.own_serial) && is_new(&told.peer_serial));
    let told = document.connections.iter().find(old)?;
    Some(format!(
        "has a connection of old leaves, {} to {} since {}; it drains within internaltls.drain.graceSeconds, or a peer is behind",
        told.from, told.to, told.since
    ))
}

fn reason(process: &ProcessStatus) -> String {
    let failed = process.last_reload.as_ref().filter(|reload| reload.result == "failed");
    match failed.and_then(|reload| reload.reason.as_ref()) {
        Some(reason) => format!(": its last look at the files failed, {reason}; mend that"),
        None => "; it follows its files within internaltls.reload.pollSeconds, else look at its log".to_owned(),
    }
}

/// Serials come with and without the zero byte that DER puts before a high bit.
fn plain(serial: &str) -> &str {
    serial.trim_start_matches('0')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document(processes: Value, connections: Value) -> Document {
        serde_json::from_value(json!({"processes": processes, "connections": connections})).unwrap()
    }

    fn proxy(cas: &[&str], more: Value) -> Value {
        let cas: Vec<_> = cas.iter().map(|sha256| json!({"subject": "CN=CA", "sha256": sha256})).collect();
        let mut process = json!({
            "role": "proxy", "node": "proxy-1", "generation": 2, "loaded_at": "2026-01-02T03:04:05Z", "cas": cas,
            "leaf": {"serial": "a1", "sans": [], "not_after": "2026-01-02T03:04:05Z"},
        });
        process.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        process
    }

    fn connection(own: &str, peer: &str) -> Value {
        json!({"told_by": "proxy/proxy-1", "from": "proxy/proxy-1", "to": "coordinator/coordinator-1", "transport": "tcp",
               "own_serial": own, "peer_serial": peer, "since": "2026-01-02T03:04:05Z"})
    }

    fn wanted(with: &[&str], without: &[&str], leaves: &[(&str, &str)]) -> Wanted {
        let all = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let leaves = leaves.iter().map(|(node, serial)| (node.to_string(), serial.to_string()));
        Wanted { with: all(with), without: all(without), leaves: Some(leaves.collect()) }
    }

    fn said(process: Value, connections: Value, wanted: &Wanted) -> String {
        behind(&document(json!([process]), connections), wanted).join("\n")
    }

    #[test]
    fn nobody_is_behind_when_all_is_served() {
        let wanted = wanted(&["new"], &["old"], &[("proxy-1", "00a1"), ("coordinator-1", "b2")]);
        assert_eq!(said(proxy(&["new", "other"], json!({})), json!([connection("a1", "b2")]), &wanted), "");
    }

    #[test]
    fn each_lag_names_the_node_and_its_reason() {
        let leaves = [("proxy-1", "a1"), ("coordinator-1", "b2")];
        let failed =
            json!({"last_reload": {"at": "2026-01-02T03:04:05Z", "result": "failed", "reason": "the disk is full"}});
        let cases = [
            (proxy(&["new"], json!({"error": "refused"})), json!([]), "proxy-1 does not tell its status (refused)"),
            (proxy(&["old"], failed), json!([]), "new CA yet: its last look at the files failed, the disk is full"),
            (proxy(&["old"], json!({})), json!([]), "new CA yet; it follows its files"),
            (proxy(&["new", "old"], json!({})), json!([]), "proxy-1 still serves a bundle with the old CA"),
            (proxy(&["new"], json!({"leaf": null})), json!([]), "does not serve its new leaf yet"),
            (proxy(&["new"], json!({})), json!([connection("a0", "b2")]), "connection of old leaves, proxy/proxy-1 to"),
            (proxy(&["new"], json!({})), json!([connection("a1", "b1")]), "connection of old leaves"),
        ];
        for (process, connections, expected) in cases {
            let said = said(process, connections, &wanted(&["new"], &["old"], &leaves));
            assert!(said.contains(expected), "`{said}` lacks `{expected}`");
        }
    }

    #[test]
    fn a_process_without_any_answer_is_behind_whatever_is_wanted() {
        let said = said(proxy(&[], json!({"error": "refused"})), json!([]), &Wanted::default());
        assert!(said.starts_with("proxy-1 does not tell"), "{said}");
    }
}
