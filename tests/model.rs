//! Random operations against the naive model: promises 1, 2, 4, 5, 8, 9 and 10 of the contract, for
//! a store that follows the clock.

mod common;
mod strategies;

use common::ops::{End, Level, Op, Shape, Step};
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

/// Slices that have expired stay so, however short the eras were that they belong to. Here, the
/// slice of a forgotten key came back without its tombstone, and took the claim for committed.
#[test]
fn eras_of_an_instant_do_not_come_back() {
    let first = Shape {
        window_ns: 3_600_000_000,
        slices: 1,
        expected_keys: 1,
        shards: None,
        refresh: false,
        siphash: false,
        event_time: false,
        on_disk: true,
        level: Level::Process,
    };
    let short = Shape { window_ns: 63, ..first };
    let finer = Shape { slices: 3, ..short };
    let key = (None, 0);
    let ops = [
        Op::Reopen(End::Close, short),
        Op::ObserveBatch(None, vec![0]),
        Op::Forget(key),
        Op::ClaimWith(key, Step::Nanos(0)),
        Op::Reopen(End::Close, short),
        Op::Reopen(End::Close, finer),
        Op::Advance(Step::Window(1)),
    ];
    run(first, &ops);
}
