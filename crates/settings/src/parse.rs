//! One value's text → one checked type. Each parser says, when it refuses, what would have fitted.
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use internaltls::config::{EdgeMode, Endpoint, TlsVersion};
use internaltls::identity::{NodeId, TrustDomain};

use crate::Secret;
use crate::sections::LogLevel;

/// A value as written, and the folder that a relative path counts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) text: &'a str,
    pub(crate) folder: &'a Path,
}

/// What would have fitted: completes "must be …".
pub(crate) type Expected = String;
pub(crate) type Parsed<T> = Result<T, Expected>;

pub(crate) fn text(given: Text<'_>) -> Parsed<String> {
    Ok(given.text.to_owned())
}

pub(crate) fn secret(given: Text<'_>) -> Parsed<Secret> {
    Ok(Secret::new(given.text))
}

pub(crate) fn path(given: Text<'_>) -> Parsed<PathBuf> {
    Ok(given.folder.join(given.text))
}

pub(crate) fn switch(given: Text<'_>) -> Parsed<bool> {
    match given.text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

fn within<T>(given: Text<'_>, range: RangeInclusive<T>, what: &str) -> Parsed<T>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let expected = || format!("{what} from {} to {}", range.start(), range.end());
    given.text.parse().ok().filter(|n| range.contains(n)).ok_or_else(expected)
}

pub(crate) fn port(given: Text<'_>) -> Parsed<u16> {
    within(given, 0..=65535, "a port")
}

pub(crate) fn count(given: Text<'_>) -> Parsed<u32> {
    within(given, 1..=1_000_000, "a whole number")
}

pub(crate) fn few(given: Text<'_>) -> Parsed<u32> {
    within(given, 0..=100, "a whole number")
}

pub(crate) fn bytes(given: Text<'_>) -> Parsed<usize> {
    within(given, 4096..=16 * 1024 * 1024, "a number of bytes, without a unit,")
}

pub(crate) fn seconds(given: Text<'_>) -> Parsed<Duration> {
    within(given, 1..=31_536_000, "a whole number of seconds, without a unit,").map(Duration::from_secs)
}

pub(crate) fn seconds_or_none(given: Text<'_>) -> Parsed<Duration> {
    within(given, 0..=31_536_000, "a whole number of seconds, without a unit,").map(Duration::from_secs)
}

pub(crate) fn milliseconds(given: Text<'_>) -> Parsed<Duration> {
    within(given, 1..=60_000, "a whole number of milliseconds, without a unit,").map(Duration::from_millis)
}

pub(crate) fn tls_mode(given: Text<'_>) -> Parsed<EdgeMode> {
    match given.text {
        "0" => Ok(EdgeMode::Off),
        "1" => Ok(EdgeMode::OneWay),
        "2" => Ok(EdgeMode::TwoWay),
        _ => Err("0 (no TLS), 1 (one-way) or 2 (two-way)".to_owned()),
    }
}

pub(crate) fn tls_version(given: Text<'_>) -> Parsed<TlsVersion> {
    match given.text {
        "1.2" => Ok(TlsVersion::V1_2),
        "1.3" => Ok(TlsVersion::V1_3),
        _ => Err("1.2 or 1.3".to_owned()),
    }
}

pub(crate) fn address(given: Text<'_>) -> Parsed<IpAddr> {
    let bare = given.text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map_err(|_| "an IP address to listen on, such as 0.0.0.0 or 127.0.0.1".to_owned())
}

pub(crate) fn trust_domain(given: Text<'_>) -> Parsed<TrustDomain> {
    // The error of a name quotes it, and whether this text may be shown is decided elsewhere.
    TrustDomain::new(given.text).map_err(|_| "a name of a-z, 0-9, '-' and '.', such as mesh.internal".to_owned())
}

pub(crate) fn log_level(given: Text<'_>) -> Parsed<LogLevel> {
    LogLevel::from_str(given.text)
}

/// One of a few words, in any case.
pub(crate) fn word<const N: usize>(given: Text<'_>, words: [&'static str; N]) -> Parsed<&'static str> {
    let same = |word: &&&'static str| word.eq_ignore_ascii_case(given.text);
    words.iter().find(same).copied().ok_or_else(|| words.join(" or "))
}

pub(crate) fn mode(given: Text<'_>) -> Parsed<&'static str> {
    word(given, ["strict", "permissive"])
}

pub(crate) fn client(given: Text<'_>) -> Parsed<&'static str> {
    word(given, ["tls", "plaintext"])
}

pub(crate) fn transport(given: Text<'_>) -> Parsed<&'static str> {
    word(given, ["tcp", "quic"])
}

/// `host`, or `host:port`.
pub(crate) fn host(given: Text<'_>) -> Parsed<(String, Option<u16>)> {
    if let Ok(endpoint) = endpoint(given) {
        return Ok((endpoint.host, Some(endpoint.port)));
    }
    let bare = given.text.trim_start_matches('[').trim_end_matches(']');
    let fits = is_host(bare);
    if fits { Ok((bare.to_owned(), None)) } else { Err("a host, or host:port, without http://".to_owned()) }
}

fn is_host(text: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.chars().all(name))
}

/// `host:port`; an IPv6 address in brackets.
pub(crate) fn endpoint(given: Text<'_>) -> Parsed<Endpoint> {
    let expected = || "host:port (an IPv6 address in brackets)".to_owned();
    let (host, port) = given.text.rsplit_once(':').ok_or_else(expected)?;
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|v6| v6.contains(':')).ok_or_else(expected)?,
        None => Some(host).filter(|h| !h.contains(':')).ok_or_else(expected)?,
    };
    let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(expected)?;
    if is_host(bare) { Ok(Endpoint::new(bare, port)) } else { Err(expected()) }
}

/// `id=host:port`, as in a flag.
pub(crate) fn named_endpoint(given: Text<'_>) -> Parsed<(NodeId, Endpoint)> {
    let (id, rest) = given.text.split_once('=').ok_or("ID=HOST:PORT, such as data-node-1=10.0.0.7:21124")?;
    let id = NodeId::new(id.trim()).map_err(|e| format!("ID=HOST:PORT, where {e}"))?;
    let endpoint = endpoint(Text { text: rest.trim(), ..given })?.of(id.clone());
    Ok((id, endpoint))
}

/// `id=host:port`, separated by commas.
pub(crate) fn nodes(given: Text<'_>) -> Parsed<Vec<(NodeId, Endpoint)>> {
    let mut nodes: Vec<(NodeId, Endpoint)> = Vec::new();
    for part in given.text.split(',').filter(|part| !part.trim().is_empty()) {
        let (id, endpoint) = named_endpoint(Text { text: part.trim(), ..given })?;
        if nodes.iter().any(|(known, _)| *known == id) {
            return Err(format!("a list in which each node stands once: `{id}` stands twice"));
        }
        nodes.push((id, endpoint));
    }
    Ok(nodes)
}
