//! Chunks: written with the owner record, read by slice and bucket.

use std::time::Instant;

use futures_util::future::join_all;
use onceonly::authority::{
    Append, Appended, AuthorityError, Bucket, Result, Server, SliceInfo, StoredChunk,
};
use onceonly_sql_common::{micros, micros_of, signed, timestamp, unsigned};
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;

use crate::error::of_statement;
use crate::partitions::Partitions;
use crate::server::PostgresServer;
use crate::session::Link;

/// The position before, if it is the owner that asks: then the record moves on, and the chunks are
/// there, or neither.
const APPEND: &str = "
WITH held AS MATERIALIZED (
    SELECT o.space, o.position FROM owners o JOIN spaces s ON s.id = o.space
    WHERE s.name = $1 AND o.epoch = $2 AND o.holder = $13 FOR UPDATE OF o
), moved AS (
    UPDATE owners o SET lease_until = clock_us() + $3, released = false, position = $4, complete_since = $5,
        complete_through = $6, layout = $7
    FROM held h WHERE o.space = h.space
), stored AS (
    INSERT INTO chunks (space, slice, part, number, expires, data)
    SELECT h.space, c.slice, c.part, c.number, c.expires, c.data
    FROM held h, unnest($8::bigint[], $9::integer[], $10::bigint[], $11::bigint[], $12::bytea[])
        c (slice, part, number, expires, data)
    ON CONFLICT DO NOTHING
)
SELECT position FROM held";

const SLICES: &str = "
SELECT c.slice, max(c.expires), sum(length(c.data))::bigint
FROM spaces s JOIN chunks c ON c.space = s.id
WHERE s.name = $1 AND c.expires > (SELECT clock_us()) GROUP BY c.slice";

const READ: &str = "
SELECT b.ord, c.number, c.data
FROM unnest($2::bigint[], $3::integer[]) WITH ORDINALITY AS b (slice, part, ord)
JOIN chunks c ON c.space = (SELECT id FROM spaces WHERE name = $1)
    AND c.slice = b.slice AND c.part = b.part
WHERE c.expires > (SELECT clock_us())";

/// The error of one append that others do not share.
type Tried = Result<Option<u64>, Error>;

pub(crate) fn append(
    server: &PostgresServer,
    partitions: &Partitions,
    appends: &[Append<'_>],
    deadline: Instant,
) -> Result<Vec<Result<Appended>>> {
    let slices = appends.iter().flat_map(|append| append.chunks).map(|chunk| chunk.bucket.slice);
    partitions.ensure(server, slices, deadline);
    let work = async |link: &Link| -> Result<Vec<Tried>, Error> {
        let mut tried = join_all(appends.iter().map(|append| one(link, append))).await;
        // One that failed alone may be tried again; of several each has its own error.
        if tried.len() == 1 { tried.remove(0).map(|before| vec![Ok(before)]) } else { Ok(tried) }
    };
    let (server, tried) = server.call(deadline, work)?;
    Ok(appends.iter().zip(tried).map(|(append, tried)| told(append, tried, server)).collect())
}

fn told(append: &Append<'_>, tried: Tried, server: Server) -> Result<Appended> {
    let before = tried.map_err(of_statement)?;
    let before = before.ok_or(AuthorityError::StaleEpoch { epoch: append.epoch })?;
    Ok(Appended { server, before })
}

async fn one(link: &Link, append: &Append<'_>) -> Tried {
    let chunks = append.chunks;
    let progress = append.progress;
    let slices: Vec<i64> = chunks.iter().map(|chunk| signed(chunk.bucket.slice)).collect();
    let parts: Vec<i32> = chunks.iter().map(|chunk| chunk.bucket.part.cast_signed()).collect();
    let numbers: Vec<i64> = chunks.iter().map(|chunk| signed(chunk.number)).collect();
    let expires: Vec<i64> = chunks.iter().map(|chunk| micros_of(chunk.expires)).collect();
    let data: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.data.as_slice()).collect();
    let (epoch, lease) = (signed(append.epoch), micros(append.lease));
    let (position, layout) = (signed(progress.position), i64::from(progress.layout));
    let since = progress.complete_since.as_unix_nanos();
    let through = progress.complete_through.as_unix_nanos();
    let holder = append.holder.as_bytes().as_slice();
    let params: [&(dyn ToSql + Sync); 13] = [
        &append.space,
        &epoch,
        &lease,
        &position,
        &since,
        &through,
        &layout,
        &slices,
        &parts,
        &numbers,
        &expires,
        &data,
        &holder,
    ];
    let rows = link.query(APPEND, &params).await?;
    Ok(rows.first().map(|row| unsigned(row.get(0))))
}

pub(crate) fn slices(
    server: &PostgresServer,
    name: &str,
    deadline: Instant,
) -> Result<Vec<SliceInfo>> {
    let (_, rows) =
        server.call(deadline, async |link: &Link| link.query(SLICES, &[&name]).await)?;
    let info = |row: &tokio_postgres::Row| SliceInfo {
        slice: unsigned(row.get(0)),
        expires: timestamp(row.get(1)),
        bytes: unsigned(row.get(2)),
    };
    Ok(rows.iter().map(info).collect())
}

pub(crate) fn read(
    server: &PostgresServer,
    name: &str,
    buckets: &[Bucket],
    deadline: Instant,
) -> Result<Vec<Vec<StoredChunk>>> {
    let slices: Vec<i64> = buckets.iter().map(|bucket| signed(bucket.slice)).collect();
    let parts: Vec<i32> = buckets.iter().map(|bucket| bucket.part.cast_signed()).collect();
    let (_, rows) = server
        .call(deadline, async |link: &Link| link.query(READ, &[&name, &slices, &parts]).await)?;
    let mut found = vec![Vec::new(); buckets.len()];
    for row in rows {
        let at = usize::try_from(row.get::<_, i64>(0) - 1).unwrap_or(usize::MAX);
        if let Some(chunks) = found.get_mut(at) {
            chunks.push(StoredChunk { number: unsigned(row.get(1)), data: row.get(2) });
        }
    }
    Ok(found)
}
