//! Random operations against the naive model: promises 1, 2, 4, 5, 8, 9 and 10 of the contract, for
//! a store that follows the clock.

mod common;
mod strategies;

use common::pair::run;
use proptest::collection::vec;
use proptest::prelude::*;
use strategies::{cases, clock_op, shape};

proptest! {
    #![proptest_config(cases(1500))]

    /// Promises 1, 2, 4, 5, 8, 9, 10 with restarts, reboots and changed settings in between.
    #[test]
    fn a_store_on_disk_answers_like_the_model(
        shape in shape(true, false),
        ops in vec(clock_op(true), 1..120),
    ) {
        run(shape, &ops);
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    /// Promises 1, 2, 4, 5, 8, 9, 10 without a disk.
    #[test]
    fn a_store_in_memory_answers_like_the_model(
        shape in shape(false, false),
        ops in vec(clock_op(false), 1..120),
    ) {
        run(shape, &ops);
    }
}
