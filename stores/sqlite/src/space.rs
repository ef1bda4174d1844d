//! Spaces and their forget logs.

use onceonly::authority::{Digest, Forgotten, Opened, Result};
use onceonly_sql_common::{signed, timestamp, unsigned};
use rusqlite::{OptionalExtension, params};

use crate::connection::Call;
use crate::error::before_commit;

/// Forgotten digests of one answer, at most.
const MOST_FORGOTTEN: i64 = 10_000;

pub(crate) fn open(call: &Call<'_>, name: &str, check: u64) -> Result<Opened> {
    let id = id_or_new(call, name)?;
    let incarnation = signed(call.server.incarnation);
    // The first check stays. In another file than the last time rows may be missing.
    let mut update = call
        .db
        .prepare_cached(
            r#"UPDATE onceonly_spaces SET "check" = coalesce("check", ?2),
               complete_since = CASE incarnation WHEN ?3 THEN complete_since ELSE ?4 END,
               incarnation = ?3 WHERE id = ?1 RETURNING "check", forgotten, complete_since"#,
        )
        .map_err(before_commit)?;
    update
        .query_row(params![id, signed(check), incarnation, call.now], |row| {
            Ok(Opened {
                server: call.server,
                check: unsigned(row.get(0)?),
                forgotten: unsigned(row.get(1)?),
                complete_since: timestamp(row.get(2)?),
            })
        })
        .map_err(before_commit)
}

/// The number of a space that was opened before.
pub(crate) fn id(call: &Call<'_>, name: &str) -> Result<Option<i64>> {
    let mut select = call
        .db
        .prepare_cached("SELECT id FROM onceonly_spaces WHERE name = ?1")
        .map_err(before_commit)?;
    select.query_row([name], |row| row.get(0)).optional().map_err(before_commit)
}

pub(crate) fn id_or_new(call: &Call<'_>, name: &str) -> Result<i64> {
    if let Some(id) = id(call, name)? {
        return Ok(id);
    }
    let mut insert = call
        .db
        .prepare_cached(
            "INSERT INTO onceonly_spaces (name, complete_since, incarnation) VALUES (?1, ?2, ?3)
             RETURNING id",
        )
        .map_err(before_commit)?;
    let incarnation = signed(call.server.incarnation);
    insert.query_row(params![name, call.now, incarnation], |row| row.get(0)).map_err(before_commit)
}

pub(crate) fn forgotten(call: &Call<'_>, name: &str, after: u64) -> Result<Forgotten> {
    let none = |through| Forgotten { server: call.server, digests: Vec::new(), through };
    let mut last = call
        .db
        .prepare_cached("SELECT id, forgotten FROM onceonly_spaces WHERE name = ?1")
        .map_err(before_commit)?;
    let last = last.query_row([name], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
    let Some((id, last)) = last.optional().map_err(before_commit)? else {
        return Ok(none(0));
    };
    let mut entries = call
        .db
        .prepare_cached(
            "SELECT number, digest FROM onceonly_forgotten
             WHERE space = ?1 AND number > ?2 AND expires > ?3 ORDER BY number LIMIT ?4",
        )
        .map_err(before_commit)?;
    let after_column = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = entries
        .query_map(params![id, after_column, call.now, MOST_FORGOTTEN], |row| {
            Ok((row.get::<_, i64>(0)?, Digest::from_bytes(row.get(1)?)))
        })
        .map_err(before_commit)?;
    let mut answer = none(after.min(unsigned(last)));
    for entry in rows {
        let (number, digest) = entry.map_err(before_commit)?;
        answer.digests.push(digest);
        answer.through = unsigned(number);
    }
    Ok(answer)
}

/// Adds to the log.
pub(crate) fn forget(call: &Call<'_>, space: i64, digest: Digest, expires: i64) -> Result<()> {
    let mut count = call
        .db
        .prepare_cached(
            "UPDATE onceonly_spaces SET forgotten = forgotten + 1 WHERE id = ?1
             RETURNING forgotten",
        )
        .map_err(before_commit)?;
    let number: i64 = count.query_row([space], |row| row.get(0)).map_err(before_commit)?;
    let mut insert = call
        .db
        .prepare_cached(
            "INSERT INTO onceonly_forgotten (space, number, expires, digest)
             VALUES (?1, ?2, ?3, ?4)",
        )
        .map_err(before_commit)?;
    insert.execute(params![space, number, expires, digest.as_bytes()]).map_err(before_commit)?;
    Ok(())
}
