//! Commits in a transaction of the user's own. The server in memory stands for a database: `execute` is
//! what a transaction does when it is committed, and one that is rolled back is not executed.

use std::time::Duration;

use onceonly::{
    Claim, ClaimGuard, CommitStatement, Dedup, Dialect, Error, InTransaction, OnOutage,
};

use crate::common::fast_dir;
use crate::fixture::{LEASE, SLICE, Site, WINDOW};

fn granted(store: &Dedup, key: &str) -> ClaimGuard {
    match store.claim(key).unwrap() {
        Claim::Granted(guard) => guard,
        other => panic!("{key}: {other:?}"),
    }
}

fn statement(store: &Dedup, key: &str) -> CommitStatement {
    granted(store, key).commit_statement(Dialect::Sqlite).unwrap()
}

/// Run in a transaction that is committed.
fn committed(site: &Site, statement: CommitStatement) -> InTransaction {
    let rows = site.server.execute(statement.params());
    statement.applied(rows).unwrap()
}

fn is_duplicate(store: &Dedup, key: &str) -> bool {
    matches!(store.claim(key).unwrap(), Claim::Duplicate { .. })
}

#[test]
fn a_transaction_that_is_committed_marks_the_key_for_all() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let statement = statement(&a, "1");
    assert!(!statement.sql().is_empty());
    committed(&site, statement).confirm().unwrap();
    let calls = site.calls();
    assert!(is_duplicate(&a, "1"));
    assert_eq!(site.calls(), calls, "it is known here");
    assert!(is_duplicate(&b, "1"));
    assert_eq!(a.stats().claims_committed, 1);
}

#[test]
fn a_transaction_that_is_rolled_back_leaves_nothing() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    // The statement was run, then the transaction rolled back, by a caller that forgets all about it.
    let statement = statement(&a, "1");
    drop(statement.applied(1).unwrap());
    for store in [&a, &b] {
        assert!(matches!(store.claim("1").unwrap(), Claim::InFlight { .. }), "the lease runs");
        assert!(matches!(store.observe("1"), Err(Error::InFlight { .. })));
        assert!(!store.contains("1").unwrap());
    }
    site.clock.advance(LEASE);
    drop(granted(&b, "1"));
}

#[test]
fn a_claim_is_given_back_after_a_rollback() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    statement(&a, "1").applied(1).unwrap().rolled_back().abandon();
    granted(&b, "1").abandon();
    // Or tried again.
    let again = statement(&a, "2").into_guard().commit_statement(Dialect::Sqlite).unwrap();
    committed(&site, again).confirm().unwrap();
    assert!(is_duplicate(&b, "2"));
}

#[test]
fn confirming_what_was_rolled_back_marks_nothing() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let error = statement(&a, "1").applied(1).unwrap().confirm().unwrap_err();
    assert!(matches!(error.error(), Error::InFlight { .. }), "{error:?}");
    let (guard, _) = error.into_parts();
    guard.abandon();
    granted(&b, "1").abandon();
    // The lease is over and another owner has it.
    let late = statement(&a, "2").applied(1).unwrap();
    site.clock.advance(LEASE);
    let other = granted(&b, "2");
    let error = late.confirm().unwrap_err();
    assert!(matches!(error.error(), Error::InFlight { .. } | Error::LeaseLost { .. }), "{error:?}");
    other.commit().unwrap();
    assert!(is_duplicate(&a, "2"));
}

#[test]
fn a_result_that_is_kept_goes_with_the_mark() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let guard = granted(&a, "1");
    guard.keep("receipt").unwrap();
    let marked = committed(&site, guard.commit_statement(Dialect::Sqlite).unwrap());
    assert_eq!(b.result("1").unwrap().as_deref(), Some(&b"receipt"[..]));
    marked.confirm().unwrap();
    let calls = site.calls();
    assert_eq!(a.result("1").unwrap().as_deref(), Some(&b"receipt"[..]));
    assert_eq!(site.calls(), calls, "it is known here");
}

/// A fencing token in the statement: who was taken over changes no row.
#[test]
fn the_statement_of_a_late_owner_changes_nothing() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let late = statement(&a, "1");
    site.clock.advance(LEASE);
    let owner = granted(&b, "1");
    assert_eq!(site.server.execute(late.params()), 0);
    let error = late.applied(0).unwrap_err();
    assert!(matches!(error.error(), Error::LeaseLost { .. }));
    owner.commit().unwrap();
    assert!(is_duplicate(&a, "1") && is_duplicate(&b, "1"));
}

/// The process ends between the commit of the transaction and its confirmation.
#[test]
fn what_was_not_confirmed_is_asked_for() {
    let site = Site::new();
    let a = site.store();
    drop(committed(&site, statement(&a, "1")));
    assert!(is_duplicate(&a, "1"), "by a question");
    let calls = site.calls();
    assert!(is_duplicate(&a, "1"));
    assert_eq!(site.calls(), calls, "and known from then on");

    let dir = fast_dir();
    let open = || site.builder().open(dir.path()).unwrap();
    let store = open();
    std::mem::forget(committed(&site, statement(&store, "2")));
    std::mem::forget(statement(&store, "3").applied(1).unwrap());
    store.close().unwrap();
    drop(store);
    let store = open();
    assert!(is_duplicate(&store, "2"), "its transaction was committed");
    assert!(matches!(store.claim("3").unwrap(), Claim::InFlight { .. }), "it was rolled back");
    site.clock.advance(LEASE);
    granted(&store, "3").commit().unwrap();
}

/// Whether the commit went through is not known: the connection broke.
#[test]
fn confirming_tells_what_became_of_a_commit() {
    let site = Site::new();
    let a = site.store();
    let went_through = statement(&a, "1");
    let rows = site.server.execute(went_through.params());
    went_through.applied(rows).unwrap().confirm().unwrap();
    let broke = statement(&a, "2").applied(1).unwrap().confirm();
    assert!(matches!(broke.unwrap_err().error(), Error::InFlight { .. }));
}

/// The window begins when the transaction has ended, however long it took.
#[test]
fn a_long_transaction_does_not_shorten_the_window() {
    let site = Site::new();
    let (a, b) = (site.store(), site.store());
    let guard = granted(&a, "1");
    let in_transaction = committed(&site, guard.commit_statement(Dialect::Sqlite).unwrap());
    site.clock.advance(SLICE);
    in_transaction.confirm().unwrap();
    site.clock.advance(WINDOW - Duration::from_secs(1));
    assert!(is_duplicate(&a, "1"));
    assert!(is_duplicate(&b, "1"));
}

#[test]
fn where_no_database_keeps_the_mark_the_guard_comes_back() {
    let site = Site::new();
    let a = site.store();
    let error = granted(&a, "1").commit_statement(Dialect::Postgres).unwrap_err();
    assert!(error.error().to_string().contains("PostgreSQL"), "{}", error.error());
    let (guard, _) = error.into_parts();
    guard.commit().unwrap();
    let alone = Dedup::builder().window(WINDOW).in_memory().unwrap();
    let error = granted(&alone, "1").commit_statement(Dialect::Sqlite).unwrap_err();
    assert!(matches!(error.error(), Error::Config { field: "dialect", .. }));
    error.into_parts().0.commit().unwrap();
    assert!(is_duplicate(&alone, "1"));
}

#[test]
fn a_claim_of_an_outage_has_no_row_to_commit() {
    let site = Site::new();
    let a = site.store_that_assumes();
    site.server.outage(Some(onceonly::authority::memory::Fault::Refuse));
    let guard = granted(&a, "1");
    site.server.heal();
    let error = guard.commit_statement(Dialect::Sqlite).unwrap_err();
    assert!(matches!(error.error(), Error::Authority { .. }), "{:?}", error.error());
    drop(a.scope("x").on_outage(OnOutage::Fail));
}
