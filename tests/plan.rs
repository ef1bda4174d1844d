//! Promise 11, "predictable": with `max_keys`, memory, disk and files stay within what `plan` says
//! before anything is written.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Rng, start};
use onceonly::{Builder, Dedup, Error, ManualClock, Verdict};
use tempfile::TempDir;

const WINDOW: Duration = Duration::from_secs(60);

/// Bytes that the files below `dir` take, and how many they are.
fn usage(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut files) = (0, 0);
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        // A background job may delete a file between the listing and this.
        if let Ok(meta) = entry.metadata() {
            bytes += meta.len();
            files += 1;
        }
    }
    (bytes, files)
}

fn check(store: &Dedup, dir: &Path, builder: &Builder, when: &str) {
    let (plan, stats) = (builder.plan().unwrap(), store.stats());
    let (bytes, files) = usage(dir);
    assert!(bytes <= plan.disk_bytes, "{when}: {bytes} bytes on disk, {plan:?}");
    assert!(files <= plan.files, "{when}: {files} files, {plan:?}");
    let memory = stats.memory_bytes;
    assert!(memory <= plan.memory_bytes, "{when}: {memory} bytes of memory, {plan:?}, {stats:?}");
}

/// Fills the store to its limit, window after window, with batches and single keys, and measures at
/// every step of the way.
fn fill(builder: Builder, dir: &Path, clock: &ManualClock, keys: u64) {
    let store = builder.clone().open(dir).unwrap();
    let mut rng = Rng::new(3);
    let mut number = 0_u64;
    let batch_len = (keys / 20).max(1);
    for step in 0..60 {
        loop {
            let batch: Vec<_> = (number..number + batch_len).map(u64::to_le_bytes).collect();
            number += batch_len;
            match store.observe_batch(&batch) {
                Ok(verdicts) => assert!(verdicts.iter().all(|v| *v == Verdict::New)),
                Err(failed) => {
                    assert!(matches!(failed.error(), Error::Full { .. }), "{failed:?}");
                    break;
                }
            }
            check(&store, dir, &builder, &format!("step {step}"));
            if rng.below(3) == 0 {
                break;
            }
        }
        clock.advance(WINDOW / 12);
        if rng.below(5) == 0 {
            store.settle();
            check(&store, dir, &builder, &format!("step {step}, settled"));
        }
    }
    drop(store);
    let store = builder.clone().open(dir).unwrap();
    check(&store, dir, &builder, "reopened");
}

/// The plan holds for a store that was sized for its limit, and for one that had to grow to it.
#[test]
fn memory_disk_and_files_stay_within_the_plan() {
    for (expected, max) in [(20_000, 20_000), (1_000, 30_000), (1, 500), (40_000, 200_000)] {
        for shards in [1, 4] {
            let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
            let builder = Dedup::builder()
                .window(WINDOW)
                .slices(6)
                .expected_keys(expected)
                .max_keys(max)
                .shards(shards)
                .clock(clock.clone());
            fill(builder, dir.path(), &clock, max);
        }
    }
}

/// All keys of the limit in one slice: its filter is rebuilt for more than the limit, and counted.
#[test]
fn a_burst_in_one_slice_stays_within_the_plan() {
    const KEYS: u64 = 400_000;
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let builder = Dedup::builder()
        .window(WINDOW)
        .slices(6)
        .expected_keys(KEYS)
        .max_keys(KEYS)
        .shards(1)
        .clock(clock.clone());
    let store = builder.clone().open(dir.path()).unwrap();
    let planned = store.stats().filter_capacity;
    for first in (0..KEYS).step_by(20_000) {
        let batch: Vec<_> = (first..first + 20_000).map(u64::to_le_bytes).collect();
        assert!(store.observe_batch(&batch).unwrap().iter().all(|v| *v == Verdict::New));
        check(&store, dir.path(), &builder, &format!("after {first} keys"));
        store.settle();
        check(&store, dir.path(), &builder, &format!("after {first} keys, settled"));
    }
    assert!(store.stats().filter_capacity > planned, "no filter was rebuilt");
}

/// What has expired leaves nothing behind, without a reopening.
#[test]
fn what_has_expired_leaves_no_files() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let builder = Dedup::builder().window(WINDOW).slices(6).expected_keys(1_000);
    let store = builder.clock(clock.clone()).open(dir.path()).unwrap();
    let sealed = || {
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("run-")).count()
    };
    for part in 0..12_u64 {
        let batch: Vec<_> = (part * 5_000..part * 5_000 + 5_000).map(u64::to_le_bytes).collect();
        assert!(store.observe_batch(&batch).unwrap().iter().all(|v| *v == Verdict::New));
        store.settle();
        clock.advance(WINDOW / 12);
    }
    assert!(sealed() > 3, "little was sealed");
    // What is not sealed yet belongs to the last slice at most.
    clock.advance(WINDOW * 2);
    for number in 0..3_u64 {
        assert!(!store.contains(number.to_le_bytes()).unwrap());
        store.settle();
        clock.advance(WINDOW * 2);
    }
    assert_eq!(sealed(), 0, "files of expired slices");
    assert_eq!(store.stats().keys_live, 0);
}

/// Sealed parts are merged, so that a look-up meets few of them, however many keys a slice has.
#[test]
fn a_slice_has_few_sealed_parts() {
    let clock = ManualClock::new(start());
    let builder = Dedup::builder().window(WINDOW).slices(6).expected_keys(1_000);
    let store = builder.clock(clock.clone()).in_memory().unwrap();
    let parts = |slice: usize| store.stats().slices[slice].sealed_parts;
    for part in 0..100_u64 {
        let batch: Vec<_> = (part * 2_000..part * 2_000 + 2_000).map(u64::to_le_bytes).collect();
        assert!(store.observe_batch(&batch).unwrap().iter().all(|v| *v == Verdict::New));
        store.settle();
        assert!(parts(0) < 16, "{} parts", parts(0));
    }
    assert!(store.stats().slices[0].sealed_keys > 100_000, "little was sealed");
    clock.advance(WINDOW / 6);
    assert!(store.contains(0_u64.to_le_bytes()).unwrap());
    store.settle();
    assert!(parts(0) < 4, "{} parts of a slice that is over", parts(0));
}

/// Forgotten keys and claims do not leak space either: the same few keys over and over.
#[test]
fn forgetting_and_claiming_again_and_again_stays_within_the_plan() {
    let (dir, clock) = (TempDir::new().unwrap(), ManualClock::new(start()));
    let builder = Dedup::builder()
        .window(WINDOW)
        .slices(6)
        .expected_keys(1_000)
        .max_keys(1_000)
        .clock(clock.clone());
    let store = builder.clone().open(dir.path()).unwrap();
    for round in 0..4_000_u32 {
        let key = (round % 10).to_le_bytes();
        assert_eq!(store.observe(key).unwrap(), Verdict::New);
        assert!(store.forget(key).unwrap());
        drop(store.claim(key).unwrap());
        if round % 500 == 0 {
            store.settle();
            check(&store, dir.path(), &builder, &format!("round {round}"));
        }
    }
    store.settle();
    check(&store, dir.path(), &builder, "the end");
}

/// Without a limit the plan is for the expected keys and tells what each further million costs;
/// nothing is written to make a plan.
#[test]
fn a_plan_is_made_before_anything_is_written() {
    let builder = Dedup::builder().window(WINDOW).slices(6).expected_keys(1_000_000);
    let plan = builder.plan().unwrap();
    assert!(plan.memory_bytes >= plan.filter_bytes && plan.filter_bytes > 0);
    assert!(plan.disk_bytes >= 16 * 1_000_000);
    assert!(plan.memory_per_further_million > 0);
    assert!(plan.disk_per_further_million >= 16_000_000);
    assert_eq!(plan.slice, WINDOW / 6);
    assert_eq!(plan.max_age, WINDOW + WINDOW / 6);
    assert!(plan.expected_false_positive_rate <= 0.001 * 1.01);
    let text = plan.to_string();
    for word in ["memory", "disk", "files"] {
        assert!(text.contains(word), "{text}");
    }
    let small = Dedup::builder().window(WINDOW).plan().unwrap();
    assert!(small.memory_bytes <= 1 << 20, "a small store costs at most 1 MiB: {small:?}");
}
