//! How long an endpoint rests after failed dials. Pure.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// Never longer: a peer that came back must not wait long for its callers.
const LONGEST: Duration = Duration::from_secs(3);

/// The rest after `failures` dials failed in a row, spread by `jitter` (0 to 1) over three quarters to five quarters
/// of the doubling delay, so that dialers that lost one peer do not come back to it in step.
pub(super) fn rest(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let plain = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    plain.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// A number between 0 and 1 for [`rest`]. The standard library's hash keys are random and good enough to spread dialers.
pub(super) fn jitter() -> f64 {
    let bits = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or(u32::MAX);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest() {
        let plain = |failures| rest(failures, 0.5);
        assert_eq!(plain(1), FIRST);
        assert_eq!(plain(2), FIRST * 2);
        assert_eq!(plain(5), FIRST * 16);
        assert_eq!(plain(6), LONGEST);
        assert_eq!(plain(u32::MAX), LONGEST);
    }

    #[test]
    fn jitter_spreads_around_the_delay() {
        assert_eq!(rest(1, 0.0), FIRST.mul_f64(0.75));
        assert_eq!(rest(1, 1.0), FIRST.mul_f64(1.25));
        let drawn: Vec<f64> = (0..64).map(|_| jitter()).collect();
        assert!(drawn.iter().all(|j| (0.0..=1.0).contains(j)), "{drawn:?}");
        assert!(drawn.iter().any(|j| *j != drawn[0]), "{drawn:?}");
    }
}
