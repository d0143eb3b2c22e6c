//! Every setting of the store that is not its default, and why.
//!
//! A process holds many shards, and each is a store of its own: what costs memory or threads is chosen small.

use std::time::Duration;

use slatedb::Settings;
use slatedb::config::{CompactionWorkerOptions, CompactorOptions, GarbageCollectorOptions};

/// Rows not yet in a sorted table stay in memory and are read again at the next open: half of the default.
const L0_BYTES: usize = 32 << 20;

/// One message of the largest size, and as much again behind it, before writers wait.
const UNFLUSHED_BYTES: usize = 256 << 20;

/// What the store of a shard runs with.
pub(crate) fn settings() -> Settings {
    Settings {
        // Every write asks for its flush itself; see `commit`.
        flush_interval: None,
        l0_sst_size_bytes: L0_BYTES,
        max_unflushed_bytes: UNFLUSHED_BYTES,
        // An idle shard polls its manifest for nothing but the news of a compaction: a writer learns that it was
        // fenced from its own flush.
        manifest_poll_interval: Duration::from_secs(5),
        // Two writers of tables at once are enough for one shard.
        l0_flush_parallelism: 2,
        compactor_options: Some(compactor()),
        // Left on at their defaults, but for the one that only logs what it would do.
        garbage_collector_options: Some(GarbageCollectorOptions {
            wal_fence_options: None,
            ..GarbageCollectorOptions::default()
        }),
        // Rows are read once, when the shard is opened: a cache of objects on disk, off by default, stays off.
        ..Settings::default()
    }
}

fn compactor() -> CompactorOptions {
    CompactorOptions {
        // One compaction of a shard at a time, looked for less often than the default.
        max_concurrent_compactions: 1,
        poll_interval: Duration::from_secs(10),
        worker: Some(CompactionWorkerOptions {
            max_concurrent_compactions: 1,
            compactions_poll_interval: Duration::from_secs(10),
            ..CompactionWorkerOptions::default()
        }),
        ..CompactorOptions::default()
    }
}
