//! Chunks: written with the owner record, read by slice and bucket.

use std::collections::BTreeSet;
use std::time::Instant;

use mysql_async::Error;
use onceonly::authority::{
    Append, Appended, AuthorityError, Bucket, Chunk, Result, Server, SliceInfo, StoredChunk,
};
use onceonly_sql_common::{micros, micros_of, signed, timestamp, unsigned};

use crate::script::{Script, column, hex};
use crate::server::MysqlServer;
use crate::session::Link;
use crate::space::{self, known, run, sets};
use crate::spans::{Spans, span_of, table, tables};

/// Buckets of one statement.
const MOST_BUCKETS: usize = 256;

/// One after the other: each is a transaction.
pub(crate) fn append(
    server: &MysqlServer,
    spans: &Spans,
    appends: &[Append<'_>],
    deadline: Instant,
) -> Result<Vec<Result<Appended>>> {
    let mut answers = Vec::with_capacity(appends.len());
    for append in appends {
        let done = server.call(deadline, async |link: &mut Link| {
            let done = one(link, spans, append).await;
            if done.is_err() {
                // A table may be gone.
                spans.forget();
            }
            done
        });
        match done {
            Ok((server, Some(before))) => {
                answers.push(known(server).map(|server| Appended { server, before }));
            }
            Ok((_, None)) => {
                answers.push(Err(AuthorityError::StaleEpoch { epoch: append.epoch }));
            }
            // Those before it have their answers, and so have those after it: there may be time.
            Err(error) if appends.len() > 1 => answers.push(Err(error)),
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

/// The position before; `None` for who is not the owner.
async fn one(
    link: &mut Link,
    spans: &Spans,
    append: &Append<'_>,
) -> Result<(Option<Server>, Option<u64>), Error> {
    let needed: BTreeSet<i64> =
        append.chunks.iter().map(|chunk| span_of(chunk.bucket.slice)).collect();
    spans.ensure(link, &needed).await?;
    let id = space::id(append.space);
    let owner = format!(
        "space = {id} AND epoch = {} AND holder = {}",
        signed(append.epoch),
        hex(append.holder.as_bytes())
    );
    let (progress, lease) = (append.progress, micros(append.lease));
    let mut script = Script::default();
    script.push("START TRANSACTION");
    script.push("SET @before = NULL");
    script.push(&format!(
        "SELECT position INTO @before FROM onceonly_owners WHERE {owner} FOR UPDATE"
    ));
    script.push(&format!(
        "UPDATE onceonly_owners SET lease_until = @now + {lease}, released = 0, position = {},
         complete_since = {}, complete_through = {}, layout = {} WHERE {owner}",
        signed(progress.position),
        progress.complete_since.as_unix_nanos(),
        progress.complete_through.as_unix_nanos(),
        progress.layout
    ));
    let before = script.push("SELECT @before");
    // Small ones go along; large ones in packets of their own, in the same transaction.
    let mut rest = append.chunks;
    while let Some((chunk, others)) = rest.split_first() {
        let text = insert(id, chunk);
        if script.text.len() + text.len() > link.budget {
            break;
        }
        script.push(&text);
        rest = others;
    }
    if rest.is_empty() {
        script.push("COMMIT");
    } else {
        script.push("DO 0");
    }
    let (server, done) = run(link, &script).await?;
    let before = done.get(before).and_then(|set| set.rows.first());
    let before: Option<i64> = before.and_then(|row| column(row, 0));
    for (at, chunk) in rest.iter().enumerate() {
        let mut script = Script::default();
        script.push(&insert(id, chunk));
        if at + 1 == rest.len() {
            script.push("COMMIT");
        }
        sets(script.run(&mut link.conn).await)?;
    }
    Ok((server, before.map(unsigned)))
}

/// Only for the owner. A chunk that is there stays as it is.
fn insert(space: i64, chunk: &Chunk) -> String {
    let Bucket { slice, part } = chunk.bucket;
    format!(
        "INSERT INTO {} (space, slice, part, number, expires, bytes, data)
         SELECT {space}, {}, {part}, {}, {}, {}, {} FROM DUAL WHERE @before IS NOT NULL
         ON DUPLICATE KEY UPDATE bytes = bytes",
        table(span_of(slice)),
        signed(slice),
        signed(chunk.number),
        micros_of(chunk.expires),
        chunk.data.len(),
        hex(&chunk.data)
    )
}

pub(crate) fn slices(
    server: &MysqlServer,
    name: &str,
    deadline: Instant,
) -> Result<Vec<SliceInfo>> {
    let id = space::id(name);
    server.call(deadline, async |link: &mut Link| {
        let mut script = Script::default();
        for table in tables(link).await? {
            script.push(&format!(
                "SELECT slice, MAX(expires), CAST(SUM(bytes) AS SIGNED) FROM {table}
                 WHERE space = {id} AND expires > @now GROUP BY slice"
            ));
        }
        script.push("DO 0");
        let (_, sets) = run(link, &script).await?;
        let rows = sets.iter().flat_map(|set| &set.rows);
        let info = |row| SliceInfo {
            slice: unsigned(column(row, 0)),
            expires: timestamp(column(row, 1)),
            bytes: unsigned(column(row, 2)),
        };
        Ok(rows.map(info).collect())
    })
}

pub(crate) fn read(
    server: &MysqlServer,
    name: &str,
    buckets: &[Bucket],
    deadline: Instant,
) -> Result<Vec<Vec<StoredChunk>>> {
    let id = space::id(name);
    server.call(deadline, async |link: &mut Link| {
        let there = tables(link).await?;
        let mut script = Script::default();
        for buckets in buckets.chunks(MOST_BUCKETS) {
            let spans: BTreeSet<i64> = buckets.iter().map(|b| span_of(b.slice)).collect();
            for span in spans {
                let table = table(span);
                if there.contains(&table) {
                    let of_span = buckets.iter().filter(|b| span_of(b.slice) == span);
                    script.push(&select(&table, id, of_span));
                }
            }
        }
        script.push("DO 0");
        let (_, sets) = run(link, &script).await?;
        let mut found = vec![Vec::new(); buckets.len()];
        for row in sets.iter().flat_map(|set| &set.rows) {
            let bucket = Bucket { slice: unsigned(column(row, 0)), part: column(row, 1) };
            let at = buckets.iter().position(|other| *other == bucket);
            if let Some(chunks) = at.and_then(|at| found.get_mut(at)) {
                chunks.push(StoredChunk { number: unsigned(column(row, 2)), data: column(row, 3) });
            }
        }
        Ok(found)
    })
}

fn select<'a>(table: &str, space: i64, buckets: impl Iterator<Item = &'a Bucket>) -> String {
    let buckets: Vec<String> =
        buckets.map(|bucket| format!("({}, {})", signed(bucket.slice), bucket.part)).collect();
    format!(
        "SELECT slice, part, number, data FROM {table}
         WHERE space = {space} AND (slice, part) IN ({}) AND expires > @now",
        buckets.join(", ")
    )
}
