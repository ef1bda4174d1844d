//! What runs side by side: each answers "seen before?" for the same keys at the same times.

mod bare_floor;
mod blooms;
mod caches;
mod claims;
mod hash_set;
mod moka_ttl;
mod store;
pub(crate) mod stores;

use std::path::Path;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::args::Result;
use crate::keys::{Chunk, Key};
use crate::machine::Timing;

pub(crate) use blooms::Blooms;
pub(crate) use caches::{DashSets, Lrus, QuickCache};
pub(crate) use claims::{Claims, ProcessOnce};
pub(crate) use hash_set::HashSets;
pub(crate) use moka_ttl::MokaTtl;
pub(crate) use store::Store;
use stores::Rotating;

/// Answers go to a slice as long as the keys; `true` is "seen before".
pub(crate) trait Contestant: Send + Sync {
    fn name(&self) -> &'static str;
    /// Whether it means to answer rightly, always.
    fn exact(&self) -> bool {
        true
    }
    /// Whether its answers mean anything.
    fn decides(&self) -> bool {
        true
    }
    /// Whether a full share of the keys would take too long.
    fn slow(&self) -> bool {
        false
    }
    /// How it is asked: its best sizes of a batch, and one at a time if that is of interest.
    fn modes(&self, batch: usize) -> Vec<Mode> {
        vec![Mode::Batch(batch), Mode::One]
    }
    /// Time has come to where `now` keys have been new.
    fn advance(&self, now: u64);
    fn observe_each(&self, keys: &[Key], answers: &mut [bool]);
    fn observe_batches(&self, keys: &[Key], batch: usize, answers: &mut [bool]);
    /// Waits for work in the background.
    fn settle(&self) {}
    /// Bytes on the disk.
    fn disk_bytes(&self) -> u64 {
        0
    }
    /// Bytes in memory that the contestant itself tells of, if it does.
    fn told_memory_bytes(&self) -> Option<u64> {
        None
    }
    /// The process of its server, if it has one of its own.
    fn server_pid(&self) -> Option<u32> {
        None
    }
    /// Further facts for the report.
    fn details(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes the contestant `name` for a window of `live` keys.
pub(crate) fn build(name: &str, live: u64, dir: &Path) -> Result<Box<dyn Contestant>> {
    Ok(match name {
        "onceonly" => Box::new(Store::open(live, dir)?),
        "claims" => Box::new(Claims(Store::open(live, dir)?)),
        "process-once" => Box::new(ProcessOnce(Store::open(live, dir)?)),
        "hashbrown" => Box::new(HashSets::new(live, false)),
        "hashbrown-digests-first" => Box::new(HashSets::new(live, true)),
        "moka" => Box::new(MokaTtl::new(live)),
        "dashmap" => Box::new(DashSets::new(live)),
        "quick_cache" => Box::new(QuickCache::new(live)),
        "lru" => Box::new(Lrus::new(live)),
        "sbbf" => Box::new(Blooms::<sbbf_rs_safe::Filter>::new(live)),
        "fastbloom" => Box::new(Blooms::<fastbloom::BloomFilter>::new(live)),
        "fjall" => Box::new(Rotating::<stores::Fjall>::new(live, dir)?),
        "lmdb" => Box::new(Rotating::<stores::Lmdb>::new(live, dir)?),
        "sqlite" => Box::new(Rotating::<stores::Sqlite>::new(live, dir)?),
        "redis" => Box::new(Rotating::<stores::Redis>::new(live, dir)?),
        "postgres" => Box::new(Rotating::<stores::Postgres>::new(live, dir)?),
        "floor" => Box::new(bare_floor::Floor::new(live, dir)?),
        other => return Err(format!("no peer is named {other:?}").into()),
    })
}

/// One key at a time, or so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    One,
    Batch(usize),
}

impl Mode {
    pub(crate) fn keys(self) -> usize {
        match self {
            Mode::One => 1,
            Mode::Batch(keys) => keys,
        }
    }

    pub(crate) fn shown(self) -> String {
        match self {
            Mode::One => "one at a time".to_owned(),
            Mode::Batch(n) => format!("batches of {n}"),
        }
    }
}

/// Runs `chunk` through `contestant` on this thread and returns the time it took.
pub(crate) fn run(
    contestant: &dyn Contestant,
    chunk: &Chunk,
    mode: Mode,
    timing: Timing,
    answers: &mut [bool],
) -> Duration {
    let start = timing.start();
    for tick in &chunk.ticks {
        contestant.advance(tick.now);
        let (keys, answers) = (&chunk.keys[tick.range.clone()], &mut answers[tick.range.clone()]);
        match mode {
            Mode::One => contestant.observe_each(keys, answers),
            Mode::Batch(batch) => contestant.observe_batches(keys, batch, answers),
        }
    }
    start.elapsed()
}

/// The peers hash as the store does, and like it take the hash for the key from there on.
#[inline]
pub(crate) fn digest(key: &Key) -> u128 {
    xxh3_128(key)
}

/// A hasher for digests, whose bits are uniform already.
#[derive(Clone, Copy, Debug, Default)]
struct DigestIsHash(u64);

impl std::hash::Hasher for DigestIsHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("digests hash themselves as one u128");
    }

    fn write_u128(&mut self, digest: u128) {
        self.0 = digest as u64;
    }
}

type BuildDigestIsHash = std::hash::BuildHasherDefault<DigestIsHash>;
