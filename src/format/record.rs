//! Control records: what happens to keys besides being seen.
//!
//! A record is a head word (check 32, length in words 16, padding of the payload 8, kind 8) and a
//! body: digest, number and payload, as far as its kind has them. The head is written last.

use std::borrow::Cow;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::chunk::Chunk;
use super::{PAGE, kept};
use crate::digest::Digest;

/// Words of a chunk that records may use; the first two are the chunk's header.
const FIRST_WORD: usize = 2;
const CHUNK_WORDS: usize = PAGE / 8;
/// Words before a payload: head, digest, three numbers.
const MOST_FIXED_WORDS: usize = 6;
/// Claims that one record can hold or end.
pub(crate) const MOST_CLAIMS: usize = 64;
/// Longest payload: a record never leaves its chunk.
pub(crate) const MAX_PAYLOAD: usize = (CHUNK_WORDS - FIRST_WORD - MOST_FIXED_WORDS) * 8;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// `forget`: all records of the digest up to here are dead, a claim on it is revoked. `slice` is
    /// the newest one that may hold it, zero if it was only claimed.
    Tombstone { digest: Digest, slice: u64 },
    /// The digest was seen again after a tombstone, in `slice`.
    Revived { digest: Digest, slice: u64 },
    /// Claimed with `token` until `deadline_ns`. In event time its commit counts from `event_ns`.
    Claim {
        digest: Digest,
        token: u64,
        deadline_ns: i64,
        event_ns: Option<i64>,
        note: Cow<'a, [u8]>,
    },
    /// The claim was committed; the digest itself is in a digest chunk.
    Commit { token: u64 },
    /// The claim was given back.
    Abandon { token: u64 },
    /// Several claims without notes, with consecutive tokens from `first` on.
    Claims { first: u64, deadline_ns: i64, digests: Cow<'a, [Digest]> },
    /// `count` claims with consecutive tokens from `first` on were committed.
    Commits { first: u64, count: u64 },
    /// A side value of the digest in `slice`; the payload's first byte says of what kind.
    Value { digest: Digest, slice: u64, payload: Cow<'a, [u8]> },
}

/// The parts of a record as they are laid out.
struct Layout<'a> {
    kind: u8,
    fixed: [u64; MOST_FIXED_WORDS - 1],
    fixed_words: usize,
    digests: &'a [Digest],
    payload: &'a [u8],
}

impl Record<'_> {
    #[inline(always)]
    fn layout(&self) -> Layout<'_> {
        let none: &[u8] = &[];
        let mut listed: &[Digest] = &[];
        let (kind, fixed, fixed_words, payload) = match self {
            Record::Tombstone { digest, slice } => {
                (1, [digest.hi, digest.lo, *slice, 0, 0], 3, none)
            }
            Record::Revived { digest, slice } => (2, [digest.hi, digest.lo, *slice, 0, 0], 3, none),
            Record::Claim { digest, token, deadline_ns, event_ns, note } => {
                let (kind, words) = if event_ns.is_some() { (7, 5) } else { (3, 4) };
                let times = [*deadline_ns, event_ns.unwrap_or(0)].map(i64::cast_unsigned);
                (kind, [digest.hi, digest.lo, *token, times[0], times[1]], words, &**note)
            }
            Record::Commit { token } => (4, [*token, 0, 0, 0, 0], 1, none),
            Record::Abandon { token } => (5, [*token, 0, 0, 0, 0], 1, none),
            Record::Value { digest, slice, payload } => {
                (6, [digest.hi, digest.lo, *slice, 0, 0], 3, &**payload)
            }
            Record::Claims { first, deadline_ns, digests } => {
                listed = digests;
                (8, [*first, deadline_ns.cast_unsigned(), 0, 0, 0], 2, none)
            }
            Record::Commits { first, count } => (9, [*first, *count, 0, 0, 0], 2, none),
        };
        Layout { kind, fixed, fixed_words, digests: listed, payload }
    }

    /// Whether losing the record could bring a forgotten key back, or what was kept with it.
    pub(crate) fn is_of_tombstone(&self) -> bool {
        match self {
            Record::Tombstone { .. } | Record::Revived { .. } => true,
            Record::Value { payload, .. } => kept::is_end(payload),
            _ => false,
        }
    }

    /// Appends to a list of words, as in a chunk.
    pub(crate) fn write(&self, out: &mut Vec<u64>) {
        let Layout { kind, fixed, fixed_words, digests, payload } = self.layout();
        let start = out.len();
        out.push(0);
        out.extend_from_slice(&fixed[..fixed_words]);
        out.extend(digests.iter().flat_map(|digest| [digest.hi, digest.lo]));
        out.extend(payload_words(payload));
        let mut check = Check::new(kind);
        out[start + 1..].iter().for_each(|word| check.add(*word));
        let padding = payload.len().next_multiple_of(8) - payload.len();
        out[start] = head(kind, out.len() - start, padding, &check);
    }

    /// A record from words that [`Record::write`] wrote.
    pub(crate) fn read(words: &[u64]) -> Result<Record<'static>, &'static str> {
        let (head_word, body) = words.split_first().ok_or("a record is empty")?;
        if (head_word >> 16 & 0xffff) as usize != words.len() {
            return Err("a record has another length than its entry");
        }
        decode_body(*head_word, body)
    }

    /// Appends to `chunk` and moves the cursor on; `false` when there is no room.
    #[inline(always)]
    pub(crate) fn append(&self, chunk: &Chunk, cursor: &mut Cursor) -> bool {
        let Layout { kind, fixed, fixed_words, digests, payload } = self.layout();
        let words = 1 + fixed_words + 2 * digests.len() + payload.len().div_ceil(8);
        let Some(cells) = chunk.get(cursor.0..cursor.0 + words) else { return false };
        let mut check = Check::new(kind);
        let (fixed_cells, more) = cells[1..].split_at(fixed_words);
        let (digest_cells, payload_cells) = more.split_at(2 * digests.len());
        for (cell, word) in fixed_cells.iter().zip(fixed) {
            check.add(word);
            cell.store(word.to_le(), Relaxed);
        }
        for (cells, digest) in digest_cells.chunks_exact(2).zip(digests) {
            for (cell, word) in cells.iter().zip([digest.hi, digest.lo]) {
                check.add(word);
                cell.store(word.to_le(), Relaxed);
            }
        }
        for (cell, word) in payload_cells.iter().zip(payload_words(payload)) {
            check.add(word);
            cell.store(word.to_le(), Relaxed);
        }
        let padding = payload.len().next_multiple_of(8) - payload.len();
        cells[0].store(head(kind, words, padding, &check).to_le(), Release);
        cursor.0 += words;
        true
    }
}

/// A payload, padded with zeros.
fn payload_words(payload: &[u8]) -> impl Iterator<Item = u64> + '_ {
    payload.chunks(8).map(|bytes| {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(padded)
    })
}

/// The place of the next record in a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor(usize);

impl Cursor {
    pub(crate) fn start() -> Self {
        Cursor(FIRST_WORD)
    }

    /// Whether any record with a payload of so many bytes fits.
    pub(crate) fn has_room(&self, payload: usize) -> bool {
        self.0 + MOST_FIXED_WORDS + payload.div_ceil(8) <= CHUNK_WORDS
    }

    /// Words of the chunk before it.
    #[inline]
    pub(crate) fn words(&self) -> usize {
        self.0
    }
}

/// Bodies are short: one multiply a word, folded, notices what a lost, torn or flipped word does.
struct Check(u64);

impl Check {
    fn new(kind: u8) -> Self {
        Check(0xcbf2_9ce4_8422_2325 ^ u64::from(kind))
    }

    fn add(&mut self, word: u64) {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

fn head(kind: u8, words: usize, padding: usize, check: &Check) -> u64 {
    let mut sum = Check(check.0);
    sum.add((words << 8 | padding) as u64);
    (sum.0 & 0xffff_ffff) << 32 | (words as u64) << 16 | (padding as u64) << 8 | u64::from(kind)
}

/// All whole records of a chunk, in order; ends at the first empty or damaged one, which is an `Err`
/// if it is damaged.
pub(crate) fn records(
    chunk: &Chunk,
) -> impl Iterator<Item = Result<Record<'static>, &'static str>> {
    let mut at = FIRST_WORD;
    std::iter::from_fn(move || {
        let head_word = u64::from_le(chunk.get(at)?.load(Acquire));
        if head_word == 0 {
            return None;
        }
        let words = (head_word >> 16 & 0xffff) as usize;
        let decoded = decode(chunk, at, head_word, words);
        at = if decoded.is_ok() { at + words } else { CHUNK_WORDS };
        Some(decoded)
    })
}

fn decode(
    chunk: &Chunk,
    at: usize,
    head_word: u64,
    words: usize,
) -> Result<Record<'static>, &'static str> {
    let cells = chunk.get(at + 1..at + words).ok_or("a record is longer than its chunk")?;
    let body: Vec<u64> = cells.iter().map(|cell| u64::from_le(cell.load(Relaxed))).collect();
    decode_body(head_word, &body)
}

fn decode_body(head_word: u64, body: &[u64]) -> Result<Record<'static>, &'static str> {
    let words = body.len() + 1;
    let (kind, padding) = ((head_word & 0xff) as u8, (head_word >> 8 & 0xff) as usize);
    let mut check = Check::new(kind);
    body.iter().for_each(|word| check.add(*word));
    if head(kind, words, padding, &check) != head_word {
        return Err("a record does not match its checksum");
    }
    let word = |at: usize| body.get(at).copied().ok_or("a record is too short for its kind");
    let digest = || Digest::from_slot(word(0)?, word(1)?).ok_or("a record has no digest");
    let payload = |fixed: usize| {
        let bytes = body.get(fixed..).unwrap_or(&[]).iter().flat_map(|word| word.to_le_bytes());
        let mut bytes: Vec<u8> = bytes.collect();
        bytes.truncate(bytes.len().saturating_sub(padding));
        Cow::Owned(bytes)
    };
    Ok(match kind {
        1 => Record::Tombstone { digest: digest()?, slice: word(2)? },
        2 => Record::Revived { digest: digest()?, slice: word(2)? },
        3 => Record::Claim {
            digest: digest()?,
            token: word(2)?,
            deadline_ns: word(3)?.cast_signed(),
            event_ns: None,
            note: payload(4),
        },
        4 => Record::Commit { token: word(0)? },
        5 => Record::Abandon { token: word(0)? },
        6 => Record::Value { digest: digest()?, slice: word(2)?, payload: payload(3) },
        7 => Record::Claim {
            digest: digest()?,
            token: word(2)?,
            deadline_ns: word(3)?.cast_signed(),
            event_ns: Some(word(4)?.cast_signed()),
            note: payload(5),
        },
        8 => Record::Claims {
            first: word(0)?,
            deadline_ns: word(1)?.cast_signed(),
            digests: Cow::Owned(listed_digests(body.get(2..).unwrap_or(&[]))?),
        },
        9 if word(1)? <= MOST_CLAIMS as u64 => Record::Commits { first: word(0)?, count: word(1)? },
        9 => return Err("a record ends more claims than there can be in one"),
        _ => return Err("a record is of an unknown kind"),
    })
}

fn listed_digests(words: &[u64]) -> Result<Vec<Digest>, &'static str> {
    let pairs = words.chunks(2).map(|pair| match pair {
        [hi, lo] => Digest::from_slot(*hi, *lo).ok_or("a record has no digest"),
        _ => Err("a record has half a digest"),
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Region;

    fn claim(note: &[u8]) -> Record<'_> {
        claim_at(Some(i64::MIN), note)
    }

    fn claim_at(event_ns: Option<i64>, note: &[u8]) -> Record<'_> {
        let (digest, note) = (Digest::new(5, 6), Cow::Borrowed(note));
        Record::Claim { digest, token: 7, deadline_ns: -8, event_ns, note }
    }

    #[test]
    fn records_of_all_kinds_and_sizes_come_back() {
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        let mut cursor = Cursor::start();
        let digest = Digest::new(1, 2);
        let all = [
            claim(b""),
            claim(b"1234567"),
            claim(b"12345678"),
            claim(b"123456789"),
            claim_at(None, b""),
            claim_at(None, b"1234567"),
            claim_at(Some(0), b"1234567"),
            Record::Tombstone { digest, slice: 3 },
            Record::Revived { digest, slice: 2 },
            Record::Commit { token: u64::MAX },
            Record::Abandon { token: 0 },
            Record::Claims { first: 5, deadline_ns: -6, digests: vec![digest; MOST_CLAIMS].into() },
            Record::Commits { first: 5, count: MOST_CLAIMS as u64 },
            Record::Value { digest, slice: 4, payload: Cow::Borrowed(b"paid") },
        ];
        for record in &all {
            assert!(record.append(chunk, &mut cursor));
        }
        let back: Vec<_> = records(chunk).map(Result::unwrap).collect();
        assert_eq!(back, all);
    }

    #[test]
    fn the_longest_payload_fills_a_chunk_and_no_more_fits() {
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        let (big, mut cursor) = (vec![3; MAX_PAYLOAD], Cursor::start());
        assert!(claim(&big).append(chunk, &mut cursor));
        assert!(!Record::Commit { token: 1 }.append(chunk, &mut cursor));
        assert_eq!(records(chunk).map(Result::unwrap).collect::<Vec<_>>(), [claim(&big)]);
    }

    #[test]
    fn a_damaged_record_ends_the_chunk_with_an_error() {
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        let mut cursor = Cursor::start();
        claim(b"").append(chunk, &mut cursor);
        let second = cursor.0;
        claim(b"xyz").append(chunk, &mut cursor);
        for word in second..cursor.0 {
            for bit in [0, 9, 17, 40, 63] {
                let was = chunk[word].fetch_xor(1 << bit, Relaxed);
                let read: Vec<_> = records(chunk).collect();
                assert_eq!(read.len(), 2);
                assert!(read[1].is_err());
                chunk[word].store(was, Relaxed);
            }
        }
    }
}
