//! Rows: read, decided about and written under the write lock, many in one transaction.

use std::time::Duration;

use onceonly::authority::{Answers, AuthorityError, Digest, Result, Row, RowAnswer, RowOp, Token};
use onceonly_sql_common::{CANCELLED, CLAIMED, MARKED, Stored, until};
use rusqlite::{OptionalExtension, params};

use crate::connection::Call;
use crate::error::before_commit;
use crate::{space, tidy};

/// Where a row is.
#[derive(Clone, Copy)]
struct Place {
    space: i64,
    digest: Digest,
}

/// A call that changes nothing.
pub(crate) fn look(call: &Call<'_>, rows: &[Row<'_>]) -> Result<Answers> {
    let mut last = None;
    let answers = rows.iter().map(|row| {
        let space = match last {
            Some((name, id)) if name == row.space => id,
            _ => space::id(call, row.space)?,
        };
        last = Some((row.space, space));
        let Some(space) = space else { return Ok(RowAnswer::Absent) };
        let stored = load(call, Place { space, digest: row.digest })?;
        Ok(stored.map_or(RowAnswer::Absent, |stored| stored.look(call.now)))
    });
    let answers = answers.map(|answer: Result<_>| answer.map(Ok)).collect::<Result<_>>()?;
    Ok(Answers { server: call.server, rows: answers })
}

/// A call that may change rows.
pub(crate) fn step(call: &Call<'_>, rows: &[Row<'_>]) -> Result<Answers> {
    let mut last = None;
    let mut answers = Vec::with_capacity(rows.len());
    for row in rows {
        // Rows come in the order of their spaces.
        let space = match last {
            Some((name, id)) if name == row.space => id,
            _ => space::id_or_new(call, row.space)?,
        };
        last = Some((row.space, space));
        answers.push(Ok(one(call, Place { space, digest: row.digest }, row.op)?));
    }
    tidy::rows(call, rows.len())?;
    Ok(Answers { server: call.server, rows: answers })
}

/// One step of a row's life.
fn one(call: &Call<'_>, place: Place, op: RowOp<'_>) -> Result<RowAnswer> {
    let now = call.now;
    // A row that is over is taken over, for its fence; else it is as if it was not there.
    let stored = load(call, place)?;
    match op {
        RowOp::Look => Ok(stored.map_or(RowAnswer::Absent, |stored| stored.look(now))),
        RowOp::Observe { token, keep, value } => {
            observe(call, place, stored, Mark { token, keep, value })
        }
        RowOp::Refresh { keep } => match stored {
            Some(stored) if stored.state == MARKED && stored.is_live(now) => {
                mark_on(call, place, until(now, keep), None)?;
                Ok(RowAnswer::Refreshed)
            }
            _ => Ok(RowAnswer::Absent),
        },
        RowOp::Claim { .. } => claim(call, place, stored, op),
        RowOp::Renew { token, lease, keep } => match stored {
            Some(stored) if stored.is_claim_of(token, now) => {
                let mut renew = call
                    .db
                    .prepare_cached(
                        "UPDATE onceonly_rows SET live_until = ?3, expires = ?4
                         WHERE space = ?1 AND digest = ?2",
                    )
                    .map_err(before_commit)?;
                let lease_until = until(now, lease);
                let ends = params![
                    place.space,
                    place.digest.as_bytes(),
                    lease_until,
                    until(lease_until, keep)
                ];
                renew.execute(ends).map_err(before_commit)?;
                Ok(RowAnswer::Renewed)
            }
            _ => Ok(RowAnswer::Lost),
        },
        RowOp::Commit { token, keep, value } => match stored {
            Some(stored) if stored.is_claim_of(token, now) => {
                mark_on(call, place, until(now, keep), Some(value).filter(|v| !v.is_empty()))?;
                Ok(RowAnswer::Committed)
            }
            Some(stored) if stored.is_mark_of(token, now) => Ok(RowAnswer::Committed),
            _ => Ok(RowAnswer::Lost),
        },
        RowOp::Abandon { token } => {
            if stored.is_some_and(|stored| stored.token == *token.as_bytes()) {
                cancel(call, place)?;
            }
            Ok(RowAnswer::Abandoned)
        }
        RowOp::Forget { keep } => {
            let live = stored.as_ref().is_some_and(|s| s.state == MARKED && s.is_live(now));
            if stored.is_some() {
                cancel(call, place)?;
            }
            space::forget(call, place.space, place.digest, until(now, keep))?;
            Ok(RowAnswer::Forgotten { live })
        }
        _ => Err(AuthorityError::refused(
            "a step that this release does not know: update onceonly-sqlite",
        )),
    }
}

struct Mark<'a> {
    token: Token,
    keep: Duration,
    value: &'a [u8],
}

fn observe(
    call: &Call<'_>,
    place: Place,
    stored: Option<Stored>,
    mark: Mark<'_>,
) -> Result<RowAnswer> {
    let now = call.now;
    let fence = match stored {
        // The reply of an earlier attempt was lost.
        Some(stored) if stored.is_mark_of(mark.token, now) => return Ok(RowAnswer::Marked),
        Some(stored) if stored.is_live(now) => return Ok(stored.look(now)),
        Some(stored) => stored.fence,
        None => 0,
    };
    let expires = until(now, mark.keep);
    let stored = Stored {
        state: MARKED,
        token: *mark.token.as_bytes(),
        fence,
        seen: now,
        live_until: expires,
        expires,
        value: mark.value.to_vec(),
    };
    store(call, place, &stored)?;
    Ok(RowAnswer::Marked)
}

fn claim(
    call: &Call<'_>,
    place: Place,
    stored: Option<Stored>,
    op: RowOp<'_>,
) -> Result<RowAnswer> {
    let RowOp::Claim { token, previous, lease, keep, value } = op else {
        return Err(AuthorityError::refused("not a claim"));
    };
    let now = call.now;
    let fence = match stored {
        Some(stored) if stored.is_claim_of(token, now) => stored.fence,
        Some(stored) => {
            let follows = previous.is_some_and(|previous| stored.is_claim_of(previous, now));
            if stored.is_live(now) && !follows {
                return Ok(stored.look(now));
            }
            now.max(stored.fence.saturating_add(1))
        }
        None => now,
    };
    let lease_until = until(now, lease);
    let stored = Stored {
        state: CLAIMED,
        token: *token.as_bytes(),
        fence,
        seen: 0,
        live_until: lease_until,
        expires: until(lease_until, keep),
        value: value.to_vec(),
    };
    store(call, place, &stored)?;
    Ok(RowAnswer::Granted { fence: fence.unsigned_abs() })
}

fn load(call: &Call<'_>, place: Place) -> Result<Option<Stored>> {
    let mut select = call
        .db
        .prepare_cached(
            "SELECT state, token, fence, seen, live_until, expires, value FROM onceonly_rows
             WHERE space = ?1 AND digest = ?2",
        )
        .map_err(before_commit)?;
    let stored = select.query_row(params![place.space, place.digest.as_bytes()], |row| {
        Ok(Stored {
            state: row.get(0)?,
            token: row.get(1)?,
            fence: row.get(2)?,
            seen: row.get(3)?,
            live_until: row.get(4)?,
            expires: row.get(5)?,
            value: row.get(6)?,
        })
    });
    stored.optional().map_err(before_commit)
}

fn store(call: &Call<'_>, place: Place, stored: &Stored) -> Result<()> {
    let mut upsert = call
        .db
        .prepare_cached(
            "INSERT INTO onceonly_rows
             (space, digest, state, token, fence, seen, live_until, expires, value)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (space, digest) DO UPDATE SET state = excluded.state,
             token = excluded.token, fence = excluded.fence, seen = excluded.seen,
             live_until = excluded.live_until, expires = excluded.expires, value = excluded.value",
        )
        .map_err(before_commit)?;
    let columns = params![
        place.space,
        place.digest.as_bytes(),
        stored.state,
        stored.token,
        stored.fence,
        stored.seen,
        stored.live_until,
        stored.expires,
        stored.value
    ];
    upsert.execute(columns).map_err(before_commit)?;
    Ok(())
}

/// The row is marked from now on, with another value if there is one.
fn mark_on(call: &Call<'_>, place: Place, expires: i64, value: Option<&[u8]>) -> Result<()> {
    let mut update = call
        .db
        .prepare_cached(
            "UPDATE onceonly_rows SET state = ?3, seen = ?4, live_until = ?5, expires = ?5,
             value = coalesce(?6, value) WHERE space = ?1 AND digest = ?2",
        )
        .map_err(before_commit)?;
    let bytes = place.digest.as_bytes();
    update
        .execute(params![place.space, bytes, MARKED, call.now, expires, value])
        .map_err(before_commit)?;
    Ok(())
}

/// The row counts as absent from now on, and is deleted when what it knows of fences is of no use.
fn cancel(call: &Call<'_>, place: Place) -> Result<()> {
    let mut update = call
        .db
        .prepare_cached(
            "UPDATE onceonly_rows SET state = ?3, live_until = 0, expires = ?4, value = x''
             WHERE space = ?1 AND digest = ?2",
        )
        .map_err(before_commit)?;
    update
        .execute(params![place.space, place.digest.as_bytes(), CANCELLED, call.now])
        .map_err(before_commit)?;
    Ok(())
}
