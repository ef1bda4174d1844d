//! Commits in a transaction of the user's own, over another connection to the same file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use onceonly::authority::{Dialect, SqlValue};
use onceonly_sql_tests::{Inbox, Session};
use onceonly_sqlite::SqliteAuthority;
use rusqlite::ToSql;

struct Own(rusqlite::Connection);

impl Session for Own {
    fn batch(&mut self, sql: &str) {
        self.0.execute_batch(sql).unwrap();
    }

    fn execute(&mut self, sql: &str, params: &[SqlValue]) -> u64 {
        let params: Vec<&dyn ToSql> = params
            .iter()
            .map(|param| -> &dyn ToSql {
                match param {
                    SqlValue::Bytes(bytes) => bytes,
                    SqlValue::Int(number) => number,
                    SqlValue::Text(text) => text,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        self.0.execute(sql, &params[..]).unwrap() as u64
    }
}

fn open(file: &Path) -> Own {
    let own = rusqlite::Connection::open(file).unwrap();
    own.busy_timeout(Duration::from_secs(30)).unwrap();
    Own(own)
}

fn with(test: impl Fn(&Inbox)) {
    let dir = tempfile::tempdir().unwrap();
    let (file, same) = (dir.path().join("seen.db"), dir.path().join("seen.db"));
    test(&Inbox {
        dialect: Dialect::Sqlite,
        connect: Box::new(move || Arc::new(SqliteAuthority::open(&file).unwrap())),
        session: Box::new(move || Box::new(open(&same))),
    });
}

#[test]
fn what_is_committed_is_a_duplicate_for_all() {
    with(Inbox::what_is_committed_is_a_duplicate_for_all);
}

#[test]
fn what_is_rolled_back_is_granted_again() {
    with(Inbox::what_is_rolled_back_is_granted_again);
}

#[test]
fn a_late_owner_changes_nothing() {
    with(Inbox::a_late_owner_changes_nothing);
}

#[test]
fn it_may_be_run_twice() {
    with(Inbox::it_may_be_run_twice);
}

#[test]
fn others_do_not_wait_for_an_open_transaction() {
    with(Inbox::others_do_not_wait_for_an_open_transaction);
}

#[test]
fn confirming_tells_what_became_of_a_commit() {
    with(Inbox::confirming_tells_what_became_of_a_commit);
}

#[test]
fn the_row_is_as_the_own_commit_leaves_it() {
    with(Inbox::the_row_is_as_the_own_commit_leaves_it);
}

#[test]
fn there_is_none_for_others() {
    with(Inbox::there_is_none_for_others);
}
