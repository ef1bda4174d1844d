//! Chunks: written with the owner record, read by slice and bucket.

use onceonly::authority::{
    Append, Appended, AuthorityError, Bucket, Result, SliceInfo, StoredChunk,
};
use onceonly_sql_common::{Owner, micros_of, signed, timestamp, unsigned, until};
use rusqlite::params;

use crate::connection::Call;
use crate::error::before_commit;
use crate::{owner, space, tidy};

/// One transaction for all of them: an error of one that is not its own leaves nothing of the
/// others.
pub(crate) fn append(call: &Call<'_>, appends: &[Append<'_>]) -> Result<Vec<Result<Appended>>> {
    let mut answers = Vec::with_capacity(appends.len());
    for append in appends {
        answers.push(match one(call, append)? {
            Some(before) => Ok(Appended { server: call.server, before }),
            None => Err(AuthorityError::StaleEpoch { epoch: append.epoch }),
        });
    }
    tidy::chunks(call, appends.iter().map(|append| append.chunks.len()).sum())?;
    Ok(answers)
}

/// The position before; `None` for who is not the owner.
fn one(call: &Call<'_>, append: &Append<'_>) -> Result<Option<u64>> {
    let Some(space) = space::id(call, append.space)? else { return Ok(None) };
    let owner = owner::load(call, space)?.filter(|owner| owner.is(append.epoch, append.holder));
    let Some(before) = owner else { return Ok(None) };
    let progress = append.progress;
    let after = Owner {
        lease_until: until(call.now, append.lease),
        released: false,
        position: signed(progress.position),
        complete_since: progress.complete_since.as_unix_nanos(),
        complete_through: progress.complete_through.as_unix_nanos(),
        layout: progress.layout,
        ..before
    };
    owner::store(call, space, &after)?;
    let mut insert = call
        .db
        .prepare_cached(
            "INSERT INTO onceonly_chunks (space, slice, part, number, expires, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
        )
        .map_err(before_commit)?;
    for chunk in append.chunks {
        let Bucket { slice, part } = chunk.bucket;
        let (slice, number) = (signed(slice), signed(chunk.number));
        let columns = params![space, slice, part, number, micros_of(chunk.expires), chunk.data];
        insert.execute(columns).map_err(before_commit)?;
    }
    Ok(Some(unsigned(before.position)))
}

pub(crate) fn slices(call: &Call<'_>, name: &str) -> Result<Vec<SliceInfo>> {
    let Some(space) = space::id(call, name)? else { return Ok(Vec::new()) };
    let mut select = call
        .db
        .prepare_cached(
            "SELECT slice, max(expires), sum(length(data)) FROM onceonly_chunks
             WHERE space = ?1 AND expires > ?2 GROUP BY slice",
        )
        .map_err(before_commit)?;
    let slices = select.query_map(params![space, call.now], |row| {
        let (slice, expires) = (unsigned(row.get(0)?), timestamp(row.get(1)?));
        Ok(SliceInfo { slice, expires, bytes: unsigned(row.get(2)?) })
    });
    let slices = slices.and_then(Iterator::collect::<rusqlite::Result<_>>);
    slices.map_err(before_commit)
}

pub(crate) fn read(
    call: &Call<'_>,
    name: &str,
    buckets: &[Bucket],
) -> Result<Vec<Vec<StoredChunk>>> {
    let Some(space) = space::id(call, name)? else {
        return Ok(vec![Vec::new(); buckets.len()]);
    };
    let mut select = call
        .db
        .prepare_cached(
            "SELECT number, data FROM onceonly_chunks
             WHERE space = ?1 AND slice = ?2 AND part = ?3 AND expires > ?4",
        )
        .map_err(before_commit)?;
    let mut one = |bucket: &Bucket| {
        let place = params![space, signed(bucket.slice), bucket.part, call.now];
        let chunks = select.query_map(place, |row| {
            Ok(StoredChunk { number: unsigned(row.get(0)?), data: row.get(1)? })
        })?;
        chunks.collect::<rusqlite::Result<Vec<_>>>()
    };
    buckets.iter().map(|bucket| one(bucket).map_err(before_commit)).collect()
}
