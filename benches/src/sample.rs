//! What one client tells of one window of time.
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Percentiles that are kept for the curve of latencies.
const CURVE: [f64; 16] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99, 100.0];

/// A minute, in tenths of a microsecond; what takes longer counts as that.
const LONGEST: u64 = 600_000_000;

/// The latencies of a window, in tenths of microseconds with three digits.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("these bounds and three digits fit a histogram"))
    }
}

impl Latencies {
    /// Takes one call in.
    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos() / 100).unwrap_or(u64::MAX));
    }

    /// Takes in what another task saw.
    ///
    /// # Panics
    /// Never: all have the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// How many calls were taken in.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Microseconds.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 10.0
    }

    /// The curve of latencies: percent and microseconds.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        CURVE.iter().map(|percent| (*percent, self.percentile(*percent))).collect()
    }
}

/// One window of one variant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Calls, or messages of a stream, that ended within the window.
    pub calls: u64,
    /// How long the window was.
    pub seconds: f64,
    /// Processor time of all processes in it.
    pub cpu_seconds: f64,
    /// Payload in it, both directions.
    pub bytes: u64,
    /// Percent and microseconds.
    pub curve: Vec<(f64, f64)>,
    /// Resident bytes of the server for each idle connection, where that is what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<f64>,
}

impl Sample {
    /// What was seen between two moments.
    #[must_use]
    pub fn new(latencies: &Latencies, took: Duration, cpu: Duration, bytes_a_call: usize) -> Self {
        Self {
            calls: latencies.count(),
            seconds: took.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            bytes: latencies.count() * bytes_a_call as u64,
            curve: latencies.curve(),
            bytes_per_connection: None,
        }
    }

    /// Microseconds at this percentile, where it is one of the curve's.
    #[must_use]
    pub fn at(&self, percent: f64) -> f64 {
        self.curve.iter().find(|(p, _)| *p == percent).map_or(0.0, |(_, us)| *us)
    }

    /// Calls a second.
    #[must_use]
    pub fn calls_per_s(&self) -> f64 {
        self.calls as f64 / self.seconds
    }

    /// Processor seconds for 100,000 calls.
    #[must_use]
    pub fn cpu_s_per_100k(&self) -> f64 {
        self.cpu_seconds * 100_000.0 / (self.calls.max(1) as f64)
    }

    /// Megabytes of payload a second.
    #[must_use]
    pub fn mb_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_taken_in() {
        let mut latencies = Latencies::default();
        (1..=1_000).for_each(|n| latencies.add(Duration::from_micros(n)));
        let mut all = Latencies::default();
        all.merge(&latencies);
        let latencies = all;
        let sample = Sample::new(&latencies, Duration::from_secs(2), Duration::from_secs(1), 10);
        assert!((sample.at(50.0) - 500.0).abs() < 2.0 && (sample.at(99.0) - 990.0).abs() < 2.0);
        assert_eq!((sample.calls_per_s(), sample.cpu_s_per_100k()), (500.0, 100.0));
        assert_eq!((sample.bytes, sample.mb_per_s()), (10_000, 0.005));
    }
}
