//! A file that is locked, replaced, of another release, or not there.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use onceonly::authority::{Authority, AuthorityError, RowAnswer};
use onceonly_sql_tests::{observe, soon};
use onceonly_sqlite::{SqliteAuthority, migrations};

fn cause(error: &AuthorityError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Another process stopped in the middle of a transaction looks like this.
#[test]
fn a_lock_that_is_not_given_back_is_an_error_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    let authority = SqliteAuthority::open(&file).unwrap();
    authority.open("orders", 7, soon()).unwrap();
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = Instant::now();
    let deadline = before + Duration::from_millis(200);
    let failed = authority.rows(&[observe("orders", 1, 1)], deadline).unwrap_err();
    assert!(matches!(failed, AuthorityError::Transient(_)), "{failed:?}");
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(2), "{took:?}");
    other.execute_batch("ROLLBACK").unwrap();
    let answers = authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]));
}

/// Calls of other threads wait no longer either.
#[test]
fn calls_that_wait_for_each_other_keep_their_deadlines() {
    let dir = tempfile::tempdir().unwrap();
    let authority = SqliteAuthority::open(dir.path().join("seen.db")).unwrap();
    authority.open("orders", 7, soon()).unwrap();
    let other = rusqlite::Connection::open(dir.path().join("seen.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let authority = &authority;
            scope.spawn(move || {
                let before = Instant::now();
                let deadline = before + Duration::from_millis(300);
                let failed = authority.rows(&[observe("orders", number, 1)], deadline).unwrap_err();
                assert!(matches!(failed, AuthorityError::Transient(_)), "{failed:?}");
                assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
            });
        }
    });
}

fn copy(from: &Path, to: &Path) {
    let db = rusqlite::Connection::open(from).unwrap();
    db.execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

#[test]
fn a_file_that_was_restored_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (file, backup) = (dir.path().join("seen.db"), dir.path().join("backup.db"));
    let authority = SqliteAuthority::open(&file).unwrap();
    let first = authority.open("orders", 7, soon()).unwrap();
    copy(&file, &backup);
    authority.rows(&[observe("orders", 1, 1)], soon()).unwrap();
    for ending in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("seen.db{ending}")));
    }
    fs::rename(&backup, &file).unwrap();
    let answers = authority.rows(&[observe("orders", 1, 2)], soon()).unwrap();
    assert_ne!(answers.server.incarnation, first.server.incarnation);
    assert!(matches!(answers.rows[..], [Ok(RowAnswer::Marked)]));
    let second = authority.open("orders", 7, soon()).unwrap();
    assert!(second.complete_since > first.complete_since);
    let again = SqliteAuthority::open(&file).unwrap().open("orders", 7, soon()).unwrap();
    assert_eq!(again.complete_since, second.complete_since);
    assert_eq!(again.server.incarnation, second.server.incarnation);
}

#[test]
fn contents_that_were_restored_by_hand_are_noticed_when_they_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    let authority = SqliteAuthority::open(&file).unwrap();
    let first = authority.open("orders", 7, soon()).unwrap();
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute("UPDATE onceonly_meta SET generation = random()", []).unwrap();
    let second = authority.open("orders", 7, soon()).unwrap();
    assert_ne!(second.server.incarnation, first.server.incarnation);
    assert!(second.complete_since > first.complete_since);
}

#[test]
fn a_file_of_another_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    drop(SqliteAuthority::open(&file).unwrap());
    let db = rusqlite::Connection::open(&file).unwrap();
    db.execute("UPDATE onceonly_meta SET version = 99", []).unwrap();
    let refused = SqliteAuthority::open(&file).unwrap_err();
    assert!(matches!(refused, AuthorityError::Refused(_)));
    assert!(cause(&refused).contains("version 99"), "{}", cause(&refused));
    fs::write(dir.path().join("text"), "a text that is no database at all".repeat(100)).unwrap();
    let refused = SqliteAuthority::open(dir.path().join("text")).unwrap_err();
    assert!(matches!(refused, AuthorityError::Refused(_)));
    let missing = SqliteAuthority::open(dir.path().join("no/such/directory")).unwrap_err();
    assert!(matches!(missing, AuthorityError::Transient(_)));
}

#[test]
fn tables_can_be_made_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    let refused = SqliteAuthority::builder(&file).migrates(false).open().unwrap_err();
    assert!(cause(&refused).contains("migrations"), "{}", cause(&refused));
    rusqlite::Connection::open(&file).unwrap().execute_batch(migrations()).unwrap();
    let authority = SqliteAuthority::builder(&file).migrates(false).open().unwrap();
    assert_eq!(authority.open("orders", 7, soon()).unwrap().check, 7);
}
