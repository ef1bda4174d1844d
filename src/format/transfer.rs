//! What one store tells another: its live keys and what is kept with them, as a stream of blocks, each with
//! a checksum.

use sha2::{Digest as _, Sha256};

use super::codec::{Reader, Reason, Writer};
use crate::digest::{Digest, DigestKind, SECRET_LEN, checksum};

const MAGIC: &[u8; 8] = b"ONCEMOVE";
/// Version of the stream, apart from that of the files.
pub(crate) const VERSION: u32 = 1;
/// Bytes of the head.
pub(crate) const HEAD: usize = 128;
/// Bytes in front of what a block holds.
pub(crate) const BLOCK_HEAD: usize = 8;
/// What a block holds, at most.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// Digests of a block, at most.
pub(crate) const MOST_DIGESTS: usize = 1 << 15;

/// Tells one secret from another, and nothing more about it.
pub(crate) fn fingerprint(secret: &[u8; SECRET_LEN]) -> [u8; 16] {
    let hash: [u8; 32] =
        Sha256::new_with_prefix(b"onceonly secret ").chain_update(secret).finalize().into();
    let (first, _) = hash.split_first_chunk().unwrap_or((&[0; 16], &[]));
    *first
}

/// Whose keys they are, and as of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) digest: DigestKind,
    pub(crate) event_time: bool,
    pub(crate) fingerprint: [u8; 16],
    /// The time of the window: the store's, or that of the events.
    pub(crate) now_ns: i64,
    pub(crate) wall_ns: i64,
    /// What is not told was not observed since then.
    pub(crate) since_ns: i64,
    pub(crate) window_ns: i64,
    pub(crate) slices: u32,
    pub(crate) expected_keys: u64,
    /// The bits of the rate, which compare.
    pub(crate) false_positive_rate: u64,
    pub(crate) lease_ns: i64,
}

impl Head {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(MAGIC);
        w.u32(VERSION);
        w.u8(self.digest.code());
        w.u8(u8::from(self.event_time));
        w.bytes(&[0; 2]);
        w.bytes(&self.fingerprint);
        for time in [self.now_ns, self.wall_ns, self.since_ns, self.window_ns, self.lease_ns] {
            w.i64(time);
        }
        w.u32(self.slices);
        w.bytes(&[0; 4]);
        w.u64(self.expected_keys);
        w.u64(self.false_positive_rate);
        w.bytes(&[0; 24]);
        w.finish()
    }

    /// The version that the bytes say they have, if they are such a stream at all.
    pub(crate) fn version(bytes: &[u8; HEAD]) -> Result<u32, Reason> {
        let rest = bytes.strip_prefix(MAGIC).ok_or("it is not what an export has written")?;
        let (version, _) = rest.split_first_chunk().ok_or("it is cut short")?;
        Ok(u32::from_le_bytes(*version))
    }

    pub(crate) fn decode(bytes: &[u8; HEAD]) -> Result<Self, Reason> {
        let mut r = Reader::verified(bytes, MAGIC)?;
        r.u32()?;
        let digest = DigestKind::from_code(r.u8()?).ok_or("it names an unknown digest")?;
        let event_time = r.u8()? == 1;
        r.slice(2)?;
        let fingerprint = r.array()?;
        let [now_ns, wall_ns, since_ns, window_ns, lease_ns] =
            [r.i64()?, r.i64()?, r.i64()?, r.i64()?, r.i64()?];
        let slices = r.u32()?;
        r.slice(4)?;
        let (expected_keys, false_positive_rate) = (r.u64()?, r.u64()?);
        r.slice(24)?;
        r.finish()?;
        Ok(Head {
            digest,
            event_time,
            fingerprint,
            now_ns,
            wall_ns,
            since_ns,
            window_ns,
            slices,
            expected_keys,
            false_positive_rate,
            lease_ns,
        })
    }
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The end of a slice, then digests that were first seen before it.
    Keys = 1,
    /// The end of a slice, then what is kept with digests of it.
    Values = 2,
    Claims = 3,
    /// How much there was.
    End = 4,
}

/// The bytes in front of a block.
pub(crate) fn block_head(kind: Kind, len: usize) -> [u8; BLOCK_HEAD] {
    let mut head = [0; BLOCK_HEAD];
    head[..4].copy_from_slice(&(kind as u32).to_le_bytes());
    head[4..].copy_from_slice(&(len as u32).to_le_bytes());
    head
}

/// What a block is, and how much it holds.
pub(crate) fn decode_block_head(head: [u8; BLOCK_HEAD]) -> Result<(Kind, usize), Reason> {
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let kinds = [Kind::Keys, Kind::Values, Kind::Claims, Kind::End];
    let kind = kinds.into_iter().find(|kind| *kind as u32 == word(0));
    match (kind, word(4) as usize) {
        (None, _) => Err("it is of an unknown kind"),
        (_, len) if len > MOST_BYTES => Err("it is larger than any"),
        (Some(kind), len) => Ok((kind, len)),
    }
}

/// What follows a block: it is nothing without its place and its stream.
pub(crate) fn block_check(
    number: u64,
    head: &[u8; HEAD],
    block: &[u8; BLOCK_HEAD],
    content: &[u8],
) -> u64 {
    let mut all = [0; 32];
    all[..8].copy_from_slice(&number.to_le_bytes());
    all[8..16].copy_from_slice(&head[HEAD - 8..]);
    all[16..24].copy_from_slice(block);
    all[24..].copy_from_slice(&checksum(content).to_le_bytes());
    checksum(&all)
}

/// A claim in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovedClaim {
    pub(crate) digest: Digest,
    /// None is left where its lease has run out, or its owner is dead.
    pub(crate) lease_left_ns: i64,
    pub(crate) event_ns: Option<i64>,
    pub(crate) fingerprint: Option<Digest>,
    pub(crate) note: Vec<u8>,
}

fn put_optional<const N: usize>(out: &mut Vec<u8>, bytes: Option<[u8; N]>) {
    out.push(u8::from(bytes.is_some()));
    out.extend_from_slice(&bytes.unwrap_or([0; N]));
}

impl MovedClaim {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest.to_bytes());
        out.extend_from_slice(&self.lease_left_ns.to_le_bytes());
        put_optional(out, self.event_ns.map(i64::to_le_bytes));
        put_optional(out, self.fingerprint.map(Digest::to_bytes));
        out.extend_from_slice(&(self.note.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.note);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Reason> {
        let (digest, lease_left_ns) = (digest(r)?, r.i64()?);
        let (has_event, event_ns) = (r.u8()? == 1, r.i64()?);
        let (has_fingerprint, fingerprint) = (r.u8()? == 1, r.array()?);
        let fingerprint = if has_fingerprint { Digest::from_bytes(fingerprint) } else { None };
        let len = r.u32()? as usize;
        let note = r.slice(len)?.to_vec();
        let event_ns = has_event.then_some(event_ns);
        Ok(MovedClaim { digest, lease_left_ns, event_ns, fingerprint, note })
    }
}

/// A value that is kept with a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MovedValue {
    pub(crate) digest: Digest,
    pub(crate) tag: u8,
    pub(crate) bytes: Vec<u8>,
}

impl MovedValue {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest.to_bytes());
        out.push(self.tag);
        out.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Reason> {
        let (digest, tag) = (digest(r)?, r.u8()?);
        let len = r.u32()? as usize;
        Ok(MovedValue { digest, tag, bytes: r.slice(len)?.to_vec() })
    }
}

fn digest(r: &mut Reader<'_>) -> Result<Digest, Reason> {
    Digest::from_bytes(r.array()?).ok_or("it has a digest that no key has")
}

/// What was read of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Keys { end_ns: i64, digests: Vec<Digest> },
    Values { end_ns: i64, values: Vec<MovedValue> },
    Claims(Vec<MovedClaim>),
    End([u64; 3]),
}

impl Block {
    /// What verified bytes say.
    pub(crate) fn decode(kind: Kind, content: &[u8]) -> Result<Self, Reason> {
        let mut r = Reader::of(content);
        Ok(match kind {
            Kind::Keys => Block::Keys { end_ns: r.i64()?, digests: r.rest(digest)? },
            Kind::Values => Block::Values { end_ns: r.i64()?, values: r.rest(MovedValue::decode)? },
            Kind::Claims => Block::Claims(r.rest(MovedClaim::decode)?),
            Kind::End => {
                let counts = [r.u64()?, r.u64()?, r.u64()?];
                r.finish()?;
                Block::End(counts)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            digest: DigestKind::SipHash13,
            event_time: true,
            fingerprint: fingerprint(&[5; 32]),
            now_ns: 1,
            wall_ns: -2,
            since_ns: 3,
            window_ns: 4,
            slices: 5,
            expected_keys: 6,
            false_positive_rate: 0.25_f64.to_bits(),
            lease_ns: 7,
        }
    }

    #[test]
    fn a_head_comes_back_and_every_flip_is_noticed() {
        let bytes: [u8; HEAD] = head().encode().try_into().unwrap();
        assert_eq!(Head::version(&bytes), Ok(VERSION));
        assert_eq!(Head::decode(&bytes), Ok(head()));
        for at in 0..HEAD {
            let mut flipped = bytes;
            flipped[at] ^= 4;
            assert!(Head::decode(&flipped).is_err(), "byte {at}");
        }
    }

    #[test]
    fn secrets_are_told_apart_by_what_does_not_tell_them() {
        assert_ne!(fingerprint(&[5; 32]), fingerprint(&[6; 32]));
        assert_ne!(fingerprint(&[5; 32]), [5; 16]);
    }

    #[test]
    fn blocks_come_back() {
        let digest = |n: u64| Digest::new(n << 40, n);
        let claim = MovedClaim {
            digest: digest(3),
            lease_left_ns: 9,
            event_ns: Some(-1),
            fingerprint: None,
            note: b"note".to_vec(),
        };
        let other = MovedClaim { event_ns: None, fingerprint: Some(digest(8)), ..claim.clone() };
        let mut content = Vec::new();
        [&claim, &other].iter().for_each(|claim| claim.encode(&mut content));
        assert_eq!(Block::decode(Kind::Claims, &content), Ok(Block::Claims(vec![claim, other])));
        let mut content = 77_i64.to_le_bytes().to_vec();
        let value = MovedValue { digest: digest(1), tag: 2, bytes: b"value".to_vec() };
        value.encode(&mut content);
        let values = Block::Values { end_ns: 77, values: vec![value] };
        assert_eq!(Block::decode(Kind::Values, &content), Ok(values));
        for cut in 1..content.len() {
            let cut_short = Block::decode(Kind::Values, &content[..cut]);
            assert!(cut_short.is_err() || cut == 8, "{cut}: {cut_short:?}");
        }
        assert!(Block::decode(Kind::End, &content[..23]).is_err());
    }
}
