//! One shard: durable rows on object storage, an index over them.
//!
//! 1. The rows on object storage are the truth. The index in memory is rebuilt from them when a shard is opened.
//! 2. An insert is one batch: all of its rows become durable, or none. It is acknowledged after that, not before, and
//!    only then does the index show it.
//! 3. A key has one row; inserting it again replaces the row. Two inserts at once end as the store ordered them.
//! 4. One process writes a shard at a time. Opening it fences the writer before; that one gets [`Error::NotOwner`] at
//!    its next insert and must step down.
//! 5. Search is exact: it reads every vector. It and everything else that takes the index's lock runs on the threads
//!    for blocking work, not on those of the runtime; but a search that is over sooner than the way there, and finds
//!    the lock free, is done on the spot.
//!
//! The parts: [`Shard`] (the store and the index as one), `commit` (when rows are durable), `index` (columns in memory),
//! `kernels` (distances), `row` (how a row is written), `tuning` (every setting of the store and why), [`storage`]
//! (folders and buckets).

pub use error::Error;
pub use kernels::Metric;
pub use shard::{Hits, Shard, destroy};

mod commit;
mod error;
mod index;
mod kernels;
mod row;
mod shard;
pub mod storage;
mod tuning;
