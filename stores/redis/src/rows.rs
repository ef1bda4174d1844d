//! `Shared`: rows and the forget log.

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
use crate::reply::{Reply, unexpected};
use crate::script::{Call, FORGET, FORGOTTEN};
use crate::sending::{Asks, RowKeys, Sent, is_plain, mark, micros, script, steps};

/// Entries of the forget log of one answer.
const MOST_FORGOTTEN: u64 = 10_000;

/// What is being answered.
struct Answering {
    time: Option<Timestamp>,
    incarnation: u64,
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
    let told = rows.iter().map(|_| never()).collect();
    let mut answering = Answering { time: None, incarnation: 0, rows: told };
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
    let exchanged = authority.fleet.exchange(&calls, deadline);
    answering.incarnation = exchanged.incarnation;
    for (told, asks) in exchanged.told.into_iter().zip(asks) {
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
    for (told, (.., of)) in authority.fleet.exchange(&calls, deadline).told.into_iter().zip(logs) {
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
    let Answering { time, incarnation, rows } = answering;
    if !rows.is_empty() && rows.iter().all(Result::is_err) && time.is_none() {
        let undecided = |row: &&Result<RowAnswer>| matches!(row, Err(AuthorityError::Undecided(_)));
        let worst = rows.iter().find(undecided).or(rows.first());
        if let Some(Err(error)) = worst {
            return Err(same(error));
        }
    }
    let server = match time {
        Some(time) => Server { time, incarnation },
        // Some rows were done, so this is no reason to say that nothing was.
        None => {
            authority.time(deadline).map_err(|error| AuthorityError::undecided(text(&error)))?
        }
    };
    Ok(Answers { server, rows })
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
    let (mut reply, incarnation) = authority.one(call, deadline)?;
    let server = Server { time: reply.moment()?, incarnation };
    let through = reply.number()?;
    let mut digests = Vec::new();
    while !reply.is_empty() {
        let bytes = <[u8; 16]>::try_from(&reply.bytes()?[..]).map_err(|_| unexpected())?;
        digests.push(Digest::from_bytes(bytes));
    }
    Ok(Forgotten { server, digests, through })
}
