//! What is left of the promises of the contract: behaviour that can only be seen while background
//! work is under way, or at crashes that random scripts meet too rarely.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{fast_dir, start};
use onceonly::sim::{Mix, SimDisk};
use onceonly::{Builder, Dedup, Durability, ManualClock, Timestamp, Verdict, offline};

const WINDOW: Duration = Duration::from_secs(60);
const SLICES: u32 = 6;
const SLICE: Duration = Duration::from_secs(10);
/// Nothing of what was not synced.
const NOTHING: Mix = Mix { seed: 1, unit: 4096, survive: 0 };

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(WINDOW).slices(SLICES).clock(clock.clone())
}

fn keys(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("key-{number}")).collect()
}

fn mark(store: &Dedup, keys: &[String]) {
    let verdicts = store.observe_batch(keys).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New), "a false duplicate");
}

fn all_live(store: &Dedup, keys: &[String]) -> bool {
    store.contains_batch(keys).unwrap().iter().all(|live| *live)
}

/// Promise 1: what the index of unsealed records finds is compared whole. The filter is a poor one, so
/// that it suspects one fresh key in five.
#[test]
fn a_million_fresh_keys_beside_unsealed_ones_are_new() {
    let clock = ManualClock::new(start());
    let store =
        builder(&clock).expected_keys(400_000).false_positive_rate(0.5).in_memory().unwrap();
    for part in 0..10 {
        mark(&store, &keys(part * 10_000..(part + 1) * 10_000));
    }
    for part in 10..110 {
        let live = store.contains_batch(&keys(part * 10_000..(part + 1) * 10_000)).unwrap();
        assert!(!live.contains(&true), "a false duplicate");
    }
    let fresh = keys(2_000_000..2_010_000);
    mark(&store, &fresh);
    let suspected = store.stats().filter_positive;
    assert!(suspected > 1_000, "the filter suspected only {suspected}, so little was looked up");
}

/// Promise 1: where the filter names other slices, a damaged one costs no answer.
#[test]
fn a_slice_is_read_only_where_the_filter_names_it() {
    let (dir, clock) = (fast_dir(), ManualClock::new(start()));
    let builder = builder(&clock).expected_keys(20_000).shards(2);
    let store = builder.clone().open(dir.path()).unwrap();
    let old = keys(0..6_000);
    mark(&store, &old);
    clock.advance(SLICE);
    store.settle();
    let before: Vec<String> = run_files(dir.path());
    mark(&store, &keys(10_000..40_000));
    store.settle();
    store.close().unwrap();
    drop(store);
    // Of the slice that is read first.
    let newer = run_files(dir.path()).into_iter().filter(|name| !before.contains(name));
    let mut damaged = 0;
    for name in newer.filter(|name| newest_slice(dir.path(), name)) {
        let mut bytes = fs::read(dir.path().join(&name)).unwrap();
        // Not the header before, nor the index behind.
        let pages = word(&bytes, RUN_FIELDS + 16) as usize;
        bytes.chunks_mut(4096).skip(1).take(pages).for_each(|page| page[100] ^= 1);
        fs::write(dir.path().join(&name), bytes).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0, "nothing of the newest slice is sealed");
    let store = builder.open(dir.path()).unwrap();
    let answered = |keys: &[String], live: bool| {
        keys.iter().filter(|key| store.contains(key).is_ok_and(|found| found == live)).count()
    };
    assert!(store.contains("key-10000").is_err(), "the damage is not noticed");
    let (found, fresh) = (answered(&old, true), answered(&keys(50_000..56_000), false));
    assert!(found > 5_900, "{found} of 6,000 keys of another slice are answered");
    assert!(fresh > 5_900, "{fresh} of 6,000 fresh keys are answered");
}

fn run_files(dir: &std::path::Path) -> Vec<String> {
    let files = offline::inspect(dir).unwrap().files;
    files.into_iter().map(|file| file.name).filter(|name| name.starts_with("run-")).collect()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Where the fields of the header of a sealed part begin: slice, keys, pages; see
/// `docs/format.md`.
const RUN_FIELDS: usize = 40;

fn newest_slice(dir: &std::path::Path, name: &str) -> bool {
    let slice_of = |name: &str| word(&fs::read(dir.join(name)).unwrap(), RUN_FIELDS);
    let newest = run_files(dir).iter().map(|name| slice_of(name)).max();
    newest == Some(slice_of(name))
}

/// Promise 2: what is being sealed answers. On a full disk it is never done with.
#[test]
fn keys_are_found_while_they_are_sealed() {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let store = builder(&clock).expected_keys(1_000).shards(2).open_simulated(&disk).unwrap();
    let mut marked = Vec::new();
    for part in 0..20 {
        // Room for a manifest, and at last not for another file.
        let used = store.stats().disk_bytes;
        if part == 3 {
            disk.set_capacity(Some(used + 40_000));
        }
        let batch = keys(part * 300..(part + 1) * 300);
        if let Ok(verdicts) = store.observe_batch(&batch) {
            assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
            marked.extend(batch);
        }
        store.settle();
        assert!(all_live(&store, &marked), "a key is not found while it is sealed");
    }
    assert!(store.stats().background_errors > 0, "nothing waited to be sealed");
}

/// Promise 2: what comes while a filter is built, and what is not sealed then, is in the new one.
#[test]
fn keys_are_found_while_filters_grow() {
    for round in 0..4 {
        let clock = ManualClock::new(start());
        let store = builder(&clock).expected_keys(100).shards(1).in_memory().unwrap();
        for part in 0..120 {
            mark(&store, &keys(part * 500..part * 500 + 500));
            // At once: the next filter is filled from the exact files, and has them again.
            let before = (part * 500).saturating_sub(4_000);
            assert!(all_live(&store, &keys(before..part * 500)), "a filter lacks keys");
            if part % 40 == 10 * round {
                store.settle();
            }
        }
        store.settle();
        assert_eq!(store.stats().filters_rebuilding, 0);
        assert!(store.stats().filter_capacity > 20_000, "the filter has not grown");
        assert!(all_live(&store, &keys(0..60_000)), "a filter lacks keys");
    }
}

/// A store that dies right after a slice began, on a machine that is booted again.
fn killed_after_a_slice_began(wall_moves_back: Duration) -> (Dedup, ManualClock) {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let store = builder(&clock).open_simulated(&disk).unwrap();
    mark(&store, &keys(0..1));
    clock.advance(WINDOW / 2);
    mark(&store, &keys(1..2));
    let killed = disk.snapshot().after_kill();
    let clock = ManualClock::new(start() - wall_moves_back);
    (builder(&clock).open_simulated(&killed).unwrap(), clock)
}

/// Promises 2 and 10: time is written down before a slice begins, so the next owner knows of the slice,
/// whatever the wall clock says.
#[test]
fn a_slice_that_was_begun_is_there_after_a_kill() {
    let (store, _) = killed_after_a_slice_began(Duration::from_secs(3_600));
    assert!(all_live(&store, &keys(0..2)), "the key of the newest slice is lost");
}

/// Promises 4 and 10: nor does it take the window back behind what was written down.
#[test]
fn a_wall_clock_behind_does_not_take_the_window_back() {
    let (store, clock) = killed_after_a_slice_began(Duration::from_secs(3_600));
    clock.advance(WINDOW / 2 - Duration::from_secs(1));
    assert!(all_live(&store, &keys(0..2)));
    clock.advance(SLICE + Duration::from_secs(1));
    assert_eq!(store.contains_batch(&keys(0..2)).unwrap(), [false, true], "remembered too long");
}

/// `Interval`: nobody has to call anything for marks to reach the disk.
#[test]
fn interval_brings_marks_to_the_disk_by_itself() {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let level = Durability::Interval(Duration::from_millis(20));
    let store = builder(&clock).durability(level).open_simulated(&disk).unwrap();
    mark(&store, &keys(0..10));
    let marked = Instant::now();
    loop {
        let rebooted = ManualClock::new(start());
        let lost = disk.snapshot().after_power_loss(NOTHING);
        let store = builder(&rebooted).durability(level).open_simulated(&lost).unwrap();
        if all_live(&store, &keys(0..10)) {
            break;
        }
        // A thousand intervals: a busy machine is late, a missing sync never comes.
        assert!(marked.elapsed() < Duration::from_secs(20), "nothing was synced");
    }
}

/// Promise 1: of a key that is forgotten, seen again and forgotten again, the last word counts, also
/// where the words stand in several segments of the journal. On a full disk none of them is sealed.
#[test]
fn a_key_that_was_forgotten_in_a_later_segment_stays_forgotten() {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let builder = builder(&clock).expected_keys(100).shards(1);
    let store = builder.clone().open_simulated(&disk).unwrap();
    mark(&store, &keys(0..1));
    assert!(store.forget("key-0").unwrap());
    mark(&store, &keys(0..1));
    store.settle();
    disk.set_capacity(Some(0));
    // These begin another segment.
    mark(&store, &keys(1..4_500));
    store.settle();
    assert!(store.stats().background_errors > 0, "there is one segment, and nothing to be sealed");
    assert!(store.forget("key-0").unwrap());
    let killed = disk.snapshot().after_kill();
    let store = builder.open_simulated(&killed).unwrap();
    assert!(!store.contains("key-0").unwrap(), "a false duplicate");
    assert!(all_live(&store, &keys(1..4_500)));
}

/// Promises 6 and 10: a store whose creation was cut short by a power loss goes by the wall clock when
/// it is opened at last. One that lags behind it would vouch for what it has lost.
#[test]
fn a_creation_that_was_cut_short_does_not_hold_the_clock_back() {
    let calls = {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
        let _store = builder(&clock).open_simulated(&disk).unwrap();
        disk.calls()
    };
    let mut opened = 0;
    for call in 1..=calls {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
        disk.snapshot_at(call);
        drop(builder(&clock).open_simulated(&disk).unwrap());
        let Some(image) = disk.take_image() else { continue };
        for survive in [0, 128, 255] {
            let lost = image.after_power_loss(Mix { survive, ..NOTHING });
            let later = start() + Duration::from_secs(3_600);
            let store = builder(&ManualClock::new(later)).open_simulated(&lost).unwrap();
            mark(&store, &keys(0..1));
            let slices = store.stats().slices;
            let current = slices.last().unwrap();
            let now = Timestamp::from(later);
            assert!(current.start <= now && now < current.end, "call {call}: {current:?}");
            opened += 1;
        }
    }
    assert!(opened > 30, "only {opened} images");
}

/// Promise 9: at `Sync`, also who is told `Duplicate` is told of something that lasts: he waits for the
/// sync of him who marked it.
#[test]
fn who_is_told_of_a_mark_finds_it_on_the_disk() {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    // Large logs, so that a sync of the simulated disk takes its time.
    let builder = builder(&clock).expected_keys(100_000).durability(Durability::Sync);
    let store = builder.clone().open_simulated(&disk).unwrap();
    let mut told = 0;
    for key in keys(0..40) {
        let barrier = std::sync::Barrier::new(2);
        let ask = || {
            barrier.wait();
            let verdict = store.observe(&key).unwrap();
            (verdict == Verdict::Duplicate).then(|| disk.snapshot())
        };
        let images = std::thread::scope(|scope| {
            let other = scope.spawn(ask);
            [ask(), other.join().unwrap()]
        });
        assert_eq!(images.iter().flatten().count(), 1, "one of two is the first");
        for image in images.iter().flatten() {
            let rebooted = builder.clone().clock(ManualClock::new(start()));
            let store = rebooted.open_simulated(&image.after_power_loss(NOTHING)).unwrap();
            assert!(store.contains(&key).unwrap(), "{key} is a duplicate, and not on the disk");
            told += 1;
        }
    }
    assert_eq!(told, 40);
}
