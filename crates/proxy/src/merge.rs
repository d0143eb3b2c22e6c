//! One answer of many shards. Pure.
//!
//! 1. A key lives in one shard, so the union of the shards' hits is the collection's: sorting it by score, equal scores
//!    by key, and cutting the window out is all there is to do.
//! 2. A shard's answer that does not add up fails the whole; nothing is left out silently.
use std::cmp::Ordering;

use crate::columns::Pick;
use crate::error::{Code, Error, Result};
use crate::key::Key;
use crate::plan::Window;

/// What one shard found, the hits of all queries in a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ShardHits {
    /// How many of them belong to each query.
    pub(crate) hits: Vec<u32>,
    pub(crate) keys: Vec<Key>,
    pub(crate) scores: Vec<f32>,
}

/// The hits of the collection, the queries' lists in a row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Merged {
    pub(crate) topks: Vec<i64>,
    pub(crate) keys: Vec<Key>,
    pub(crate) scores: Vec<f32>,
    /// Where each hit's row is.
    pub(crate) picks: Vec<Pick>,
}

/// Merges, per query.
pub(crate) fn merge(shards: &[ShardHits], queries: usize, larger_is_nearer: bool, window: Window) -> Result<Merged> {
    shards.iter().try_for_each(|shard| check(shard, queries))?;
    let mut starts = vec![0; shards.len()];
    let mut merged = Merged::default();
    for query in 0..queries {
        let mut picks = candidates(shards, query, &mut starts);
        picks.sort_by(|left, right| nearer(shards, larger_is_nearer, left, right));
        take(shards, picks.into_iter().skip(window.offset).take(window.limit), &mut merged);
    }
    Ok(merged)
}

/// A score rounded to so many decimals.
pub(crate) fn rounded(score: f32, decimals: Option<u32>) -> f32 {
    let Some(decimals) = decimals else { return score };
    let scale = 10_f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX));
    ((f64::from(score) * scale).round() / scale) as f32
}

fn check(shard: &ShardHits, queries: usize) -> Result<()> {
    let total: usize = shard.hits.iter().map(|&hits| hits as usize).sum();
    if shard.hits.len() == queries && shard.keys.len() == total && shard.scores.len() == total {
        return Ok(());
    }
    Err(Error::refused(
        Code::Unexpected,
        format!(
            "a shard answered {} lists, {} keys and {} scores to {queries} queries with {total} hits",
            shard.hits.len(),
            shard.keys.len(),
            shard.scores.len()
        ),
    ))
}

fn candidates(shards: &[ShardHits], query: usize, starts: &mut [usize]) -> Vec<Pick> {
    let mut picks = Vec::new();
    for (source, shard) in shards.iter().enumerate() {
        let end = starts[source] + shard.hits[query] as usize;
        picks.extend((starts[source]..end).map(|row| Pick { source, row }));
        starts[source] = end;
    }
    picks
}

fn nearer(shards: &[ShardHits], larger_is_nearer: bool, left: &Pick, right: &Pick) -> Ordering {
    let (l, r) = (&shards[left.source], &shards[right.source]);
    let ascending = l.scores[left.row].total_cmp(&r.scores[right.row]);
    let by_score = if larger_is_nearer { ascending.reverse() } else { ascending };
    by_score.then_with(|| l.keys[left.row].cmp(&r.keys[right.row]))
}

fn take(shards: &[ShardHits], picks: impl Iterator<Item = Pick>, merged: &mut Merged) {
    let before = merged.picks.len();
    for pick in picks {
        merged.keys.push(shards[pick.source].keys[pick.row].clone());
        merged.scores.push(shards[pick.source].scores[pick.row]);
        merged.picks.push(pick);
    }
    merged.topks.push((merged.picks.len() - before) as i64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lists a shard, lists a query, hits.
    type Lists = Vec<Vec<Vec<(i64, f32)>>>;

    fn shard(lists: &[Vec<(i64, f32)>]) -> ShardHits {
        ShardHits {
            hits: lists.iter().map(|list| list.len() as u32).collect(),
            keys: lists.concat().into_iter().map(|(key, _)| Key::Int(key)).collect(),
            scores: lists.concat().into_iter().map(|(_, score)| score).collect(),
        }
    }

    fn sorted_union(lists: &Lists, query: usize, larger: bool, window: Window) -> Vec<(i64, f32)> {
        let mut all: Vec<(i64, f32)> = lists.iter().flat_map(|shard| shard[query].clone()).collect();
        all.sort_by(|l, r| if larger { r.1.total_cmp(&l.1) } else { l.1.total_cmp(&r.1) }.then(l.0.cmp(&r.0)));
        all.into_iter().skip(window.offset).take(window.limit).collect()
    }

    fn lists() -> impl Strategy<Value = Lists> {
        (1_usize..4, 1_usize..4).prop_flat_map(|(shards, queries)| {
            let hit = (any::<i64>(), (-8_i8..8).prop_map(f32::from));
            prop::collection::vec(prop::collection::vec(prop::collection::vec(hit, 0..6), queries), shards)
        })
    }

    proptest! {
        #[test]
        fn merge_is_the_sorted_union(lists in lists(), larger in any::<bool>(), offset in 0_usize..6, limit in 1_usize..9) {
            let window = Window { offset, limit };
            let queries = lists[0].len();
            let shards: Vec<ShardHits> = lists.iter().map(|lists| shard(lists)).collect();
            let merged = merge(&shards, queries, larger, window).unwrap();
            let want: Vec<Vec<(i64, f32)>> = (0..queries).map(|query| sorted_union(&lists, query, larger, window)).collect();
            prop_assert_eq!(merged.topks, want.iter().map(|list| list.len() as i64).collect::<Vec<_>>());
            prop_assert_eq!(merged.scores, want.concat().iter().map(|hit| hit.1).collect::<Vec<_>>());
            prop_assert_eq!(&merged.keys, &want.concat().iter().map(|hit| Key::Int(hit.0)).collect::<Vec<_>>());
            for (pick, key) in merged.picks.iter().zip(&merged.keys) {
                prop_assert_eq!(&shards[pick.source].keys[pick.row], key);
            }
        }
    }

    #[test]
    fn an_answer_that_does_not_add_up_fails() {
        let window = Window { offset: 0, limit: 3 };
        let good = shard(&[vec![(1, 0.5)]]);
        assert!(merge(std::slice::from_ref(&good), 1, true, window).is_ok());
        assert!(merge(std::slice::from_ref(&good), 2, true, window).is_err());
        assert!(merge(&[ShardHits { scores: vec![], ..good }], 1, true, window).is_err());
    }

    #[test]
    fn rounds_to_decimals() {
        assert_eq!(rounded(0.123_456, Some(2)), 0.12);
        assert_eq!(rounded(0.5, Some(0)), 1.0);
        assert_eq!(rounded(0.123_456, None), 0.123_456);
    }
}
