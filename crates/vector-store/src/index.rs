//! The rows of a shard in memory: one [`Column`] a field, a row at the same place in each, and where each key's row is.
//!
//! Vectors of a field lie one after the other in one allocation, so that search reads memory in order. Scores are
//! never -0 nor NaN, so that hits of several shards merge in the order each shard has them.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, hash_map::Entry};
use std::sync::Arc;

use bytes::Bytes;
use rpc::columns::{Column, ColumnError, Key, Values};
use rpc::fields::Fields;
use rpc::shards::KeyRef;

use crate::error::Error;
use crate::kernels::{Metric, Query, norm};
use crate::row;

/// Rows that all queries of a search read before the next ones are read: they stay in the cache meanwhile.
const BLOCK: usize = 256;

#[derive(Debug)]
pub(crate) struct Index {
    fields: Arc<Fields>,
    /// In the schema's order.
    columns: Vec<Column>,
    /// The length of every vector; empty for the fields that are no vectors.
    norms: Vec<Vec<f32>>,
    /// Which write a row is of; 0 for those read at the opening.
    sequences: Vec<u64>,
    positions: HashMap<Key, usize>,
}

/// A row of the index, as found for a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) position: usize,
    pub(crate) score: f32,
}

impl Index {
    pub(crate) fn new(fields: Arc<Fields>) -> Self {
        let columns: Vec<Column> = fields.iter().map(Column::empty).collect();
        let norms = columns.iter().map(|_| vec![]).collect();
        Self { fields, columns, norms, sequences: vec![], positions: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Appends a row as it is stored. The keys of a store are unique.
    pub(crate) fn load(&mut self, key: &[u8], value: Bytes) -> Result<(), Error> {
        row::decode(&self.fields, &mut self.columns, key, value)?;
        let position = self.len();
        self.extend_facts(0, 1);
        if let Some(key) = self.columns[self.fields.key_index()].key(position) {
            self.positions.insert(key.into(), position);
        }
        Ok(())
    }

    /// Puts the rows of write `sequence` in. A row that a later write has replaced already stays.
    pub(crate) fn apply(&mut self, batch: Vec<Column>, sequence: u64) -> Result<(), ColumnError> {
        let (fresh, replaced) = self.sort_out(&batch);
        self.append(&batch, &fresh)?;
        self.extend_facts(sequence, fresh.len());
        for (position, row) in replaced {
            if self.sequences[position] <= sequence {
                self.replace(position, &batch, row)?;
                self.sequences[position] = sequence;
            }
        }
        Ok(())
    }

    /// Rows of the batch with keys that are new, which get the next positions, and rows that replace one.
    fn sort_out(&mut self, batch: &[Column]) -> (Vec<usize>, Vec<(usize, usize)>) {
        let (mut fresh, mut replaced) = (vec![], vec![]);
        let (keys, rows) = (&batch[self.fields.key_index()], self.sequences.len());
        for row in 0..keys.len() {
            let Some(key) = keys.key(row) else { continue };
            match self.positions.entry(key.into()) {
                Entry::Occupied(position) => replaced.push((*position.get(), row)),
                Entry::Vacant(place) => {
                    place.insert(rows + fresh.len());
                    fresh.push(row);
                }
            }
        }
        (fresh, replaced)
    }

    fn append(&mut self, batch: &[Column], rows: &[usize]) -> Result<(), ColumnError> {
        self.columns.iter_mut().zip(batch).try_for_each(|(column, batch)| column.append(batch.take(rows)))
    }

    fn replace(&mut self, position: usize, batch: &[Column], row: usize) -> Result<(), ColumnError> {
        for (at, column) in batch.iter().enumerate() {
            self.columns[at].set(position, column, row)?;
            if let Values::FloatVector { dim, data } = &column.values {
                self.norms[at][position] = norm(&data[row * dim..][..*dim]);
            }
        }
        Ok(())
    }

    /// Notes what is known of rows just appended.
    fn extend_facts(&mut self, sequence: u64, rows: usize) {
        self.sequences.resize(self.sequences.len() + rows, sequence);
        for (norms, column) in self.norms.iter_mut().zip(&self.columns) {
            if let Values::FloatVector { dim, data } = &column.values {
                let known = norms.len();
                norms.extend(data[known * dim..].chunks_exact(*dim).map(norm));
            }
        }
    }

    /// Where the rows of `keys` are, each once, in the order asked for.
    pub(crate) fn find(&self, keys: &[Key]) -> Vec<usize> {
        let mut seen = std::collections::HashSet::new();
        keys.iter().filter_map(|key| self.positions.get(key).copied()).filter(|at| seen.insert(*at)).collect()
    }

    /// The given rows of one field.
    pub(crate) fn rows(&self, field: usize, positions: &[usize]) -> Column {
        self.columns[field].take(positions)
    }

    /// The nearest rows of each query, nearest first, equal scores by key. Queries are of the field's dimension.
    pub(crate) fn search(&self, field: usize, metric: Metric, queries: &[Vec<f32>], limit: usize) -> Vec<Vec<Hit>> {
        let Values::FloatVector { dim, data } = &self.columns[field].values else { return vec![] };
        let mut nearest: Vec<Nearest<'_>> = queries.iter().map(|_| Nearest::new(limit.min(self.len()))).collect();
        let scan = Scan { keys: &self.columns[self.fields.key_index()], dim: *dim, norms: &self.norms[field], metric };
        let queries: Vec<Query<'_>> = queries.iter().map(|query| Query::new(query)).collect();
        for (block, vectors) in data.chunks(BLOCK * dim).enumerate() {
            for (query, nearest) in queries.iter().zip(&mut nearest) {
                scan.block(block * BLOCK, vectors, *query, nearest);
            }
        }
        nearest.into_iter().map(|nearest| nearest.into_hits(metric)).collect()
    }
}

/// What a search reads besides the vectors.
struct Scan<'a> {
    keys: &'a Column,
    dim: usize,
    norms: &'a [f32],
    metric: Metric,
}

impl<'a> Scan<'a> {
    fn block(&self, first: usize, vectors: &[f32], query: Query<'_>, nearest: &mut Nearest<'a>) {
        let (mut ranks, rows) = ([0.0; BLOCK], vectors.len() / self.dim);
        let ranks = &mut ranks[..rows];
        query.ranks(self.metric, vectors, &self.norms[first..][..rows], ranks);
        for (row, rank) in ranks.iter().enumerate() {
            nearest.offer(*rank, first + row, self.keys);
        }
    }
}

/// Neither -0, which would sort before 0, nor NaN, which sums of numbers near the largest can be: that is farthest.
fn clean(rank: f32) -> f32 {
    if rank.is_nan() { f32::INFINITY } else { rank + 0.0 }
}

/// The best rows seen so far, at most `limit`; the worst of them on top.
struct Nearest<'a> {
    limit: usize,
    /// No row farther than this is among them.
    worst: f32,
    heap: BinaryHeap<Candidate<'a>>,
}

/// Smaller ranks are nearer, whatever the metric.
struct Candidate<'a> {
    rank: f32,
    key: Option<KeyRef<'a>>,
    position: usize,
}

impl<'a> Nearest<'a> {
    fn new(limit: usize) -> Self {
        Self { limit, worst: f32::INFINITY, heap: BinaryHeap::with_capacity(limit.saturating_add(1)) }
    }

    /// Almost all rows are turned away here.
    #[inline]
    fn offer(&mut self, rank: f32, position: usize, keys: &'a Column) {
        if rank <= self.worst || rank.is_nan() {
            self.take(Candidate { rank: clean(rank), key: keys.key(position), position });
        }
    }

    fn take(&mut self, candidate: Candidate<'a>) {
        self.heap.push(candidate);
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
        if self.heap.len() == self.limit {
            self.worst = self.heap.peek().map_or(f32::NEG_INFINITY, |worst| worst.rank);
        }
    }

    fn into_hits(self, metric: Metric) -> Vec<Hit> {
        let score = |rank: f32| if metric.smaller_is_nearer() { rank } else { 0.0 - rank };
        let nearest_first = self.heap.into_sorted_vec().into_iter();
        nearest_first.map(|hit| Hit { position: hit.position, score: score(hit.rank) }).collect()
    }
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.total_cmp(&other.rank).then_with(|| self.key.cmp(&other.key))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate<'_> {}
