//! What an operator must hear of: numbers to set alarms on, and lines in the log.
//!
//! 1. Numbers are worked out when somebody asks, from the status of that moment. A gauge set when material was published
//!    would tell the days that were left then.
//! 2. A revocation list is told of in the log twice: once when it is late, once when it is too old.
//! 3. Whoever looks at the files is watched himself: when the last look is older than three polls, that is an alarm. It is judged
//!    by the ticker, which reads no file and waits for nobody who does.
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::status::{CrlStatus, LookStatus, MaterialStatus, WatchState};
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
        of(
            "internaltls_look_age_seconds",
            "Seconds since a look at the files last ended, whatever it found",
            status.look.age_seconds as f64,
        ),
        of(
            "internaltls_look_overdue",
            "1 while the last look at the files is older than three polls: nobody looks at them any more",
            flag(status.look.overdue),
        ),
    ];
    let lists = &status.lists;
    all.extend([
        of(
            "internaltls_distrust_entries",
            "Hashes of the distrust list in force, of keys and of certificates",
            (lists.distrusted_keys + lists.distrusted_certificates) as f64,
        ),
        of(
            "internaltls_crl_entries",
            "Certificates that the CRLs in force list",
            status.crls.iter().map(|crl| crl.entries).sum::<usize>() as f64,
        ),
        of(
            "internaltls_list_findings",
            "What is not as it should be with the CRLs and the distrust list; the status names it",
            (lists.findings.len() + lists.more_findings) as f64,
        ),
    ]);
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
    let (next_update, refused_from) =
        (rfc3339(due), due.checked_add(grace).map_or_else(|| "never".to_owned(), rfc3339));
    if state == "late" {
        tracing::warn!(material, issuer, %next_update, %refused_from, "a CRL is past its next update: publish a new one, or new handshakes will be refused");
    } else {
        tracing::error!(material, issuer, %next_update, %refused_from, "a CRL is too old: new handshakes that need it are refused; live connections stay");
    }
}

/// After so many polls without a look nobody looks any more.
const POLLS: u32 = 3;

/// Which files a look is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looker {
    /// Leaf, key and CAs.
    Pair,
    /// CRLs, distrust list and policy.
    Lists,
}

/// When each look last ended.
#[derive(Debug)]
pub(super) struct LookAlarm {
    poll: Duration,
    pair: Mutex<Look>,
    lists: Mutex<Look>,
}

/// By a clock that cannot be set.
#[derive(Debug)]
struct Look {
    ended: Instant,
    /// Whether it has been said that it is overdue.
    said: bool,
}

/// What is to be said of a look.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Overdue,
    Again,
}

impl Look {
    fn is_overdue(&self, poll: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.ended) > poll.saturating_mul(POLLS)
    }

    fn judge(&mut self, poll: Duration, now: Instant) -> Option<Say> {
        let overdue = self.is_overdue(poll, now);
        match (std::mem::replace(&mut self.said, overdue), overdue) {
            (false, true) => Some(Say::Overdue),
            (true, false) => Some(Say::Again),
            _ => None,
        }
    }
}

impl LookAlarm {
    /// All files were looked at just now.
    pub(super) fn new(poll: Duration, now: Instant) -> Self {
        let look = || Mutex::new(Look { ended: now, said: false });
        Self { poll, pair: look(), lists: look() }
    }

    /// A look ended, however.
    pub(super) fn ended(&self, looker: Looker, now: Instant) {
        self.of(looker).lock().unwrap_or_else(PoisonError::into_inner).ended = now;
    }

    pub(super) fn status(&self, now: Instant) -> LookStatus {
        let of = |looker| {
            let look = self.of(looker).lock().unwrap_or_else(PoisonError::into_inner);
            (now.saturating_duration_since(look.ended).as_secs(), look.is_overdue(self.poll, now))
        };
        let (pair, lists) = (of(Looker::Pair), of(Looker::Lists));
        LookStatus { age_seconds: pair.0.max(lists.0), overdue: pair.1 || lists.1 }
    }

    /// Says what is new.
    pub(super) fn look(&self, material: &'static str, now: Instant) {
        for (looker, files) in [(Looker::Pair, "leaf, key and CAs"), (Looker::Lists, "CRLs, distrust list and policy")]
        {
            let say = self.of(looker).lock().unwrap_or_else(PoisonError::into_inner).judge(self.poll, now);
            match say {
                Some(Say::Overdue) => {
                    let polls = POLLS;
                    tracing::error!(
                        material,
                        files,
                        polls,
                        "the files have not been looked at for so many polls: changes are not seen; restart the process, and report this"
                    );
                }
                Some(Say::Again) => tracing::info!(material, files, "the files are looked at again"),
                None => {}
            }
        }
    }

    fn of(&self, looker: Looker) -> &Mutex<Look> {
        match looker {
            Looker::Pair => &self.pair,
            Looker::Lists => &self.lists,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_9_tells_of_overdue_look_once() {
        let (begin, poll) = (Instant::now(), Duration::from_secs(30));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let alarm = LookAlarm::new(poll, begin);
        assert_eq!(alarm.status(at(90)), LookStatus { age_seconds: 90, overdue: false });
        alarm.ended(Looker::Lists, at(80));
        assert_eq!(alarm.status(at(91)), LookStatus { age_seconds: 91, overdue: true }, "the pair alone");
        let mut look = Look { ended: begin, said: false };
        let said: Vec<_> = [90, 91, 92].map(|seconds| look.judge(poll, at(seconds))).into_iter().flatten().collect();
        assert_eq!(said, [Say::Overdue]);
        look.ended = at(100);
        assert_eq!([look.judge(poll, at(101)), look.judge(poll, at(102))], [Some(Say::Again), None]);
    }

    #[test]
    fn an_endless_grace_is_told() {
        let due = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for state in ["late", "too-old"] {
            say("mesh", "CN=a CA", due, state, Duration::MAX);
        }
    }

    #[test]
    fn what_is_left_goes_below_zero() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!((left(now, now + Duration::from_secs(5)) - 5.0).abs() < 1e-9);
        assert!((left(now, now - Duration::from_secs(7)) + 7.0).abs() < 1e-9);
    }
}
