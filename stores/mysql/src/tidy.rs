//! Deletes what is over, apart from the calls.

use std::time::{Duration, Instant};

use onceonly::authority::Result;

use crate::script::Script;
use crate::server::MysqlServer;
use crate::session::Link;
use crate::space::run;
use crate::spans::Spans;

/// A batch may take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rows of one batch.
const BATCH: u64 = 1_000;
/// Rows stay for so long after they are over: until then fences go on from the last one, and a
/// clock may step back.
const GRACE_US: i64 = 60_000_000;

/// One batch of each; true if there is more.
pub(crate) fn batch(server: &MysqlServer, spans: &Spans) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    let mut script = Script::default();
    for table in ["onceonly_rows", "onceonly_forgotten"] {
        script.push(&format!(
            "DELETE FROM {table} WHERE expires <= @now - {GRACE_US} ORDER BY expires LIMIT {BATCH}"
        ));
    }
    let (_, sets) = server.call(deadline, async |link: &mut Link| run(link, &script).await)?;
    let more = sets.iter().any(|set| set.matched >= BATCH);
    if !more {
        spans.drop_old(server, deadline)?;
    }
    Ok(more)
}
