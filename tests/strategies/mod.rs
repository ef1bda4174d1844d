//! How proptest makes up stores and operations. Apart from `common`, which the fuzzer shares.
#![allow(dead_code, reason = "every test binary uses its own part of this")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;

use crate::common::env_number;
use crate::common::model::Id;
use crate::common::ops::{End, Lead, Level, Op, Shape, Step};

/// `default` cases, or those that `PROPTEST_CASES` demands.
pub(crate) fn cases(default: u32) -> Config {
    let cases = env_number("PROPTEST_CASES", u64::from(default));
    Config {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        // The panic message has the minimal operations; nothing is written beside the sources.
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    }
}

pub(crate) fn shape(on_disk: bool, event_time: bool) -> impl Strategy<Value = Shape> {
    (
        select(&[63_u32, 1_000, 1_000_003, 60_000_000, 3_600_000_000][..]),
        prop_oneof![select(&[1_u32, 3, 7, 15, 31, 63][..]), 1_u32..=63],
        select(&[1_u32, 16, 100, 1_000, 20_000][..]),
        prop_oneof![Just(None), select(&[1_u8, 2, 5, 16][..]).prop_map(Some)],
        any::<bool>(),
        any::<bool>(),
        select(&Level::ALL[..]),
    )
        .prop_map(
            move |(window_ns, slices, expected_keys, shards, refresh, siphash, level)| Shape {
                window_ns,
                slices,
                expected_keys,
                shards,
                refresh,
                siphash,
                event_time,
                on_disk,
                level,
            },
        )
}

fn scope() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![6 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1))]
}

/// Few keys, a few of them most of the time, so that they meet again.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0_u32..4, 1 => 0_u32..24]
}

fn id() -> impl Strategy<Value = Id> {
    (scope(), number())
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<u8>().prop_map(Step::Nanos),
        6 => (0_u8..20).prop_map(Step::Eighths),
        4 => (1_u8..5).prop_map(Step::Slices),
        2 => (-2_i8..=2).prop_map(Step::Window),
        2 => (-2_i8..=2).prop_map(Step::WindowAndSlice),
        1 => (2_u8..200).prop_map(Step::Windows),
        2 => (-2_i8..=2).prop_map(Step::Lease),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Close), Just(End::Drop), Just(End::DropGuardsFirst)]
}

fn numbers() -> impl Strategy<Value = Vec<u32>> {
    vec(number(), 0..40)
}

fn lead() -> impl Strategy<Value = Lead> {
    prop_oneof![
        1 => Just(Lead::Ahead(Step::Nanos(0))),
        3 => step().prop_map(Lead::Ahead),
        3 => step().prop_map(Lead::Behind),
    ]
}

/// What both time modes have in common.
fn common_op(shape: impl Strategy<Value = Shape> + 'static) -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => id().prop_map(Op::Contains),
        3 => (scope(), numbers()).prop_map(|(scope, keys)| Op::ContainsBatch(scope, keys)),
        2 => prop_oneof![4 => 0_u16..300, 1 => 0_u16..4_000].prop_map(Op::Fresh),
        1 => id().prop_map(Op::Prefetch),
        4 => id().prop_map(Op::Forget),
        3 => id().prop_map(Op::Explain),
        6 => any::<usize>().prop_map(Op::Commit),
        2 => (0_usize..8).prop_map(Op::CommitBatch),
        2 => any::<usize>().prop_map(Op::Abandon),
        2 => any::<usize>().prop_map(Op::DropGuard),
        3 => any::<usize>().prop_map(Op::Renew),
        2 => Just(Op::ListClaims),
        2 => Just(Op::TakeOverExpired),
        10 => step().prop_map(Op::Advance),
        2 => end().prop_map(Op::Restart),
        1 => (end(), shape).prop_map(|(end, shape)| Op::Reopen(end, shape)),
        1 => Just(Op::Sync),
        1 => Just(Op::Settle),
    ]
}

/// Operations of a store that follows the clock.
pub(crate) fn clock_op(on_disk: bool) -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => common_op(shape(on_disk, false)),
        8 => id().prop_map(Op::Observe),
        4 => (scope(), numbers()).prop_map(|(scope, keys)| Op::ObserveBatch(scope, keys)),
        4 => id().prop_map(Op::Claim),
        4 => (id(), step()).prop_map(|(id, lease)| Op::ClaimWith(id, lease)),
        2 => (scope(), numbers()).prop_map(|(scope, keys)| Op::ClaimBatch(scope, keys)),
        1 => any::<i32>().prop_map(Op::LeapWall),
        1 => (end(), step(), any::<bool>()).prop_map(|(end, step, ahead)| {
            Op::Reboot(end, step, ahead)
        }),
    ]
}

/// Operations of a store that follows the timestamps it is given.
pub(crate) fn event_op(on_disk: bool) -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => common_op(shape(on_disk, true)),
        12 => (id(), lead()).prop_map(|(id, lead)| Op::ObserveAt(id, lead)),
        4 => (scope(), vec((number(), lead()), 0..40))
            .prop_map(|(scope, keys)| Op::ObserveBatchAt(scope, keys)),
        6 => (id(), lead()).prop_map(|(id, lead)| Op::ClaimAt(id, lead)),
    ]
}
