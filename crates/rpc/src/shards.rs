//! In which shard a row lives.
//!
//! 1. The shard is `FNV-1a 64 (bytes of the key) mod (number of shards)`. It is part of what is on disk: rows written
//!    under one hash are not found under another, so it never changes.
//! 2. The bytes of an Int64 key are its eight bytes little-endian, those of a VarChar key its UTF-8.
//! 3. Shards are counted in the order of the collection's record.

/// A primary key, borrowed from wherever it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRef<'a> {
    /// A key of type Int64.
    Int64(i64),
    /// A key of type VarChar.
    VarChar(&'a str),
}

/// The index of the shard that holds `key`, of `shards` in all.
///
/// # Panics
/// If `shards` is 0: a collection has at least one shard.
pub fn shard_of(key: KeyRef<'_>, shards: usize) -> usize {
    assert!(shards > 0, "a collection has at least one shard");
    let hash = match key {
        KeyRef::Int64(key) => fnv1a(&key.to_le_bytes()),
        KeyRef::VarChar(key) => fnv1a(key.as_bytes()),
    };
    (hash % shards as u64) as usize
}

/// FNV-1a in 64 bits (draft-eastlake-fnv): for short keys as quick as any, and a few lines that cannot drift.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{KeyRef, fnv1a, shard_of};

    #[test]
    fn hashes_as_published() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// Golden: a change here loses rows that are already stored.
    #[test]
    fn shards_stay_where_they_are() {
        let ints: Vec<_> = (0..8).map(|key| shard_of(KeyRef::Int64(key), 3)).collect();
        let negative = shard_of(KeyRef::Int64(-1), 3);
        let texts: Vec<_> = ["", "a", "foobar", "日本"].iter().map(|key| shard_of(KeyRef::VarChar(key), 3)).collect();
        assert_eq!((ints, negative, texts), (vec![1, 0, 0, 2, 0, 2, 2, 1], 1, vec![2, 1, 0, 0]));
    }

    #[test]
    fn spreads_consecutive_keys_evenly() {
        let mut counts = [0_u32; 4];
        (0..10_000).for_each(|key| counts[shard_of(KeyRef::Int64(key), 4)] += 1);
        assert!(counts.iter().all(|n| (2_300..2_700).contains(n)), "{counts:?}");
    }

    #[test]
    fn one_shard_holds_all() {
        assert!((0..100).all(|key| shard_of(KeyRef::Int64(key), 1) == 0));
    }
}
