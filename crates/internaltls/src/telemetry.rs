//! What is counted, and under which names.
//!
//! 1. Handshakes bear the names of gRFC A118 (`grpc.server.tls.handshakes`, `grpc.client.tls.handshakes`) with the labels
//!    `result` and `resumed` (and on a listener `surface`, mesh or edge); everything else begins with `internaltls_`.
//! 2. Labels are bounded: results and reasons are words of this crate, roles are those a CA of ours has signed.
//!    No address, no node id and no text of a peer becomes a label.
//!    The CAs that days are told of are those of our own bundle.
//! 3. Numbers of now, such as days left, are asked for when somebody looks.
//! 4. Counting takes no lock that an encoder holds for long; what counts per call is resolved once per connection.
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::ending::EndReason;

type Words<const N: usize> = [(&'static str, &'static str); N];
type Names = [(&'static str, String); 2];
type Counters<const N: usize> = Family<Words<N>, Counter>;

/// A number of now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

/// Gives the numbers of now, or nothing when what it tells of has gone.
type Reader = Box<dyn Fn() -> Option<Vec<Reading>> + Send + Sync>;

/// Everyone who is asked.
#[derive(Clone, Default)]
struct Readers(Arc<Mutex<Vec<Reader>>>);

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    /// What all of them tell, by name. Those that have gone are forgotten.
    fn ask(&self) -> BTreeMap<&'static str, Vec<Reading>> {
        let mut told = BTreeMap::<_, Vec<_>>::new();
        let mut take = |reading: Reading| told.entry(reading.name).or_default().push(reading);
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| {
            reader().is_some_and(|readings| {
                readings.into_iter().for_each(&mut take);
                true
            })
        });
        told
    }
}

impl Collector for Readers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, readings) in self.ask() {
            let help = readings.first().map_or("", |reading| reading.help);
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for Reading { labels, value, .. } in &readings {
                family.encode_family(labels)?.encode_gauge(value)?;
            }
        }
        Ok(())
    }
}

/// How many connections were ended, by reason, since the process started. Of the mesh and the edge together where they
/// share their metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ended {
    /// Told to finish.
    pub drained: BTreeMap<&'static str, u64>,
    /// Closed at once.
    pub cut: BTreeMap<&'static str, u64>,
}

fn by_reason(counters: &Counters<1>) -> BTreeMap<&'static str, u64> {
    let count = |reason: &EndReason| Some((reason.label(), counters.get(&[("reason", reason.label())])?.get()));
    EndReason::ALL.iter().filter_map(count).collect()
}

/// Which side of a process a number is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    Mesh,
    Edge,
}

impl Surface {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Edge => "edge",
        }
    }
}

/// The metrics of one mesh, one edge or both. Cheap to clone; clones count into the same numbers.
#[derive(Clone)]
pub struct Telemetry {
    registry: Arc<Registry>,
    readers: Readers,
    server_handshakes: Counters<3>,
    client_handshakes: Counters<2>,
    connections: Family<Words<2>, Gauge>,
    drained: Counters<1>,
    cut: Counters<1>,
    calls: Family<Names, Counter>,
    accept_errors: Counters<1>,
    policy_refusals: Family<[(&'static str, String); 1], Counter>,
    reloads: Counters<2>,
    without_client_auth: Counter,
    trials: Counters<2>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers a metric and gives it back.
fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Telemetry {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let r = &mut Registry::default();
        let server_handshakes = add(r, "grpc_server_tls_handshakes", "TLS handshakes that a listener ended, by result");
        let client_handshakes = add(r, "grpc_client_tls_handshakes", "TLS handshakes that a dialer ended, by result");
        let connections = add(r, "internaltls_connections", "Live connections");
        let drained = add(r, "internaltls_connections_drained", "Connections told to finish, by reason");
        let cut = add(r, "internaltls_connections_cut", "Connections closed at once, by reason");
        let calls = add(r, "internaltls_calls", "Calls that ended, by the caller's role and by result");
        let accept_errors = add(r, "internaltls_accept_errors", "Errors of accept, by kind");
        let policy_refusals = add(r, "internaltls_policy_refusals", "Calls that policy refused, by the caller's role");
        let reloads = add(r, "internaltls_reloads", "Attempts to read the material again, by result");
        let without_client_auth = add(
            r,
            "internaltls_clients_without_client_auth",
            "Edge clients accepted though their leaf lacks clientAuth",
        );
        let trials =
            add(r, "internaltls_trials", "Questions whether a certificate would be accepted, by side and result");
        let readers = Readers::default();
        r.register_collector(Box::new(readers.clone()));
        Self {
            registry: Arc::new(std::mem::take(r)),
            readers,
            server_handshakes,
            client_handshakes,
            connections,
            drained,
            cut,
            calls,
            accept_errors,
            policy_refusals,
            reloads,
            without_client_auth,
            trials,
        }
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail, and an encoder of our own metrics has no other error.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// How many connections were ended, by reason.
    #[must_use]
    pub fn ended(&self) -> Ended {
        Ended { drained: by_reason(&self.drained), cut: by_reason(&self.cut) }
    }

    /// Asks `reader` for its numbers whenever somebody looks, until it has none to give.
    pub(crate) fn ask(&self, reader: impl Fn() -> Option<Vec<Reading>> + Send + Sync + 'static) {
        self.readers.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(reader));
    }

    /// A listener ended a handshake. `result` is `ok` or a reason's label.
    pub(crate) fn server_handshake(&self, surface: Surface, result: &'static str, resumed: bool) {
        let [result, resumed] = handshake(result, resumed);
        self.server_handshakes.get_or_create(&[result, resumed, ("surface", surface.label())]).inc();
    }

    /// A dialer ended a handshake. `result` is `ok` or a reason's label.
    pub(crate) fn client_handshake(&self, result: &'static str, resumed: bool) {
        self.client_handshakes.get_or_create(&handshake(result, resumed)).inc();
    }

    /// The gauge of live connections of one side in one direction.
    pub(crate) fn live_connections(&self, surface: Surface, direction: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&[("surface", surface.label()), ("direction", direction)])
    }

    /// A connection was told to finish.
    pub(crate) fn drained(&self, reason: &'static str) {
        self.drained.get_or_create(&[("reason", reason)]).inc();
    }

    /// A connection was closed at once.
    pub(crate) fn cut(&self, reason: &'static str) {
        self.cut.get_or_create(&[("reason", reason)]).inc();
    }

    /// The counters of calls from one role, resolved once a connection.
    pub(crate) fn calls(&self, role: &str) -> CallCounters {
        let of =
            |result: &str| self.calls.get_or_create_owned(&[("role", role.to_owned()), ("result", result.to_owned())]);
        CallCounters {
            ok: of("ok"),
            error: of("error"),
            refused: of("refused"),
            deadline: of("deadline"),
            cancelled: of("cancelled"),
        }
    }

    /// `accept` failed.
    pub(crate) fn accept_error(&self, kind: &'static str) {
        self.accept_errors.get_or_create(&[("kind", kind)]).inc();
    }

    /// Policy refused a call of this role.
    pub(crate) fn policy_refusal(&self, role: &str) {
        self.policy_refusals.get_or_create(&[("role", role.to_owned())]).inc();
    }

    /// Material was read again. `material` is `mesh`, `edge` or `policy`; `result` is `ok`, `unchanged` or `failed`.
    pub(crate) fn reload(&self, material: &'static str, result: &'static str) {
        self.reloads.get_or_create(&[("material", material), ("result", result)]).inc();
    }

    /// A peer was asked about a candidate of ours, or asked about its own. `side` is `asked` or `answered`.
    pub(crate) fn trial(&self, side: &'static str, result: &'static str) {
        self.trials.get_or_create(&[("side", side), ("result", result)]).inc();
    }

    /// An edge accepted a client whose leaf does not name clientAuth.
    pub(crate) fn client_without_client_auth(&self) {
        self.without_client_auth.inc();
    }
}

/// How calls of one role ended.
#[derive(Debug, Clone)]
pub(crate) struct CallCounters {
    /// gRPC status 0, or an HTTP status below 400 of a plain response.
    pub(crate) ok: Counter,
    /// Any other status.
    pub(crate) error: Counter,
    /// Refused by policy.
    pub(crate) refused: Counter,
    /// Ended by its `grpc-timeout`.
    pub(crate) deadline: Counter,
    /// The caller went away, or the connection was cut.
    pub(crate) cancelled: Counter,
}

fn handshake(result: &'static str, resumed: bool) -> Words<2> {
    [("result", result), ("resumed", if resumed { "true" } else { "false" })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_bear_the_names_of_a118() {
        let telemetry = Telemetry::new();
        telemetry.server_handshake(Surface::Mesh, "ok", false);
        telemetry.client_handshake("expired", true);
        let text = telemetry.encode();
        assert!(
            text.contains("grpc_server_tls_handshakes_total{result=\"ok\",resumed=\"false\",surface=\"mesh\"} 1"),
            "{text}"
        );
        assert!(text.contains("grpc_client_tls_handshakes_total{result=\"expired\",resumed=\"true\"} 1"), "{text}");
    }

    #[test]
    fn clones_count_into_the_same_numbers() {
        let telemetry = Telemetry::new();
        telemetry.clone().calls("proxy").ok.inc();
        telemetry.calls("proxy").ok.inc();
        let text = telemetry.encode();
        assert!(text.contains("internaltls_calls_total{role=\"proxy\",result=\"ok\"} 2"), "{text}");
    }

    #[test]
    fn readings_are_taken_when_somebody_looks() {
        let telemetry = Telemetry::new();
        let source = Arc::new(Mutex::new(1.0));
        let asked = Arc::downgrade(&source);
        let labels = || vec![("surface", "mesh".to_owned())];
        telemetry.ask(move || {
            let value = *asked.upgrade()?.lock().unwrap();
            Some(vec![Reading { name: "internaltls_of_now", help: "A number", labels: labels(), value }])
        });
        assert!(telemetry.encode().contains("internaltls_of_now{surface=\"mesh\"} 1"), "{}", telemetry.encode());
        *source.lock().unwrap() = 2.0;
        assert!(telemetry.encode().contains("internaltls_of_now{surface=\"mesh\"} 2"), "{}", telemetry.encode());
        drop(source);
        assert!(!telemetry.encode().contains("internaltls_of_now{"), "its source has gone");
    }

    #[test]
    fn ends_are_told_by_reason() {
        let telemetry = Telemetry::new();
        telemetry.drained("rotation");
        telemetry.drained("rotation");
        telemetry.cut("distrusted");
        let ended = telemetry.ended();
        assert_eq!(ended.drained.into_iter().collect::<Vec<_>>(), [("rotation", 2)]);
        assert_eq!(ended.cut.into_iter().collect::<Vec<_>>(), [("distrusted", 1)]);
    }
}
