//! What a statement is given, and what its rows mean.

use std::time::Duration;

use onceonly::authority::{Row as Asked, RowAnswer, RowKind, RowOp, Token};
use onceonly_sql_common::{CLAIMED, micros, span};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

use crate::session::Link;
use crate::statements as sql;

/// What became of a row.
pub(crate) enum Reply {
    Answer(RowAnswer),
    /// Somebody else changed it meanwhile.
    Again,
    /// Its space is not known.
    NoSpace,
    /// The claim that was to be followed is not there.
    NoPrevious,
}

type Param<'a> = &'a (dyn ToSql + Sync);

/// The parameters of a statement, one element a row.
#[derive(Default)]
struct Columns<'a> {
    spaces: Vec<&'a str>,
    digests: Vec<&'a [u8]>,
    tokens: Vec<&'a [u8]>,
    previous: Vec<&'a [u8]>,
    leases: Vec<i64>,
    keeps: Vec<i64>,
    values: Vec<&'a [u8]>,
}

pub(crate) fn has_previous(op: &RowOp<'_>) -> bool {
    matches!(op, RowOp::Claim { previous: Some(_), .. })
}

impl<'a> Columns<'a> {
    fn of(rows: &'a [Asked<'a>], at: &[usize]) -> Self {
        let mut columns = Columns::default();
        for row in at.iter().map(|at| &rows[*at]) {
            columns.spaces.push(row.space);
            columns.digests.push(row.digest.as_bytes());
            columns.add(&row.op);
        }
        columns
    }

    fn add(&mut self, op: &'a RowOp<'a>) {
        match op {
            RowOp::Observe { token, keep, value } | RowOp::Commit { token, keep, value } => {
                self.token(token).keep(*keep).values.push(value);
            }
            RowOp::Refresh { keep } | RowOp::Forget { keep } => {
                self.keep(*keep);
            }
            RowOp::Claim { token, previous, lease, keep, value } => {
                let previous = previous.as_ref().map_or(&[][..], |token| token.as_bytes());
                self.previous.push(previous);
                self.token(token).lease(*lease).keep(*keep).values.push(value);
            }
            RowOp::Renew { token, lease, keep } => {
                self.token(token).lease(*lease).keep(*keep);
            }
            RowOp::Abandon { token } => {
                self.token(token);
            }
            _ => {}
        }
    }

    fn token(&mut self, token: &'a Token) -> &mut Self {
        self.tokens.push(token.as_bytes());
        self
    }

    fn lease(&mut self, lease: Duration) -> &mut Self {
        self.leases.push(micros(lease));
        self
    }

    fn keep(&mut self, keep: Duration) -> &mut Self {
        self.keeps.push(micros(keep));
        self
    }
}

/// A statement, what each of its rows means, and what it means that a row is not among them.
struct Question {
    text: &'static str,
    mean: fn(&Row) -> Reply,
    otherwise: fn() -> Reply,
}

impl Question {
    fn of(kind: RowKind, after: bool) -> Self {
        let (text, mean, otherwise): (_, fn(&Row) -> _, fn() -> _) = match kind {
            RowKind::Observe => (sql::OBSERVE, observed, || Reply::NoSpace),
            RowKind::Claim if after => {
                (sql::CLAIM_AFTER, |row| granted(row.get(1)), || Reply::NoPrevious)
            }
            RowKind::Claim => (sql::CLAIM, claimed, || Reply::NoSpace),
            RowKind::Refresh => (sql::REFRESH, |_| Reply::Answer(RowAnswer::Refreshed), absent),
            RowKind::Renew => (sql::RENEW, |_| Reply::Answer(RowAnswer::Renewed), lost),
            RowKind::Commit => (sql::COMMIT, |_| Reply::Answer(RowAnswer::Committed), lost),
            RowKind::Abandon => (sql::ABANDON, |_| abandoned(), abandoned),
            RowKind::Forget => (sql::FORGET, forgotten, || Reply::NoSpace),
            // `Look`.
            _ => (sql::LOOK, |row| Reply::Answer(live(row.get(1), row, 2)), absent),
        };
        Question { text, mean, otherwise }
    }
}

impl Columns<'_> {
    /// As the statement has them.
    fn params(&self, kind: RowKind, after: bool) -> Vec<Param<'_>> {
        let c = self;
        let mut params: Vec<Param<'_>> = vec![&c.spaces, &c.digests];
        match kind {
            RowKind::Observe | RowKind::Commit => {
                params.extend([&c.tokens as Param<'_>, &c.keeps, &c.values]);
            }
            RowKind::Claim if after => {
                params.extend([&c.tokens as Param<'_>, &c.previous, &c.leases]);
                params.extend([&c.keeps as Param<'_>, &c.values]);
            }
            RowKind::Claim => {
                params.extend([&c.tokens as Param<'_>, &c.leases, &c.keeps, &c.values]);
            }
            RowKind::Renew => params.extend([&c.tokens as Param<'_>, &c.leases, &c.keeps]),
            RowKind::Refresh | RowKind::Forget => params.push(&c.keeps),
            RowKind::Abandon => params.push(&c.tokens),
            _ => {}
        }
        params
    }
}

/// Asks for the rows at `at`, which are all of one kind; answers in their order.
pub(crate) async fn ask(
    link: &Link,
    rows: &[Asked<'_>],
    kind: RowKind,
    at: &[usize],
    after: bool,
) -> Result<Vec<Reply>, Error> {
    let columns = Columns::of(rows, at);
    let question = Question::of(kind, after);
    let told = link.query(question.text, &columns.params(kind, after)).await?;
    let mut replies: Vec<Reply> = at.iter().map(|_| (question.otherwise)()).collect();
    for row in &told {
        let number: i64 = row.get(0);
        // They are counted from 1.
        let place = usize::try_from(number - 1).ok().and_then(|at| replies.get_mut(at));
        if let Some(place) = place {
            *place = (question.mean)(row);
        }
    }
    Ok(replies)
}

fn absent() -> Reply {
    Reply::Answer(RowAnswer::Absent)
}

fn lost() -> Reply {
    Reply::Answer(RowAnswer::Lost)
}

fn abandoned() -> Reply {
    Reply::Answer(RowAnswer::Abandoned)
}

fn forgotten(row: &Row) -> Reply {
    Reply::Answer(RowAnswer::Forgotten { live: row.get(1) })
}

fn granted(fence: i64) -> Reply {
    Reply::Answer(RowAnswer::Granted { fence: fence.unsigned_abs() })
}

/// `ord, done, state, own, seen, live_until, us, value`.
fn observed(row: &Row) -> Reply {
    if row.get(1) {
        return Reply::Answer(RowAnswer::Marked);
    }
    match row.get::<_, Option<i16>>(2) {
        None => Reply::Again,
        // The reply of an earlier attempt was lost.
        Some(state) if state != CLAIMED && row.get(3) => Reply::Answer(RowAnswer::Marked),
        Some(state) => Reply::Answer(live(state, row, 4)),
    }
}

/// `ord, fence, state, seen, live_until, us, value`.
fn claimed(row: &Row) -> Reply {
    if let Some(fence) = row.get(1) {
        return granted(fence);
    }
    match row.get::<_, Option<i16>>(2) {
        None => Reply::Again,
        Some(state) => Reply::Answer(live(state, row, 3)),
    }
}

/// `seen, live_until, us, value` from a column on.
fn live(state: i16, row: &Row, from: usize) -> RowAnswer {
    let (seen, live_until): (i64, i64) = (row.get(from), row.get(from + 1));
    let (now, value): (i64, Vec<u8>) = (row.get(from + 2), row.get(from + 3));
    if state == CLAIMED {
        RowAnswer::InFlight { lease_left: span(live_until - now), value }
    } else {
        RowAnswer::Duplicate { age: span(now - seen), value }
    }
}
