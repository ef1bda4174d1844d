//! Commits in a transaction of the user's own, over another connection to the same database.

mod server;

use std::sync::Arc;

use onceonly::authority::{Dialect, SqlValue};
use onceonly_postgres::PostgresAuthority;
use onceonly_sql_tests::{Inbox, Session};
use server::{Schema, url};
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

/// Its search path is that of the database, which has none of the tables.
struct Own {
    // Dropped first: the connection ends with it.
    client: Client,
    runtime: Runtime,
}

impl Session for Own {
    fn batch(&mut self, sql: &str) {
        self.runtime.block_on(self.client.batch_execute(sql)).unwrap();
    }

    fn execute(&mut self, sql: &str, params: &[SqlValue]) -> u64 {
        let params: Vec<&(dyn ToSql + Sync)> = params
            .iter()
            .map(|param| -> &(dyn ToSql + Sync) {
                match param {
                    SqlValue::Bytes(bytes) => bytes,
                    SqlValue::Int(number) => number,
                    SqlValue::Text(text) => text,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        self.runtime.block_on(self.client.execute(sql, &params)).unwrap()
    }
}

fn open(settings: &str) -> Own {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(settings).await.unwrap();
        client
    });
    Own { client, runtime }
}

fn with_settings(settings: &str, test: impl Fn(&Inbox)) {
    let schema = Schema::new();
    let (name, settings) = (schema.name.clone(), settings.to_owned());
    let connect = move || PostgresAuthority::builder(url()).schema(&name).build().unwrap();
    test(&Inbox {
        dialect: Dialect::Postgres,
        connect: Box::new(move || Arc::new(connect())),
        session: Box::new(move || Box::new(open(&settings))),
    });
}

fn with(test: impl Fn(&Inbox)) {
    with_settings("", test);
}

#[test]
fn what_is_committed_is_a_duplicate_for_all() {
    with(Inbox::what_is_committed_is_a_duplicate_for_all);
    // A path that has nothing of the user either.
    with_settings("SET search_path = pg_catalog", Inbox::what_is_committed_is_a_duplicate_for_all);
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
    for level in ["repeatable read", "serializable"] {
        let settings = format!("SET default_transaction_isolation = '{level}'");
        with_settings(&settings, Inbox::it_may_be_run_twice);
    }
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
