//! Stores that share a server: of one process, and of several.

mod server;

use std::sync::Arc;
use std::thread;

use onceonly::authority::Authority;
use onceonly_mysql::MysqlAuthority;
use onceonly_sql_tests::{
    Children, KEYS, is_child, logs_are_in_order, print_wins_of_a_store, race, soon,
};
use server::Database;

#[test]
fn of_two_stores_one_wins_each_key() {
    let database = Database::new();
    race(|| database.connect(), "apart");
    let one = Arc::new(database.connect());
    race(|| Arc::clone(&one), "together");
}

#[test]
fn of_several_processes_one_wins_each_key() {
    if let Some(url) = is_child() {
        let authority = MysqlAuthority::builder(&url).build().unwrap();
        return print_wins_of_a_store(authority, "orders");
    }
    // They also make the tables at the same time.
    for _ in 0..3 {
        let database = Database::new();
        let test = "of_several_processes_one_wins_each_key";
        let wins = Children::spawn(4, test, &database.url()).wins(KEYS);
        assert!(wins.iter().all(|wins| *wins == 1), "{wins:?}");
    }
}

#[test]
fn threads_that_open_at_once_all_get_the_tables() {
    let database = Database::new();
    thread::scope(|scope| {
        for number in 0..8 {
            let database = &database;
            scope.spawn(move || {
                let opened = database.connect().open("orders", 7, soon());
                assert_eq!(opened.unwrap().check, 7, "{number}");
            });
        }
    });
}

#[test]
fn the_log_of_what_was_forgotten_has_no_gaps() {
    let database = Database::new();
    logs_are_in_order(|| database.connect());
}
