//! Keys that are forgotten, across owners.

use std::time::Duration;

use onceonly::sim::SimDisk;

use crate::fixture::{Site, is_new, written};

#[test]
fn what_is_forgotten_is_so_for_the_next_owner() {
    let site = Site::new();
    let a = site.store();
    for key in ["gone", "again", "both", "kept"] {
        assert!(is_new(&a, key));
    }
    written(&a);
    assert!(a.forget("gone").unwrap() && a.forget("again").unwrap());
    assert!(!a.forget("never").unwrap());
    assert!(is_new(&a, "again"));
    // In one batch with its observation.
    assert!(is_new(&a, "short"));
    assert!(a.forget("short").unwrap() && a.forget("both").unwrap());
    site.clock.advance(Duration::from_secs(150));
    assert!(is_new(&a, "both"), "in a later slice");
    a.close().unwrap();
    let b = site.store();
    assert!(is_new(&b, "gone") && is_new(&b, "short") && is_new(&b, "never"));
    assert!(!is_new(&b, "again") && !is_new(&b, "kept") && !is_new(&b, "both"));
}

#[test]
fn a_key_that_only_the_authority_knows_can_be_forgotten() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1") && is_new(&a, "2"));
    a.close().unwrap();
    let b = site.store();
    assert!(b.forget("1").unwrap());
    assert!(is_new(&b, "1"));
    assert!(b.forget("2").unwrap());
    b.close().unwrap();
    let c = site.store();
    assert!(!is_new(&c, "1") && is_new(&c, "2"));
}

/// The news of it may not have been written when the process died.
#[test]
fn what_was_forgotten_before_a_kill_is_written_by_the_next_open() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let a = site.builder_with(&wire).open_simulated(&disk).unwrap();
    assert!(is_new(&a, "1") && is_new(&a, "2"));
    written(&a);
    wire.cut();
    assert!(a.forget("1").unwrap() && a.forget("2").unwrap());
    assert!(is_new(&a, "2"));
    let left = disk.snapshot().after_kill();
    let a = site.builder().open_simulated(&left).unwrap();
    a.close().unwrap();
    let b = site.store();
    assert!(is_new(&b, "1") && !is_new(&b, "2"));
}

/// It is in the journal twice, and the authority has the first, and that it was forgotten.
#[test]
fn what_was_seen_again_before_a_kill_is_written_by_the_next_open() {
    for kills in 1..=2 {
        let site = Site::new();
        let (disk, wire) = (SimDisk::new(), site.wire());
        let short = Duration::from_millis(100);
        let a = site.builder_with(&wire).authority_deadline(short).open_simulated(&disk).unwrap();
        assert!(is_new(&a, "1") && is_new(&a, "2"));
        written(&a);
        assert!(a.forget("1").unwrap());
        written(&a);
        wire.cut();
        assert!(is_new(&a, "1"));
        let mut left = disk.snapshot().after_kill();
        for _ in 1..kills {
            drop(site.builder().open_simulated(&left).unwrap());
            left = left.snapshot().after_kill();
        }
        let a = site.builder().open_simulated(&left).unwrap();
        assert!(!is_new(&a, "1") && !is_new(&a, "2"));
        written(&a);
        a.close().unwrap();
        let b = site.store();
        assert!(!is_new(&b, "1") && !is_new(&b, "2"));
    }
}

/// A server takes no chunk of more than 1 MiB, and no append of more than 4.
#[test]
fn very_many_forgotten_keys_are_told_in_several_chunks() {
    const MIB: usize = 1 << 20;
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).expected_keys(50_000).in_memory().unwrap();
    let keys: Vec<String> = (0..360_000).map(|n| n.to_string()).collect();
    a.observe_batch(&keys).unwrap();
    written(&a);
    wire.cut();
    let (forgotten, again) = (350_000, 70_000);
    for key in &keys[..forgotten] {
        assert!(a.forget(key).unwrap());
    }
    a.observe_batch(&keys[..again]).unwrap();
    wire.mend();
    a.close().unwrap();
    let (append, chunk) = wire.largest();
    assert!(append <= 4 * MIB && chunk <= MIB, "{append}, {chunk}");
    let b = site.store();
    b.warm_up(|_| {}).unwrap();
    let live = b.contains_batch(&keys).unwrap();
    let wrong = (0..keys.len()).find(|n| live[*n] != (*n < again || *n >= forgotten));
    assert_eq!(wrong, None);
}
