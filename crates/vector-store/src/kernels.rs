//! Distances between vectors.
//!
//! 1. The widest registers that the processor has are used; which those are is asked once and then remembered.
//! 2. Sums run in [`LANES`] accumulators side by side, on every processor the same number, added up in the same order and
//!    without fused operations: a score is the same to the last bit wherever it is computed, so that hits of shards on
//!    different machines merge. It differs from the plain sum's only by rounding.
//! 3. Everything between [`dispatch!`] and the arithmetic must be inlined into it: what is not is compiled for the oldest
//!    processor. So no closures here, and `inline(always)` on each function.

use fearless_simd::{Level, dispatch, f32x16, prelude::*};

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

/// One register on AVX-512, two on AVX2, four on SSE and NEON.
const LANES: usize = 16;

/// A vector that others are held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a> {
    vector: &'a [f32],
    norm: f32,
}

impl<'a> Query<'a> {
    pub(crate) fn new(vector: &'a [f32]) -> Self {
        Self { vector, norm: norm(vector) }
    }

    /// How far each of `vectors`, which lie one after the other, is from the query: smaller is nearer, whatever the
    /// metric. `norms` are the vectors' lengths. As many ranks are set as `ranks` has place for.
    pub(crate) fn ranks(self, metric: Metric, vectors: &[f32], norms: &[f32], ranks: &mut [f32]) {
        dispatch!(Level::new(), simd => match metric {
            Metric::L2 => sums::<_, Difference>(simd, self.vector, vectors, ranks),
            Metric::Ip | Metric::Cosine => sums::<_, Product>(simd, self.vector, vectors, ranks),
        });
        match metric {
            Metric::L2 => {}
            Metric::Ip => ranks.iter_mut().for_each(|rank| *rank = -*rank),
            Metric::Cosine => {
                ranks.iter_mut().zip(norms).for_each(|(rank, norm)| *rank = -cosine(*rank, self.norm * norm));
            }
        }
    }
}

/// Euclidean length.
pub(crate) fn norm(vector: &[f32]) -> f32 {
    dispatch!(Level::new(), simd => sum::<_, Product>(simd, vector, vector)).sqrt()
}

/// Cosine similarity, given the inner product and the product of both lengths.
fn cosine(dot: f32, norms: f32) -> f32 {
    if norms > 0.0 { (dot / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

/// What is summed up.
trait Term {
    fn lanes<S: Simd>(a: f32x16<S>, b: f32x16<S>) -> f32x16<S>;
    fn one(a: f32, b: f32) -> f32;
}

/// For the inner product.
struct Product;

impl Term for Product {
    #[inline(always)]
    fn lanes<S: Simd>(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> {
        a * b
    }

    #[inline(always)]
    fn one(a: f32, b: f32) -> f32 {
        a * b
    }
}

/// For the squared distance.
struct Difference;

impl Term for Difference {
    #[inline(always)]
    fn lanes<S: Simd>(a: f32x16<S>, b: f32x16<S>) -> f32x16<S> {
        (a - b) * (a - b)
    }

    #[inline(always)]
    fn one(a: f32, b: f32) -> f32 {
        (a - b) * (a - b)
    }
}

#[inline(always)]
fn sums<S: Simd, T: Term>(simd: S, query: &[f32], vectors: &[f32], sums: &mut [f32]) {
    for (vector, total) in vectors.chunks_exact(query.len()).zip(sums) {
        *total = sum::<S, T>(simd, query, vector);
    }
}

#[inline(always)]
fn sum<S: Simd, T: Term>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut total = f32x16::splat(simd, 0.0);
    let ((heads_a, tail_a), (heads_b, tail_b)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in heads_a.iter().zip(heads_b) {
        total += T::lanes(f32x16::from_slice(simd, a), f32x16::from_slice(simd, b));
    }
    let mut rest = 0.0;
    for (a, b) in tail_a.iter().zip(tail_b) {
        rest += T::one(*a, *b);
    }
    total.reduce_sum() + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One query and some vectors, all of one dimension.
    fn vectors() -> impl Strategy<Value = (Vec<f32>, Vec<Vec<f32>>)> {
        (1..100_usize, 0..20_usize).prop_flat_map(|(dim, rows)| {
            let vector = prop::collection::vec(-10.0_f32..10.0, dim);
            (vector.clone(), prop::collection::vec(vector, rows))
        })
    }

    fn ranks(metric: Metric, query: &[f32], vectors: &[Vec<f32>]) -> Vec<f32> {
        let norms: Vec<f32> = vectors.iter().map(|vector| norm(vector)).collect();
        let mut ranks = vec![f32::NAN; vectors.len()];
        Query::new(query).ranks(metric, &vectors.concat(), &norms, &mut ranks);
        ranks
    }

    fn plain(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
        a.iter().zip(b).map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum()
    }

    fn expected(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| plain(a, b, |a, b| a * b);
        match metric {
            Metric::L2 => plain(a, b, |a, b| (a - b) * (a - b)),
            Metric::Ip => -dot(a, b),
            Metric::Cosine => -dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE),
        }
    }

    proptest! {
        #[test]
        fn ranks_like_the_plain_sums((query, vectors) in vectors()) {
            for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
                for (found, vector) in ranks(metric, &query, &vectors).into_iter().zip(&vectors) {
                    let expected = expected(metric, &query, vector);
                    prop_assert!((f64::from(found) - expected).abs() <= 1e-2, "{metric:?}: {found}, expected {expected}");
                }
            }
        }

        /// What the widest registers give is what the narrowest give.
        #[test]
        fn every_processor_gets_the_same_bits((query, vectors) in vectors()) {
            for vector in &vectors {
                let wide = dispatch!(Level::new(), simd => sum::<_, Difference>(simd, &query, vector));
                let narrow = dispatch!(Level::baseline(), simd => sum::<_, Difference>(simd, &query, vector));
                prop_assert_eq!(wide.to_bits(), narrow.to_bits());
            }
        }

        #[test]
        fn cosine_stays_within_one((query, vectors) in vectors()) {
            prop_assert!(ranks(Metric::Cosine, &query, &vectors).iter().all(|rank| (-1.0..=1.0).contains(rank)));
        }
    }

    #[test]
    fn cosine_of_zero_vector_is_zero() {
        assert_eq!(ranks(Metric::Cosine, &[0.0; 20], &[vec![1.0; 20]]), [0.0]);
        assert_eq!(ranks(Metric::Cosine, &[1.0; 20], &[vec![0.0; 20]]), [0.0]);
    }

    #[test]
    fn sets_no_more_ranks_than_there_is_place() {
        let mut ranks = [f32::NAN; 2];
        Query::new(&[1.0]).ranks(Metric::Ip, &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], &mut ranks);
        assert_eq!(ranks, [-1.0, -2.0]);
    }
}
