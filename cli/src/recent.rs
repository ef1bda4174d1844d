//! The keys of late, for runs that forget nothing: what was seen stays seen, so a key that is found
//! here need not be looked up in the store.
//!
//! Inputs with few distinct keys, each many times, would else pay for a look-up in tiers that are
//! made for many. What is not found here, for whatever reason, is decided by the store.

use std::hash::{BuildHasher as _, RandomState};
use std::hint::black_box;

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// 4 MiB: it stays in a cache, and costs little beside a store.
const SETS: usize = 1 << 16;

/// Digests that share a cache line.
const SET_LEN: usize = 4;

/// Digests of keys that were handed to the store, in sets of those that fall together, the newest
/// first.
pub(crate) struct Recent {
    /// Plain numbers, because memory that is zero already is only given for those. A few more than
    /// needed, so that sets can begin where cache lines do.
    digests: Vec<u128>,
    first: usize,
}

/// Makes the digests of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digester {
    seed: u64,
}

impl Digester {
    pub(crate) fn new() -> Self {
        Digester { seed: RandomState::new().hash_one(0) }
    }

    /// As many bits as a store compares; zero, which marks an empty place, is for no key.
    #[inline]
    pub(crate) fn digest(self, key: Option<&[u8]>) -> u128 {
        key.map_or(0, |key| xxh3_128_with_seed(key, self.seed) | 1 << 127)
    }
}

impl Recent {
    pub(crate) fn new() -> Self {
        let digests = vec![0; (SETS + 1) * SET_LEN];
        let line = SET_LEN * size_of::<u128>();
        let first = digests.as_ptr().align_offset(line).min(SET_LEN);
        Recent { digests, first }
    }

    /// For each digest whether it was given here lately; from now on it was. False for no key.
    #[inline]
    pub(crate) fn check<'a>(&'a mut self, digests: &'a [u128]) -> impl Iterator<Item = bool> + 'a {
        let (sets, _) = self.digests[self.first..].as_chunks_mut::<SET_LEN>();
        let sets = &mut sets[..SETS];
        // Reads that wait for nothing bring all lines at once, where the checks would wait for each.
        let lines = digests.iter().map(|digest| sets[*digest as usize % SETS][0] as u64);
        black_box(lines.fold(0, |all, line| all ^ line));
        digests
            .iter()
            .map(|digest| *digest != 0 && is_among(&mut sets[*digest as usize % SETS], *digest))
    }
}

#[inline]
fn is_among(set: &mut [u128; SET_LEN], digest: u128) -> bool {
    let [a, b, c, d] = *set;
    // Without a branch for each: which of them it is cannot be predicted.
    if (a == digest) | (b == digest) | (c == digest) | (d == digest) {
        return true;
    }
    *set = [digest, a, b, c];
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_were_given_are_found() {
        let digester = Digester::new();
        let mut recent = Recent::new();
        let mut check = |key: &[u8]| {
            let digests = [None, Some(key), None, Some(key)].map(|key| digester.digest(key));
            recent.check(&digests).collect::<Vec<_>>()
        };
        assert_eq!(check(b""), [false, false, false, true]);
        assert_eq!(check(b""), [false, true, false, true]);
        for n in 0..8 * SETS as u64 {
            assert_eq!(check(&n.to_le_bytes()), [false, false, false, true], "{n}");
        }
    }
}
