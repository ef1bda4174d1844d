//! The operations that are counted, each on a store in its steady state: the window full, the oldest
//! slice just expired, everything in the background done. The clock stands still while they run, and
//! the secret is fixed, so that they do the same each time.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail, ensure};
use onceonly::{Claim, Dedup, ManualClock, Verdict};

#[allow(dead_code, reason = "shared with the library's benches, which take more of it")]
#[path = "../../common/keys.rs"]
mod keys;

use keys::{Key, key, mix};

pub(crate) const NAMES: [&str; 8] = [
    "observe new",
    "observe duplicate",
    "contains miss",
    "batch of 64 new",
    "batch of 64, 2 % duplicates",
    "claim and commit",
    "claim and commit, batch of 64",
    "claim duplicate",
];

/// Keys of one window.
const LIVE: u64 = 1 << 17;
/// Keys of the counted part: fewer than a slice, so that nothing begins or ends in it.
pub(crate) const COUNTED: u64 = 8192;
const BATCH: usize = 64;
/// Time from one new key to the next.
const KEY_NS: u64 = 1000;
const SLICES: u64 = 7;
const SEED: u64 = 0x1257_2c71;

/// Sets up, then runs `name` on `COUNTED` keys, in `count` and nowhere else. Its answers are checked.
pub(crate) fn run(name: &str, dir: &Path) -> Result<()> {
    let store = filled(dir)?;
    let keys: Vec<Key> = match name {
        "observe duplicate" | "claim duplicate" => (0..COUNTED).map(old).collect(),
        "batch of 64, 2 % duplicates" => {
            (0..COUNTED).map(|at| if at % 50 == 49 { old(at) } else { new(at) }).collect()
        }
        _ => (0..COUNTED).map(new).collect(),
    };
    let mut repeated = 0;
    match name {
        "observe new" | "observe duplicate" => {
            count(&mut || repeated = observe_each(&store, &keys));
        }
        "contains miss" => count(&mut || repeated = contains_each(&store, &keys)),
        "batch of 64 new" | "batch of 64, 2 % duplicates" => {
            let mut verdicts = Vec::with_capacity(BATCH);
            count(&mut || repeated = observe_batches(&store, &keys, &mut verdicts));
        }
        "claim and commit" | "claim duplicate" => {
            count(&mut || repeated = claim_each(&store, &keys));
        }
        "claim and commit, batch of 64" => count(&mut || repeated = claim_batches(&store, &keys)),
        other => bail!("no operation is named {other:?}"),
    }
    let right = match name {
        "observe duplicate" | "claim duplicate" => COUNTED,
        "batch of 64, 2 % duplicates" => COUNTED / 50,
        _ => 0,
    };
    ensure!(repeated == right, "{repeated} of {right} duplicates were found");
    store.close()?;
    Ok(())
}

/// What is counted: valgrind is told to begin and to end where this function does.
#[inline(never)]
fn count(counted_part: &mut dyn FnMut()) {
    counted_part();
    // Or the call would be the last instruction, and a jump.
    std::hint::black_box(());
}

/// A store that has seen two windows of keys.
fn filled(dir: &Path) -> Result<Dedup> {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let store = Dedup::builder()
        .window(Duration::from_nanos(LIVE * KEY_NS))
        .slices(u32::try_from(SLICES)?)
        .expected_keys(LIVE)
        .shards(8)
        .secret([7; 32])
        .clock(clock.clone())
        .open(dir)?;
    let mut verdicts = Vec::new();
    for first in (0..2 * LIVE).step_by(1024) {
        let keys: Vec<Key> = (first..first + 1024).map(|index| key(SEED, index)).collect();
        for batch in keys.chunks(BATCH) {
            store.observe_batch_into(batch, &mut verdicts).map_err(|e| e.into_parts().1)?;
            ensure!(verdicts.iter().all(|&verdict| verdict == Verdict::New), "not new");
            // What is done in the background is the same each time only if nothing is done meanwhile.
            store.settle();
        }
        clock.advance(Duration::from_nanos(1024 * KEY_NS));
        // Whether a slice that is over is merged before or after the next sealing decides how many
        // parts it has in the end: it is merged now.
        let _ = store.contains(key(SEED, first))?;
        store.settle();
    }
    // Into a slice that has begun: the blocks of the filter have the oldest column to clear.
    clock.advance(Duration::from_nanos(LIVE * KEY_NS / SLICES));
    let _ = store.observe(key(SEED, 2 * LIVE))?;
    store.settle();
    Ok(store)
}

/// A key of the window: older ones are sealed, the newest are not.
fn old(at: u64) -> Key {
    key(SEED, 2 * LIVE - 1 - mix(at) % (LIVE / 2))
}

fn new(at: u64) -> Key {
    key(SEED, 4 * LIVE + at)
}

fn observe_each(store: &Dedup, keys: &[Key]) -> u64 {
    let observe = |key| store.observe(key).expect("observe") == Verdict::Duplicate;
    keys.iter().map(|key| u64::from(observe(key))).sum()
}

fn contains_each(store: &Dedup, keys: &[Key]) -> u64 {
    keys.iter().map(|key| u64::from(store.contains(key).expect("contains"))).sum()
}

fn observe_batches(store: &Dedup, keys: &[Key], verdicts: &mut Vec<Verdict>) -> u64 {
    let mut repeated = 0;
    for batch in keys.chunks(BATCH) {
        store.observe_batch_into(batch, verdicts).expect("observe a batch");
        repeated += verdicts.iter().filter(|&&verdict| verdict == Verdict::Duplicate).count();
    }
    repeated as u64
}

fn claim_each(store: &Dedup, keys: &[Key]) -> u64 {
    let mut repeated = 0;
    for key in keys {
        match store.claim(key).expect("claim") {
            Claim::Granted(guard) => guard.commit().expect("commit"),
            _ => repeated += 1,
        }
    }
    repeated
}

fn claim_batches(store: &Dedup, keys: &[Key]) -> u64 {
    let (mut repeated, mut guards) = (0, Vec::with_capacity(BATCH));
    for batch in keys.chunks(BATCH) {
        for claim in store.claim_batch(batch).expect("claim a batch") {
            match claim {
                Claim::Granted(guard) => guards.push(guard),
                _ => repeated += 1,
            }
        }
        for committed in store.commit_batch(guards.drain(..)) {
            committed.expect("commit");
        }
    }
    repeated
}
