//! Deleting what is over: a little in each call that writes, so that it keeps up and nobody waits.

use onceonly::authority::Result;
use rusqlite::params;

use crate::connection::Call;
use crate::error::before_commit;

/// Rows and entries of the forget log that one call deletes at most.
const MOST_ROWS: usize = 512;
/// Chunks that one call deletes at most: they are large.
const MOST_CHUNKS: usize = 16;
/// Rows stay for so long after they are over: a minute in which the clock may step back, and in
/// which fences go on from the last one.
const GRACE_US: i64 = 60_000_000;

/// Twice as many as were written, so that there are less and less of them.
fn share(written: usize, most: usize) -> usize {
    (2 * written).min(most)
}

pub(crate) fn rows(call: &Call<'_>, written: usize) -> Result<()> {
    let before = call.now.saturating_sub(GRACE_US);
    let most = share(written, MOST_ROWS) as i64;
    delete(
        call,
        "DELETE FROM onceonly_rows WHERE (space, digest) IN
         (SELECT space, digest FROM onceonly_rows WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        (before, most),
    )?;
    delete(
        call,
        "DELETE FROM onceonly_forgotten WHERE (space, number) IN
         (SELECT space, number FROM onceonly_forgotten WHERE expires <= ?1
          ORDER BY expires LIMIT ?2)",
        (before, most),
    )
}

pub(crate) fn chunks(call: &Call<'_>, written: usize) -> Result<()> {
    // A renewal deletes too: an owner without new keys has old chunks.
    let most = share(written + 1, MOST_CHUNKS) as i64;
    delete(
        call,
        "DELETE FROM onceonly_chunks WHERE id IN
         (SELECT id FROM onceonly_chunks WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        (call.now, most),
    )
}

fn delete(call: &Call<'_>, statement: &str, (before, most): (i64, i64)) -> Result<()> {
    let mut delete = call.db.prepare_cached(statement).map_err(before_commit)?;
    delete.execute(params![before, most]).map_err(before_commit)?;
    Ok(())
}
