//! The journal's chunks: pages of one shard, either digests of one slice or control records.
//!
//! A chunk is claimed by writing its header (word 1, then word 0 with a check), and filled from the
//! front; an empty slot is zero. A record counts once its last word is there, so a process that dies
//! in the middle of an append leaves nothing that reads as a record.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::PAGE;
use crate::digest::{Digest, checksum};

/// One page of the journal, as words.
pub(crate) type Chunk = [AtomicU64; PAGE / 8];

/// Slots of a chunk, the header's included; digests use 1 to 255.
pub(crate) const SLOTS: usize = PAGE / 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    /// Digests first seen in slice `.0`.
    Digests(u64),
    /// Control records; `.0` is not used.
    Control(u64),
}

const TAG: u64 = 0xC4;

fn header(kind: ChunkKind, journal: u64, chunk: usize) -> [u64; 2] {
    let (code, slice) = match kind {
        ChunkKind::Digests(slice) => (1, slice),
        ChunkKind::Control(slice) => (2, slice),
    };
    let mut bytes = [0; 32];
    let fields = [code, slice, journal, chunk as u64];
    for (out, field) in bytes.chunks_exact_mut(8).zip(fields) {
        out.copy_from_slice(&field.to_le_bytes());
    }
    let check = checksum(&bytes) & 0xffff_ffff;
    [TAG << 56 | code << 48 | check, slice]
}

/// Claims an empty chunk.
pub(crate) fn publish(chunk: &Chunk, kind: ChunkKind, journal: u64, index: usize) {
    let [tag, slice] = header(kind, journal, index);
    chunk[1].store(slice.to_le(), Relaxed);
    chunk[0].store(tag.to_le(), Release);
}

/// What a chunk holds: `Ok(None)` when it was never claimed, `Err` when its header is damaged.
pub(crate) fn kind(
    chunk: &Chunk,
    journal: u64,
    index: usize,
) -> Result<Option<ChunkKind>, &'static str> {
    let tag = u64::from_le(chunk[0].load(Acquire));
    let slice = u64::from_le(chunk[1].load(Relaxed));
    if tag == 0 {
        return Ok(None);
    }
    let kind = match tag >> 48 & 0xff {
        1 => ChunkKind::Digests(slice),
        2 => ChunkKind::Control(slice),
        _ => return Err("a chunk is of an unknown kind"),
    };
    if header(kind, journal, index)[0] == tag {
        Ok(Some(kind))
    } else {
        Err("the header of a chunk does not match its checksum")
    }
}

/// Appends a digest to slot `slot`. `lo` goes first; `hi` makes the record whole.
#[inline]
pub(crate) fn write_digest(chunk: &Chunk, slot: usize, digest: Digest) {
    chunk[2 * slot + 1].store(digest.lo.to_le(), Relaxed);
    chunk[2 * slot].store(digest.hi.to_le(), Release);
}

/// Empties slot `slot` again.
pub(crate) fn clear_digest(chunk: &Chunk, slot: usize) {
    chunk[2 * slot].store(0, Release);
    chunk[2 * slot + 1].store(0, Release);
}

/// The digest in slot `slot`; `None` if it is empty or was half written.
#[inline]
pub(crate) fn read_digest(chunk: &Chunk, slot: usize) -> Option<Digest> {
    let hi = u64::from_le(chunk[2 * slot].load(Acquire));
    let lo = u64::from_le(chunk[2 * slot + 1].load(Relaxed));
    Digest::from_slot(hi, lo)
}

/// Whether one of the slots before `end` holds the digest.
#[inline]
pub(crate) fn holds(chunk: &Chunk, end: usize, digest: Digest) -> bool {
    let (hi, lo) = (digest.hi.to_le(), digest.lo.to_le());
    let mut slots = chunk[2..2 * end].chunks_exact(2);
    slots.any(|slot| slot[0].load(Relaxed) == hi && slot[1].load(Relaxed) == lo)
}

/// All digests of a chunk.
pub(crate) fn digests(chunk: &Chunk) -> impl Iterator<Item = Digest> + '_ {
    (1..SLOTS).filter_map(|slot| read_digest(chunk, slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Region;

    #[test]
    fn half_written_records_do_not_count() {
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        assert_eq!(kind(chunk, 3, 0), Ok(None));
        publish(chunk, ChunkKind::Digests(9), 3, 0);
        assert_eq!(kind(chunk, 3, 0), Ok(Some(ChunkKind::Digests(9))));
        assert!(kind(chunk, 4, 0).is_err(), "a chunk of another journal");
        assert!(kind(chunk, 3, 1).is_err(), "a chunk of another place");
        write_digest(chunk, 1, Digest::new(1, 2));
        chunk[2 * 2 + 1].store(5, Relaxed);
        write_digest(chunk, 255, Digest::new(3, 4));
        let all: Vec<_> = digests(chunk).collect();
        assert_eq!(all, [Digest::new(1, 2), Digest::new(3, 4)]);
        chunk[1].store(10, Relaxed);
        assert!(kind(chunk, 3, 0).is_err());
    }
}
