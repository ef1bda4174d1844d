//! `Shared`: rows and the forget log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use onceonly::Timestamp;
use onceonly::authority::{
    Answers, AuthorityError, Digest, Forgotten, Result, Row, RowAnswer, RowOp, Server,
};

use crate::answer::answer;
use crate::authority::RedisAuthority;
use crate::exchange::Failed;
use crate::failure::same;
use crate::keys::{SpaceKeys, slot};
use crate::reply::{Reply, unexpected};
use crate::script::{Call, FORGET, FORGOTTEN, OBSERVE, STEP};

/// Rows of one script: others have their turn in between.
const MOST_ROWS: usize = 256;
/// Bytes of values of one script.
const MOST_BYTES: usize = 1 << 20;
/// Entries of the forget log of one answer.
const MOST_FORGOTTEN: u64 = 10_000;

/// Rows that one script can do.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    slot: u16,
    /// Of plain observations, how long they are kept.
    plain: Option<u64>,
}

/// A script, and which rows it does.
struct Batch {
    call: Call,
    rows: Vec<usize>,
}

/// What is being answered.
struct Answering {
    time: Option<Timestamp>,
    rows: Vec<Result<RowAnswer>>,
}

pub(crate) fn rows(
    authority: &RedisAuthority,
    rows: &[Row<'_>],
    deadline: Instant,
) -> Result<Answers> {
    let is_cluster = authority.fleet.topology(deadline)?.is_cluster;
    let keys = RowKeys::new(authority, rows, is_cluster);
    let kinds = kinds(rows, &keys);
    let never = || Err(unexpected());
    let mut answering = Answering { time: None, rows: rows.iter().map(|_| never()).collect() };
    let batches = kinds.iter().flat_map(|(kind, of)| batches(*kind, of, rows, &keys)).collect();
    let moving = make(authority, batches, deadline, &mut answering);
    if !moving.is_empty() {
        let alone = |row: usize| batch(keys.kind(rows, row), vec![row], rows, &keys);
        let batches = moving.into_iter().map(alone).collect();
        make(authority, batches, deadline, &mut answering);
    }
    log_forgotten(authority, rows, deadline, &mut answering);
    finish(authority, answering, deadline)
}

/// The key of each row, and its slot.
struct RowKeys {
    keys: Vec<(Vec<u8>, u16)>,
}

impl RowKeys {
    fn new(authority: &RedisAuthority, rows: &[Row<'_>], is_cluster: bool) -> Self {
        let mut space: Option<(&str, SpaceKeys)> = None;
        let keys = rows.iter().map(|row| {
            if space.as_ref().is_none_or(|(name, _)| *name != row.space) {
                space = Some((row.space, authority.keys.space(row.space)));
            }
            let key = space.as_ref().map(|(_, keys)| keys.row(&row.digest)).unwrap_or_default();
            // One server has all slots: what goes to it need not be kept apart.
            let slot = if is_cluster { slot(&key) } else { 0 };
            (key, slot)
        });
        RowKeys { keys: keys.collect() }
    }

    fn kind(&self, rows: &[Row<'_>], row: usize) -> Kind {
        let plain = match rows[row].op {
            RowOp::Observe { keep, value: [], .. } => Some(micros(keep)),
            _ => None,
        };
        Kind { slot: self.keys[row].1, plain }
    }
}

fn kinds(rows: &[Row<'_>], keys: &RowKeys) -> HashMap<Kind, Vec<usize>> {
    let mut kinds: HashMap<Kind, Vec<usize>> = HashMap::new();
    for row in 0..rows.len() {
        kinds.entry(keys.kind(rows, row)).or_default().push(row);
    }
    kinds
}

/// Rows of one kind, in scripts that are not too long.
fn batches(kind: Kind, of: &[usize], rows: &[Row<'_>], keys: &RowKeys) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut some, mut bytes) = (Vec::new(), 0);
    for row in of {
        if some.len() >= MOST_ROWS || bytes >= MOST_BYTES {
            batches.push(batch(kind, std::mem::take(&mut some), rows, keys));
            bytes = 0;
        }
        some.push(*row);
        bytes += Step::of(&rows[*row].op).value.len();
    }
    batches.push(batch(kind, some, rows, keys));
    batches
}

fn batch(kind: Kind, of: Vec<usize>, rows: &[Row<'_>], keys: &RowKeys) -> Batch {
    let names = of.iter().map(|row| &keys.keys[*row].0);
    let script = if kind.plain.is_some() { &OBSERVE } else { &STEP };
    let mut call = Call::script(kind.slot, script, names);
    if let Some(keep) = kind.plain {
        call.number(keep);
    }
    for row in &of {
        let step = Step::of(&rows[*row].op);
        if kind.plain.is_some() {
            call.arg(step.token);
            continue;
        }
        call.arg(step.name).arg(step.token).arg(step.previous);
        call.number(step.keep).number(step.lease).arg(step.value);
    }
    Batch { call, rows: of }
}

/// What the scripts are told of a step; what it does not have is empty.
#[derive(Default)]
struct Step<'a> {
    name: &'static str,
    token: &'a [u8],
    previous: &'a [u8],
    keep: u64,
    lease: u64,
    value: &'a [u8],
}

impl<'a> Step<'a> {
    fn of(op: &'a RowOp<'_>) -> Self {
        let none = Step::default();
        match op {
            RowOp::Look => Step { name: "look", ..none },
            RowOp::Observe { token, keep, value } => {
                let (token, keep) = (token.as_bytes(), micros(*keep));
                Step { name: "observe", token, keep, value, ..none }
            }
            RowOp::Refresh { keep } => Step { name: "refresh", keep: micros(*keep), ..none },
            RowOp::Claim { token, previous, lease, keep, value } => Step {
                name: "claim",
                token: token.as_bytes(),
                previous: previous.as_ref().map_or(&[], |token| token.as_bytes()),
                keep: micros(*keep),
                lease: micros(*lease),
                value,
            },
            RowOp::Renew { token, lease, keep } => {
                let (keep, lease) = (micros(*keep), micros(*lease));
                Step { name: "renew", token: token.as_bytes(), keep, lease, ..none }
            }
            RowOp::Commit { token, keep, value } => {
                let (token, keep) = (token.as_bytes(), micros(*keep));
                Step { name: "commit", token, keep, value, ..none }
            }
            RowOp::Abandon { token } => Step { name: "abandon", token: token.as_bytes(), ..none },
            RowOp::Forget { .. } => Step { name: "forget", ..none },
            // A step of a later release of the engine; the script does not have it, and fails.
            _ => Step { name: "unknown", ..none },
        }
    }
}

/// Spans of more than a century are that long: sums of moments stay exact in a script's numbers.
pub(crate) fn micros(span: Duration) -> u64 {
    const CENTURY: u64 = 100 * 365 * 86_400 * 1_000_000;
    u64::try_from(span.as_micros()).unwrap_or(CENTURY).min(CENTURY)
}

/// Runs the scripts. Returns the rows whose slot is being moved: one script cannot do several of those.
fn make(
    authority: &RedisAuthority,
    batches: Vec<Batch>,
    deadline: Instant,
    answering: &mut Answering,
) -> Vec<usize> {
    let (calls, of): (Vec<Call>, Vec<Vec<usize>>) =
        batches.into_iter().map(|batch| (batch.call, batch.rows)).unzip();
    let mut moving = Vec::new();
    for (told, of) in authority.fleet.exchange(&calls, deadline).into_iter().zip(of) {
        match told.and_then(|value| {
            let error = |error| Failed { error, moving: false };
            let mut reply = Reply::new(value).map_err(error)?;
            let time = reply.moment().map_err(error)?;
            Ok((reply, time))
        }) {
            Ok((mut reply, time)) => {
                answering.time = answering.time.max(Some(time));
                for row in of {
                    answering.rows[row] = reply.value().and_then(answer);
                }
            }
            Err(failed) => {
                of.iter().for_each(|row| answering.rows[*row] = Err(same(&failed.error)));
                if failed.moving && of.len() > 1 {
                    moving.extend(of);
                }
            }
        }
    }
    moving
}

/// The second part of forgetting: the row is gone, now others hear of it. The log of a space is in one
/// slot, its rows are not.
fn log_forgotten(
    authority: &RedisAuthority,
    rows: &[Row<'_>],
    deadline: Instant,
    answering: &mut Answering,
) {
    let mut logs: Vec<(&str, Duration, Vec<usize>)> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let RowOp::Forget { keep } = row.op else { continue };
        if answering.rows[at].is_err() {
            continue;
        }
        match logs.iter_mut().find(|(space, ..)| *space == row.space) {
            Some((_, longest, of)) => {
                *longest = keep.max(*longest);
                of.push(at);
            }
            None => logs.push((row.space, keep, vec![at])),
        }
    }
    let calls: Vec<Call> = logs
        .iter()
        .map(|(space, keep, of)| {
            let keys = authority.keys.space(space);
            let names = [keys.space(), keys.forget_log()];
            let mut call = Call::script(keys.slot(), &FORGET, names.iter());
            call.number(micros(*keep));
            of.iter().for_each(|row| {
                call.arg(rows[*row].digest.as_bytes());
            });
            call
        })
        .collect();
    for (told, (.., of)) in authority.fleet.exchange(&calls, deadline).into_iter().zip(logs) {
        if let Err(failed) = told {
            // Half of it was done.
            let why = format!("the row is gone, the log does not say so: {}", text(&failed.error));
            of.iter().for_each(|row| {
                answering.rows[*row] = Err(AuthorityError::undecided(why.clone()));
            });
        }
    }
}

fn text(error: &AuthorityError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Where no row has an answer, the call has none.
fn finish(authority: &RedisAuthority, answering: Answering, deadline: Instant) -> Result<Answers> {
    let Answering { time, rows } = answering;
    if !rows.is_empty() && rows.iter().all(Result::is_err) && time.is_none() {
        let undecided = |row: &&Result<RowAnswer>| matches!(row, Err(AuthorityError::Undecided(_)));
        let worst = rows.iter().find(undecided).or(rows.first());
        if let Some(Err(error)) = worst {
            return Err(same(error));
        }
    }
    let time = time.map_or_else(|| authority.time(deadline), Ok)?;
    Ok(Answers { server: Server { time, incarnation: authority.fleet.incarnation() }, rows })
}

pub(crate) fn forgotten(
    authority: &RedisAuthority,
    space: &str,
    after: u64,
    deadline: Instant,
) -> Result<Forgotten> {
    let keys = authority.keys.space(space);
    let names = [keys.space(), keys.forget_log()];
    let mut call = Call::script(keys.slot(), &FORGOTTEN, names.iter());
    // Numbers that this crate gives are far below that.
    call.number(after.min(1 << 53)).number(MOST_FORGOTTEN);
    let mut reply = authority.one(call, deadline)?;
    let server = authority.server(reply.moment()?);
    let through = reply.number()?;
    let mut digests = Vec::new();
    while !reply.is_empty() {
        let bytes = <[u8; 16]>::try_from(&reply.bytes()?[..]).map_err(|_| unexpected())?;
        digests.push(Digest::from_bytes(bytes));
    }
    Ok(Forgotten { server, digests, through })
}
