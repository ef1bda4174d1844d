//! The keys of late, for runs that forget nothing: what was seen stays seen, so a key that is found
//! here need not be looked up in the store.
//!
//! Inputs with few distinct keys, each many times, would else pay for a look-up in tiers that are
//! made for many. What is not found here, for whatever reason, is decided by the store.

use std::hash::{BuildHasher as _, RandomState};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// 4 MiB: most of it stays in the caches, and costs little beside a store.
const SETS: usize = 1 << 17;

/// Digests of keys that were handed to the store, in sets of two, the newer first.
pub(crate) struct Recent {
    sets: Vec<[u128; 2]>,
    seed: u64,
}

impl Recent {
    pub(crate) fn new() -> Self {
        Recent { sets: vec![[0; 2]; SETS], seed: RandomState::new().hash_one(0) }
    }

    /// As many bits as a store compares. Never zero, which marks an empty place.
    #[inline]
    pub(crate) fn digest(&self, key: &[u8]) -> u128 {
        xxh3_128_with_seed(key, self.seed) | 1 << 127
    }

    /// Whether a key of this digest was given here lately; from now on it was.
    #[inline]
    pub(crate) fn check(&mut self, digest: u128) -> bool {
        let set = &mut self.sets[digest as usize % SETS];
        if (set[0] == digest) | (set[1] == digest) {
            return true;
        }
        *set = [digest, set[0]];
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_were_given_are_found() {
        let mut recent = Recent::new();
        let empty = recent.digest(b"");
        assert!(!recent.check(empty));
        assert!(recent.check(empty));
        for n in 0..4 * SETS as u64 {
            let digest = recent.digest(&n.to_le_bytes());
            assert!(!recent.check(digest), "{n}");
            assert!(recent.check(digest), "{n}");
        }
    }
}
