//! Key bytes → 128-bit digest. Everything below works on digests only.
//!
//! Which bits each layer uses (correlated bits would be a silent defect):
//!
//! | layer | bits |
//! |---|---|
//! | shard | `hi` 63 … 52 (as many from the top as there are shards) |
//! | place in a sealed run (order of the whole digest) | within a shard: `hi` below the shard's bits |
//! | index of unsealed records | bucket: `hi` from 32 up, fingerprint: `lo` 41 … 32 |
//! | filter block | `lo` 63 … 32 |
//! | filter rows and lane | `hi` 31 … 0 and `lo` 31 … 0 |

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher13};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_secret};

/// How keys are digested; fixed when a store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DigestKind {
    /// XXH3-128 over a secret of the store: for ids that trusted producers mint. Not a keyed
    /// cryptographic hash: crafted keys that collide under many seeds are published.
    #[default]
    Xxh3,
    /// Keyed SipHash-1-3-128 (Aumasson and Bernstein, 2012): for ids that strangers choose.
    SipHash13,
}

impl DigestKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            DigestKind::Xxh3 => 1,
            DigestKind::SipHash13 => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(DigestKind::Xxh3),
            2 => Some(DigestKind::SipHash13),
            _ => None,
        }
    }

    /// The name used in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DigestKind::Xxh3 => "xxh3-128",
            DigestKind::SipHash13 => "siphash-1-3-128",
        }
    }
}

/// 128 bits of a key. Neither half is ever zero, so that an empty slot and a half-written one are
/// both told from a digest (each costs one value in 2^64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest {
    pub(crate) hi: u64,
    pub(crate) lo: u64,
}

impl Digest {
    #[inline]
    pub(crate) fn new(hi: u64, lo: u64) -> Self {
        Digest { hi: hi + u64::from(hi == 0), lo: lo + u64::from(lo == 0) }
    }

    /// The digest in a slot, `None` for an empty or half-written one.
    #[inline]
    pub(crate) fn from_slot(hi: u64, lo: u64) -> Option<Self> {
        (hi != 0 && lo != 0).then_some(Digest { hi, lo })
    }

    /// The upper half, then the lower, most significant byte first: the order of digests is kept.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.hi) << 64 | u128::from(self.lo)).to_be_bytes()
    }

    /// From what [`Digest::to_bytes`] made; `None` for what it never makes.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let both = u128::from_be_bytes(bytes);
        Digest::from_slot((both >> 64) as u64, both as u64)
    }

    /// The shard of `1 << bits` that holds the digest.
    #[inline]
    pub(crate) fn shard(self, bits: u32) -> usize {
        // Two shifts, because shifting by 64 (one shard) is not defined.
        (self.hi >> 1 >> (63 - bits)) as usize
    }
}

/// Hashes a digest by itself: its bits are already uniform.
#[derive(Default)]
pub(crate) struct DigestHasher(u64);

impl std::hash::Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(32) ^ word;
    }
}

pub(crate) type DigestMap<V> =
    std::collections::HashMap<Digest, V, std::hash::BuildHasherDefault<DigestHasher>>;

/// Bytes of the master secret that a store keeps.
pub(crate) const SECRET_LEN: usize = 32;
const XXH3_SECRET_LEN: usize = 192;

/// Turns keys of one scope into digests.
#[derive(Clone)]
pub(crate) enum KeyHasher {
    Xxh3(Box<[u8; XXH3_SECRET_LEN]>),
    SipHash13(u64, u64),
}

impl KeyHasher {
    /// The hasher of the root scope.
    pub(crate) fn root(kind: DigestKind, secret: &[u8; SECRET_LEN]) -> Self {
        KeyHasher::derive(kind, secret, b"root", b"")
    }

    /// The hasher of a named scope: its own secret, derived from the store's, so that equal keys of
    /// two scopes have unrelated digests and a scope costs nothing per key.
    pub(crate) fn scope(kind: DigestKind, secret: &[u8; SECRET_LEN], name: &[u8]) -> Self {
        KeyHasher::derive(kind, secret, b"scope", name)
    }

    /// A hasher for another purpose than keys.
    pub(crate) fn derived(kind: DigestKind, secret: &[u8; SECRET_LEN], purpose: &[u8]) -> Self {
        KeyHasher::derive(kind, secret, purpose, b"")
    }

    fn derive(kind: DigestKind, secret: &[u8; SECRET_LEN], domain: &[u8], name: &[u8]) -> Self {
        let block = |counter: u64| {
            let word =
                |at: usize| u64::from_le_bytes(secret[at..at + 8].try_into().expect("eight bytes"));
            let mut sip = SipHasher13::new_with_keys(word(0), word(8));
            sip.write(&secret[16..]);
            sip.write(&counter.to_le_bytes());
            sip.write(&(domain.len() as u64).to_le_bytes());
            sip.write(domain);
            sip.write(name);
            sip.finish128()
        };
        match kind {
            DigestKind::Xxh3 => {
                let mut expanded = Box::new([0; XXH3_SECRET_LEN]);
                for (counter, out) in (0..).zip(expanded.chunks_exact_mut(16)) {
                    out.copy_from_slice(&block(counter).as_bytes());
                }
                KeyHasher::Xxh3(expanded)
            }
            DigestKind::SipHash13 => {
                let key = block(0);
                KeyHasher::SipHash13(key.h1, key.h2)
            }
        }
    }

    #[inline]
    pub(crate) fn digest(&self, key: &[u8]) -> Digest {
        match self {
            KeyHasher::Xxh3(secret) => {
                let hash = xxh3_128_with_secret(key, &secret[..]);
                Digest::new((hash >> 64) as u64, hash as u64)
            }
            KeyHasher::SipHash13(k0, k1) => {
                let mut sip = SipHasher13::new_with_keys(*k0, *k1);
                sip.write(key);
                let hash = sip.finish128();
                Digest::new(hash.h1, hash.h2)
            }
        }
    }
}

/// The checksum of every structure on disk: XXH3-64, with the structure's magic as a prefix of the
/// bytes by the caller's choice.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; SECRET_LEN] = [7; SECRET_LEN];

    #[test]
    fn scopes_kinds_and_secrets_are_unrelated() {
        let mut seen = std::collections::HashSet::new();
        for kind in [DigestKind::Xxh3, DigestKind::SipHash13] {
            for secret in [SECRET, [8; SECRET_LEN]] {
                assert!(seen.insert(KeyHasher::root(kind, &secret).digest(b"k")));
                for name in ["", "a", "root"] {
                    let hasher = KeyHasher::scope(kind, &secret, name.as_bytes());
                    assert!(seen.insert(hasher.digest(b"k")));
                }
            }
        }
    }

    /// Digests are on disk: these values may never change.
    #[test]
    fn digests_are_stable() {
        let digest = KeyHasher::root(DigestKind::Xxh3, &SECRET).digest(b"order-1001");
        assert_eq!((digest.hi, digest.lo), (2078067497117527362, 9942899062991383750));
        let digest = KeyHasher::root(DigestKind::SipHash13, &SECRET).digest(b"order-1001");
        assert_eq!((digest.hi, digest.lo), (15351419689837612270, 11203747500953257080));
    }

    #[test]
    fn shards_come_from_the_top_bits() {
        let digest = Digest::new(u64::MAX >> 1, 1);
        assert_eq!(digest.shard(0), 0);
        assert_eq!(digest.shard(1), 0);
        assert_eq!(digest.shard(3), 3);
        assert_eq!(Digest::new(0, 0), Digest { hi: 1, lo: 1 });
        assert_eq!(Digest::from_slot(5, 0), None);
    }
}
