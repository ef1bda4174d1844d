//! An index of unsealed records: digest → position, chained, four bytes a record and two a bucket.
//!
//! A link is a position and ten bits of the digest it points to, so that a look-up reads a record
//! only when it most likely is the one. Zero is the end of a chain; position zero is never used.

use crate::digest::Digest;
use crate::storage::prefetch;

const FINGERPRINT_BITS: u32 = 10;
const POSITION_BITS: u32 = 32 - FINGERPRINT_BITS;
/// Positions that an index can hold.
pub(crate) const MAX_POSITIONS: usize = 1 << POSITION_BITS;

pub(crate) struct Index {
    heads: Box<[u32]>,
    /// By position: the link that was the head before.
    next: Vec<u32>,
}

impl Index {
    /// An index for about `records` records; it takes more, with longer chains.
    pub(crate) fn new(records: usize) -> Self {
        let heads = vec![0; Index::buckets_for(records)].into();
        Index { heads, next: Vec::with_capacity(records + records / 4) }
    }

    fn buckets_for(records: usize) -> usize {
        (records / 2).max(16).next_power_of_two()
    }

    /// Whether it was made for so many records.
    pub(crate) fn suits(&self, records: usize) -> bool {
        self.heads.len() >= Index::buckets_for(records)
    }

    /// Empties it, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.heads.fill(0);
        self.next.clear();
    }

    #[inline]
    fn bucket(&self, digest: Digest) -> usize {
        (digest.hi >> 32) as usize & (self.heads.len() - 1)
    }

    #[inline]
    fn fingerprint(digest: Digest) -> u32 {
        ((digest.lo >> 32) as u32) << POSITION_BITS
    }

    /// Makes room for positions below `positions`.
    pub(crate) fn reserve(&mut self, positions: usize) {
        if self.next.len() < positions {
            self.next.resize(positions, 0);
        }
    }

    /// Adds the record at `position`, for which there is room. Positions grow from call to call.
    #[inline]
    pub(crate) fn insert(&mut self, digest: Digest, position: usize) {
        debug_assert!(position > 0 && position < MAX_POSITIONS);
        let bucket = self.bucket(digest);
        self.next[position] = self.heads[bucket];
        self.heads[bucket] = Index::fingerprint(digest) | position as u32;
    }

    /// Fetches the bucket of a digest that is inserted or asked for soon.
    #[inline]
    pub(crate) fn prefetch(&self, digest: Digest) {
        prefetch(&self.heads[self.bucket(digest)]);
    }

    /// Positions that may hold the digest, newest first.
    #[inline]
    pub(crate) fn candidates(&self, digest: Digest) -> impl Iterator<Item = usize> + '_ {
        let fingerprint = Index::fingerprint(digest);
        let mut link = self.heads[self.bucket(digest)];
        std::iter::from_fn(move || {
            while link != 0 {
                let found = link;
                let position = (found & (MAX_POSITIONS as u32 - 1)) as usize;
                link = self.next[position];
                if found & !(MAX_POSITIONS as u32 - 1) == fingerprint {
                    return Some(position);
                }
            }
            None
        })
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.heads.len() * 4 + self.next.capacity() * 4) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_among_its_candidates_newest_first() {
        let digest = |n: u64| {
            Digest::new(
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                n.wrapping_mul(0xbf58_476d_1ce4_e5b9),
            )
        };
        let mut index = Index::new(64);
        index.reserve(1_000);
        for n in 1..1_000 {
            index.insert(digest(n % 500), n as usize);
        }
        for n in 0..500 {
            let found: Vec<_> = index.candidates(digest(n)).collect();
            assert!(found.contains(&(n as usize + if n == 0 { 500 } else { 0 })));
            assert!(found.is_sorted_by(|a, b| a > b));
        }
        index.clear();
        assert_eq!(index.candidates(digest(3)).count(), 0);
    }
}
