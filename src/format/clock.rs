//! The clock file: two alternating slots, so that a torn one leaves the other.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::PAGE;
use crate::digest::checksum;

pub(crate) const LEN: u64 = PAGE as u64;

/// Where time stood when it was last recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Counts the anchors.
    pub(crate) sequence: u64,
    /// Time of the store's window.
    pub(crate) engine_ns: i64,
    /// Boot time at that moment.
    pub(crate) boot_ns: i64,
    /// Wall clock at that moment.
    pub(crate) wall_ns: i64,
    pub(crate) boot_id: [u8; 16],
    /// Greatest event time accepted, `i64::MIN` if none.
    pub(crate) watermark_ns: i64,
}

/// An anchor's place in the file, which begins with two of them.
pub(crate) type Slot = [AtomicU64; 8];

impl Anchor {
    fn words(&self) -> [u64; 8] {
        let id = |at: usize| {
            u64::from_le_bytes(self.boot_id[at..at + 8].try_into().expect("eight bytes"))
        };
        let mut words = [
            self.sequence,
            self.engine_ns.cast_unsigned(),
            self.boot_ns.cast_unsigned(),
            self.wall_ns.cast_unsigned(),
            id(0),
            id(8),
            self.watermark_ns.cast_unsigned(),
            0,
        ];
        words[7] = sum(&words);
        words
    }

    /// Writes into the slot that the last anchor is not in.
    pub(crate) fn store(&self, slots: &[Slot]) {
        let slot = &slots[(self.sequence % 2) as usize];
        let words = self.words();
        slot[7].store(!words[7], Relaxed);
        std::sync::atomic::fence(Release);
        for (cell, word) in slot.iter().zip(words) {
            cell.store(word.to_le(), Release);
        }
    }

    /// The newest whole anchor.
    pub(crate) fn load(slots: &[Slot]) -> Option<Self> {
        slots.iter().take(2).filter_map(Self::load_slot).max_by_key(|a| a.sequence)
    }

    fn load_slot(slot: &Slot) -> Option<Self> {
        let words = slot.each_ref().map(|cell| u64::from_le(cell.load(Relaxed)));
        if words[0] == 0 || words[7] != sum(&words) {
            return None;
        }
        let mut boot_id = [0; 16];
        boot_id[..8].copy_from_slice(&words[4].to_le_bytes());
        boot_id[8..].copy_from_slice(&words[5].to_le_bytes());
        Some(Anchor {
            sequence: words[0],
            engine_ns: words[1].cast_signed(),
            boot_ns: words[2].cast_signed(),
            wall_ns: words[3].cast_signed(),
            boot_id,
            watermark_ns: words[6].cast_signed(),
        })
    }
}

/// Whether each slot is empty or as it was written, and nothing follows them.
pub(crate) fn is_whole(slots: &[Slot]) -> bool {
    let is_empty = |slot: &Slot| slot.iter().all(|cell| cell.load(Relaxed) == 0);
    let (used, rest) = slots.split_at(slots.len().min(2));
    used.iter().all(|slot| is_empty(slot) || Anchor::load_slot(slot).is_some())
        && rest.iter().all(is_empty)
}

fn sum(words: &[u64; 8]) -> u64 {
    let mut bytes = [0; 56];
    for (out, word) in bytes.chunks_exact_mut(8).zip(words) {
        out.copy_from_slice(&word.to_le_bytes());
    }
    checksum(&bytes)
}

/// Maps that may lack what the kernel could not write back. Each has a word after the slots, which is
/// not zero as long as that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maps {
    Journal = 16,
    Filters = 17,
}

/// Notes for the next owner whether these maps may lack something.
pub(crate) fn set_suspect(words: &[AtomicU64], maps: Maps, suspect: bool) {
    words[maps as usize].store(u64::from(suspect).to_le(), Release);
}

/// Whether these maps may lack something.
pub(crate) fn is_suspect(words: &[AtomicU64], maps: Maps) -> bool {
    words[maps as usize].load(Acquire) != 0
}

/// The words after those: a log, and where it ends although more may follow. No log has number 0.
const LOG_AT: usize = 18;

/// Notes for the next owner where a log ends.
pub(crate) fn note_log_end(words: &[AtomicU64], file: u64, end: u64) {
    let words = &words[LOG_AT..];
    words[0].store(0, Release);
    words[1].store(end.to_le(), Release);
    words[0].store(file.to_le(), Release);
}

/// The log whose end was noted, and where it ends.
pub(crate) fn log_end(words: &[AtomicU64]) -> Option<(u64, u64)> {
    let words = &words[LOG_AT..];
    let file = u64::from_le(words[0].load(Acquire));
    (file > 0).then(|| (file, u64::from_le(words[1].load(Acquire))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let slots: [Slot; 2] = Default::default();
        assert_eq!(Anchor::load(&slots), None);
        let anchor = |sequence| Anchor {
            sequence,
            engine_ns: 1,
            boot_ns: 2,
            wall_ns: -3,
            boot_id: [4; 16],
            watermark_ns: i64::MIN,
        };
        anchor(1).store(&slots);
        anchor(2).store(&slots);
        assert_eq!(Anchor::load(&slots), Some(anchor(2)));
        slots[0][2].store(77, Relaxed);
        assert_eq!(Anchor::load(&slots), Some(anchor(1)));
    }
}
