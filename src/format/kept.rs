//! What is kept with a mark: the result of its work, and the fingerprint of its message. One run of
//! bytes, with a checksum that covers the digest too, wherever it lies: in records of the journal and
//! the log, in a values file, at an authority.

use super::record::MAX_PAYLOAD;
use crate::digest::{Digest, checksum};

/// The longest result that may be kept.
pub(crate) const MAX_RESULT: usize = 64 << 10;
/// What else may be beside a result.
pub(crate) const MAX_OVERHEAD: usize = 256;

/// What a value is, the first byte of the payload of its records: what is kept with the mark itself.
pub(crate) const KEPT: u8 = 2;
/// How often a duplicate of the key was refused.
pub(crate) const TALLY: u8 = 3;
/// Before the bytes of a piece: the kind, how many pieces there are, which one it is.
const PIECE_HEAD: usize = 3;
const PIECE: usize = MAX_PAYLOAD - PIECE_HEAD;
const MOST_BYTES: usize = MAX_RESULT + MAX_OVERHEAD;
const _: () = assert!(MOST_BYTES.div_ceil(PIECE) < u8::MAX as usize);

const FINGERPRINT: u8 = 1;
const RESULT: u8 = 2;
const TRACE: u8 = 4;
/// Bytes of a claim's note that are kept.
const MAX_TRACED_NOTE: usize = 128;
const CHECK_LEN: usize = 8;

/// What is kept with a mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// A digest of the bytes that the caller gave.
    pub(crate) fingerprint: Option<Digest>,
    pub(crate) trace: Option<Trace>,
    pub(crate) result: Option<Vec<u8>>,
}

/// The claim that a key was first taken by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// In time of the store.
    pub(crate) claimed_ns: i64,
    pub(crate) token: u64,
    pub(crate) note: Vec<u8>,
}

impl Trace {
    pub(crate) fn new(claimed_ns: i64, token: u64, note: &[u8]) -> Self {
        Trace { claimed_ns, token, note: note[..note.len().min(MAX_TRACED_NOTE)].to_vec() }
    }

    fn encode(&self, content: &mut Vec<u8>) {
        content.extend_from_slice(&self.claimed_ns.to_le_bytes());
        content.extend_from_slice(&self.token.to_le_bytes());
        content.push(self.note.len() as u8);
        content.extend_from_slice(&self.note);
    }

    /// The trace, and what follows.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (claimed_ns, rest) = bytes.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let (note, rest) = rest.split_at_checked(usize::from(*len))?;
        let (claimed_ns, token) = (i64::from_le_bytes(*claimed_ns), u64::from_le_bytes(*token));
        Some((Trace { claimed_ns, token, note: note.to_vec() }, rest))
    }
}

/// How often a duplicate was refused, as it is kept.
pub(crate) fn encode_tally(digest: Digest, refused: u64) -> Vec<u8> {
    sealed(digest, &refused.to_le_bytes())
}

pub(crate) fn decode_tally(digest: Digest, bytes: &[u8]) -> Result<u64, &'static str> {
    let malformed = |_| "a count of duplicates is of an unknown form";
    verified(digest, bytes)?.try_into().map(u64::from_le_bytes).map_err(malformed)
}

/// Damage and the bytes of another key are told from what was written.
fn check(digest: Digest, content: &[u8]) -> u64 {
    let mut sums = [0; 24];
    sums[..16].copy_from_slice(&digest.to_bytes());
    sums[16..].copy_from_slice(&checksum(content).to_le_bytes());
    checksum(&sums)
}

/// Bytes with their checksum in front.
fn sealed(digest: Digest, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHECK_LEN + content.len());
    bytes.extend_from_slice(&check(digest, content).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes
}

/// The content, if it is what was written for this digest.
pub(crate) fn verified(digest: Digest, bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (sum, content) = bytes.split_first_chunk().ok_or("what is kept with a key is too short")?;
    if check(digest, content) != u64::from_le_bytes(*sum) {
        return Err("what is kept with a key does not match its checksum");
    }
    Ok(content)
}

/// What stands for something that was damaged when it was to be written anew: never accepted.
pub(crate) const LOST: &[u8] = &[0];

impl Kept {
    /// A fingerprint alone.
    pub(crate) fn of(fingerprint: Digest) -> Self {
        Kept { fingerprint: Some(fingerprint), ..Kept::default() }
    }

    /// Whether a message with this fingerprint is another one. One that is not known is taken for the
    /// same.
    pub(crate) fn conflicts(&self, fingerprint: Option<Digest>) -> bool {
        let both = self.fingerprint.zip(fingerprint);
        both.is_some_and(|(kept, given)| kept != given)
    }

    pub(crate) fn encode(&self, digest: Digest) -> Vec<u8> {
        let mut content = vec![0];
        if let Some(fingerprint) = self.fingerprint {
            content[0] |= FINGERPRINT;
            content.extend_from_slice(&fingerprint.to_bytes());
        }
        if let Some(trace) = &self.trace {
            content[0] |= TRACE;
            trace.encode(&mut content);
        }
        if let Some(result) = &self.result {
            content[0] |= RESULT;
            content.extend_from_slice(result);
        }
        sealed(digest, &content)
    }

    pub(crate) fn decode(digest: Digest, bytes: &[u8]) -> Result<Self, &'static str> {
        let malformed = "what is kept with a key is of an unknown form";
        let (flags, mut rest) = verified(digest, bytes)?.split_first().ok_or(malformed)?;
        if flags & !(FINGERPRINT | RESULT | TRACE) != 0 {
            return Err(malformed);
        }
        let mut fingerprint = None;
        if flags & FINGERPRINT != 0 {
            let (bytes, after) = rest.split_first_chunk().ok_or(malformed)?;
            fingerprint = Some(Digest::from_bytes(*bytes).ok_or(malformed)?);
            rest = after;
        }
        let mut trace = None;
        if flags & TRACE != 0 {
            let (decoded, after) = Trace::decode(rest).ok_or(malformed)?;
            (trace, rest) = (Some(decoded), after);
        }
        let result = (flags & RESULT != 0).then(|| rest.to_vec());
        Ok(Kept { fingerprint, trace, result })
    }
}

/// The payloads of the records that hold `bytes`; of none there is one, which says that nothing is
/// kept any more.
pub(crate) fn pieces(tag: u8, bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let count = bytes.len().div_ceil(PIECE);
    (0..count.max(1)).map(move |number| {
        let from = number * PIECE;
        let mut payload = vec![tag, count as u8, number as u8];
        payload.extend_from_slice(&bytes[from..bytes.len().min(from + PIECE)]);
        payload
    })
}

/// Chunks of the journal that the records of `bytes` take at most.
pub(crate) fn most_chunks(bytes: &[u8]) -> u32 {
    bytes.len().div_ceil(PIECE).max(1) as u32
}

/// The tag of a payload that is a piece of a value.
pub(crate) fn tag(payload: &[u8]) -> Option<u8> {
    payload.first().copied().filter(|tag| [KEPT, TALLY].contains(tag))
}

/// Whether a payload says that nothing is kept any more.
pub(crate) fn is_end(payload: &[u8]) -> bool {
    matches!(payload, [KEPT | TALLY, 0, 0])
}

/// Puts pieces together that come in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    whole: Option<Vec<u8>>,
    part: Vec<u8>,
    next: u8,
}

impl Gathered {
    /// Takes the next payload in. What was whole before stays until all pieces of the next are there:
    /// a process may have died in between.
    pub(crate) fn add(&mut self, payload: &[u8]) {
        let Some(([_, count, number], bytes)) = payload.split_first_chunk() else { return };
        if *number != self.next || *number == 0 {
            self.part.clear();
            self.next = 0;
        }
        if *number != self.next {
            return;
        }
        self.part.extend_from_slice(bytes);
        self.next += 1;
        if *count <= self.next {
            self.whole = Some(std::mem::take(&mut self.part));
            self.next = 0;
        }
    }

    /// What is kept, empty if nothing is any more; `None` when no value was written to its end.
    pub(crate) fn whole(self) -> Option<Vec<u8>> {
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Kept> {
        let fingerprints = [None, Some(Digest::new(3, 4))];
        let results = [None, Some(0), Some(1), Some(PIECE), Some(MAX_RESULT)];
        let results = results.map(|len| len.map(|len| vec![7; len]));
        let traces = [None, Some(Trace::new(-5, 6, &[1; 2_000])), Some(Trace::new(5, 6, b""))];
        let mut all = Vec::new();
        for (fingerprint, trace) in
            fingerprints.iter().flat_map(|f| traces.clone().map(|t| (*f, t)))
        {
            let kept = |result| Kept { fingerprint, trace: trace.clone(), result };
            all.extend(results.clone().map(kept));
        }
        all
    }

    #[test]
    fn what_is_kept_comes_back_whole_and_for_its_digest_alone() {
        let digest = Digest::new(1, 2);
        for kept in all() {
            let bytes = kept.encode(digest);
            assert!(bytes.len() <= MOST_BYTES);
            assert_eq!(Kept::decode(digest, &bytes), Ok(kept));
            assert!(Kept::decode(Digest::new(1, 3), &bytes).is_err(), "another key's");
            // Miri takes seconds for each.
            let places = if cfg!(miri) { 3 } else { 50 };
            for at in (0..bytes.len()).step_by(bytes.len() / places + 1) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 4;
                assert!(Kept::decode(digest, &flipped).is_err());
                assert!(Kept::decode(digest, &bytes[..at]).is_err());
            }
        }
        assert!(Kept::decode(digest, LOST).is_err() && Kept::decode(digest, &[]).is_err());
    }

    #[test]
    fn pieces_make_a_whole_again_unless_one_is_missing() {
        let digest = Digest::new(1, 2);
        for kept in all() {
            let bytes = kept.encode(digest);
            let payloads: Vec<_> = pieces(KEPT, &bytes).collect();
            assert_eq!(payloads.len(), most_chunks(&bytes) as usize);
            assert!(payloads.iter().all(|payload| payload.len() <= MAX_PAYLOAD));
            let mut gathered = Gathered::default();
            payloads.iter().for_each(|payload| gathered.add(payload));
            assert_eq!(gathered.clone().whole(), Some(bytes.clone()));
            // The next one was cut short: the one before stays.
            payloads[..payloads.len() - 1].iter().for_each(|payload| gathered.add(payload));
            assert_eq!(gathered.clone().whole(), Some(bytes.clone()));
            payloads.iter().for_each(|payload| gathered.add(payload));
            assert_eq!(gathered.clone().whole(), Some(bytes.clone()));
            pieces(TALLY, &[]).for_each(|payload| {
                assert!(is_end(&payload));
                gathered.add(&payload);
            });
            assert_eq!(gathered.whole(), Some(Vec::new()));
            for missing in 0..payloads.len() {
                let mut gathered = Gathered::default();
                let others = payloads.iter().enumerate().filter(|(at, _)| *at != missing);
                others.for_each(|(_, payload)| gathered.add(payload));
                assert_eq!(gathered.whole(), None);
            }
        }
    }
}
