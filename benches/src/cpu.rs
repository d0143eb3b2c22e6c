//! Processor time of processes, as the kernel counts it.
use std::fs;
use std::time::Duration;

/// What the kernel counts in on every Linux that runs Rust's standard library.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of these processes up to now, in steps of 10 ms each. One that is gone counts nothing.
#[must_use]
pub fn of(pids: &[u32]) -> Duration {
    pids.iter().filter_map(|pid| ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).map(|n| TICK * n).sum()
}

/// Fields 14 and 15 of proc(5); a name may hold spaces and parentheses, so counting begins behind the last one.
fn ticks(stat: &str) -> Option<u32> {
    let fields = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2);
    fields.map(|field| field.parse::<u32>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use test_util::process::resident;

    use super::*;

    #[test]
    fn reads_a_name_that_looks_like_fields() {
        let stat = "7 (a) 1 2 (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 9 9 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(300));
    }

    #[test]
    fn own_time_grows_with_work() {
        let (own, before) = ([std::process::id()], of(&[std::process::id()]));
        let mut sum = 0_u64;
        while of(&own) <= before {
            sum = sum.wrapping_add((0..100_000_u64).map(std::hint::black_box).sum());
        }
        assert!(std::hint::black_box(sum) > 0 && resident(own[0]) > 0);
    }
}
