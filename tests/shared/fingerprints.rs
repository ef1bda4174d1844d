//! Fingerprints across stores: the authority has them.

use onceonly::{Claim, ClaimOptions, Seen, Verdict};

use crate::fixture::{Site, granted};

fn with(fingerprint: &str) -> ClaimOptions {
    ClaimOptions::new().fingerprint(fingerprint)
}

#[test]
fn a_conflict_is_one_for_all_stores() {
    let site = Site::new();
    let (a, b, c) = (site.store(), site.store(), site.store());
    assert_eq!(a.observe_with("1", "one").unwrap(), Seen::New);
    for store in [&a, &b, &c] {
        assert_eq!(store.observe_with("1", "two").unwrap(), Seen::Conflict);
        assert_eq!(store.observe_with("1", "one").unwrap(), Seen::Duplicate);
        assert!(matches!(store.claim_with("1", with("two")).unwrap(), Claim::Conflict { .. }));
        assert!(matches!(store.claim_with("1", with("one")).unwrap(), Claim::Duplicate { .. }));
        assert_eq!(store.observe("1").unwrap(), Verdict::Duplicate);
    }
    granted(b.claim_with("2", with("one")).unwrap()).commit_with("receipt").unwrap();
    for store in [&a, &b, &c] {
        assert_eq!(store.observe_with("2", "two").unwrap(), Seen::Conflict);
        let again = store.claim_with("2", with("one")).unwrap();
        assert!(matches!(again, Claim::Duplicate { result: Some(r), .. } if r == b"receipt"));
    }
    assert_eq!(a.observe("3").unwrap(), Verdict::New);
    assert_eq!(b.observe_with("3", "any").unwrap(), Seen::Duplicate);
    assert!(a.stats().conflicts >= 3);
}

/// What is known here is compared here, also after it was learned.
#[test]
fn a_known_conflict_is_not_asked_for() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    assert_eq!(a.observe_with("1", "one").unwrap(), Seen::New);
    assert_eq!(b.observe("1").unwrap(), Verdict::Duplicate);
    let calls = site.calls();
    for store in [&a, &b] {
        assert_eq!(store.observe_with("1", "two").unwrap(), Seen::Conflict);
        assert_eq!(store.observe_with("1", "one").unwrap(), Seen::Duplicate);
    }
    assert_eq!(site.calls(), calls);
}
