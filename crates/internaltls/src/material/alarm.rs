//! What an operator must hear of: numbers to set alarms on, and lines in the log.
//!
//! 1. Numbers are worked out when somebody asks, from the status of that moment. A gauge set when material was published
//!    would tell the days that were left then.
//! 2. A revocation list is told of in the log twice: once when it is late, once when it is too old.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::status::{CrlStatus, MaterialStatus, WatchState};
use super::store::Store;
use crate::clock::rfc3339;
use crate::telemetry::{Reading, Telemetry};

const SECONDS_A_DAY: f64 = 86_400.0;

/// Lets `telemetry` ask the store, for as long as it lives.
pub(super) fn expose(store: &Arc<Store>, telemetry: &Telemetry) {
    let store = Arc::downgrade(store);
    telemetry.ask(move || store.upgrade().map(|store| readings(store.word(), &store.status(), store.now())));
}

/// The status in numbers.
fn readings(material: &'static str, status: &MaterialStatus, now: SystemTime) -> Vec<Reading> {
    let of = |name, help, value| Reading { name, help, labels: vec![("material", material.to_owned())], value };
    let mut all = vec![
        of("internaltls_generation", "Number of the generation in use", status.generation as f64),
        of("internaltls_loaded_timestamp_seconds", "When the generation in use was loaded", unix(status.loaded_at)),
        of(
            "internaltls_last_reload_timestamp_seconds",
            "When the files were last looked at",
            unix(status.last_reload.at),
        ),
        of(
            "internaltls_last_reload_failed",
            "1 where the last look at the files failed",
            flag(status.last_reload.result == "failed"),
        ),
        of(
            "internaltls_material_differs",
            "1 while disk and what is served differ",
            flag(status.differs_since.is_some()),
        ),
        of(
            "internaltls_material_differs_seconds",
            "Seconds that disk and what is served have differed; 0 while they agree",
            status.differs_seconds as f64,
        ),
        of(
            "internaltls_watch_failed",
            "1 while the kernel refuses to watch a folder of the material, so that the poll alone sees changes",
            flag(status.watch.state == WatchState::Failed),
        ),
    ];
    all.extend(certificates(material, status, now));
    if let Some(next) = status.crls.iter().map(|crl| crl.next_update).min() {
        let help = "Seconds until the next update of the first CRL that is due; below 0 it is late";
        all.push(of("internaltls_crl_seconds_left", help, left(now, next)));
    }
    all
}

fn certificates(material: &'static str, status: &MaterialStatus, now: SystemTime) -> Vec<Reading> {
    let of = |certificate: &str, named: Vec<(&'static str, String)>, not_after| Reading {
        name: "internaltls_days_left",
        help: "Days until a certificate in use expires; below 0 it has",
        labels: [vec![("material", material.to_owned()), ("certificate", certificate.to_owned())], named].concat(),
        value: left(now, not_after) / SECONDS_A_DAY,
    };
    let leaf = of("leaf", Vec::new(), status.leaf.not_after);
    let client = status.client_leaf.as_ref().map(|leaf| of("client-leaf", Vec::new(), leaf.not_after));
    let ca = |ca: &super::status::CaStatus| {
        of("ca", vec![("subject", ca.subject.clone()), ("sha256", ca.sha256.clone())], ca.not_after)
    };
    let mut seen = BTreeSet::new();
    let cas = status.cas.iter().filter(|ca| seen.insert(&ca.sha256)).map(ca).collect::<Vec<_>>();
    std::iter::once(leaf).chain(client).chain(cas).collect()
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn unix(time: SystemTime) -> f64 {
    left(UNIX_EPOCH, time)
}

/// Seconds from `now` to `then`, negative once it has passed.
fn left(now: SystemTime, then: SystemTime) -> f64 {
    then.duration_since(now).map_or_else(|past| -past.duration().as_secs_f64(), |left| left.as_secs_f64())
}

/// What has been said of the lists in use.
#[derive(Debug, Default)]
pub(super) struct ListAlarm(Mutex<BTreeSet<(String, SystemTime, &'static str)>>);

impl ListAlarm {
    /// Says what is new.
    pub(super) fn look(&self, material: &'static str, crls: &[CrlStatus], grace: Duration) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |crl: &CrlStatus| (crl.issuer.clone(), crl.next_update, crl.state);
        let now: BTreeSet<_> = crls.iter().map(key).filter(|(_, _, state)| *state != "fresh").collect();
        now.difference(&said).for_each(|(issuer, due, state)| say(material, issuer, *due, state, grace));
        *said = now;
    }
}

fn say(material: &'static str, issuer: &str, due: SystemTime, state: &'static str, grace: Duration) {
    let (next_update, refused_from) = (rfc3339(due), rfc3339(due + grace));
    if state == "late" {
        tracing::warn!(material, issuer, %next_update, %refused_from, "a CRL is past its next update: publish a new one, or new handshakes will be refused");
    } else {
        tracing::error!(material, issuer, %next_update, %refused_from, "a CRL is too old: new handshakes that need it are refused; live connections stay");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_below_zero() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!((left(now, now + Duration::from_secs(5)) - 5.0).abs() < 1e-9);
        assert!((left(now, now - Duration::from_secs(7)) + 7.0).abs() < 1e-9);
    }
}
