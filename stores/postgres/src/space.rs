//! Spaces and their forget logs.

use std::time::Instant;

use onceonly::authority::{AuthorityError, Digest, Forgotten, Opened, Result, Server};
use onceonly_sql_common::{signed, timestamp, unsigned};
use tokio_postgres::Error;

use crate::server::PostgresServer;
use crate::session::Link;

/// Forgotten digests of one answer, at most.
const MOST_FORGOTTEN: i64 = 10_000;

/// The first check stays. With another incarnation than the last time rows may be missing.
const OPEN: &str = r#"
INSERT INTO spaces AS s (name, "check", complete_since, incarnation)
VALUES ($1, $2, clock_us(), $3)
ON CONFLICT (name) DO UPDATE SET "check" = coalesce(s."check", excluded."check"),
    complete_since = CASE WHEN s.incarnation = excluded.incarnation THEN s.complete_since
        ELSE excluded.complete_since END,
    incarnation = excluded.incarnation
RETURNING "check", forgotten, complete_since, clock_us()"#;

const MAKE: &str = "
INSERT INTO spaces (name, complete_since, incarnation)
SELECT name, clock_us(), 0 FROM unnest($1::text[]) n (name) ORDER BY name
ON CONFLICT (name) DO NOTHING";

const LAST: &str = "SELECT id, forgotten FROM spaces WHERE name = $1";

const ENTRIES: &str = "
SELECT number, digest FROM forgotten WHERE space = $1 AND number > $2
AND expires > (SELECT clock_us()) ORDER BY number LIMIT $3";

pub(crate) fn open(
    server: &PostgresServer,
    name: &str,
    check: u64,
    deadline: Instant,
) -> Result<Opened> {
    server.ensure_tables(deadline)?;
    // The incarnation is written with the space, so it has to be known before.
    let (told, ()) = server.call(deadline, async |_: &Link| Ok(()))?;
    let incarnation = signed(told.incarnation);
    let (again, rows) = server.call(deadline, async |link: &Link| {
        link.query(OPEN, &[&name, &signed(check), &incarnation]).await
    })?;
    let row = rows.first().ok_or_else(|| AuthorityError::undecided("no answer to an insert"))?;
    if told.incarnation != again.incarnation {
        return Err(AuthorityError::undecided("the server became another one meanwhile"));
    }
    Ok(Opened {
        server: Server { time: timestamp(row.get(3)), ..again },
        check: unsigned(row.get(0)),
        forgotten: unsigned(row.get(1)),
        complete_since: timestamp(row.get(2)),
    })
}

/// Makes spaces that no store has opened, because the server was emptied meanwhile. The next store
/// that opens one says what check it has, and finds that the server is another.
pub(crate) async fn make(link: &Link, names: &[&str]) -> Result<(), Error> {
    link.query(MAKE, &[&names]).await.map(drop)
}

pub(crate) fn forgotten(
    server: &PostgresServer,
    name: &str,
    after: u64,
    deadline: Instant,
) -> Result<Forgotten> {
    let after_column = i64::try_from(after).unwrap_or(i64::MAX);
    let (server, (last, rows)) = server.call(deadline, async |link: &Link| {
        let last = link.query(LAST, &[&name]).await?;
        let Some(last) = last.first() else { return Ok((0, Vec::new())) };
        let (id, last): (i32, i64) = (last.get(0), last.get(1));
        // Most of the time there is nothing new.
        if last <= after_column {
            return Ok((last, Vec::new()));
        }
        Ok((last, link.query(ENTRIES, &[&id, &after_column, &MOST_FORGOTTEN]).await?))
    })?;
    let digests = rows.iter().map(|row| digest(row.get(1))).collect();
    let through = rows.last().map_or(after.min(unsigned(last)), |row| unsigned(row.get(0)));
    Ok(Forgotten { server, digests, through })
}

fn digest(bytes: &[u8]) -> Digest {
    let mut digest = [0; 16];
    // Nobody else writes another length.
    let len = bytes.len().min(16);
    digest[..len].copy_from_slice(&bytes[..len]);
    Digest::from_bytes(digest)
}
