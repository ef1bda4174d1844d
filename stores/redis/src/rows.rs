//! `Shared`: rows and the forget log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceonly::Timestamp;
use onceonly::authority::{
    Answers, AuthorityError, Digest, Forgotten, Result, Row, RowAnswer, RowOp, Server,
};
use redis::Value;

use crate::answer::answer;
use crate::authority::{RedisAuthority, time_of};
use crate::connection::left;
use crate::exchange::Failed;
use crate::failure::same;
use crate::keys::{SpaceKeys, slot};
use crate::node::Node;
use crate::reply::{Reply, unexpected};
use crate::script::{Call, FORGET, FORGOTTEN, STEP};
use crate::topology::Topology;

/// Rows of one script: others have their turn in between.
const MOST_ROWS: usize = 256;
/// Bytes of values of one script.
const MOST_BYTES: usize = 1 << 20;
/// Entries of the forget log of one answer.
const MOST_FORGOTTEN: u64 = 10_000;

/// A command, and what it is for.
struct Sent {
    call: Call,
    asks: Asks,
}

enum Asks {
    /// The server's time.
    Time,
    /// One row that is marked if there is none.
    Mark(usize),
    /// Steps of some rows, by a script.
    Steps(Vec<usize>),
}

/// What is being answered.
struct Answering {
    time: Option<Timestamp>,
    rows: Vec<Result<RowAnswer>>,
}

/// Rows that have no answer yet.
#[derive(Default)]
struct Again {
    /// There was a row already: a script says which.
    taken: Vec<usize>,
    /// Their slot is being moved, so that one script cannot do several of them.
    moving: Vec<usize>,
}

/// A mark, maybe a script, maybe each row by itself.
const MOST_TRIPS: usize = 3;

/// A plain observation is one `SET … NX`, and mostly all there is to do. What needs a decision goes to a
/// script, as does a key that has a row already.
pub(crate) fn rows(
    authority: &RedisAuthority,
    rows: &[Row<'_>],
    deadline: Instant,
) -> Result<Answers> {
    let topology = authority.fleet.topology(deadline)?;
    let keys = RowKeys::new(authority, rows, topology.is_cluster);
    let never = || Err(unexpected());
    let mut answering = Answering { time: None, rows: rows.iter().map(|_| never()).collect() };
    let (plain, others): (Vec<usize>, Vec<usize>) =
        (0..rows.len()).partition(|row| is_plain(&rows[*row].op));
    let mut sent = steps(others, rows, &keys);
    if sent.is_empty() {
        let time = |slot| Sent { call: Call::plain(slot, &["TIME"]), asks: Asks::Time };
        sent.extend(keys.slots_of_all_nodes(&topology).into_iter().map(time));
    }
    sent.extend(plain.into_iter().map(|row| mark(row, rows, &keys)));
    for _ in 0..MOST_TRIPS {
        if sent.is_empty() {
            break;
        }
        // A node that hangs keeps the others from nothing: they have time for the next trip.
        let half = left(deadline).unwrap_or_default() / 2;
        let until = if topology.masters.len() > 1 { Instant::now() + half } else { deadline };
        let again = make(authority, sent, until, &mut answering);
        sent = steps(again.taken, rows, &keys);
        sent.extend(again.moving.into_iter().map(|row| script(vec![row], rows, &keys)));
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

    /// One slot of each node: any of them may be the only one that answers.
    fn slots_of_all_nodes(&self, topology: &Topology) -> Vec<u16> {
        let mut nodes: Vec<(&Arc<Node>, u16)> = Vec::new();
        for (_, slot) in &self.keys {
            let Ok(node) = topology.node(*slot) else { continue };
            if nodes.iter().all(|(known, _)| !Arc::ptr_eq(known, node)) {
                nodes.push((node, *slot));
            }
            if nodes.len() == topology.masters.len() {
                break;
            }
        }
        nodes.into_iter().map(|(_, slot)| slot).collect()
    }
}

fn is_plain(op: &RowOp<'_>) -> bool {
    matches!(op, RowOp::Observe { value: [], .. })
}

/// Marks a row without a script. See `lua/row.lua` for what is written.
fn mark(row: usize, rows: &[Row<'_>], keys: &RowKeys) -> Sent {
    let (key, slot) = &keys.keys[row];
    let step = Step::of(&rows[row].op);
    // The server counts from the millisecond that has begun.
    let keep_ms = step.keep.div_ceil(1_000) + 1;
    let mut value = format!("m +{keep_ms:015} ").into_bytes();
    value.extend_from_slice(step.token);
    let mut call = Call::plain(*slot, &["SET"]);
    call.arg(key).arg(value).arg("NX").arg("PX").number(keep_ms);
    Sent { call, asks: Asks::Mark(row) }
}

/// Scripts for rows: as few as their slots and their sizes allow.
fn steps(of: Vec<usize>, rows: &[Row<'_>], keys: &RowKeys) -> Vec<Sent> {
    let mut slots: HashMap<u16, Vec<usize>> = HashMap::new();
    for row in of {
        slots.entry(keys.keys[row].1).or_default().push(row);
    }
    let mut sent = Vec::new();
    for of in slots.into_values() {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for row in of {
            if some.len() >= MOST_ROWS || bytes >= MOST_BYTES {
                sent.push(script(std::mem::take(&mut some), rows, keys));
                bytes = 0;
            }
            some.push(row);
            bytes += Step::of(&rows[row].op).value.len();
        }
        sent.push(script(some, rows, keys));
    }
    sent
}

fn script(of: Vec<usize>, rows: &[Row<'_>], keys: &RowKeys) -> Sent {
    let slot = of.first().map_or(0, |row| keys.keys[*row].1);
    let names = of.iter().map(|row| &keys.keys[*row].0);
    let mut call = Call::script(slot, &STEP, names);
    for row in &of {
        let step = Step::of(&rows[*row].op);
        call.arg(step.name).arg(step.token).arg(step.previous);
        call.number(step.keep).number(step.lease).arg(step.value);
    }
    Sent { call, asks: Asks::Steps(of) }
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

/// One round trip.
fn make(
    authority: &RedisAuthority,
    sent: Vec<Sent>,
    deadline: Instant,
    answering: &mut Answering,
) -> Again {
    let (calls, asks): (Vec<Call>, Vec<Asks>) =
        sent.into_iter().map(|sent| (sent.call, sent.asks)).unzip();
    let mut again = Again::default();
    for (told, asks) in authority.fleet.exchange(&calls, deadline).into_iter().zip(asks) {
        match told {
            Ok(value) => answering.take(value, asks, &mut again),
            Err(failed) => answering.fail(&failed, asks, &mut again),
        }
    }
    again
}

impl Answering {
    fn take(&mut self, value: Value, asks: Asks, again: &mut Again) {
        match (asks, value) {
            (Asks::Time, value) => {
                let time = Reply::new(value).and_then(time_of);
                self.time = self.time.max(time.ok());
            }
            (Asks::Mark(row), Value::Okay) => self.rows[row] = Ok(RowAnswer::Marked),
            (Asks::Mark(row), Value::Nil) => again.taken.push(row),
            (Asks::Mark(row), _) => self.rows[row] = Err(unexpected()),
            (Asks::Steps(of), value) => {
                let reply = Reply::new(value).and_then(|mut reply| {
                    self.time = self.time.max(Some(reply.moment()?));
                    Ok(reply)
                });
                match reply {
                    Ok(mut reply) => {
                        for row in of {
                            self.rows[row] = reply.value().and_then(answer);
                        }
                    }
                    Err(error) => of.iter().for_each(|row| self.rows[*row] = Err(same(&error))),
                }
            }
        }
    }

    fn fail(&mut self, failed: &Failed, asks: Asks, again: &mut Again) {
        match asks {
            Asks::Time => {}
            Asks::Mark(row) => self.rows[row] = Err(same(&failed.error)),
            Asks::Steps(of) => {
                of.iter().for_each(|row| self.rows[*row] = Err(same(&failed.error)));
                if failed.moving && of.len() > 1 {
                    again.moving.extend(of);
                }
            }
        }
    }
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
