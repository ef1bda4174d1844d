//! Bytes → operations, without a detour over `derive`: small changes of the input stay small
//! changes of the operations.

use arbitrary::{Result, Unstructured};

use crate::common::model::Id;
use crate::common::ops::{End, Lead, Level, Op, Shape, Step};

const WINDOWS: [u32; 5] = [63, 1_000, 1_000_003, 60_000_000, 3_600_000_000];
const SLICES: [u32; 8] = [1, 2, 3, 6, 7, 8, 31, 63];
const EXPECTED: [u32; 4] = [1, 16, 200, 5_000];

pub(crate) fn shape(u: &mut Unstructured<'_>, event_time: bool) -> Result<Shape> {
    let flags: u8 = u.arbitrary()?;
    Ok(Shape {
        window_ns: *u.choose(&WINDOWS)?,
        slices: *u.choose(&SLICES)?,
        expected_keys: *u.choose(&EXPECTED)?,
        shards: *u.choose(&[None, Some(1), Some(2), Some(5)])?,
        refresh: flags & 1 != 0,
        siphash: flags & 2 != 0,
        event_time,
        on_disk: flags & 4 != 0,
        level: Level::ALL[usize::from(flags >> 3) % 3],
    })
}

fn scope(u: &mut Unstructured<'_>) -> Result<Option<u8>> {
    Ok(*u.choose(&[None, None, Some(0), Some(1)])?)
}

fn id(u: &mut Unstructured<'_>) -> Result<Id> {
    Ok((scope(u)?, u.int_in_range(0..=23)?))
}

fn numbers(u: &mut Unstructured<'_>) -> Result<Vec<u32>> {
    (0..u.int_in_range(0..=40)?).map(|_| u.int_in_range(0..=23)).collect()
}

fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match u.int_in_range(0..=6)? {
        0 => Step::Nanos(u.arbitrary()?),
        1 => Step::Eighths(u.int_in_range(0..=20)?),
        2 => Step::Slices(u.int_in_range(1..=5)?),
        3 => Step::Window(u.int_in_range(-2..=2)?),
        4 => Step::WindowAndSlice(u.int_in_range(-2..=2)?),
        5 => Step::Windows(u.arbitrary()?),
        _ => Step::Lease(u.int_in_range(-2..=2)?),
    })
}

fn end(u: &mut Unstructured<'_>) -> Result<End> {
    Ok(*u.choose(&[End::Close, End::Drop, End::DropGuardsFirst])?)
}

fn lead(u: &mut Unstructured<'_>) -> Result<Lead> {
    Ok(if u.arbitrary()? { Lead::Ahead(step(u)?) } else { Lead::Behind(step(u)?) })
}

/// Guards are named by small numbers; there are never many.
fn guard(u: &mut Unstructured<'_>) -> Result<usize> {
    u.int_in_range(0..=15)
}

pub(crate) fn op(u: &mut Unstructured<'_>, shape_now: &Shape) -> Result<Op> {
    if u.arbitrary()? { marking_op(u, shape_now) } else { other_op(u, shape_now) }
}

fn marking_op(u: &mut Unstructured<'_>, shape_now: &Shape) -> Result<Op> {
    let choice = u.int_in_range(0..=4)?;
    if shape_now.event_time {
        return Ok(match choice {
            0 | 1 => Op::ObserveAt(id(u)?, lead(u)?),
            2 => {
                let scope = scope(u)?;
                let keys = numbers(u)?.into_iter().map(|key| Ok((key, lead(u)?)));
                Op::ObserveBatchAt(scope, keys.collect::<Result<_>>()?)
            }
            _ => Op::ClaimAt(id(u)?, lead(u)?),
        });
    }
    Ok(match choice {
        0 => Op::Observe(id(u)?),
        1 => Op::ObserveBatch(scope(u)?, numbers(u)?),
        2 => Op::Claim(id(u)?),
        3 => Op::ClaimWith(id(u)?, step(u)?),
        _ => Op::ClaimBatch(scope(u)?, numbers(u)?),
    })
}

fn other_op(u: &mut Unstructured<'_>, shape_now: &Shape) -> Result<Op> {
    Ok(match u.int_in_range(0..=19)? {
        0 => Op::Contains(id(u)?),
        1 => Op::ContainsBatch(scope(u)?, numbers(u)?),
        2 => Op::Fresh(u.int_in_range(0..=600)?),
        3 => Op::Prefetch(id(u)?),
        4 => Op::Forget(id(u)?),
        5 => Op::Explain(id(u)?),
        6 | 7 => Op::Commit(guard(u)?),
        8 => Op::CommitBatch(guard(u)?),
        9 => Op::Abandon(guard(u)?),
        10 => Op::DropGuard(guard(u)?),
        11 => Op::Renew(guard(u)?),
        12 => Op::ListClaims,
        13 => Op::TakeOverExpired,
        14 => Op::Restart(end(u)?),
        15 => Op::Reopen(end(u)?, shape(u, shape_now.event_time)?),
        16 if !shape_now.event_time => Op::Reboot(end(u)?, step(u)?, u.arbitrary()?),
        17 if !shape_now.event_time => Op::LeapWall(u.arbitrary()?),
        18 => Op::Settle,
        _ => Op::Advance(step(u)?),
    })
}
