//! What an owner writes to its authority: digests of one bucket of a slice, and those that were
//! forgotten. The authority takes it for bytes.
//!
//! Head (version 8 bits, zero 24, forgotten digests 32, end of the slice in the server's time 64), the
//! forgotten digests, the others, a checksum. What was forgotten does not count in any chunk of a lower
//! number; the digests of the same chunk were seen after it.

use super::codec::Reason;
use crate::digest::{Digest, checksum};

const VERSION: u8 = 1;
const HEAD: usize = 16;
const SLOT: usize = 16;
const CHECK: usize = 8;

/// Bytes of a chunk beside its digests.
pub(crate) const OVERHEAD: usize = HEAD + CHECK;

/// One chunk, as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    /// The instant after the last of the slice, in the server's time.
    pub(crate) end_ns: i64,
    pub(crate) forgotten: Vec<Digest>,
    pub(crate) digests: Vec<Digest>,
}

impl Packed {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let slots = self.forgotten.len() + self.digests.len();
        let mut out = Vec::with_capacity(OVERHEAD + SLOT * slots);
        out.extend_from_slice(&[VERSION, 0, 0, 0]);
        let forgotten = u32::try_from(self.forgotten.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&forgotten.to_le_bytes());
        out.extend_from_slice(&self.end_ns.to_le_bytes());
        for digest in self.forgotten.iter().chain(&self.digests) {
            out.extend_from_slice(&digest.to_bytes());
        }
        out.extend_from_slice(&checksum(&out).to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Reason> {
        let (rest, check) = bytes.split_last_chunk::<CHECK>().ok_or("a chunk is too short")?;
        if checksum(rest) != u64::from_le_bytes(*check) {
            return Err("a chunk does not match its checksum");
        }
        let (head, slots) = rest.split_first_chunk::<HEAD>().ok_or("a chunk is too short")?;
        let [version, _, _, _, f0, f1, f2, f3, end @ ..] = *head;
        if version != VERSION {
            return Err("a chunk was written by another release");
        }
        let digests = slots.chunks(SLOT).map(|slot| {
            let slot: [u8; SLOT] = slot.try_into().map_err(|_| "a chunk has half a digest")?;
            Digest::from_bytes(slot).ok_or("a chunk has a digest that is none")
        });
        let mut forgotten = digests.collect::<Result<Vec<_>, Reason>>()?;
        let count = u32::from_le_bytes([f0, f1, f2, f3]) as usize;
        if count > forgotten.len() {
            return Err("a chunk is shorter than its head says");
        }
        let digests = forgotten.split_off(count);
        Ok(Packed { end_ns: i64::from_le_bytes(end), forgotten, digests })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_and_damage_is_noticed() {
        let digests = |from: u64, n: u64| (from..from + n).map(|n| Digest::new(n, n + 1)).collect();
        for (forgotten, seen) in [(0, 0), (0, 3), (2, 0), (2, 300)] {
            let packed =
                Packed { end_ns: -7, forgotten: digests(1, forgotten), digests: digests(9, seen) };
            let bytes = packed.encode();
            assert_eq!(bytes.len() as u64, OVERHEAD as u64 + 16 * (forgotten + seen));
            assert_eq!(Packed::decode(&bytes), Ok(packed));
            // Of a long one some bytes do, for Miri.
            let step = if cfg!(miri) { bytes.len() / 60 + 1 } else { 1 };
            for at in (0..bytes.len()).step_by(step) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                assert!(Packed::decode(&flipped).is_err());
                assert!(Packed::decode(&bytes[..at]).is_err());
            }
        }
    }
}
