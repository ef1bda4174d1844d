//! Control records: what happens to keys besides being seen.
//!
//! A record is a head word (check 32, length in words 16, kind 8, version 8), then the digest, token,
//! time and slice, then a payload of up to [`MAX_PAYLOAD`] bytes. The head is written last.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::PAGE;
use super::chunk::Chunk;
use crate::digest::Digest;

/// Words before the payload: head, digest (2), token, time, slice, payload length.
const FIXED_WORDS: usize = 7;
/// Words of a chunk that records may use; the first two are the chunk's header.
const FIRST_WORD: usize = 2;
const CHUNK_WORDS: usize = PAGE / 8;
/// Longest payload: a record never leaves its chunk.
pub(crate) const MAX_PAYLOAD: usize = (CHUNK_WORDS - FIRST_WORD - FIXED_WORDS) * 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// `forget`: all records of the digest up to here are dead, a claim on it is revoked.
    Tombstone = 1,
    /// The digest was seen again after a tombstone.
    Revived = 2,
    /// Claimed with `token` until `time`; the payload is the note.
    Claim = 3,
    /// The claim with `token` was committed; the digest itself is in a digest chunk.
    Commit = 4,
    /// The claim with `token` was given back.
    Abandon = 5,
    /// A side value of the digest in `slice`: the payload's first byte says of what kind.
    Value = 6,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) digest: Digest,
    pub(crate) token: u64,
    /// Nanoseconds of the store's time.
    pub(crate) time_ns: i64,
    pub(crate) slice: u64,
    pub(crate) payload: std::borrow::Cow<'a, [u8]>,
}

fn words_of(payload: usize) -> usize {
    FIXED_WORDS + payload.div_ceil(8)
}

/// The place of the next record in a chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor(usize);

impl Cursor {
    pub(crate) fn start() -> Self {
        Cursor(FIRST_WORD)
    }

    pub(crate) fn has_room(self, payload: usize) -> bool {
        self.0 + words_of(payload) <= CHUNK_WORDS
    }
}

fn head(kind: u8, body: &[u64]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325 ^ u64::from(kind);
    // Bodies are short: one multiply a word, folded, notices what a lost or torn page does.
    for word in body {
        sum = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sum ^= sum >> 32;
    }
    let check = sum & 0xffff_ffff;
    check << 32 | (body.len() as u64 + 1) << 16 | u64::from(kind) << 8 | 1
}

impl Record<'_> {
    /// Appends to `chunk` and moves the cursor on.
    ///
    /// # Panics
    /// When there is no room: ask [`Cursor::has_room`] first.
    pub(crate) fn append(&self, chunk: &Chunk, cursor: &mut Cursor) {
        let mut body = [0_u64; CHUNK_WORDS];
        let words = words_of(self.payload.len());
        let body = &mut body[..words - 1];
        let fixed = [
            self.digest.hi,
            self.digest.lo,
            self.token,
            self.time_ns.cast_unsigned(),
            self.slice,
            self.payload.len() as u64,
        ];
        body[..6].copy_from_slice(&fixed);
        for (word, bytes) in body[6..].iter_mut().zip(self.payload.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        let cells = &chunk[cursor.0..cursor.0 + words];
        for (cell, word) in cells[1..].iter().zip(&*body) {
            cell.store(word.to_le(), Relaxed);
        }
        cells[0].store(head(self.kind as u8, body).to_le(), Release);
        cursor.0 += words;
    }
}

/// All whole records of a chunk, in order; ends at the first empty or damaged one, which is an `Err`
/// if it is damaged.
pub(crate) fn records(
    chunk: &Chunk,
) -> impl Iterator<Item = Result<Record<'static>, &'static str>> {
    let mut at = FIRST_WORD;
    std::iter::from_fn(move || {
        if at >= CHUNK_WORDS {
            return None;
        }
        let head_word = u64::from_le(chunk[at].load(Acquire));
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
    if words < FIXED_WORDS || at + words > CHUNK_WORDS {
        return Err("a record is longer than its chunk");
    }
    let body: Vec<u64> =
        chunk[at + 1..at + words].iter().map(|c| u64::from_le(c.load(Relaxed))).collect();
    let code = (head_word >> 8 & 0xff) as u8;
    if head(code, &body) != head_word {
        return Err("a record does not match its checksum");
    }
    let kind = match code {
        1 => RecordKind::Tombstone,
        2 => RecordKind::Revived,
        3 => RecordKind::Claim,
        4 => RecordKind::Commit,
        5 => RecordKind::Abandon,
        6 => RecordKind::Value,
        _ => return Err("a record is of an unknown kind"),
    };
    let len = body[5] as usize;
    let bytes: Vec<u8> = body[6..].iter().flat_map(|word| word.to_le_bytes()).collect();
    Ok(Record {
        kind,
        digest: Digest::from_slot(body[0], body[1]).ok_or("a record has no digest")?,
        token: body[2],
        time_ns: body[3].cast_signed(),
        slice: body[4],
        payload: bytes.get(..len).ok_or("a payload is longer than its record")?.to_vec().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Region;

    fn record(kind: RecordKind, payload: &[u8]) -> Record<'_> {
        let digest = Digest::new(5, 6);
        Record { kind, digest, token: 7, time_ns: -8, slice: 9, payload: payload.into() }
    }

    #[test]
    fn records_of_all_sizes_come_back() {
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        let mut cursor = Cursor::start();
        let payloads: [&[u8]; 4] = [b"", b"1234567", b"12345678", b"123456789"];
        for payload in payloads {
            assert!(cursor.has_room(payload.len()));
            record(RecordKind::Claim, payload).append(chunk, &mut cursor);
        }
        let back: Vec<_> = records(chunk).map(Result::unwrap).collect();
        assert_eq!(back, payloads.map(|p| record(RecordKind::Claim, p)));
        assert!(!cursor.has_room(MAX_PAYLOAD));
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        let big = vec![3; MAX_PAYLOAD];
        record(RecordKind::Value, &big).append(chunk, &mut Cursor::start());
        assert_eq!(records(chunk).next().unwrap().unwrap().payload, big);
    }

    #[test]
    fn a_damaged_record_ends_the_chunk_with_an_error() {
        let region = Region::heap(PAGE).unwrap();
        let chunk = &region.cells::<Chunk>()[0];
        let mut cursor = Cursor::start();
        record(RecordKind::Tombstone, b"").append(chunk, &mut cursor);
        let second = cursor.0;
        record(RecordKind::Abandon, b"xyz").append(chunk, &mut cursor);
        for word in second..cursor.0 {
            for bit in [0, 17, 40, 63] {
                let was = chunk[word].fetch_xor(1 << bit, Relaxed);
                let read: Vec<_> = records(chunk).collect();
                assert_eq!(read.len(), 2);
                assert!(read[1].is_err());
                chunk[word].store(was, Relaxed);
            }
        }
    }
}
