//! Claims are this store's alone; what was committed the next owner knows.

use onceonly::sim::SimDisk;
use onceonly::{Claim, Error};

use crate::fixture::{Site, granted, is_new};

#[test]
fn what_was_committed_the_next_owner_knows() {
    let site = Site::new();
    let a = site.store();
    granted(a.claim("done").unwrap()).commit().unwrap();
    let open = granted(a.claim("open").unwrap());
    let batch = a.claim_batch(&["b1", "b2"]).unwrap();
    let guards: Vec<_> = batch.into_iter().map(granted).collect();
    assert!(a.commit_batch(guards).into_iter().all(|done| done.is_ok()));
    a.close().unwrap();
    assert!(open.commit().is_err());
    let b = site.store();
    for key in ["done", "b1", "b2"] {
        assert!(matches!(b.claim(key).unwrap(), Claim::Duplicate { .. }), "{key}");
    }
    granted(b.claim("open").unwrap()).commit().unwrap();
}

#[test]
fn one_claim_of_a_key_of_the_owner_before() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "seen"));
    a.close().unwrap();
    let b = site.store();
    assert!(matches!(b.claim("seen").unwrap(), Claim::Duplicate { .. }));
    let guard = granted(b.claim("fresh").unwrap());
    assert!(matches!(b.claim("fresh").unwrap(), Claim::InFlight { .. }));
    assert!(matches!(b.observe("fresh"), Err(Error::InFlight { .. })));
    guard.commit().unwrap();
    assert!(!is_new(&b, "fresh"));
}

/// Work that was done by whoever was followed may be done again: its commit is refused.
#[test]
fn the_commit_of_who_was_followed_is_refused() {
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).in_memory().unwrap();
    let guards: Vec<_> = ["1", "2", "3"].map(|key| granted(a.claim(key).unwrap())).into();
    let b = site.follow(&wire);
    granted(b.claim("1").unwrap()).commit().unwrap();
    wire.mend();
    let mut guards = guards.into_iter();
    let (one, two, three) =
        (guards.next().unwrap(), guards.next().unwrap(), guards.next().unwrap());
    let (_guard, error) = one.commit().unwrap_err().into_parts();
    assert!(matches!(error, Error::OwnershipLost { .. }), "{error:?}");
    assert!(matches!(two.renew(), Err(Error::OwnershipLost { .. })));
    assert!(a.commit_batch([three]).pop().unwrap().is_err());
}

#[test]
fn claims_of_a_killed_owner_are_granted_by_its_directory() {
    let site = Site::new();
    let disk = SimDisk::new();
    let killed = site.builder().open_simulated(&disk).unwrap();
    let _guard = granted(killed.claim("1").unwrap());
    let left = disk.snapshot().after_kill();
    let a = site.builder().open_simulated(&left).unwrap();
    assert_eq!(a.expired_claims().unwrap().len(), 1);
    granted(a.claim("1").unwrap()).commit().unwrap();
    assert!(!is_new(&a, "1"));
}
