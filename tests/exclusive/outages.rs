//! Servers that cannot be reached, and servers that have lost something.

use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::sim::SimDisk;
use onceonly::{Error, OnOutage, Verdict};

use crate::fixture::{LEASE, SPACE, Site, eventually, is_new, written};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn who_knows_everything_goes_on_without_the_server() {
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).in_memory().unwrap();
    assert!(is_new(&a, "1"));
    wire.cut();
    let keys: Vec<String> = (0..1_000).map(|n| format!("key {n}")).collect();
    a.observe_batch(&keys).unwrap();
    assert!(!is_new(&a, "1") && a.forget("1").unwrap());
    assert!(a.stats().owner.unwrap().queued >= 1_000);
    wire.mend();
    written(&a);
    a.close().unwrap();
    let b = site.store();
    assert!(is_new(&b, "1"));
    assert!(b.contains_batch(&keys).unwrap().into_iter().all(|live| live));
    assert_eq!(b.guaranteed_since(), Site::at(Duration::ZERO));
}

#[test]
fn lost_replies_change_nothing() {
    for fault in [Fault::LoseReply, Fault::LoseRequest, Fault::Refuse] {
        let site = Site::new();
        let a = site.builder().authority_deadline(SHORT).in_memory().unwrap();
        for round in 0..20 {
            site.server.fail_next(1, fault);
            assert!(is_new(&a, format!("{round}")));
            if round % 3 == 0 {
                assert!(a.forget(format!("{round}")).unwrap());
            }
            written(&a);
        }
        site.server.heal();
        a.close().unwrap();
        let b = site.store();
        for round in 0..20 {
            assert_eq!(is_new(&b, format!("{round}")), round % 3 == 0, "{fault:?}, {round}");
        }
    }
}

#[test]
fn while_something_is_missing_the_policy_decides() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "known"));
    a.close().unwrap();
    let wire = site.wire();
    let b = site.builder_with(&wire).authority_deadline(SHORT).in_memory().unwrap();
    assert!(!is_new(&b, "known"));
    let unread = site.builder_with(&wire).expected_keys(1_000);
    drop(unread);
    // One part only: all of it is read. Another owner has it all to read.
    b.close().unwrap();
    let b = site.builder_with(&wire).authority_deadline(SHORT).in_memory().unwrap();
    wire.cut();
    for key in ["known", "1"] {
        assert!(matches!(b.observe(key), Err(Error::Authority { transient: true, .. })));
        assert!(b.contains(key).is_err() && b.claim(key).is_err() && b.forget(key).is_err());
    }
    assert!(b.observe_batch(&["1", "2"]).is_err());
    let bold = b.on_outage(OnOutage::AssumeNew);
    site.clock.advance(Duration::from_secs(1));
    assert_eq!(bold.observe("1").unwrap(), Verdict::New);
    assert_eq!(bold.observe("1").unwrap(), Verdict::Duplicate);
    assert_eq!(bold.observe_batch(&["1", "2"]).unwrap(), [Verdict::Duplicate, Verdict::New]);
    assert_eq!(b.stats().authority.unwrap().assumed_new, 2);
    assert_eq!(b.guaranteed_since(), Site::at(Duration::from_secs(1)), "now");
    wire.mend();
    eventually("it is read", || b.observe("known").is_ok());
    assert!(!is_new(&b, "known") && !is_new(&b, "1"));
}

#[test]
fn after_the_lease_the_policy_decides() {
    let site = Site::new();
    let wire = site.wire();
    let builder = site.builder_with(&wire).authority_deadline(SHORT).window(LEASE * 4);
    let a = builder.on_outage(OnOutage::AssumeNew).in_memory().unwrap();
    assert!(is_new(&a, "1"));
    wire.cut();
    site.clock.advance(LEASE);
    assert!(!is_new(&a, "1") && is_new(&a, "2"));
    assert_eq!(a.stats().authority.unwrap().assumed_new, 1);
    assert!(a.on_outage(OnOutage::Fail).observe("3").is_err());
    wire.mend();
    eventually("it goes on", || a.on_outage(OnOutage::Fail).observe("3").is_ok());
    assert!(!is_new(&a, "2"));
    written(&a);
}

/// Opening needs the server whatever is assumed later: nobody else may be the owner.
#[test]
fn nobody_becomes_the_owner_without_the_server() {
    let site = Site::new();
    let wire = site.wire();
    wire.cut();
    let builder = site.builder_with(&wire).authority_deadline(SHORT);
    let error = builder.on_outage(OnOutage::AssumeNew).in_memory().unwrap_err();
    assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
}

#[test]
fn a_server_that_lost_everything_gets_it_again() {
    let site = Site::new();
    let a = site.builder().expected_keys(2_000).in_memory().unwrap();
    let keys: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    a.observe_batch(&keys).unwrap();
    written(&a);
    a.settle();
    assert!(a.forget("5").unwrap());
    written(&a);
    site.server.restart(None);
    assert!(is_new(&a, "after"));
    eventually("all of it is there", || site.server.chunks(SPACE).1 > 16 * 20_000);
    written(&a);
    assert!(a.stats().owner.unwrap().is_owner);
    assert_eq!(a.guaranteed_since(), Site::at(Duration::ZERO), "nothing is missing here");
    a.close().unwrap();
    let b = site.store();
    b.warm_up(|_| {}).unwrap();
    assert!(is_new(&b, "5") && !is_new(&b, "after"));
    let live = b.contains_batch(&keys).unwrap();
    assert!(live.into_iter().all(|live| live));
}

#[test]
fn a_server_that_lost_the_newest_gets_it_again() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    written(&a);
    let backup = site.server.snapshot();
    assert!(is_new(&a, "2") && a.forget("1").unwrap());
    written(&a);
    site.server.restart(Some(backup));
    assert!(is_new(&a, "3"));
    eventually("the server is known to have lost something", || {
        a.stats().owner.unwrap().keys_written >= 5
    });
    written(&a);
    a.close().unwrap();
    let b = site.store();
    assert!(is_new(&b, "1") && !is_new(&b, "2") && !is_new(&b, "3"));
}

/// It may have had other owners in between, of which nobody knows.
#[test]
fn a_server_that_lost_everything_while_the_store_was_closed() {
    let site = Site::new();
    let disk = SimDisk::new();
    let a = site.builder().open_simulated(&disk).unwrap();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    drop(a);
    site.clock.advance(Duration::from_secs(10));
    site.server.restart(None);
    let a = site.builder().open_simulated(&disk).unwrap();
    assert!(!is_new(&a, "1"));
    let now = Site::at(Duration::from_secs(10));
    assert!(a.guaranteed_since() >= now, "{:?}", a.guaranteed_since());
    written(&a);
    a.close().unwrap();
    assert!(!is_new(&site.store(), "1"));
}

/// What was not read of the owner before is lost with the server, and shown before anything is said to be
/// new on the strength of that.
#[test]
fn unread_keys_that_a_server_lost_are_a_hole() {
    let site = Site::new();
    let a = site.store();
    assert!(is_new(&a, "1"));
    a.close().unwrap();
    let b = site.store();
    assert_eq!(b.guaranteed_since(), Site::at(Duration::ZERO));
    site.clock.advance(Duration::from_secs(10));
    site.server.restart(None);
    eventually("the server is asked again", || {
        let answer = b.observe("1");
        let now = Site::at(Duration::from_secs(10));
        assert!(answer.is_err() || b.guaranteed_since() >= now);
        answer.is_ok()
    });
}

/// The space was given to another owner by the server that came up empty.
#[test]
fn who_comes_second_to_an_emptied_server_is_refused() {
    let site = Site::new();
    let wire = site.wire();
    let a = site.builder_with(&wire).in_memory().unwrap();
    wire.cut();
    site.server.restart(None);
    let b = site.store();
    assert!(is_new(&b, "1"));
    wire.mend();
    let _ = a.observe("2");
    eventually("it is noticed", || matches!(a.observe("3"), Err(Error::OwnershipLost { .. })));
    assert!(is_new(&b, "3"));
}

/// What was not written stays in the directory, and the space with its lease.
#[test]
fn a_close_without_the_server_says_so() {
    let site = Site::new();
    let (disk, wire) = (SimDisk::new(), site.wire());
    let builder = |wire| site.builder_with(wire).authority_deadline(SHORT);
    let a = builder(&wire).open_simulated(&disk).unwrap();
    wire.cut();
    assert!(is_new(&a, "1"));
    assert!(matches!(a.close(), Err(Error::Authority { .. })));
    drop(a);
    assert!(matches!(site.builder().in_memory(), Err(Error::NotExclusive { .. })));
    let a = builder(&site.wire()).open_simulated(&disk).unwrap();
    assert!(!is_new(&a, "1"));
    a.close().unwrap();
    assert!(!is_new(&site.store(), "1"));
}

#[test]
fn a_space_is_given_back_to_a_server_that_came_up_empty() {
    for kill in [false, true] {
        let site = Site::new();
        let disk = SimDisk::new();
        let mut a = site.builder().open_simulated(&disk).unwrap();
        assert!(is_new(&a, "1"));
        if kill {
            let left = disk.snapshot().after_kill();
            a = site.builder().open_simulated(&left).unwrap();
        }
        site.server.restart(None);
        assert!(is_new(&a, "2"));
        a.close().unwrap();
        let b = site.store();
        assert!(!is_new(&b, "1") && !is_new(&b, "2"));
    }
}
