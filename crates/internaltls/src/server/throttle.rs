//! Keeps a log from being flooded by what a peer can repeat at will.
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets one line through per interval and counts the rest.
#[derive(Debug)]
pub(crate) struct Throttle {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// One line per `interval`.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Whether a line may be written now, and how many were not since the last.
    pub(crate) fn permit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_one_through_and_counts_the_rest() {
        let (throttle, start) = (Throttle::new(Duration::from_secs(1)), Instant::now());
        let at = |ms| throttle.permit(start + Duration::from_millis(ms));
        assert_eq!([at(0), at(10), at(999), at(1_000), at(1_001)], [Some(0), None, None, Some(2), None]);
    }
}
