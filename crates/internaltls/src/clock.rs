//! What time it is, as an argument.
//!
//! Everything here that judges a date is handed the time. A [`Clock`] is asked in two places only: when material is
//! checked, and by rustls in a handshake.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// A source of wall-clock time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of now, UTC.
    fn now(&self) -> SystemTime;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is set. For tests.
#[doc(hidden)]
#[derive(Debug)]
pub struct TestClock(Mutex<SystemTime>);

impl TestClock {
    /// Stands at `now`.
    #[must_use]
    pub fn at(now: SystemTime) -> Self {
        Self(Mutex::new(now))
    }

    /// Stands at `now` from here on.
    pub fn set(&self, now: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Goes forward.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our clock, as rustls asks for it.
#[derive(Debug, Clone)]
pub(crate) struct TimeSource(pub(crate) Arc<dyn Clock>);

impl TimeProvider for TimeSource {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix(self.0.now()))
    }
}

/// As webpki counts: whole seconds since 1970. A time before that is 1970, at which nothing is valid.
pub(crate) fn unix(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The way back.
pub(crate) fn system(time: UnixTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// For people: `2026-01-02T03:04:05Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(time).replace_nanosecond(0);
    time.ok()
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| "a year that cannot be written".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_1970() {
        assert_eq!(unix(UNIX_EPOCH - Duration::from_secs(5)).as_secs(), 0);
    }

    #[test]
    fn tells_time_for_people_and_back() {
        let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20Z");
        assert_eq!(system(unix(time)), time);
    }

    #[test]
    fn a_test_clock_goes_only_when_told() {
        let clock = Arc::new(TestClock::at(UNIX_EPOCH));
        clock.advance(Duration::from_secs(7));
        assert_eq!(TimeSource(clock).current_time().map(|t| t.as_secs()), Some(7));
    }
}
