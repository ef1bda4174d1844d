//! Random steps, beside the authority in memory and from many clients at once.

use onceonly_sql_tests::{all_at_once, beside_memory};
use onceonly_sqlite::SqliteAuthority;

#[test]
fn steps_have_the_answers_that_they_have_in_memory() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let authority = SqliteAuthority::open(dir.path().join("seen.db")).unwrap();
        beside_memory(&authority, seed, 150);
    }
}

#[test]
fn clients_do_everything_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen.db");
    all_at_once(|| SqliteAuthority::open(&file).unwrap());
}
