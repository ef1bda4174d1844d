//! Random steps, beside the authority in memory and from many clients at once.

mod server;

use onceonly_sql_tests::{all_at_once, beside_memory};
use server::Schema;

#[test]
fn steps_have_the_answers_that_they_have_in_memory() {
    for seed in 0..4 {
        let schema = Schema::new();
        beside_memory(&schema.connect(), seed, 200);
    }
}

#[test]
fn clients_do_everything_at_once() {
    let schema = Schema::new();
    all_at_once(|| schema.connect());
}
