//! The status of a cluster as text. Pure.
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::document::{Document, Leaf, Lists, ProcessStatus, Reload, Told, Watch};

/// How much of a serial number is shown: enough to tell two leaves apart.
const SERIAL: usize = 12;

/// Characters of a cell, the longest name of DNS among them. One process must not push the others' lines off the screen.
const WIDEST: usize = 253;

/// Both tables, and below them whatever is not as it should be.
#[must_use]
pub fn render(document: &Document, now: OffsetDateTime) -> String {
    let mut text =
        columns(&["NODE", "STATE", "GEN", "LEAF", "EXPIRES IN", "LOADED", "NAMES"], &processes(document, now));
    text.push('\n');
    text.push_str(&columns(
        &["FROM", "TO", "TLS", "CIPHER SUITE", "KEY EXCHANGE", "SNI", "TOLD BY", "PEER'S LEAF", "GEN", "OPEN FOR"],
        &document.connections.iter().map(|told| connection(told, now)).collect::<Vec<_>>(),
    ));
    if document.connections.is_empty() {
        text.push_str("no connection is open\n");
    }
    text + &remarks(document)
}

fn processes(document: &Document, now: OffsetDateTime) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for process in &document.processes {
        rows.push(material(
            &process.node,
            state(process),
            process.generation,
            process.leaf.as_ref(),
            process.loaded_at.as_deref(),
            now,
        ));
        if let Some(edge) = &process.edge {
            let name = format!("{} (edge)", process.node);
            rows.push(material(
                &name,
                String::new(),
                Some(edge.generation),
                Some(&edge.leaf),
                Some(&edge.loaded_at),
                now,
            ));
        }
    }
    rows
}

fn material(
    name: &str,
    state: String,
    generation: Option<u64>,
    leaf: Option<&Leaf>,
    loaded: Option<&str>,
    now: OffsetDateTime,
) -> Vec<String> {
    vec![
        name.to_owned(),
        state,
        or_dash(generation),
        or_dash(leaf.map(|leaf| short(&leaf.serial))),
        or_dash(leaf.map(|leaf| expires(&leaf.not_after, now))),
        or_dash(loaded.map(|at| format!("{} ago", span(at, now)))),
        or_dash(leaf.map(|leaf| leaf.sans.join(" "))),
    ]
}

fn state(process: &ProcessStatus) -> String {
    let state = match (&process.error, process.ready) {
        (Some(_), _) => "no answer",
        (None, true) => "ready",
        (None, false) => "not ready",
    };
    state.to_owned()
}

fn connection(told: &Told, now: OffsetDateTime) -> Vec<String> {
    vec![
        told.from.clone(),
        told.to.clone(),
        or_dash(told.tls_version.as_deref()),
        or_dash(told.cipher_suite.as_deref()),
        or_dash(told.kx_group.as_deref()),
        or_dash(told.sni.as_deref()),
        told.told_by.clone(),
        or_dash(told.peer_serial.as_deref().map(short)),
        or_dash(told.generation),
        span(&told.since, now),
    ]
}

fn remarks(document: &Document) -> String {
    let lines: Vec<_> = document.processes.iter().flat_map(remarks_on).collect();
    if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join("\n")) }
}

fn remarks_on(process: &ProcessStatus) -> Vec<String> {
    let node = &process.node;
    let mut lines: Vec<_> = process.error.iter().map(|error| format!("{node}: {error}")).collect();
    lines.extend(process.not_ready.iter().map(|reason| format!("{node} is not ready: {reason}")));
    lines
        .extend(failed(process.last_reload.as_ref()).map(|reason| format!("{node}: the last reload failed: {reason}")));
    lines.extend(process.held.iter().map(|held| {
        format!("{node}: peers stand against it; if it must be served all the same, type on its host: {}", held.force)
    }));
    let unheeded = process.held.iter().filter_map(|held| held.unheeded.as_ref());
    lines.extend(unheeded.map(|why| format!("{node}: the force file was not heeded: {why}")));
    let edge = process.edge.as_ref().and_then(|edge| edge.last_reload.as_ref());
    lines.extend(failed(edge).map(|reason| format!("{node}: the last reload at the edge failed: {reason}")));
    lines.extend(unwatched(process.watch.as_ref()).map(|reason| format!("{node}: folders are not watched: {reason}")));
    let edge = process.edge.as_ref().and_then(|edge| edge.watch.as_ref());
    lines.extend(unwatched(edge).map(|reason| format!("{node}: folders of the edge are not watched: {reason}")));
    lines.extend(found(node, process.lists.as_ref()));
    lines.extend(found(&format!("{node} (edge)"), process.edge.as_ref().and_then(|edge| edge.lists.as_ref())));
    lines.extend(
        process
            .differs_since
            .iter()
            .map(|since| format!("{node}: what is on disk is not what is served, since {since}")),
    );
    lines
}

fn failed(reload: Option<&Reload>) -> Option<&str> {
    reload
        .filter(|reload| reload.result == "failed")
        .map(|reload| reload.reason.as_deref().unwrap_or("no reason was given"))
}

/// What is not as it should be with the lists of the distrusted.
fn found(node: &str, lists: Option<&Lists>) -> Vec<String> {
    let Some(lists) = lists else { return Vec::new() };
    let mut lines: Vec<_> = lists.findings.iter().map(|finding| format!("{node}: {finding}")).collect();
    if lists.more_findings > 0 {
        lines.push(format!("{node}: and {} more findings about its CRLs and its distrust list", lists.more_findings));
    }
    lines
}

fn unwatched(watch: Option<&Watch>) -> Option<&str> {
    watch.filter(|watch| watch.state == "failed").map(|watch| watch.reason.as_deref().unwrap_or("no reason was given"))
}

/// When validity ends, or since when it has.
fn expires(at: &str, now: OffsetDateTime) -> String {
    let over = OffsetDateTime::parse(at, &Rfc3339).is_ok_and(|end| end < now);
    if over { format!("expired {} ago", span(at, now)) } else { span(at, now) }
}

/// How far `at` is from now, in the largest unit that tells something.
fn span(at: &str, now: OffsetDateTime) -> String {
    let Ok(at) = OffsetDateTime::parse(at, &Rfc3339) else { return at.to_owned() };
    let seconds = (at - now).whole_seconds().unsigned_abs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn short(serial: &str) -> String {
    serial.chars().take(SERIAL).collect()
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// At most [`WIDEST`] characters, the last of them an ellipsis where something was left out.
fn cell(text: &str) -> String {
    if text.chars().count() <= WIDEST {
        return text.to_owned();
    }
    text.chars().take(WIDEST - 1).chain(['…']).collect()
}

/// Rows under their heads, each column as wide as its widest cell, the last without padding.
fn columns(heads: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()).collect();
    let width = |nth: usize| {
        let cells = rows.iter().filter_map(|row| row.get(nth));
        cells.map(|cell| cell.chars().count()).chain([heads[nth].len()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let heads: Vec<_> = heads.iter().map(|head| (*head).to_owned()).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(&heads).chain(&rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Document {
        let json = serde_json::json!({
            "processes": [
                {"role": "proxy", "node": "proxy-1", "generation": 2, "loaded_at": "2026-01-02T03:04:05Z", "ready": true,
                 "leaf": {"serial": "0123456789abcdef", "sans": ["proxy.mesh.internal"], "not_after": "2026-03-02T03:04:05Z"},
                 "last_reload": {"at": "2026-01-02T03:05:00Z", "result": "failed", "reason": "it would cut off a peer"},
                 "watch": {"state": "failed", "reason": "too many open files"},
                 "held": {"sha256": "ab", "force": "echo ab > x/reload-force", "unheeded": "it names another set"},
                 "edge": {"generation": 1, "loaded_at": "2026-01-02T03:04:05Z", "last_reload": null,
                          "leaf": {"serial": "ffff", "sans": ["localhost"], "not_after": "2026-01-02T13:04:05Z"}}},
                {"role": "coordinator", "node": "coordinator-1", "generation": null, "loaded_at": null, "leaf": null,
                 "last_reload": null, "error": "http://127.0.0.1:1/status did not answer"},
            ],
            "connections": [
                {"told_by": "proxy/proxy-1", "from": "proxy/proxy-1", "to": "coordinator/coordinator-1", "transport": "tcp",
                 "tls_version": "TLSv1.3", "cipher_suite": "TLS13_AES_256_GCM_SHA384", "kx_group": "X25519MLKEM768",
                 "sni": "coordinator.mesh.internal", "peer": "spiffe://mesh.internal/coordinator/coordinator-1",
                 "peer_serial": "aa", "generation": 2, "since": "2026-01-02T03:04:05Z"},
            ],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn tells_what_matters() {
        let now = OffsetDateTime::parse("2026-01-02T03:05:35Z", &Rfc3339).unwrap();
        let text = render(&document(), now);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            lines[1],
            ["proxy-1", "ready", "2", "0123456789ab", "58 days", "90 s ago", "proxy.mesh.internal"],
            "{text}"
        );
        assert_eq!(lines[2], ["proxy-1 (edge)", "1", "ffff", "9 h", "90 s ago", "localhost"], "{text}");
        assert_eq!(lines[3], ["coordinator-1", "no answer", "-", "-", "-", "-", "-"], "{text}");
        assert!(
            text.contains("X25519MLKEM768") && text.contains("coordinator-1: http://127.0.0.1:1/status did not answer"),
            "{text}"
        );
        assert!(text.contains("proxy-1: the last reload failed: it would cut off a peer"), "{text}");
        assert!(text.contains("proxy-1: folders are not watched: too many open files"), "{text}");
        assert!(
            text.contains("type on its host: echo ab > x/reload-force") && text.contains("it names another set"),
            "{text}"
        );
    }

    #[test]
    fn hostile_status_neither_steers_the_terminal_nor_ends_us() {
        use super::super::document::Answer;
        let (title, long) = ("\u{1b}]0;owned\u{7}\n\u{9b}31mproxy-9  ready", "x".repeat(70_000));
        let mut hostile = serde_json::to_value(document()).unwrap();
        let (mut process, mut told) = (hostile["processes"][0].take(), hostile["connections"][0].take());
        for field in ["loaded_at", "differs_since", "role", "node"] {
            process[field] = title.into();
        }
        process["not_ready"] = serde_json::json!([title, long]);
        for (of, field) in [("leaf", "serial"), ("leaf", "not_after"), ("last_reload", "reason"), ("held", "force")] {
            process[of][field] = title.into();
        }
        process["leaf"]["sans"] = serde_json::json!([title, long]);
        process["watch"]["reason"] = title.into();
        told["sni"] = long.as_str().into();
        told["from"] = title.into();
        told["cipher_suite"] = title.into();
        told["since"] = title.into();
        process["connections"] = serde_json::json!([told]);
        let answer = Answer::read(process.to_string().as_bytes()).unwrap();
        let edge = serde_json::json!({"role": "proxy", "node": "proxy-1", "pid": 1, "internal": "", "health": "",
            "management": ""});
        let (process, told) = answer.split(&serde_json::from_value(edge).unwrap());
        let mut document = Document::default();
        document.add(process, told);
        let told = serde_json::to_string(&document).unwrap();
        let text = render(&document, OffsetDateTime::UNIX_EPOCH);
        for shown in [&told, &text] {
            assert!(!shown.replace('\n', "").contains(char::is_control) && shown.contains("owned"), "{shown}");
            assert!(!shown.lines().any(|line| line.starts_with("proxy-9") || line.starts_with("\u{9b}")), "{shown}");
            assert!(shown.len() < 20_000, "{} bytes", shown.len());
        }
    }

    #[test]
    fn tells_what_has_expired() {
        let at = |now| OffsetDateTime::parse(now, &Rfc3339).unwrap();
        let end = "2026-01-02T03:04:05Z";
        assert_eq!(expires(end, at("2026-01-02T03:03:05Z")), "60 s");
        assert_eq!(expires(end, at("2026-01-12T03:04:05Z")), "expired 10 days ago");
        let text = render(&document(), at("2026-03-12T03:04:05Z"));
        assert!(text.contains("  expired 10 days ago  ") && text.contains("  expired 68 days ago  "), "{text}");
    }

    #[test]
    fn missing_process_is_not_complete() {
        let mut document = document();
        assert!(!document.complete());
        document.processes.pop();
        assert!(document.complete());
    }
}
