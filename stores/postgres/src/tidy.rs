//! Deletes what is over, apart from the calls.

use std::time::{Duration, Instant};

use onceonly::authority::Result;

use crate::partitions::Partitions;
use crate::server::PostgresServer;
use crate::session::Link;

/// A batch may take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rows of one batch.
const BATCH: i64 = 1_000;

/// Rows stay for a minute after they are over: until then fences go on from the last one, and a
/// clock may step back. Whoever has a row locked at the moment keeps it.
const ROWS: &str = "
DELETE FROM rows WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM rows WHERE expires <= (SELECT clock_us() - 60000000)
    ORDER BY expires LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING 1";

const FORGOTTEN: &str = "
DELETE FROM forgotten WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM forgotten WHERE expires <= (SELECT clock_us() - 60000000)
    ORDER BY expires LIMIT $1 FOR UPDATE SKIP LOCKED))
RETURNING 1";

/// Chunks that had no partition of their own.
const OTHER_CHUNKS: &str = "
DELETE FROM chunks_other WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM chunks_other WHERE expires <= (SELECT clock_us())
    ORDER BY expires LIMIT 32 FOR UPDATE SKIP LOCKED))
RETURNING 1";

/// One batch of each; true if there is more.
pub(crate) fn batch(server: &PostgresServer, partitions: &Partitions) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let (_, more) = server.call(deadline, async |link: &Link| {
        let rows = link.query(ROWS, &[&BATCH]).await?.len();
        let forgotten = link.query(FORGOTTEN, &[&BATCH]).await?.len();
        let chunks = link.query(OTHER_CHUNKS, &[]).await?.len();
        let full = usize::try_from(BATCH).unwrap_or(usize::MAX);
        Ok(rows >= full || forgotten >= full || chunks >= 32)
    })?;
    if !more {
        partitions.drop_old(server, deadline)?;
    }
    Ok(more)
}
