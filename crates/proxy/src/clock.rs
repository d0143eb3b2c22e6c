//! Hybrid timestamps and the keys the cluster gives out. Nothing here is shared between proxies, nor has to be.
//!
//! 1. A timestamp is milliseconds since 1970, shifted left by 18 bits, as Milvus has it.
//! 2. A given-out key is a millisecond, 10 random bits that this process chose at its start, and a counter of 12 bits
//!    that runs on into the next millisecond when a batch is larger. No two keys of one process are the same.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const COUNTER_BITS: u32 = 12;
const TAG_BITS: u32 = 10;

/// A moment as Milvus clients carry it.
pub(crate) fn timestamp(now: SystemTime) -> u64 {
    millis(now) << 18
}

/// The milliseconds since 1970 of a hybrid timestamp.
pub(crate) fn utc_millis(timestamp: u64) -> u64 {
    timestamp >> 18
}

fn millis(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 18))
}

/// Gives out keys.
#[derive(Debug)]
pub(crate) struct KeySource {
    tag: u64,
    next: AtomicU64,
}

impl KeySource {
    pub(crate) fn new(tag: u16) -> Self {
        Self { tag: u64::from(tag) & ((1 << TAG_BITS) - 1), next: AtomicU64::new(0) }
    }

    /// As many keys as asked for, ascending, never given out before.
    pub(crate) fn take(&self, count: usize, now: SystemTime) -> Vec<i64> {
        let floor = millis(now) << COUNTER_BITS;
        let count = count as u64;
        let advance = |next: u64| Some(next.max(floor) + count);
        let before = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance).unwrap_or_else(|next| next);
        let start = before.max(floor);
        (start..start + count).map(|slot| self.key(slot)).collect()
    }

    fn key(&self, slot: u64) -> i64 {
        let (millis, counter) = (slot >> COUNTER_BITS, slot & ((1 << COUNTER_BITS) - 1));
        let key = (millis << (TAG_BITS + COUNTER_BITS)) | (self.tag << COUNTER_BITS) | counter;
        i64::try_from(key & (u64::MAX >> 1)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_carry_milliseconds() {
        assert_eq!(utc_millis(timestamp(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))), 1_700_000_000_123);
    }

    #[test]
    fn keys_never_repeat() {
        let source = KeySource::new(7);
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let mut keys = source.take(10_000, now);
        keys.extend(source.take(10_000, now));
        keys.extend(source.take(1, now - Duration::from_secs(5)));
        assert!(keys.is_sorted_by(|a, b| a < b), "keys ascend and differ");
        assert!(keys[0] > 0);
    }
}
