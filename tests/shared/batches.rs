//! Batches: one round trip for what is not known here, and nothing that was decided is lost.

use onceonly::authority::memory::Fault;
use onceonly::{Claim, Error, Verdict};

use crate::fixture::{Site, granted, is_new};

fn keys(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("key-{number}")).collect()
}

#[test]
fn a_batch_is_one_round_trip_for_what_is_not_known() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    a.observe_batch(&keys(0..300)).unwrap().iter().for_each(|v| assert_eq!(*v, Verdict::New));
    b.observe_batch(&keys(200..400)).unwrap();
    let before = site.server.calls();
    let verdicts = a.observe_batch(&keys(0..500)).unwrap();
    let after = site.server.calls();
    assert_eq!((after.rows - before.rows, after.rows_sent - before.rows_sent), (1, 200));
    for (number, verdict) in verdicts.iter().enumerate() {
        assert_eq!(*verdict == Verdict::New, number >= 400, "{number}");
    }
    let stats = a.stats();
    assert_eq!((stats.new, stats.duplicate), (400, 400));
    assert_eq!(
        a.contains_batch(&keys(399..502)).unwrap()[..],
        [[true; 101].as_slice(), &[false; 2]].concat()[..]
    );
}

#[test]
fn among_equal_keys_the_first_wins() {
    let site = Site::new();
    let store = site.store();
    let verdicts = store.observe_batch(&["a", "b", "a", "a", "b"]).unwrap();
    use Verdict::{Duplicate, New};
    assert_eq!(verdicts, [New, New, Duplicate, Duplicate, Duplicate]);
    let stats = store.stats();
    assert_eq!((stats.new, stats.duplicate), (2, 3));
    assert_eq!(store.observe_batch::<&str>(&[]).unwrap(), []);
}

#[test]
fn what_was_decided_before_a_failure_is_told() {
    let site = Site::new();
    let (a, b) = (site.quick_store(), site.quick_store());
    a.observe_batch(&["known", "known too"]).unwrap();
    let _claim = granted(b.claim("claimed").unwrap());
    // A claim keeps one key undecided, and no other.
    let failed = a.observe_batch(&["known", "claimed", "new", "claimed"]).unwrap_err();
    let (parts, error) = failed.into_parts();
    assert!(matches!(error, Error::InFlight { .. }));
    assert_eq!(parts, [Some(Verdict::Duplicate), None, Some(Verdict::New), None]);
    // An outage keeps those undecided that are not known here.
    site.server.outage(Some(Fault::Refuse));
    let failed = a.observe_batch(&["known", "x", "known too", "x"]).unwrap_err();
    let (parts, error) = failed.into_parts();
    assert!(matches!(error, Error::Authority { transient: true, .. }), "{error:?}");
    assert!(error.is_transient());
    assert_eq!(parts, [Some(Verdict::Duplicate), None, Some(Verdict::Duplicate), None]);
    site.server.outage(None);
    assert!(is_new(&b, "x"), "an error does not mark");
    assert!(!is_new(&b, "new"));
}

#[test]
fn claims_of_a_batch_are_one_round_trip_and_so_are_their_commits() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    assert!(is_new(&b, "done"));
    let _other = granted(b.claim("taken").unwrap());
    let before = site.calls();
    let claims = a.claim_batch(&["1", "2", "done", "taken", "1", "3"]).unwrap();
    assert_eq!(site.calls() - before, 1);
    let kinds: Vec<_> = claims
        .iter()
        .map(|claim| match claim {
            Claim::Granted(_) => 'g',
            Claim::InFlight { .. } => 'f',
            Claim::Duplicate { .. } => 'd',
            _ => '?',
        })
        .collect();
    assert_eq!(kinds, ['g', 'g', 'd', 'f', 'f', 'g']);
    let guards = claims.into_iter().filter_map(|claim| match claim {
        Claim::Granted(guard) => Some(guard),
        _ => None,
    });
    let before = site.calls();
    assert!(a.commit_batch(guards).iter().all(Result::is_ok));
    assert_eq!(site.calls() - before, 1);
    for key in ["1", "2", "3"] {
        assert!(!is_new(&b, key));
    }
    assert_eq!(a.stats().claims_held, 0);
}
