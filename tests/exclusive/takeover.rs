//! What the next owner knows of the keys of the one before.

use std::time::Duration;

use onceonly::authority::memory::MemoryAuthority;
use onceonly::sim::{Mix, SimDisk};
use onceonly::{Builder, Durability, Error, ManualClock, Ownership, Verdict};

use crate::common::{fast_dir, start};
use crate::fixture::{LEASE, SLICE, SPACE, Site, WINDOW, is_new, written};

#[test]
fn after_a_close_the_next_owner_has_no_hole() {
    let site = Site::new();
    let a = site.store();
    site.clock.advance(Duration::from_secs(50));
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    site.clock.advance(Duration::from_secs(10));
    let b = site.store();
    assert_eq!(b.guaranteed_since(), Site::at(Duration::ZERO));
    assert!(!is_new(&b, "1") && is_new(&b, "2"));
    b.close().unwrap();
    let c = site.store();
    assert!(!is_new(&c, "1") && !is_new(&c, "2"), "also what came from the one before");
    assert_eq!(c.guaranteed_since(), Site::at(Duration::ZERO));
}

#[test]
fn what_was_not_written_is_a_hole_that_shows() {
    let site = Site::new();
    let wire = site.wire();
    let window = LEASE * 4;
    let builder = || site.builder_with(&wire).window(window);
    let a = builder().in_memory().unwrap();
    assert!(is_new(&a, "written"));
    written(&a);
    site.clock.advance(Duration::from_secs(1));
    wire.cut();
    assert!(is_new(&a, "lost"));
    site.clock.advance(LEASE * 2);
    let b = site.builder().window(window).in_memory().unwrap();
    let now = Site::at(LEASE * 2 + Duration::from_secs(1));
    assert_eq!(b.guaranteed_since(), now, "the hole ends now");
    assert!(!is_new(&b, "written"));
    assert!(is_new(&b, "lost"), "and is said to be possible");
    let begin = b.stats();
    assert!(begin.slices.iter().any(|slice| !slice.complete));
}

/// A part is read once, for its first key that is not known.
#[test]
fn keys_of_the_owner_before_are_asked_for_once() {
    let site = Site::new();
    let a = site.builder().expected_keys(500_000).in_memory().unwrap();
    let keys: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    a.observe_batch(&keys).unwrap();
    a.close().unwrap();
    let b = site.store();
    let owner = b.stats().owner.unwrap();
    assert_eq!((owner.parts, owner.parts_loaded), (32, 0), "the parts are those of before");
    let before = site.server.calls().read;
    assert!(!is_new(&b, "7"));
    assert_eq!(site.server.calls().read, before + 1);
    assert!(!is_new(&b, "7"));
    assert_eq!(site.server.calls().read, before + 1);
    let verdicts = b.observe_batch(&keys).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Duplicate));
    let owner = b.stats().owner.unwrap();
    assert_eq!((owner.parts_loaded, owner.keys_read), (32, 2_000));
    let calls = site.server.calls().read;
    for key in 2_000..2_100 {
        assert!(is_new(&b, key.to_string()));
    }
    assert_eq!(site.server.calls().read, calls, "from here on nobody is asked");
    written(&b);
    assert_eq!(b.stats().owner.unwrap().keys_written, 100, "what was read is not written again");
    assert_eq!(site.server.calls().rows, 0);
}

#[test]
fn concurrent_callers_share_a_read_and_one_wins() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "known"));
    a.close().unwrap();
    let b = site.store();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let b = b.clone();
            std::thread::spawn(move || {
                let known = b.observe("known").unwrap();
                (known, b.observe("fresh").unwrap())
            })
        })
        .collect();
    let verdicts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(verdicts.iter().all(|(known, _)| *known == Verdict::Duplicate));
    assert_eq!(verdicts.iter().filter(|(_, fresh)| *fresh == Verdict::New).count(), 1);
}

/// At least the window, at most a slice more: across owners too.
#[test]
fn keys_end_with_their_slice_whoever_owns_them() {
    for seen_at in [0, 30, 99, 100, 250] {
        let site = Site::new();
        let a = site.store();
        site.clock.advance(Duration::from_secs(seen_at));
        assert!(is_new(&a, "1"));
        a.close().unwrap();
        site.clock.advance(Duration::from_secs(35));
        let b = site.store();
        site.clock.advance(WINDOW - Duration::from_secs(36));
        assert!(b.contains("1").unwrap(), "seen at {seen_at}, a window ago");
        b.close().unwrap();
        let c = site.store();
        assert!(c.contains("1").unwrap(), "seen at {seen_at}, by the third");
        site.clock.advance(SLICE + Duration::from_secs(2));
        assert!(!c.contains("1").unwrap(), "seen at {seen_at}, a window and a slice ago");
        assert!(is_new(&c, "1"));
    }
}

#[test]
fn when_the_slices_of_before_are_over_nobody_is_asked() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    let b = site.store();
    site.clock.advance(WINDOW + SLICE + Duration::from_secs(10));
    let calls = site.server.calls().read;
    assert!(is_new(&b, "1") && is_new(&b, "2"));
    assert!(site.server.calls().read <= calls + 1);
    let owner = b.stats().owner.unwrap();
    assert_eq!(owner.parts, owner.parts_loaded);
}

/// What others forgot meanwhile would be a false duplicate.
#[test]
fn a_directory_of_an_earlier_owner_begins_anew() {
    let site = Site::new();
    let dir = fast_dir();
    let path = dir.path().join("a");
    let a = site.builder().open(&path).unwrap();
    assert!(is_new(&a, "1") && is_new(&a, "2"));
    a.close().unwrap();
    drop(a);
    let b = site.store();
    assert!(b.forget("1").unwrap());
    assert!(is_new(&b, "3"));
    b.close().unwrap();
    let a = site.builder().open(&path).unwrap();
    assert!(a.stats().recovery.damage.iter().any(|text| text.contains("another owner")));
    assert!(is_new(&a, "1"), "it was forgotten there");
    assert!(!is_new(&a, "2") && !is_new(&a, "3"));
    a.close().unwrap();
    drop(a);
    // From here on it is the last owner's.
    let a = site.builder().open(&path).unwrap();
    let calls = site.server.calls().read;
    assert!(!is_new(&a, "1") && !is_new(&a, "2") && !is_new(&a, "3"));
    assert_eq!(site.server.calls().read, calls);
    assert_eq!(a.guaranteed_since(), Site::at(Duration::ZERO));
}

/// Its names are the original's, which may live.
#[test]
fn a_copy_of_a_directory_does_not_take_the_space_from_the_original() {
    let site = Site::new();
    let dir = fast_dir();
    let (path, copy) = (dir.path().join("a"), dir.path().join("copy"));
    let a = site.builder().open(&path).unwrap();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    drop(a);
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let a = site.builder().open(&path).unwrap();
    let refused = site.builder().open(&copy);
    assert!(matches!(refused, Err(onceonly::Error::NotExclusive { .. })), "{refused:?}");
    assert!(is_new(&a, "2"));
    a.close().unwrap();
    let b = site.builder().open(&copy).unwrap();
    assert!(!is_new(&b, "1") && !is_new(&b, "2"));
}

/// Keys that were read and those that are not yet survive the process.
#[test]
fn a_kill_in_the_middle_of_a_takeover_loses_nothing() {
    let site = Site::new();
    let a = site.builder().expected_keys(500_000).in_memory().unwrap();
    let keys: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    a.observe_batch(&keys).unwrap();
    a.close().unwrap();
    let disk = SimDisk::new();
    let b = site.builder().open_simulated(&disk).unwrap();
    assert!(!is_new(&b, "1") && is_new(&b, "own"));
    let left = disk.snapshot().after_kill();
    let b = site.builder().open_simulated(&left).unwrap();
    let verdicts = b.observe_batch(&keys).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Duplicate));
    assert!(!is_new(&b, "own"));
    assert_eq!(b.guaranteed_since(), Site::at(Duration::ZERO));
}

#[test]
fn a_store_of_another_window_reads_what_there_is() {
    let site = Site::new();
    let a = site.store();
    site.clock.advance(WINDOW);
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    let b = site.builder().window(WINDOW * 2).slices(3).in_memory().unwrap();
    assert!(!is_new(&b, "1"));
    let since = b.guaranteed_since();
    assert_eq!(since, Site::at(WINDOW), "what is there goes by the window before");
    b.close().unwrap();
    let c = site.builder().window(WINDOW / 2).in_memory().unwrap();
    assert!(!is_new(&c, "1"));
    assert!(site.server.chunks(SPACE).0 > 0);
}

/// Also where nothing was ever written: what was before the first owner nobody knows.
#[test]
fn a_space_begins_with_its_first_owner() {
    let site = Site::new();
    site.clock.advance(Duration::from_secs(50));
    site.store().close().unwrap();
    site.clock.advance(Duration::from_secs(50));
    let b = site.store();
    assert_eq!(b.guaranteed_since(), Site::at(Duration::from_secs(50)));
}

/// Its slices begin where it was made, and have a place for all that is older.
#[test]
fn a_store_of_other_slices_keeps_what_is_older_than_itself() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    site.clock.advance(Duration::from_secs(450));
    let b = site.builder().slices(3).in_memory().unwrap();
    assert!(!is_new(&b, "1"));
    b.close().unwrap();
    let c = site.builder().slices(11).in_memory().unwrap();
    c.warm_up(|_| {}).unwrap();
    assert!(!is_new(&c, "1"));
    site.clock.advance(WINDOW - Duration::from_secs(451));
    assert!(!is_new(&c, "1"));
}

/// What it did not read before it went at the authority would be missing in its own, longer window.
#[test]
fn a_longer_window_does_not_vouch_for_what_was_kept_shorter() {
    let site = Site::new();
    let a = site.store();
    site.clock.advance(Duration::from_secs(10));
    assert!(is_new(&a, "old"));
    let marked = Site::at(Duration::from_secs(10));
    site.clock.advance(WINDOW - Duration::from_secs(20));
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    site.clock.advance(Duration::from_secs(300));
    let b = site.builder().window(WINDOW * 3).in_memory().unwrap();
    assert!(is_new(&b, "old") && b.guaranteed_since() > marked);
    b.close().unwrap();
    site.clock.advance(Duration::from_secs(10));
    let c = site.builder().window(WINDOW * 3).in_memory().unwrap();
    assert!(c.guaranteed_since() > marked, "the third neither");
}

/// What a restored copy of a disk lacks is read, or a hole.
#[test]
fn after_a_reboot_the_authority_knows_better_than_the_directory() {
    let site = Site::new();
    let wire = site.wire();
    let disk = SimDisk::new();
    let sync = |builder: Builder| builder.durability(Durability::Sync).owner_lease(SLICE);
    let a = sync(site.builder_with(&wire)).open_simulated(&disk).unwrap();
    assert!(is_new(&a, "1"));
    written(&a);
    let restored = disk.snapshot().after_power_loss(Mix { seed: 1, unit: 4096, survive: 0 });
    site.clock.advance(Duration::from_secs(10));
    assert!(is_new(&a, "2"));
    written(&a);
    wire.cut();
    assert!(is_new(&a, "3"));
    let marked = Site::at(Duration::from_secs(10));
    let refused = sync(site.builder()).open_simulated(&restored);
    assert!(matches!(refused, Err(Error::NotExclusive { .. })), "it may live: {refused:?}");
    site.clock.advance(SLICE * 2);
    let b = sync(site.builder()).open_simulated(&restored).unwrap();
    assert!(!is_new(&b, "1") && !is_new(&b, "2"));
    assert!(is_new(&b, "3") && b.guaranteed_since() > marked);
}

/// Also when the owner that knows of the hole has nothing else to write.
#[test]
fn a_hole_is_told_to_the_next_owner() {
    let site = Site::new();
    let wire = site.wire();
    let disk = SimDisk::new();
    let a = site.builder_with(&wire).owner_lease(Duration::from_secs(3));
    let a = a.open_simulated(&disk).unwrap();
    assert!(is_new(&a, "1"));
    written(&a);
    site.clock.advance(Duration::from_secs(1));
    wire.cut();
    assert!(is_new(&a, "lost"));
    let marked = Site::at(Duration::from_secs(1));
    site.clock.advance(Duration::from_secs(5));
    let left = disk.snapshot().after_power_loss(Mix { seed: 1, unit: 4096, survive: 0 });
    let again = site.builder().open_simulated(&left).unwrap();
    assert!(again.guaranteed_since() > marked, "it knows of the hole");
    again.close().unwrap();
    site.clock.advance(Duration::from_secs(5));
    let b = site.store();
    assert!(is_new(&b, "lost") && b.guaranteed_since() > marked);
}

/// If the server's clock has come apart from this one since the space was acquired.
#[test]
fn keys_end_with_their_slice_whatever_the_server_takes_the_time_for() {
    let site = Site::new();
    let there = ManualClock::new(start());
    let server = MemoryAuthority::with_clock(there.clone());
    let open = || {
        let builder = site.plain().authority(server.clone(), Ownership::Exclusive);
        builder.authority_space(SPACE).owner_lease(LEASE).in_memory().unwrap()
    };
    let advance = |secs| {
        site.clock.advance(Duration::from_secs(secs));
        there.advance(Duration::from_secs(secs));
    };
    let a = open();
    there.leap_wall(5);
    assert!(is_new(&a, "0"));
    written(&a);
    assert!(is_new(&a, "1"));
    written(&a);
    advance(110);
    assert!(is_new(&a, "2"));
    a.close().unwrap();
    advance(10);
    let b = open();
    assert!(b.contains("1").unwrap());
    advance(730);
    assert!(!b.contains("1").unwrap(), "a window and a slice ago");
}
