//! How many calls a client may take back.
//!
//! 1. A call that is cancelled has cost us its beginning. A client at the edge may take back as many as it may have under way
//!    at once, and as many again each second; one that takes back more loses its connection (the attack of CVE-2023-44487).
//!    A client whose deadlines all pass while we stall stays within that.
//! 2. This counts calls that were begun. Those that were taken back before we looked at them are h2's to bound: see `http`.
//! 3. In the mesh nothing is counted: peers are known, and share connections among their callers.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A bucket of cancellations, kept as the time at which it is full again (the generic cell rate algorithm).
#[derive(Debug)]
pub(super) struct Allowance {
    born: Instant,
    /// Nanoseconds since `born`.
    full_at: AtomicU64,
    /// Of one cancellation, in nanoseconds.
    cost: u64,
    burst: u64,
}

impl Allowance {
    /// So many at once, and so many each second.
    pub(super) fn new(calls: u32) -> Self {
        let burst = u64::from(calls.max(1));
        let cost = u64::try_from(Duration::from_secs(1).as_nanos()).unwrap_or(u64::MAX) / burst;
        Self { born: Instant::now(), full_at: AtomicU64::new(0), cost, burst }
    }

    /// Whether one more is within it.
    pub(super) fn take(&self, now: Instant) -> bool {
        let now = u64::try_from(now.saturating_duration_since(self.born).as_nanos()).unwrap_or(u64::MAX);
        let most = now.saturating_add(self.cost.saturating_mul(self.burst));
        let next = |full_at: u64| Some(full_at.max(now).saturating_add(self.cost)).filter(|next| *next <= most);
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_a_burst_and_as_many_a_second() {
        let allowance = Allowance::new(10);
        let now = allowance.born;
        let granted = |now| (0..100).filter(|_| allowance.take(now)).count();
        assert_eq!((granted(now), granted(now)), (10, 0));
        assert_eq!(granted(now + Duration::from_millis(500)), 5);
        assert_eq!(granted(now + Duration::from_secs(60)), 10);
    }
}
