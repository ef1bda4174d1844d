//! Replies that were lost, then an outage in which keys are assumed to be new.

use onceonly::authority::memory::Fault;
use onceonly::sim::{Fault as DiskFault, SimDisk};
use onceonly::{Dedup, Durability, Error, OnOutage, Verdict};

use crate::fixture::{SHORT, Site, eventually, granted, is_new};

/// Heals the server, and waits until the store asks it again.
fn recover(site: &Site, store: &Dedup) {
    site.server.heal();
    eventually("it recovers", || store.on_outage(OnOutage::Fail).contains("nobody").is_ok());
}

/// What was asked and not answered is not taken for another's mark later.
#[test]
fn an_assumed_claim_that_fails_is_no_duplicate_by_its_own_ghost() {
    let site = Site::new();
    let store = site.quick_store();
    let bold = store.on_outage(OnOutage::AssumeNew);
    site.server.fail_next(2, Fault::LoseReply);
    assert!(matches!(store.observe("1"), Err(Error::Undecided { .. })));
    site.server.outage(Some(Fault::Refuse));
    drop(granted(bold.claim("1").unwrap()));
    recover(&site, &store);
    granted(store.claim("1").unwrap()).commit().unwrap();
    assert!(!is_new(&store, "1") && !is_new(&site.store(), "1"));
}

/// The key is live here while that is not known; when it is forgotten elsewhere it is new.
#[test]
fn an_assumed_observation_keeps_what_was_not_answered() {
    let site = Site::new();
    let store = site.quick_store();
    let bold = store.on_outage(OnOutage::AssumeNew);
    site.server.fail_next(2, Fault::LoseReply);
    assert!(matches!(store.observe("1"), Err(Error::Undecided { .. })));
    site.server.outage(Some(Fault::Refuse));
    assert_eq!(bold.observe("1").unwrap(), Verdict::New);
    assert_eq!(store.observe("1").unwrap(), Verdict::Duplicate);
    recover(&site, &store);
    assert!(!is_new(&store, "1") && !is_new(&site.store(), "1"));
    assert!(store.forget("1").unwrap());
    assert!(is_new(&store, "1") && !is_new(&store, "1"));
}

/// The claim is there though its reply was lost: it is not in its own way.
#[test]
fn an_assumed_claim_whose_row_is_there_commits() {
    let site = Site::new();
    let (store, other) = (site.store_that_assumes(), site.store());
    site.server.fail_next(2, Fault::LoseReply);
    let guard = granted(store.claim("1").unwrap());
    let second = {
        site.server.fail_next(2, Fault::LoseReply);
        granted(store.claim("2").unwrap())
    };
    assert_eq!(store.stats().authority.unwrap().assumed_new, 2);
    recover(&site, &store);
    guard.commit().unwrap();
    assert!(!is_new(&other, "1") && !is_new(&store, "1"));
    second.abandon();
    eventually("it is given back", || other.observe("2").is_ok_and(|v| v == Verdict::New));
}

/// A commit settles what was not answered before it.
#[test]
fn a_key_that_is_done_stays_done_whatever_was_asked_before() {
    let site = Site::new();
    let store = site.builder().authority_deadline(SHORT).max_keys(1_000).in_memory().unwrap();
    let bold = store.on_outage(OnOutage::AssumeNew);
    site.server.fail_next(2, Fault::LoseReply);
    assert!(matches!(store.observe("1"), Err(Error::Undecided { .. })));
    site.server.outage(Some(Fault::Refuse));
    let guard = granted(bold.claim("1").unwrap());
    recover(&site, &store);
    guard.commit().unwrap();
    assert!(!is_new(&store, "1") && !is_new(&site.store(), "1"));
}

/// What only the disk would have kept, and does not, is an error; what was asked before it stays.
#[test]
fn an_assumption_that_the_disk_does_not_take_leaves_the_question() {
    let site = Site::new();
    let disk = SimDisk::new();
    let builder = site.builder().authority_deadline(SHORT).on_outage(OnOutage::AssumeNew);
    let store = builder.durability(Durability::Sync).open_simulated(&disk).unwrap();
    // The hole in what is guaranteed is written, and not again for a while.
    site.server.fail_next(2, Fault::Refuse);
    assert!(is_new(&store, "before"));
    let kind = std::io::ErrorKind::StorageFull;
    disk.set_fault(Some(DiskFault { at: disk.calls() + 1, kind, for_ever: true }));
    site.server.fail_next(2, Fault::LoseReply);
    assert!(store.observe("1").is_err());
    disk.set_fault(None);
    recover(&site, &store);
    assert!(is_new(&store, "1"));
    assert!(!is_new(&store, "1") && !is_new(&site.store(), "1"));
}
