//! What is counted, and under which names.
//!
//! 1. Handshakes bear the names of gRFC A118 (`grpc.server.tls.handshakes`, `grpc.client.tls.handshakes`) with the labels
//!    `result` and `resumed` (and on a listener `surface`, mesh or edge); everything else begins with `internaltls_`.
//! 2. Labels are bounded: results and reasons are words of this crate, roles are those a CA of ours has signed.
//!    No address, no node id and no text of a peer becomes a label.
//! 3. Counting takes no lock that an encoder holds for long; what counts per call is resolved once per connection.
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Words<const N: usize> = [(&'static str, &'static str); N];
type Names = [(&'static str, String); 2];
type Counters<const N: usize> = Family<Words<N>, Counter>;

const SECONDS_A_DAY: f64 = 86_400.0;

/// Which side of a process a number is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    Mesh,
    Edge,
}

impl Surface {
    fn label(self) -> &'static str {
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
    server_handshakes: Counters<3>,
    client_handshakes: Counters<2>,
    connections: Family<Words<2>, Gauge>,
    drained: Counters<1>,
    cut: Counters<1>,
    calls: Family<Names, Counter>,
    accept_errors: Counters<1>,
    policy_refusals: Family<[(&'static str, String); 1], Counter>,
    reloads: Counters<2>,
    generation: Family<Words<1>, Gauge>,
    days_left: Family<Words<2>, Gauge<f64, AtomicU64>>,
    differs: Family<Words<1>, Gauge>,
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
        let generation = add(r, "internaltls_generation", "Number of the generation in use");
        let days_left = add(r, "internaltls_days_left", "Days until a certificate in use expires");
        let differs = add(r, "internaltls_material_differs", "1 while disk and what is served differ");
        let without_client_auth = add(
            r,
            "internaltls_clients_without_client_auth",
            "Edge clients accepted though their leaf lacks clientAuth",
        );
        let trials =
            add(r, "internaltls_trials", "Questions whether a certificate would be accepted, by side and result");
        Self {
            registry: Arc::new(std::mem::take(r)),
            server_handshakes,
            client_handshakes,
            connections,
            drained,
            cut,
            calls,
            accept_errors,
            policy_refusals,
            reloads,
            generation,
            days_left,
            differs,
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

    /// A generation was published.
    pub(crate) fn generation(&self, material: &'static str, number: u64) {
        self.generation.get_or_create(&[("material", material)]).set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// How long a certificate in use still lasts. `certificate` is `leaf` or `ca` (the first to expire).
    pub(crate) fn days_left(
        &self,
        material: &'static str,
        certificate: &'static str,
        now: SystemTime,
        not_after: SystemTime,
    ) {
        self.days_left.get_or_create(&[("material", material), ("certificate", certificate)]).set(days(now, not_after));
    }

    /// Whether disk and what is served differ now.
    pub(crate) fn differs(&self, material: &'static str, differs: bool) {
        self.differs.get_or_create(&[("material", material)]).set(i64::from(differs));
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

/// Days from `now` to `not_after`, negative once it has passed.
fn days(now: SystemTime, not_after: SystemTime) -> f64 {
    let seconds = |d: Duration| d.as_secs_f64() / SECONDS_A_DAY;
    match not_after.duration_since(now) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
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
    fn days_left_go_below_zero() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!((days(now, now + Duration::from_secs(129_600)) - 1.5).abs() < 1e-9);
        assert!((days(now, now - Duration::from_secs(86_400)) + 1.0).abs() < 1e-9);
    }
}
