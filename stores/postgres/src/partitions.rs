//! Partitions of the chunks: made when they are first needed, dropped when all in them is over.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use onceonly::authority::Result;
use onceonly_sql_common::signed;
use tokio_postgres::{Client, Error};

use crate::server::PostgresServer;

/// The slices that begin within it share a partition, of all spaces.
const SPAN_MS: i64 = 3_600_000;
/// Making one waits no longer than this for those who read; without it chunks go elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// The names of all partitions but the one for the rest.
const LIST: &str = "
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'chunks'::regclass AND c.relname ~ '^chunks_m?[0-9]+$'";

/// The partitions that are known to be there, or not to be had.
#[derive(Debug, Default)]
pub(crate) struct Partitions(Mutex<BTreeSet<i64>>);

/// Which partition has a slice.
fn span_of(slice: u64) -> i64 {
    signed(slice).div_euclid(SPAN_MS)
}

fn name(span: i64) -> String {
    let sign = if span < 0 { "m" } else { "" };
    format!("chunks_{sign}{}", span.unsigned_abs())
}

impl Partitions {
    /// Makes those that are missing, if it may. A chunk without one goes to the partition for the
    /// rest, so nothing depends on it.
    pub(crate) fn ensure(
        &self,
        server: &PostgresServer,
        slices: impl Iterator<Item = u64>,
        deadline: Instant,
    ) {
        let mut last = None;
        for span in slices.map(span_of) {
            let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&span);
            if last.replace(span) == Some(span) || known() {
                continue;
            }
            // A part of the time is enough; whoever dropped it meanwhile, or has it already, is
            // right.
            let left = deadline.saturating_duration_since(Instant::now());
            let until = Instant::now() + (left / 4).min(PATIENCE);
            let _ = server.alone(until, async |client: &mut Client| make(client, span).await);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(span);
        }
    }

    /// Drops the partitions in which everything is over. Returns how many there were.
    pub(crate) fn drop_old(&self, server: &PostgresServer, deadline: Instant) -> Result<usize> {
        let names = server.alone(deadline, async |client: &mut Client| {
            let rows = client.query(LIST, &[]).await?;
            Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>())
        })?;
        let mut dropped = 0;
        for name in names {
            let gone = server
                .alone(deadline, async |client: &mut Client| drop_if_over(client, &name).await)?;
            if gone {
                // It is made anew if it is needed once more.
                self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

async fn make(client: &mut Client, span: i64) -> Result<(), Error> {
    let work = client.transaction().await?;
    let from = span.saturating_mul(SPAN_MS);
    work.batch_execute(&format!(
        "SET LOCAL lock_timeout = '500ms';
         CREATE TABLE IF NOT EXISTS {} PARTITION OF chunks FOR VALUES FROM ({from}) TO ({})",
        name(span),
        from.saturating_add(SPAN_MS)
    ))
    .await?;
    work.commit().await
}

/// Looks first without a lock that others feel.
async fn drop_if_over(client: &mut Client, name: &str) -> Result<bool, Error> {
    let live = format!("SELECT EXISTS (SELECT FROM {name} WHERE expires > (SELECT clock_us()))");
    if client.query_one(&live, &[]).await?.get(0) {
        return Ok(false);
    }
    let work = client.transaction().await?;
    // Nobody adds to it from here on; dropping it locks the table of which it is a part.
    work.batch_execute(
        "SET LOCAL lock_timeout = '500ms'; LOCK TABLE chunks IN ACCESS EXCLUSIVE MODE",
    )
    .await?;
    if work.query_one(&live, &[]).await?.get(0) {
        return Ok(false);
    }
    work.batch_execute(&format!("DROP TABLE {name}")).await?;
    work.commit().await?;
    Ok(true)
}
