//! The log: one file, written from front to back by write calls, a block for each sync.
//!
//! A block is a header of ten words, entries, and zeros up to a full sector, so that no later write
//! touches a sector that was synced. A block counts when its checksum does; blocks are numbered, so
//! that what comes after a missing one does not.

use super::record::Record;
use super::{PAGE, StoreId};
use crate::digest::{Digest, checksum};

/// Blocks begin on multiples of this.
pub(crate) const SECTOR: usize = 512;
/// Where the first block begins: after the page of the file's header.
pub(crate) const FIRST_BLOCK: u64 = PAGE as u64;
const HEAD_WORDS: usize = 10;
const MAGIC: u64 = 0x4f4e_434c;
const DIGESTS: u64 = 1;
const RECORD: u64 = 2;
const COUNT: u64 = 3;
/// Words before the digests of an entry.
const DIGESTS_HEAD: usize = 2;

/// What stands at the front of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockHead {
    /// Number of the block in its file, from 1.
    pub(crate) sequence: u64,
    /// All bytes of the file before this were synced when the block was written.
    pub(crate) synced: u64,
    /// Every observation acknowledged before this instant is in this block or an earlier one.
    pub(crate) covered_ns: i64,
    /// Time of the store, boot time, wall clock and watermark when the block was written, as in an
    /// anchor of the clock file.
    pub(crate) engine_ns: i64,
    pub(crate) boot_ns: i64,
    pub(crate) wall_ns: i64,
    pub(crate) watermark_ns: i64,
}

/// Entries that are waiting to be written: a block without its head, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Entries(Vec<u8>);

impl Entries {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Empties it, keeping its memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Bytes that it has memory for.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn digests(&mut self, slice: u64, digests: impl ExactSizeIterator<Item = Digest>) {
        self.0.reserve((DIGESTS_HEAD + 2 * digests.len()) * 8);
        self.word((digests.len() as u64) << 8 | DIGESTS);
        self.word(slice);
        for digest in digests {
            let slot = u128::from(digest.lo) << 64 | u128::from(digest.hi);
            self.0.extend_from_slice(&slot.to_le_bytes());
        }
    }

    pub(crate) fn record(&mut self, record: &Record<'_>) {
        let mut words = Vec::with_capacity(8);
        record.write(&mut words);
        self.word((words.len() as u64) << 8 | RECORD);
        words.into_iter().for_each(|word| self.word(word));
    }

    /// So many tombstones, and ends of tombstones, were written to that segment of the journal.
    pub(crate) fn count(&mut self, segment: u64, tombstones: u64) {
        [COUNT, segment, tombstones].into_iter().for_each(|word| self.word(word));
    }

    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    pub(crate) fn append(&mut self, other: &Entries) {
        self.0.extend_from_slice(&other.0);
    }

    /// Length of the block that holds them.
    pub(crate) fn block_len(&self) -> u64 {
        ((HEAD_WORDS * 8 + self.0.len()).next_multiple_of(SECTOR)) as u64
    }

    /// The block that holds them, in the log `file`.
    pub(crate) fn block(&self, store: StoreId, file: u64, head: &BlockHead, out: &mut Vec<u8>) {
        out.clear();
        out.reserve(self.block_len() as usize);
        for word in words(head, self.0.len() / 8).iter().chain(&[0]) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.0);
        let sum = block_checksum(store, file, out);
        out[(HEAD_WORDS - 1) * 8..HEAD_WORDS * 8].copy_from_slice(&sum.to_le_bytes());
        out.resize(self.block_len() as usize, 0);
    }
}

fn words(head: &BlockHead, len: usize) -> [u64; HEAD_WORDS - 1] {
    [
        MAGIC << 32 | len as u64,
        head.sequence,
        head.synced,
        head.covered_ns.cast_unsigned(),
        head.engine_ns.cast_unsigned(),
        head.boot_ns.cast_unsigned(),
        head.wall_ns.cast_unsigned(),
        head.watermark_ns.cast_unsigned(),
        0,
    ]
}

/// Of all words but the one that holds it, and of the file's identity.
fn block_checksum(store: StoreId, file: u64, block: &[u8]) -> u64 {
    let mut sums = [0; 40];
    sums[..16].copy_from_slice(&store);
    sums[16..24].copy_from_slice(&file.to_le_bytes());
    sums[24..32].copy_from_slice(&checksum(&block[..(HEAD_WORDS - 1) * 8]).to_le_bytes());
    sums[32..].copy_from_slice(&checksum(&block[HEAD_WORDS * 8..]).to_le_bytes());
    checksum(&sums)
}

/// One thing that was logged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Digests(u64, Vec<Digest>),
    Record(Record<'static>),
    /// A segment of the journal, and how many tombstones it has at least.
    Count(u64, u64),
}

/// What a log holds.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) entries: Vec<Entry>,
    /// The head of the last block.
    pub(crate) last: Option<BlockHead>,
    pub(crate) blocks: u64,
}

/// The block at `at`, its entries' words and its length; `None` if there is no valid one.
fn block_at(bytes: &[u8], at: usize, store: StoreId, file: u64) -> Option<(BlockHead, &[u8])> {
    let rest = bytes.get(at..)?;
    let head = rest.get(..HEAD_WORDS * 8)?;
    let word = |n: usize| u64::from_le_bytes(head[n * 8..n * 8 + 8].try_into().expect("8 bytes"));
    if word(0) >> 32 != MAGIC {
        return None;
    }
    let len = (word(0) & 0xffff_ffff) as usize;
    let block = rest.get(..(HEAD_WORDS + len) * 8)?;
    if block_checksum(store, file, block) != word(HEAD_WORDS - 1) {
        return None;
    }
    let head = BlockHead {
        sequence: word(1),
        synced: word(2),
        covered_ns: word(3).cast_signed(),
        engine_ns: word(4).cast_signed(),
        boot_ns: word(5).cast_signed(),
        wall_ns: word(6).cast_signed(),
        watermark_ns: word(7).cast_signed(),
    };
    Some((head, &block[HEAD_WORDS * 8..]))
}

/// Reads all blocks of a log. `end` is where it ends if that was recorded; a log that was in use
/// when the power failed ends before its first invalid block, because what follows was never
/// synced, unless a later block says that it was.
pub(crate) fn read(
    bytes: &[u8],
    store: StoreId,
    file: u64,
    end: Option<u64>,
) -> Result<Content, String> {
    let mut content = Content::default();
    let mut at = FIRST_BLOCK as usize;
    while end.is_none_or(|end| (at as u64) < end) {
        let next = content.blocks + 1;
        let block = block_at(bytes, at, store, file).filter(|(head, _)| head.sequence == next);
        let Some((head, payload)) = block else {
            let damaged = end.is_some() || was_synced(bytes, at, store, file);
            if damaged {
                return Err(format!("block {next} does not match its checksum"));
            }
            break;
        };
        entries(payload, &mut content.entries).map_err(|why| format!("block {next}: {why}"))?;
        content.last = Some(head);
        content.blocks = next;
        at += (HEAD_WORDS * 8 + payload.len()).next_multiple_of(SECTOR);
    }
    Ok(content)
}

/// Whether a later block knows that the bytes at `at` had been synced.
fn was_synced(bytes: &[u8], at: usize, store: StoreId, file: u64) -> bool {
    (at..bytes.len()).step_by(SECTOR).any(|later| {
        block_at(bytes, later, store, file).is_some_and(|(head, _)| head.synced > at as u64)
    })
}

fn entries(payload: &[u8], out: &mut Vec<Entry>) -> Result<(), &'static str> {
    let words: Vec<u64> = payload
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
        .collect();
    let mut rest = &words[..];
    while let Some((tag, after)) = rest.split_first() {
        let len = usize::try_from(tag >> 8).unwrap_or(usize::MAX);
        let cut_short = "an entry is longer than its block";
        let used = match tag & 0xff {
            DIGESTS => {
                let (slice, digests) = after.split_first().ok_or(cut_short)?;
                let words = len.checked_mul(2).and_then(|len| digests.get(..len));
                let slots = words.ok_or(cut_short)?.chunks_exact(2);
                let digests = slots.filter_map(|slot| Digest::from_slot(slot[0], slot[1]));
                out.push(Entry::Digests(*slice, digests.collect()));
                1 + 2 * len
            }
            RECORD => {
                let words = after.get(..len).ok_or(cut_short)?;
                out.push(Entry::Record(Record::read(words)?));
                len
            }
            COUNT => {
                let words = after.get(..2).ok_or(cut_short)?;
                out.push(Entry::Count(words[0], words[1]));
                2
            }
            _ => return Err("an entry is of an unknown kind"),
        };
        rest = &after[used..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [7; 16];

    fn head(sequence: u64, synced: u64) -> BlockHead {
        BlockHead { sequence, synced, covered_ns: -1, engine_ns: 5, ..BlockHead::default() }
    }

    /// A log of three blocks, and where each begins.
    fn log() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts, mut block) = (vec![0; PAGE], Vec::new(), Vec::new());
        for sequence in 1..=3 {
            let mut entries = Entries::default();
            let digests: Vec<_> = (0..40).map(|n| Digest::new(sequence, n)).collect();
            entries.digests(sequence, digests.into_iter());
            entries.record(&Record::Commit { token: sequence });
            entries.count(sequence, 8);
            let head = head(sequence, bytes.len() as u64);
            entries.block(STORE, 9, &head, &mut block);
            assert_eq!(block.len() as u64, entries.block_len());
            starts.push(bytes.len());
            bytes.extend_from_slice(&block);
        }
        bytes.resize(bytes.len() + PAGE, 0);
        (bytes, starts)
    }

    #[test]
    fn blocks_come_back_until_the_first_one_that_was_not_synced() {
        let (mut bytes, starts) = log();
        let whole = read(&bytes, STORE, 9, None).unwrap();
        assert_eq!((whole.blocks, whole.entries.len()), (3, 9));
        assert_eq!(whole.last, Some(head(3, starts[2] as u64)));
        assert_eq!(whole.entries[7], Entry::Record(Record::Commit { token: 3 }));
        assert_eq!(whole.entries[8], Entry::Count(3, 8));
        // The last block may have been on its way.
        bytes[starts[2] + 100] ^= 1;
        assert_eq!(read(&bytes, STORE, 9, None).unwrap().blocks, 2);
        let end = (bytes.len() - PAGE) as u64;
        assert!(read(&bytes, STORE, 9, Some(end)).is_err(), "the end was recorded");
        assert_eq!(read(&bytes, STORE, 9, Some(starts[2] as u64)).unwrap().blocks, 2);
    }

    #[test]
    fn damage_to_what_a_later_block_knows_as_synced_is_told_from_a_torn_tail() {
        let (bytes, starts) = log();
        for start in &starts[..2] {
            for at in [0, 8, 70, 79, 90, 400] {
                let mut bytes = bytes.clone();
                bytes[start + at] ^= 4;
                assert!(read(&bytes, STORE, 9, None).is_err());
            }
        }
        assert_eq!(read(&bytes, STORE, 8, None).unwrap().blocks, 0, "another file");
        assert_eq!(read(&bytes, [8; 16], 9, None).unwrap().blocks, 0, "another store");
    }
}
