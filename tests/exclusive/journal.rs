//! What is written, from where, and how often.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use onceonly::Durability;
use onceonly::sim::SimDisk;

use crate::fixture::{SPACE, Site, WINDOW, is_new, written};

/// How often an owner writes.
const WRITE_EVERY: Duration = Duration::from_millis(100);

#[test]
fn only_what_was_not_acknowledged_is_written_after_a_restart() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let a = site.builder_with(&wire).open_simulated(&disk).unwrap();
    for key in 0..1_000 {
        assert!(is_new(&a, key.to_string()));
    }
    written(&a);
    wire.cut();
    for key in 1_000..1_010 {
        assert!(is_new(&a, key.to_string()));
    }
    let left = disk.snapshot().after_kill();
    let a = site.builder().open_simulated(&left).unwrap();
    written(&a);
    assert_eq!(a.stats().owner.unwrap().keys_written, 10);
    a.close().unwrap();
    let b = site.store();
    assert!((0..1_010).all(|key| !is_new(&b, key.to_string())));
}

/// Also where that is more than a segment: nothing is counted or written twice.
#[test]
fn several_segments_are_read_back_once() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let builder = |wire| site.builder_with(wire).expected_keys(2_000);
    let a = builder(&wire).open_simulated(&disk).unwrap();
    let mut keys = 0;
    let mut left = disk;
    for round in 0..6 {
        let store =
            if round == 0 { a.clone() } else { builder(&wire).open_simulated(&left).unwrap() };
        let before = keys;
        for _ in 0..700 {
            assert!(is_new(&store, keys.to_string()));
            keys += 1;
        }
        written(&store);
        let owner = store.stats().owner.unwrap();
        assert_eq!((owner.keys_written, store.stats().keys_live), (keys - before, keys));
        left = left.snapshot().after_kill();
    }
}

/// Segments are sealed whether the authority has their records or not.
#[test]
fn what_was_sealed_in_an_outage_is_written_from_the_sealed_files() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let builder = |wire| site.builder_with(wire).expected_keys(2_000);
    let a = builder(&wire).open_simulated(&disk).unwrap();
    assert!(is_new(&a, "first"));
    written(&a);
    wire.cut();
    let keys: Vec<String> = (0..40_000).map(|n| n.to_string()).collect();
    a.observe_batch(&keys).unwrap();
    a.settle();
    assert!(a.stats().slices.iter().any(|slice| slice.sealed_keys > 0), "some is sealed");
    assert!(a.forget("7").unwrap(), "a sealed key");
    assert!(a.stats().owner.unwrap().queued >= 40_000);
    let left = disk.snapshot().after_kill();
    wire.mend();
    let a = builder(&site.wire()).open_simulated(&left).unwrap();
    assert!(!is_new(&a, "8"));
    written(&a);
    a.close().unwrap();
    let b = site.store();
    b.warm_up(|_| {}).unwrap();
    assert!(is_new(&b, "7") && !is_new(&b, "first"));
    assert!(b.contains_batch(&keys).unwrap().into_iter().all(|live| live));
}

/// What was gathered before the leap goes again as it is, and is over at the server too. A go in which a call
/// was made before says nothing.
#[test]
fn what_is_over_before_it_was_written_is_not_written() {
    let go = || {
        let site = Site::new();
        let wire = site.wire();
        let a = site.builder_with(&wire).in_memory().unwrap();
        wire.cut();
        assert!(is_new(&a, "1"));
        site.clock.advance(WINDOW * 2);
        // Long enough for a call that was being made.
        std::thread::sleep(Duration::from_millis(20));
        let is_gathered = wire.largest().0 > 0;
        let has_failed = a.stats().authority.unwrap().failed_calls > 0;
        wire.mend();
        if is_gathered || has_failed {
            return None;
        }
        assert!(is_new(&a, "2"));
        written(&a);
        Some(a.stats().owner.unwrap().keys_written)
    };
    let goes: Vec<u64> = std::iter::repeat_with(go).take(100).flatten().take(2).collect();
    assert_eq!(goes, [1; 2]);
}

/// A mark whose sync failed is withdrawn: the next owner must not know it. The sync takes so long that it would
/// have been written meanwhile.
#[test]
fn what_was_withdrawn_is_not_written() {
    let site = Site::new();
    let disk = SimDisk::new();
    let builder = site.builder().durability(Durability::Sync);
    let a = builder.open_simulated(&disk).unwrap();
    assert!(is_new(&a, "1"));
    written(&a);
    let calls = site.server.calls().append;
    let (server, waited) = (site.server.clone(), AtomicBool::new(false));
    disk.set_watch(Some(Arc::new(move |action, _| {
        if action == "writing" && !waited.swap(true, SeqCst) {
            let begun = Instant::now();
            while server.calls().append == calls && begun.elapsed() < WRITE_EVERY * 5 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Some(ErrorKind::StorageFull)
    })));
    assert!(a.observe("2").is_err());
    disk.set_watch(None);
    a.close().unwrap();
    let b = site.store();
    assert!(!is_new(&b, "1"));
    assert!(is_new(&b, "2"));
}

#[test]
fn a_refreshed_key_lives_on_at_the_authority() {
    let site = Site::new();
    let a = site.builder().refresh_on_duplicate(true).in_memory().unwrap();
    assert!(is_new(&a, "1") && is_new(&a, "2"));
    site.clock.advance(WINDOW);
    assert!(!is_new(&a, "1"));
    a.close().unwrap();
    let b = site.store();
    site.clock.advance(WINDOW - Duration::from_secs(1));
    assert!(!is_new(&b, "1") && is_new(&b, "2"));
}

#[test]
fn chunks_end_with_their_slices() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    written(&a);
    assert_eq!(site.server.chunks(SPACE).0, 1);
    site.clock.advance(WINDOW * 2);
    assert!(is_new(&a, "2"));
    a.close().unwrap();
    let b = site.store();
    assert!(is_new(&b, "1"));
    assert_eq!(site.server.chunks(SPACE).0, 1, "the first is gone");
}
