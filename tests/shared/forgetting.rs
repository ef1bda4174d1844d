//! `forget` across stores, within the stated lag.

use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::sim::{Fault as DiskFault, SimDisk};
use onceonly::{Error, OnOutage, Verdict};

use crate::common::fast_dir;
use crate::fixture::{SHORT, Site, eventually, granted, is_new};

const LAG: Duration = Duration::from_millis(200);

#[test]
fn what_one_store_forgets_is_new_in_all_within_the_lag() {
    let site = Site::new();
    let store = || site.builder().forget_lag(LAG).in_memory().unwrap();
    let (a, b) = (store(), store());
    assert!(is_new(&a, "1"));
    assert!(!is_new(&b, "1"));
    assert!(b.forget("1").unwrap());
    assert!(!b.contains("1").unwrap());
    std::thread::sleep(LAG);
    // Whoever is asked first is told new; after the lag nobody answers from what he knew.
    assert!(is_new(&a, "1"));
    assert!(!is_new(&b, "1"));
    assert!(!a.forget("never").unwrap());
}

#[test]
fn what_is_forgotten_and_seen_again_is_a_duplicate_everywhere() {
    let site = Site::new();
    let store = || site.builder().forget_lag(LAG).in_memory().unwrap();
    let (a, b) = (store(), store());
    assert!(is_new(&a, "1"));
    assert!(a.forget("1").unwrap());
    assert!(is_new(&a, "1"));
    for _ in 0..10 {
        assert!(!is_new(&a, "1") && !is_new(&b, "1"));
        std::thread::sleep(LAG / 4);
    }
}

#[test]
fn a_store_that_was_closed_meanwhile_hears_of_it() {
    let site = Site::new();
    let dir = fast_dir();
    let path = dir.path().join("a");
    let a = site.builder().open(&path).unwrap();
    let b = site.store();
    assert!(is_new(&a, "1") && is_new(&a, "2"));
    a.close().unwrap();
    assert!(b.forget("1").unwrap());
    let a = site.builder().open(&path).unwrap();
    let before = site.calls();
    assert!(!is_new(&a, "2"));
    assert_eq!(site.calls(), before);
    assert!(is_new(&a, "1"));
    assert!(!is_new(&b, "1"));
}

/// A claim that is forgotten is lost to its owner, a later one is not.
#[test]
fn forgetting_revokes_a_claim_of_another_store() {
    let site = Site::new();
    let store = || site.builder().forget_lag(LAG).in_memory().unwrap();
    let (a, b) = (store(), store());
    let revoked = granted(a.claim("1").unwrap());
    assert!(!b.forget("1").unwrap());
    let guard = granted(b.claim("1").unwrap());
    std::thread::sleep(LAG);
    assert!(matches!(revoked.commit().unwrap_err().error(), Error::LeaseLost { .. }));
    std::thread::sleep(LAG);
    guard.commit().unwrap();
    assert!(!is_new(&a, "1"));
}

/// Without news a duplicate is not vouched for.
#[test]
fn without_news_the_policy_decides() {
    let site = Site::new();
    let builder = site.builder().forget_lag(LAG).authority_deadline(SHORT);
    let store = builder.in_memory().unwrap();
    let bold = store.on_outage(OnOutage::AssumeNew);
    assert!(is_new(&store, "1"));
    site.server.outage(Some(Fault::Refuse));
    std::thread::sleep(LAG * 2);
    assert!(matches!(store.observe("1"), Err(Error::Authority { .. })));
    assert!(store.contains("1").is_err());
    // It is known here, so nothing is assumed.
    assert_eq!(bold.observe("1").unwrap(), Verdict::Duplicate);
    assert_eq!(store.stats().authority.unwrap().assumed_new, 0);
    site.server.outage(None);
    eventually("it recovers", || store.observe("1").is_ok());
    assert!(!is_new(&store, "1"));
}

#[test]
fn forgetting_needs_the_authority() {
    let site = Site::new();
    let store = site.store_that_assumes();
    assert!(is_new(&store, "1"));
    site.server.outage(Some(Fault::Refuse));
    assert!(matches!(store.forget("1"), Err(Error::Authority { .. })));
    assert!(!is_new(&store, "1"));
    site.server.outage(None);
    eventually("it recovers", || store.forget("1").is_ok());
    assert!(is_new(&store, "1"));
}

/// What cannot be forgotten here is not answered from here: the news count as read when all of them are
/// kept.
#[test]
fn news_that_the_disk_does_not_take_are_read_again() {
    const KEYS: usize = 20_000;
    let site = Site::new();
    let disk = SimDisk::new();
    let (a, b) = (site.builder().forget_lag(LAG).open_simulated(&disk).unwrap(), site.store());
    let keys: Vec<String> = (0..KEYS).map(|number| number.to_string()).collect();
    assert!(a.observe_batch(&keys).unwrap().iter().all(|verdict| *verdict == Verdict::New));
    let kind = std::io::ErrorKind::StorageFull;
    disk.set_fault(Some(DiskFault { at: disk.calls() + 1, kind, for_ever: true }));
    for key in &keys {
        assert!(b.forget(key).unwrap());
    }
    std::thread::sleep(LAG * 2);
    let mut left = Vec::new();
    for key in &keys[KEYS - 20..] {
        match a.observe(key) {
            Ok(Verdict::Duplicate) => panic!("{key} was forgotten"),
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
                left.push(key);
            }
        }
    }
    assert!(!left.is_empty(), "the disk took all of it");
    disk.set_fault(None);
    for key in left {
        assert!(is_new(&a, key) && !is_new(&b, key), "{key}");
    }
}
