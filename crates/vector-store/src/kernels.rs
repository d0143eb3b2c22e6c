//! Distances between vectors.
//!
//! Sums run in [`LANES`] accumulators side by side: that is an order of additions the compiler may put into vector
//! registers, which the plain sum is not. The result differs from the plain sum's only by rounding.

/// How near two vectors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Squared distance; smaller is nearer.
    L2,
    /// Inner product; larger is nearer.
    Ip,
    /// Cosine similarity; larger is nearer, and 0 where either vector is zero.
    Cosine,
}

impl Metric {
    /// Whether a smaller score is a nearer one.
    pub fn smaller_is_nearer(self) -> bool {
        self == Self::L2
    }
}

/// Two registers of eight on AVX2, four of four on NEON.
const LANES: usize = 16;

/// Inner product.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| a * b)
}

/// Squared distance.
pub(crate) fn l2(a: &[f32], b: &[f32]) -> f32 {
    sum(a, b, |a, b| (a - b) * (a - b))
}

/// Euclidean length.
pub(crate) fn norm(a: &[f32]) -> f32 {
    dot(a, a).sqrt()
}

/// Cosine similarity, given the lengths of both vectors.
pub(crate) fn cosine(dot: f32, norms: f32) -> f32 {
    if norms > 0.0 { (dot / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

#[inline(always)]
fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((heads_a, tail_a), (heads_b, tail_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in heads_a.iter().zip(heads_b) {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(a[lane], b[lane]);
        }
    }
    let tail: f32 = tail_a.iter().zip(tail_b).map(|(a, b)| term(*a, *b)).sum();
    lanes.iter().sum::<f32>() + tail
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        prop::collection::vec((-10.0_f32..10.0, -10.0_f32..10.0), 1..100).prop_map(|pairs| pairs.into_iter().unzip())
    }

    fn plain(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
        a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum()
    }

    fn close(found: f32, expected: f64) -> bool {
        (f64::from(found) - expected).abs() <= 1e-2
    }

    proptest! {
        #[test]
        fn sums_like_the_plain_loop((a, b) in pair()) {
            prop_assert!(close(dot(&a, &b), plain(&a, &b, |a, b| a * b)));
            prop_assert!(close(l2(&a, &b), plain(&a, &b, |a, b| (a - b) * (a - b))));
        }

        #[test]
        fn cosine_stays_within_one((a, b) in pair()) {
            let score = cosine(dot(&a, &b), norm(&a) * norm(&b));
            prop_assert!((-1.0..=1.0).contains(&score));
        }
    }

    #[test]
    fn cosine_of_zero_vector_is_zero() {
        assert_eq!(cosine(dot(&[0.0; 20], &[1.0; 20]), norm(&[0.0; 20]) * norm(&[1.0; 20])), 0.0);
    }
}
