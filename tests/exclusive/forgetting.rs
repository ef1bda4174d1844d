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
