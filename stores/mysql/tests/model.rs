//! Random steps, beside the authority in memory and from many clients at once.

mod server;

use onceonly_sql_tests::{all_at_once, beside_memory};
use server::Database;

#[test]
fn steps_have_the_answers_that_they_have_in_memory() {
    for seed in 0..4 {
        let database = Database::new();
        beside_memory(&database.connect(), seed, 200);
    }
}

#[test]
fn clients_do_everything_at_once() {
    let database = Database::new();
    all_at_once(|| database.connect());
}
