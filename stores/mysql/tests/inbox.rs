//! Commits in a transaction of the user's own, over another connection to the same server.

mod server;

use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Value};
use onceonly::authority::{Dialect, SqlValue};
use onceonly_mysql::MysqlAuthority;
use onceonly_sql_tests::{Inbox, Session};
use server::{Database, url};
use tokio::runtime::Runtime;

struct Own {
    // Dropped first: the connection ends with it.
    conn: Conn,
    runtime: Runtime,
}

impl Session for Own {
    fn batch(&mut self, sql: &str) {
        self.runtime.block_on(self.conn.query_drop(sql)).unwrap();
    }

    fn execute(&mut self, sql: &str, params: &[SqlValue]) -> u64 {
        let value = |param: &SqlValue| match param {
            SqlValue::Bytes(bytes) => Value::Bytes(bytes.clone()),
            SqlValue::Int(number) => Value::Int(*number),
            SqlValue::Text(text) => Value::Bytes(text.clone().into_bytes()),
            other => panic!("{other:?}"),
        };
        let params: Vec<Value> = params.iter().map(value).collect();
        self.runtime.block_on(self.conn.exec_drop(sql, params)).unwrap();
        self.conn.affected_rows()
    }
}

/// A session that is in no database.
fn open(finds: bool, settings: &str) -> Own {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let conn = runtime.block_on(async {
        let opts = OptsBuilder::from_opts(Opts::from_url(url()).unwrap()).prefer_socket(false);
        let mut conn = Conn::new(opts.client_found_rows(finds)).await.unwrap();
        conn.query_drop(settings).await.unwrap();
        conn
    });
    Own { conn, runtime }
}

fn with_settings(finds: bool, settings: &str, test: impl Fn(&Inbox)) {
    let database = Database::new();
    let (tables, settings) = (database.url(), settings.to_owned());
    let connect = move || MysqlAuthority::builder(&tables).build().unwrap();
    test(&Inbox {
        dialect: Dialect::Mysql,
        connect: Box::new(move || Arc::new(connect())),
        session: Box::new(move || Box::new(open(finds, &settings))),
    });
}

fn with(test: impl Fn(&Inbox)) {
    with_settings(false, "DO 0", test);
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

/// Whether the session counts what an update found, or what it changed.
#[test]
fn it_may_be_run_twice() {
    for finds in [false, true] {
        with_settings(finds, "DO 0", Inbox::it_may_be_run_twice);
    }
    let level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
    with_settings(false, level, Inbox::it_may_be_run_twice);
}

#[test]
fn others_do_not_wait_for_an_open_transaction() {
    with(Inbox::others_do_not_wait_for_an_open_transaction);
}

#[test]
fn confirming_tells_what_became_of_a_commit() {
    with(Inbox::confirming_tells_what_became_of_a_commit);
}

/// In any time zone, character set and mode.
#[test]
fn the_row_is_as_the_own_commit_leaves_it() {
    with(Inbox::the_row_is_as_the_own_commit_leaves_it);
    for settings in [
        "SET time_zone = '+05:30', sql_mode = 'ANSI,STRICT_ALL_TABLES'",
        "SET time_zone = '-11:00', character_set_client = latin1, character_set_connection = utf8mb4",
    ] {
        with_settings(true, settings, Inbox::the_row_is_as_the_own_commit_leaves_it);
    }
}

#[test]
fn there_is_none_for_others() {
    with(Inbox::there_is_none_for_others);
}
