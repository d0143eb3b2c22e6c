//! What becomes of the samples of all rounds: medians, ratios, and how far to trust them. Pure.
use serde::Serialize;

use crate::sample::Sample;
use crate::scenario::Scenario;
use crate::variant::Variant;

/// All rounds of one scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The work.
    pub scenario: &'static Scenario,
    /// The samples of each variant, in the order in which they are shown.
    pub samples: Vec<(Variant, Vec<Sample>)>,
}

/// One variant of one scenario: medians over all rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the variant.
    pub variant: String,
    /// Calls, or messages of a stream, a second.
    pub calls_per_s: f64,
    /// Microseconds.
    pub p50_us: f64,
    /// Microseconds.
    pub p99_us: f64,
    /// Microseconds.
    pub p999_us: f64,
    /// Processor seconds, user and system, of all processes for 100,000 calls.
    pub cpu_s_per_100k: f64,
    /// Megabytes of payload a second, both directions.
    pub mb_per_s: f64,
    /// Processor time over that of the variant that the others are compared with.
    pub cpu_ratio: Option<f64>,
    /// How far apart rounds of one and the same variant lie, as a part of their median: less is no difference.
    pub noise: Option<f64>,
    /// How far apart this variant's own rounds lie, likewise.
    pub spread: f64,
    /// How many rounds there were.
    pub rounds: usize,
    /// Percent and microseconds.
    pub curve: Vec<(f64, f64)>,
    /// What the server holds for an idle connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<f64>,
}

impl Outcome {
    /// A figure for each variant.
    #[must_use]
    pub fn figures(&self) -> Vec<Figure> {
        let variants: Vec<_> = self.samples.iter().map(|(variant, _)| *variant).collect();
        let controls = Variant::controls(&variants);
        let base = controls.map_or_else(|| variants.first().copied(), |(base, _)| Some(base));
        let base = base.filter(|_| variants.len() > 1).map(|base| median(self.cpu(base)));
        let noise = controls.map(|(a, b)| spread(self.cpu(a).into_iter().chain(self.cpu(b)).collect()));
        self.samples.iter().map(|(variant, samples)| self.figure(*variant, samples, base, noise)).collect()
    }

    fn cpu(&self, variant: Variant) -> Vec<f64> {
        let samples = self.samples.iter().filter(|(other, _)| *other == variant);
        samples.flat_map(|(_, samples)| samples).map(Sample::cpu_s_per_100k).collect()
    }

    fn figure(&self, variant: Variant, samples: &[Sample], base: Option<f64>, noise: Option<f64>) -> Figure {
        let of = |what: fn(&Sample) -> f64| median(samples.iter().map(what).collect());
        let cpu = self.cpu(variant);
        let held: Option<Vec<f64>> = samples.iter().map(|sample| sample.bytes_per_connection).collect();
        Figure {
            scenario: self.scenario.name.to_owned(),
            variant: variant.name(),
            calls_per_s: of(Sample::calls_per_s),
            p50_us: of(|sample| sample.at(50.0)),
            p99_us: of(|sample| sample.at(99.0)),
            p999_us: of(|sample| sample.at(99.9)),
            cpu_s_per_100k: median(cpu.clone()),
            mb_per_s: of(Sample::mb_per_s),
            cpu_ratio: base.map(|base| median(cpu.clone()) / base),
            noise,
            spread: spread(cpu),
            rounds: samples.len(),
            curve: curve(samples),
            bytes_per_connection: held.map(median),
        }
    }
}

/// The median of each percentile.
fn curve(samples: &[Sample]) -> Vec<(f64, f64)> {
    let percents = samples.first().map(|sample| sample.curve.clone()).unwrap_or_default();
    let at = |percent: f64| median(samples.iter().map(|sample| sample.at(percent)).collect());
    percents.into_iter().map(|(percent, _)| (percent, at(percent))).collect()
}

/// The middle one, or the mean of the two in the middle; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len(), values.len() % 2) {
        (0, _) => 0.0,
        (_, 1) => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// From the smallest to the largest, as a part of the median.
fn spread(values: Vec<f64>) -> f64 {
    let (min, max) = values.iter().fold((f64::INFINITY, 0.0_f64), |(min, max), v| (min.min(*v), max.max(*v)));
    let median = median(values);
    if median > 0.0 { (max - min) / median } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::named;

    fn samples(cpu: &[f64]) -> Vec<Sample> {
        let sample = |cpu: &f64| Sample { calls: 100_000, seconds: 1.0, cpu_seconds: *cpu, ..Sample::default() };
        cpu.iter().map(sample).collect()
    }

    #[test]
    fn ratios_are_of_medians_and_noise_of_the_controls() {
        let samples = vec![
            (Variant::Tonic, samples(&[1.0, 2.0, 3.0])),
            (Variant::TonicAgain, samples(&[2.0, 2.0, 2.0])),
            (Variant::Mesh, samples(&[1.0, 1.0, 9.0])),
        ];
        let figures = Outcome { scenario: named("unary-64b-c1").unwrap(), samples }.figures();
        let ratios: Vec<_> = figures.iter().map(|figure| figure.cpu_ratio).collect();
        assert_eq!(ratios, [Some(1.0), Some(1.0), Some(0.5)]);
        assert!(figures.iter().all(|figure| figure.noise == Some(1.0)));
        assert_eq!(figures[2].spread, 8.0);
    }

    #[test]
    fn one_variant_alone_has_no_ratio() {
        let outcome = Outcome { scenario: named("rotation").unwrap(), samples: vec![(Variant::Mesh, samples(&[1.0]))] };
        let figures = outcome.figures();
        assert_eq!((figures[0].cpu_ratio, figures[0].noise), (None, None));
    }

    #[test]
    fn a_median_of_an_even_number_lies_between() {
        assert_eq!((median(vec![4.0, 1.0, 2.0, 3.0]), median(vec![])), (2.5, 0.0));
    }
}
