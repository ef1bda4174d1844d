//! Stores that share a server: of one process, and of several.

mod server;

use std::sync::Arc;
use std::thread;

use onceonly::authority::Authority;
use onceonly_postgres::PostgresAuthority;
use onceonly_sql_tests::{
    Children, KEYS, is_child, logs_are_in_order, print_wins_of_a_store, race, soon,
};
use server::{Schema, url};

#[test]
fn of_two_stores_one_wins_each_key() {
    let schema = Schema::new();
    race(|| schema.connect(), "apart");
    let one = Arc::new(schema.connect());
    race(|| Arc::clone(&one), "together");
}

#[test]
fn of_several_processes_one_wins_each_key() {
    if let Some(name) = is_child() {
        let authority = PostgresAuthority::builder(url()).schema(name).build().unwrap();
        return print_wins_of_a_store(authority, "orders");
    }
    // They also make the tables at the same time.
    for _ in 0..3 {
        let schema = Schema::new();
        let test = "of_several_processes_one_wins_each_key";
        let wins = Children::spawn(4, test, &schema.name).wins(KEYS);
        assert!(wins.iter().all(|wins| *wins == 1), "{wins:?}");
    }
}

#[test]
fn threads_that_open_at_once_all_get_the_tables() {
    let schema = Schema::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let schema = &schema;
            scope.spawn(move || {
                let opened = schema.connect().open("orders", 7, soon());
                assert_eq!(opened.unwrap().check, 7, "{number}");
            });
        }
    });
}

#[test]
fn the_log_of_what_was_forgotten_has_no_gaps() {
    let schema = Schema::new();
    logs_are_in_order(|| schema.connect());
}
