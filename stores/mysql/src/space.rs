//! Spaces and their forget logs.

use std::time::Instant;

use mysql_async::Error;
use mysql_async::prelude::Queryable;
use onceonly::authority::{AuthorityError, Digest, Forgotten, Opened, Result, Server};
use onceonly_sql_common::{Mix, signed, timestamp, unsigned};

use crate::answers::bytes16;
use crate::schema;
use crate::script::{Ran, Script, Set, column, hex};
use crate::server::MysqlServer;
use crate::session::Link;

/// Forgotten digests of one answer, at most.
const MOST_FORGOTTEN: usize = 10_000;

/// The number of a space. It comes from the name, so it is the same in tables that were made anew,
/// and nobody has to ask for it.
pub(crate) fn id(name: &str) -> i64 {
    signed(Mix::of(name).get())
}

/// Makes a space that is not there, and counts what is forgotten. A space that no store has opened
/// yet is there because the server was emptied meanwhile.
pub(crate) fn make(name: &str, forgotten: Option<usize>) -> String {
    let (id, name, count) = (id(name), hex(name.as_bytes()), forgotten.unwrap_or(0));
    format!(
        "INSERT INTO onceonly_spaces (id, name, complete_since, incarnation, forgotten)
         VALUES ({id}, {name}, @now, 0, {count})
         ON DUPLICATE KEY UPDATE forgotten = forgotten + {count}"
    )
}

/// The sets of a script that has run to its end.
pub(crate) fn sets(ran: Ran) -> Result<Vec<Set>, Error> {
    match ran.error {
        None => Ok(ran.sets),
        Some(error) => Err(error),
    }
}

/// What a call of one script comes to: the server, and the sets after the prelude.
pub(crate) async fn run(
    link: &mut Link,
    add: &Script,
) -> Result<(Option<Server>, Vec<Set>), Error> {
    link.identify().await?;
    let mut script = link.prelude();
    let first = script.append(add);
    let ran = script.run(&mut link.conn).await;
    let server = link.server(&ran);
    Ok((server, sets(ran)?.split_off(first)))
}

pub(crate) fn known(server: Option<Server>) -> Result<Server> {
    server.ok_or_else(|| AuthorityError::undecided("no answer about the server"))
}

pub(crate) fn open(
    server: &MysqlServer,
    name: &str,
    check: u64,
    deadline: Instant,
) -> Result<Opened> {
    schema::ensure(server, deadline)?;
    // The incarnation is written with the space, so it has to be known before.
    let script = Script::default();
    let told = server.call(deadline, async |link: &mut Link| run(link, &script).await)?;
    let told = known(told.0)?;
    let (id, check, incarnation) = (id(name), signed(check), signed(told.incarnation));
    let mut script = Script::default();
    script.push("START TRANSACTION");
    script.push(&make(name, None));
    // The first check stays. With another incarnation than the last time rows may be missing.
    script.push(&format!(
        "UPDATE onceonly_spaces SET `check` = COALESCE(`check`, {check}),
         complete_since = IF(incarnation = {incarnation}, complete_since, @now),
         incarnation = {incarnation} WHERE id = {id}"
    ));
    let found = script.push(&format!(
        "SELECT `check`, forgotten, complete_since, name FROM onceonly_spaces WHERE id = {id}"
    ));
    script.push("COMMIT");
    let (again, sets) = server.call(deadline, async |link: &mut Link| run(link, &script).await)?;
    let again = known(again)?;
    let row = sets.get(found).and_then(|set| set.rows.first());
    let row = row.ok_or_else(|| AuthorityError::undecided("no answer to an insert"))?;
    if told.incarnation != again.incarnation {
        return Err(AuthorityError::undecided("the server became another one meanwhile"));
    }
    if column::<Vec<u8>>(row, 3) != name.as_bytes() {
        return Err(AuthorityError::refused("another space has the same number: rename this one"));
    }
    Ok(Opened {
        server: again,
        check: unsigned(column(row, 0)),
        forgotten: unsigned(column(row, 1)),
        complete_since: timestamp(column(row, 2)),
    })
}

pub(crate) fn forgotten(
    server: &MysqlServer,
    name: &str,
    after: u64,
    deadline: Instant,
) -> Result<Forgotten> {
    let space = id(name);
    let from = i64::try_from(after).unwrap_or(i64::MAX);
    let mut script = Script::default();
    let last = script.push(&format!("SELECT forgotten FROM onceonly_spaces WHERE id = {space}"));
    let entries = script.push(&format!(
        "SELECT number, digest FROM onceonly_forgotten WHERE space = {space} AND number > {from}
         AND expires > @now ORDER BY number LIMIT {MOST_FORGOTTEN}"
    ));
    script.push("DO 0");
    let (server, sets) = server.call(deadline, async |link: &mut Link| run(link, &script).await)?;
    let rows = |at: usize| sets.get(at).map(|set| set.rows.as_slice()).unwrap_or_default();
    let last = rows(last).first().map_or(0, |row| column::<i64>(row, 0));
    let entries = rows(entries);
    let digests = entries.iter().map(|row| Digest::from_bytes(bytes16(row, 1))).collect();
    let through = entries.last().map_or(after.min(unsigned(last)), |row| unsigned(column(row, 0)));
    Ok(Forgotten { server: known(server)?, digests, through })
}

/// A number, or `None` when there is no row.
pub(crate) async fn number(link: &mut Link, query: &str) -> Result<Option<i64>, Error> {
    link.conn.query_first(query).await
}
