//! Results that several stores share: the authority has them, and whoever hears of a mark keeps its result.

use std::time::Duration;

use onceonly::authority::memory::Fault;
use onceonly::{Claim, Outcome, Verdict};

use crate::common::fast_dir;
use crate::fixture::{SLICE, Site, WINDOW, granted, is_new};

fn told(claim: Claim) -> Option<Vec<u8>> {
    match claim {
        Claim::Duplicate { result, .. } => result,
        other => panic!("not a duplicate: {other:?}"),
    }
}

#[test]
fn a_result_answers_the_duplicates_of_all_stores() {
    let site = Site::new();
    let (a, b, c) = (site.store(), site.store(), site.store());
    granted(a.claim("1").unwrap()).commit_with("receipt").unwrap();
    let expected = Some(b"receipt".to_vec());
    assert_eq!(told(a.claim("1").unwrap()), expected, "known here");
    assert_eq!(told(b.claim("1").unwrap()), expected, "heard of");
    let calls = site.calls();
    assert_eq!(told(b.claim("1").unwrap()), expected, "kept here");
    let again = b.process_once("1", |_| Ok::<(), ()>(())).unwrap();
    assert!(matches!(again, Outcome::Duplicate { result, .. } if result == expected));
    assert_eq!(b.result("1").unwrap(), expected);
    assert_eq!(site.calls(), calls);
    assert_eq!(c.result("1").unwrap(), expected, "asked for");
    // An observation hears of it too.
    assert!(!is_new(&c, "1"));
    let calls = site.calls();
    assert_eq!(c.result("1").unwrap(), expected);
    assert_eq!(site.calls(), calls);
    assert_eq!(c.result("2").unwrap(), None);
    assert!(is_new(&a, "3"));
    assert_eq!(told(b.claim("3").unwrap()), None);
}

#[test]
fn a_batch_of_commits_tells_each_its_own_result() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let keys = ["1", "2", "3"];
    let guards: Vec<_> = a.claim_batch(&keys).unwrap().into_iter().map(granted).collect();
    guards[0].keep("one").unwrap();
    guards[2].keep(vec![3; 64 << 10]).unwrap();
    assert!(a.commit_batch(guards).iter().all(Result::is_ok));
    let expected = [Some(b"one".to_vec()), None, Some(vec![3; 64 << 10])];
    for store in [&a, &b] {
        let results: Vec<_> = store.claim_batch(&keys).unwrap().into_iter().map(told).collect();
        assert_eq!(results, expected);
    }
}

#[test]
fn a_shared_result_lives_as_long_as_its_mark_and_through_restarts() {
    let site = Site::new();
    let dir = fast_dir();
    let (a, b) = (site.builder().open(dir.path()).unwrap(), site.store());
    granted(a.claim("1").unwrap()).commit_with("kept").unwrap();
    a.close().unwrap();
    drop(a);
    let a = site.builder().open(dir.path()).unwrap();
    site.clock.advance(WINDOW);
    let expected = Some(b"kept".to_vec());
    assert_eq!(told(a.claim("1").unwrap()), expected);
    assert_eq!(told(b.claim("1").unwrap()), expected);
    site.clock.advance(SLICE);
    assert_eq!(a.result("1").unwrap(), None);
    assert_eq!(b.result("1").unwrap(), None);
    assert!(is_new(&b, "1"));
    assert_eq!(a.claim("1").map(told).unwrap(), None);
}

#[test]
fn a_forgotten_result_is_gone_everywhere() {
    let site = Site::new();
    let builder = || site.builder().forget_lag(Duration::from_millis(30));
    let (a, b) = (builder().in_memory().unwrap(), builder().in_memory().unwrap());
    granted(a.claim("1").unwrap()).commit_with("old").unwrap();
    assert_eq!(told(b.claim("1").unwrap()), Some(b"old".to_vec()));
    assert!(a.forget("1").unwrap());
    assert_eq!(a.result("1").unwrap(), None);
    assert_eq!(a.observe("1").unwrap(), Verdict::New);
    crate::fixture::eventually("it is heard of", || b.result("1").unwrap().is_none());
    assert_eq!(told(b.claim("1").unwrap()), None);
}

/// The reply to a commit is lost: the commit that follows brings the same result.
#[test]
fn a_result_survives_a_lost_reply() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.store());
    let guard = granted(a.claim("1").unwrap());
    site.server.fail_next(2, Fault::LoseReply);
    let (guard, _) = guard.commit_with("receipt").unwrap_err().into_parts();
    guard.commit().unwrap();
    for store in [&a, &b] {
        assert_eq!(told(store.claim("1").unwrap()), Some(b"receipt".to_vec()));
    }
}
