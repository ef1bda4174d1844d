//! Who owns a space, and who does not any more.

use std::time::Duration;

use onceonly::sim::SimDisk;
use onceonly::{Builder, Dedup, Durability, Error, Ownership, Verdict};

use crate::common::fast_dir;
use crate::fixture::{LEASE, SPACE, Site, eventually, is_new, written};

#[test]
fn a_space_has_one_owner() {
    let site = Site::new();
    let a = site.store();
    let error = site.builder().in_memory().unwrap_err();
    assert!(matches!(&error, Error::NotExclusive { lease_left, .. } if *lease_left <= LEASE));
    assert!(error.is_transient() && error.to_string().contains("lock_wait"));
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    let b = site.store();
    assert!(!is_new(&b, "1"), "the next owner knows it");
    assert_eq!(b.stats().owner.unwrap().epoch, 2);
}

#[test]
fn opening_waits_for_the_owner_as_long_as_it_is_told() {
    let site = Site::new();
    let a = site.store();
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        a.close().unwrap();
    });
    let b = site.builder().lock_wait(Duration::from_secs(60)).in_memory().unwrap();
    assert!(is_new(&b, "1"));
    closing.join().unwrap();
}

#[test]
fn new_keys_wait_for_nobody_and_are_written_in_batches() {
    let site = Site::new();
    let store = site.store();
    let keys: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    let verdicts = store.observe_batch(&keys).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
    written(&store);
    let owner = store.stats().owner.unwrap();
    assert_eq!(owner.keys_written, 5_000);
    let (chunks, bytes) = site.server.chunks(SPACE);
    assert_eq!(chunks, owner.chunks_written);
    assert!(bytes < 17 * 5_000, "{bytes} bytes");
    let calls = site.server.calls();
    assert!(calls.append < 100 && calls.read == 0 && calls.rows == 0, "{calls:?}");
    let stats = store.stats().authority.unwrap();
    assert!(stats.calls > 0 && stats.rows >= 5_000, "{stats:?}");
}

#[test]
fn who_was_followed_answers_nothing_any_more() {
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).window(LEASE * 2).in_memory().unwrap();
    assert!(is_new(&a, "1"));
    written(&a);
    wire.cut();
    site.clock.advance(LEASE);
    let b = site.builder().window(LEASE * 2).in_memory().unwrap();
    assert!(!is_new(&b, "1") && is_new(&b, "2"));
    wire.mend();
    for key in ["1", "2", "3"] {
        let error = a.observe(key).unwrap_err();
        assert!(matches!(error, Error::OwnershipLost { .. }), "{error:?}");
        assert!(!error.is_transient());
    }
    assert!(matches!(a.contains("1"), Err(Error::OwnershipLost { .. })));
    assert!(matches!(a.forget("1"), Err(Error::OwnershipLost { .. })));
    assert!(matches!(a.claim("1"), Err(Error::OwnershipLost { .. })));
    assert!(a.observe_batch(&["1", "4"]).is_err());
    assert!(!a.stats().owner.unwrap().is_owner);
    assert!(a.guaranteed_since() >= Site::at(LEASE));
    a.close().unwrap();
    assert!(is_new(&b, "3"), "what it had not written is not known");
    assert!(b.stats().owner.unwrap().is_owner);
}

#[test]
fn a_stale_epoch_is_noticed_though_the_lease_seems_to_run() {
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).in_memory().unwrap();
    // A server whose clock leaps gives the space to another one early.
    let other = site.server.clone();
    site.clock.leap_wall(2 * LEASE.as_millis() as i64);
    let b = site.builder().authority(other, Ownership::Exclusive).in_memory().unwrap();
    assert!(is_new(&b, "1"));
    let _ = a.observe("2");
    eventually("it is noticed", || matches!(a.observe("3"), Err(Error::OwnershipLost { .. })));
}

#[test]
fn after_the_lease_nothing_is_answered_until_the_server_was_heard() {
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).in_memory().unwrap();
    assert!(is_new(&a, "1"));
    wire.cut();
    site.clock.advance(LEASE / 2);
    assert!(is_new(&a, "2"), "the lease runs");
    site.clock.advance(LEASE);
    for key in ["1", "3"] {
        let error = a.observe(key).unwrap_err();
        assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
    }
    wire.mend();
    eventually("it goes on", || a.observe("3").is_ok_and(|verdict| verdict == Verdict::New));
    // Nobody has followed.
    assert!(a.stats().owner.unwrap().is_owner);
}

#[test]
fn a_lease_that_is_over_is_asked_for_anew_by_the_call_that_needs_it() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    for _ in 0..3 {
        site.clock.advance(LEASE * 2);
        assert!(is_new(&a, "1"));
    }
}

/// The lock of the directory says that the owner is dead.
#[test]
fn the_same_directory_goes_on_after_a_kill() {
    for durability in [Durability::Process, Durability::Sync] {
        let site = Site::new();
        let open = |disk: &SimDisk| site.builder().durability(durability).open_simulated(disk);
        let disk = SimDisk::new();
        let killed = open(&disk).unwrap();
        assert!(is_new(&killed, "1"));
        let left = disk.snapshot().after_kill();
        assert!(matches!(site.builder().in_memory(), Err(Error::NotExclusive { .. })));
        let a = open(&left).unwrap();
        assert!(!is_new(&a, "1"));
        let created = Site::at(Duration::ZERO);
        assert_eq!(a.guaranteed_since(), created, "nothing is missing");
        assert_eq!(a.stats().owner.unwrap().epoch, 2);
        // And again, though the open before did not get to close.
        let left = left.snapshot().after_kill();
        let a = open(&left).unwrap();
        assert!(!is_new(&a, "1"));
        eventually("the dead one is refused", || {
            matches!(killed.observe("2"), Err(Error::OwnershipLost { .. }))
        });
    }
}

#[test]
fn a_directory_keeps_its_mode() {
    let site = Site::new();
    let dir = fast_dir();
    let path = dir.path().join("a");
    let a = site.builder().open(&path).unwrap();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    drop(a);
    let shared = site.plain().authority(site.server.clone(), Ownership::Shared);
    let error = shared.authority_space(SPACE).open(&path).unwrap_err();
    assert!(matches!(error, Error::Mismatch { field: "authority", .. }), "{error:?}");
    let error = site.plain().open(&path).unwrap_err();
    assert!(matches!(error, Error::Mismatch { field: "authority", .. }), "{error:?}");
    let error = site.builder().authority_space("orders-1").open(&path).unwrap_err();
    assert!(matches!(error, Error::Mismatch { field: "authority_space", .. }), "{error:?}");
    assert!(!is_new(&site.builder().open(&path).unwrap(), "1"));
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let site = Site::new();
    let field = |builder: onceonly::Builder| match builder.in_memory() {
        Err(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(site.builder().event_time(true)), "event_time");
    assert_eq!(field(site.builder().owner_lease(Duration::ZERO)), "owner_lease");
    assert_eq!(field(site.builder().forget_lag(Duration::from_secs(1))), "forget_lag");
    assert_eq!(field(site.plain().owner_lease(LEASE)), "owner_lease");
    let shared = site.plain().authority(site.server.clone(), Ownership::Shared);
    assert_eq!(field(shared.authority_space(SPACE).owner_lease(LEASE)), "owner_lease");
    let secret = Dedup::builder().window(LEASE).clock(site.clock.clone());
    let secret = secret.authority(site.server.clone(), Ownership::Exclusive);
    assert_eq!(field(secret.authority_space(SPACE)), "secret");
    let _a = site.store();
    let other = site.builder().secret([8; 32]).in_memory();
    assert!(matches!(other, Err(Error::Mismatch { field: "secret", .. })));
}

/// A call that was held up while it read what the owner before had.
#[test]
fn the_lease_is_looked_at_after_a_read_too() {
    let site = Site::new();
    let builder = |builder: Builder| builder.window(LEASE * 4);
    let before = builder(site.builder()).in_memory().unwrap();
    assert!(is_new(&before, "0"));
    before.close().unwrap();
    let wire = site.wire();
    let a = builder(site.builder_with(&wire)).in_memory().unwrap();
    let (clock, next) = (site.clock.clone(), builder(site.builder()));
    wire.after_a_read(move || {
        clock.advance(LEASE * 2);
        let b = next.clone().in_memory().unwrap();
        assert!(is_new(&b, "1"));
    });
    assert!(matches!(a.observe("1"), Err(Error::OwnershipLost { .. })));
}

#[test]
fn a_refused_open_leaves_the_space_to_its_owner() {
    let site = Site::new();
    let dir = fast_dir();
    let (owner, other) = (dir.path().join("owner"), dir.path().join("other"));
    let a = site.builder().open(&owner).unwrap();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    let alone = site.plain().open(&other).unwrap();
    assert!(is_new(&alone, "1"));
    alone.close().unwrap();
    let refused = site.builder().open(&other);
    assert!(matches!(refused, Err(Error::Mismatch { field: "authority_space", .. })));
    let a = site.builder().open(&owner).unwrap();
    assert!(!is_new(&a, "1") && a.stats().recovery.damage.is_empty());
}
