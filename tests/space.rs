//! Disks that are full when the store needs a new file, stores that were copied or restored, and answers
//! while filters are rebuilt. The real file systems are in the campaign `full`.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::ops::Level;
use common::{fast_dir, start};
use onceonly::sim::SimDisk;
use onceonly::{Builder, Dedup, Error, ManualClock, Timestamp, Verdict};

const WINDOW: Duration = Duration::from_secs(60);
const SLICE: Duration = Duration::from_secs(10);
/// Some chunks of each shard, so that a batch needs more than one.
const BATCH: u32 = 600;

fn builder(level: Level, clock: &ManualClock) -> Builder {
    let builder = Dedup::builder().window(WINDOW).slices(6).expected_keys(1_000).shards(2);
    builder.durability(level.durability()).clock(clock.clone())
}

fn batch(number: u32) -> Vec<String> {
    (0..BATCH).map(|n| format!("key-{number}-{n}")).collect()
}

fn live(store: &Dedup, number: u32) -> Vec<bool> {
    store.contains_batch(&batch(number)).unwrap()
}

fn assert_live(store: &Dedup, batches: std::ops::Range<u32>, what: &str) {
    for number in batches {
        assert!(live(store, number).iter().all(|live| *live), "{what}: batch {number} is lost");
    }
}

/// Marks batches until one gets an error; the number of those that did not. The last one's error says
/// that the disk is full, and it marked nothing.
fn fill(store: &Dedup, from: u32, what: &str) -> u32 {
    for number in from.. {
        let Err(failed) = store.observe_batch(&batch(number)) else { continue };
        let (parts, error) = failed.into_parts();
        let is_full = |error: &Error| match error {
            Error::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        };
        assert!(is_full(&error) && error.is_transient(), "{what}: {error}");
        assert!(parts.iter().all(Option::is_none), "{what}: a part of the batch was decided");
        assert!(!live(store, number).contains(&true), "{what}: an error marked something");
        return number;
    }
    unreachable!("batches without end")
}

/// A store on a disk that takes `room` bytes more.
fn on_a_small_disk(level: Level, clock: &ManualClock, room: u64) -> (Dedup, SimDisk) {
    let disk = SimDisk::new();
    let store = builder(level, clock).open_simulated(&disk).unwrap();
    store.settle();
    disk.set_capacity(Some(store.stats().disk_bytes + room));
    (store, disk)
}

/// Promise 9: a batch that does not fit gets its error before the first mark, at each level; the store
/// answers for what it has, and goes on when there is room, without being opened anew.
#[test]
fn a_full_disk_is_an_error_before_anything_is_marked() {
    for level in Level::ALL {
        for room in (0..600_000).step_by(60_000) {
            let what = format!("{level:?}, room for {room} bytes");
            let clock = ManualClock::new(start());
            let (store, disk) = on_a_small_disk(level, &clock, room);
            let full = fill(&store, 0, &what);
            assert_live(&store, 0..full, &what);
            let again = store.observe_batch(&batch(0)).map_err(|error| error.into_parts().1);
            assert!(again.is_err() || again.unwrap() == [Verdict::Duplicate; BATCH as usize]);
            disk.set_capacity(None);
            let verdicts = store.observe_batch(&batch(full)).unwrap();
            assert_eq!(verdicts, [Verdict::New; BATCH as usize], "{what}");
            store.settle();
            assert_live(&store, 0..full + 1, &what);
            store.close().unwrap();
            let store = builder(level, &clock).open_simulated(&disk).unwrap();
            assert_live(&store, 0..full + 1, &what);
            assert!(store.guaranteed_since() <= Timestamp::from(start()), "{what}: a hole");
        }
    }
}

/// Promises 4 and 5: slices begin and end on a full disk as on any other. At `Process`, what has
/// expired makes room for what comes; sealing at the other levels needs room for a log first.
#[test]
fn slices_rotate_on_a_full_disk() {
    for level in Level::ALL {
        let what = format!("{level:?}");
        let clock = ManualClock::new(start());
        let (store, disk) = on_a_small_disk(level, &clock, 1_500_000);
        let mut marked = fill(&store, 0, &what);
        clock.advance(SLICE);
        assert_live(&store, 0..marked, &what);
        // There may be room in what was set aside; whatever is marked now is of the next slice.
        let first = marked;
        marked = fill(&store, marked, &what);
        store.settle();
        clock.advance(WINDOW - SLICE);
        assert_live(&store, 0..marked, &what);
        clock.advance(SLICE);
        assert!(!live(&store, 0).contains(&true), "{what}: remembered too long");
        assert_live(&store, first..marked, &what);
        clock.advance(SLICE);
        // This call begins the slice, and the background drops what has expired.
        assert!(!live(&store, first).contains(&true), "{what}: remembered too long");
        store.settle();
        if level != Level::Process {
            disk.set_capacity(Some(store.stats().disk_bytes + 1_500_000));
        }
        let full = fill(&store, marked + 1, &what);
        assert!(full > marked + 1, "{what}: what expired has made no room");
        assert_live(&store, marked + 1..full, &what);
        assert!(!live(&store, 0).contains(&true));
    }
}

/// Promise 5: filters that have no room to grow stay as they are; answers are exact, and the growth is
/// made up for when there is room.
#[test]
fn filters_that_cannot_grow_on_a_full_disk_grow_later() {
    let clock = ManualClock::new(start());
    let (store, disk) = on_a_small_disk(Level::Process, &clock, 600_000);
    let sized = store.stats().filter_capacity;
    let marked = fill(&store, 0, "before");
    store.settle();
    assert!(u64::from(marked * BATCH) > 2 * sized, "{marked} batches do not outgrow the filter");
    let stats = store.stats();
    assert!(stats.background_errors > 0 && stats.last_background_error.is_some());
    assert_live(&store, 0..marked, "full");
    let fresh = store.contains_batch(&batch(1_000_000)).unwrap();
    assert!(!fresh.contains(&true), "a false duplicate");
    disk.set_capacity(None);
    store.observe_batch(&batch(marked)).unwrap();
    // What failed is tried again once a second.
    let asked = std::time::Instant::now();
    while store.stats().filter_capacity < 2 * sized {
        assert!(asked.elapsed() < Duration::from_secs(60), "the filter has not grown");
        std::thread::sleep(Duration::from_millis(20));
    }
    store.settle();
    assert_live(&store, 0..marked + 1, "with room again");
}

/// Promise 6: while the kernel may drop pages that are not sealed yet, the store vouches for nothing.
#[test]
fn a_journal_that_may_be_lost_is_not_vouched_for() {
    for level in Level::ALL {
        let clock = ManualClock::new(start());
        let disk = SimDisk::new();
        let store = builder(level, &clock).open_simulated(&disk).unwrap();
        store.observe_batch(&batch(0)).unwrap();
        store.settle();
        disk.fail_write_back(1);
        // No room to seal it.
        disk.set_capacity(Some(0));
        clock.advance(SLICE);
        store.settle();
        assert!(store.stats().write_back_failed, "{level:?}");
        assert_live(&store, 0..1, "from memory");
        let now = Timestamp::from(start() + SLICE);
        assert_eq!(store.guaranteed_since(), now, "{level:?}: it may be lost");
        disk.set_capacity(None);
        store.settle();
        assert!(!store.stats().write_back_failed, "{level:?}");
        assert_eq!(store.guaranteed_since(), Timestamp::from(start()), "{level:?}: all is there");
        assert_live(&store, 0..1, "healed");
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A store that went on after a copy of it was made, and the copy, each closed.
fn original_and_copy(level: Level, clock: &ManualClock) -> (tempfile::TempDir, tempfile::TempDir) {
    let (original, backup) = (fast_dir(), fast_dir());
    let store = builder(level, clock).open(original.path()).unwrap();
    store.observe_batch(&batch(0)).unwrap();
    store.settle();
    store.close().unwrap();
    copy(original.path(), backup.path());
    clock.advance(SLICE);
    let store = builder(level, clock).open(original.path()).unwrap();
    store.observe_batch(&batch(1)).unwrap();
    store.close().unwrap();
    clock.advance(SLICE);
    (original, backup)
}

/// What a store says that was restored from a copy: it lacks what came after the copy was made, and
/// does not vouch for that time.
fn check_restored(level: Level, clock: &ManualClock, dir: &Path, what: &str) {
    let store = builder(level, clock).open(dir).unwrap();
    let lost_at = Timestamp::from(start() + SLICE);
    assert!(live(&store, 0).iter().all(|live| *live), "{what}: what the copy has is lost");
    let since = store.guaranteed_since();
    assert!(!live(&store, 1).contains(&true));
    assert!(since > lost_at, "{what}: vouches since {since} for what came at {lost_at}");
    let report = store.stats().recovery;
    assert!(!report.damage.is_empty(), "{what}: {report:?}");
    assert!(store.stats().slices.iter().any(|slice| !slice.complete), "{what}");
    // The hole moves out of the window like everything else.
    clock.advance(WINDOW + SLICE);
    let since = store.guaranteed_since();
    let window_began = Timestamp::from(start() + SLICE * 3);
    assert!(since == window_began, "{what}: {since}, and the window began at {window_began}");
}

/// Promise 6: a copy of a store, opened in another place.
#[test]
fn a_restored_copy_shows_its_hole() {
    for level in Level::ALL {
        let clock = ManualClock::new(start());
        let (_original, backup) = original_and_copy(level, &clock);
        check_restored(level, &clock, backup.path(), &format!("{level:?}"));
    }
}

/// Promise 6: a copy put back over the store that it was made of, file by file.
#[test]
fn a_copy_that_is_put_back_in_place_shows_its_hole() {
    for level in Level::ALL {
        let clock = ManualClock::new(start());
        let (original, backup) = original_and_copy(level, &clock);
        let names: Vec<_> =
            fs::read_dir(backup.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        for entry in fs::read_dir(original.path()).unwrap().map(Result::unwrap) {
            if !names.contains(&entry.file_name()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        // Into the files that are there: their inodes stay.
        copy(backup.path(), original.path());
        check_restored(level, &clock, original.path(), &format!("{level:?}"));
    }
}

/// Filters are rebuilt from the exact files in the background. Until they are, the store answers from
/// those, exactly, and says so.
#[test]
fn answers_are_exact_while_filters_are_rebuilt() {
    let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
    let level = Level::Process;
    let store = builder(level, &clock).open_simulated(&disk).unwrap();
    for number in 0..100 {
        store.observe_batch(&batch(number)).unwrap();
    }
    store.settle();
    store.close().unwrap();
    // On another boot, and with room for the journal but not for a filter.
    let disk =
        disk.snapshot().after_power_loss(onceonly::sim::Mix { seed: 1, unit: 4096, survive: 255 });
    let clock = ManualClock::new(start());
    let used = store.stats().disk_bytes;
    disk.set_capacity(Some(used + 200_000));
    let store = builder(level, &clock).open_simulated(&disk).unwrap();
    let stats = store.stats();
    assert_eq!(stats.filters_rebuilding, 2, "both shards: {stats:?}");
    assert_eq!(stats.recovery.filters_rebuilt, 2);
    assert!(stats.recovery.rebuild_reason.is_some());
    assert_live(&store, 0..100, "without filters");
    assert!(!live(&store, 100).contains(&true), "a false duplicate without filters");
    assert_eq!(store.observe("new without a filter").unwrap(), Verdict::New);
    assert_eq!(store.observe("new without a filter").unwrap(), Verdict::Duplicate);
    disk.set_capacity(None);
    let asked = std::time::Instant::now();
    while store.stats().filters_rebuilding > 0 {
        assert!(asked.elapsed() < Duration::from_secs(60), "the filters are not rebuilt");
        std::thread::sleep(Duration::from_millis(20));
        assert_live(&store, 0..100, "while filters are rebuilt");
    }
    assert_live(&store, 0..100, "with filters");
    assert_eq!(store.observe("new without a filter").unwrap(), Verdict::Duplicate);
    assert!(!live(&store, 100).contains(&true));
}

fn wait_for_filters(store: &Dedup) {
    let asked = std::time::Instant::now();
    while store.stats().filters_rebuilding > 0 {
        assert!(asked.elapsed() < Duration::from_secs(60), "the filters are not rebuilt");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_filter_files(disk: &SimDisk) -> bool {
    disk.names().iter().any(|name| name.contains("filter"))
}

/// Filters so large that the kernel would hold up who changes them in a file are in memory alone. They
/// grow there, and are built anew whenever the store is opened, also after a kill.
#[test]
fn filters_beyond_what_may_be_dirty_are_in_memory() {
    for level in Level::ALL {
        let (disk, clock) = (SimDisk::new(), ManualClock::new(start()));
        disk.set_dirty_room(Some(100_000));
        let store = builder(level, &clock).open_simulated(&disk).unwrap();
        assert_eq!(store.stats().filters_in_memory, 0, "a small one is in a file");
        assert!(has_filter_files(&disk));
        for number in 0..60 {
            store.observe_batch(&batch(number)).unwrap();
        }
        store.settle();
        wait_for_filters(&store);
        assert_eq!(store.stats().filters_in_memory, 2, "grown beyond what may be dirty");
        assert!(!has_filter_files(&disk), "{:?}", disk.names());
        assert_live(&store, 0..60, "in memory");

        let disk = disk.snapshot().after_kill();
        let store = builder(level, &clock).expected_keys(100_000).open_simulated(&disk).unwrap();
        let recovery = store.stats().recovery;
        assert_eq!(recovery.filters_rebuilt, 2);
        assert!(recovery.rebuild_reason.unwrap().contains("in memory"));
        assert_live(&store, 0..60, "while they are built");
        wait_for_filters(&store);
        let stats = store.stats();
        assert_eq!((stats.filters_in_memory, has_filter_files(&disk)), (2, false));
        assert_live(&store, 0..60, "built anew");
        assert!(!live(&store, 60).contains(&true), "a false duplicate");
        store.observe_batch(&batch(60)).unwrap();
        store.close().unwrap();

        // With room for it, it goes to a file.
        disk.set_dirty_room(None);
        let store = builder(level, &clock).open_simulated(&disk).unwrap();
        wait_for_filters(&store);
        assert_eq!((store.stats().filters_in_memory, has_filter_files(&disk)), (0, true));
        assert_live(&store, 0..61, "in a file");
    }
}
