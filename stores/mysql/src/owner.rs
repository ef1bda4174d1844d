//! The owner record of a space.

use std::time::Instant;

use mysql_async::prelude::Queryable;
use mysql_async::{Error, Row};
use onceonly::authority::{Acquire, Acquired, Result, Token};
use onceonly_sql_common::{Decision, Owner, acquire as decide, signed};

use crate::answers::bytes16;
use crate::script::{NOW, Script, column, hex};
use crate::server::MysqlServer;
use crate::session::Link;
use crate::space::{self, known, run};

/// Seldom, so it takes two round trips: the decision is the same as for the other databases.
pub(crate) fn acquire(
    server: &MysqlServer,
    name: &str,
    request: &Acquire,
    deadline: Instant,
) -> Result<Acquired> {
    let id = space::id(name);
    let mut script = Script::default();
    script.push("START TRANSACTION");
    // Of several who want one space each waits here for the one before.
    script.push(&space::make(name, None));
    script.push(&format!("SELECT id INTO @id FROM onceonly_spaces WHERE id = {id} FOR UPDATE"));
    script.push(NOW);
    let found = script.push(&format!(
        "SELECT epoch, holder, last, last_released, lease_until, released, position,
         complete_since, complete_through, layout FROM onceonly_owners WHERE space = {id}"
    ));
    let clock = script.push("SELECT @now");
    script.push("DO 0");
    let (server, decision) = server.call(deadline, async |link: &mut Link| {
        let (server, sets) = run(link, &script).await?;
        let row = |at: usize| sets.get(at).and_then(|set| set.rows.first());
        let now = row(clock).map_or(0, |row| column(row, 0));
        let decision = decide(row(found).map(owner), request, now);
        finish(link, id, &decision).await?;
        Ok((server, decision))
    })?;
    decision.answer(known(server)?)
}

async fn finish(link: &mut Link, id: i64, decision: &Decision) -> Result<(), Error> {
    let Decision::Granted(o) = decision else { return link.conn.query_drop("ROLLBACK").await };
    let last = o.last.map_or_else(|| "NULL".to_owned(), |last| hex(&last));
    let (holder, released) = (hex(&o.holder), i32::from(o.released));
    let last_released = i32::from(o.last_released);
    let mut script = Script::default();
    script.push(&format!(
        "REPLACE INTO onceonly_owners (space, epoch, holder, last, last_released, lease_until,
         released, position, complete_since, complete_through, layout)
         VALUES ({id}, {}, {holder}, {last}, {last_released}, {}, {released}, {}, {}, {}, {})",
        o.epoch, o.lease_until, o.position, o.complete_since, o.complete_through, o.layout
    ));
    script.push("COMMIT");
    space::sets(script.run(&mut link.conn).await).map(drop)
}

fn owner(row: &Row) -> Owner {
    let last: Option<Vec<u8>> = column(row, 2);
    Owner {
        epoch: column(row, 0),
        holder: bytes16(row, 1),
        last: last.and_then(|last| last.try_into().ok()),
        last_released: column::<i64>(row, 3) != 0,
        lease_until: column(row, 4),
        released: column::<i64>(row, 5) != 0,
        position: column(row, 6),
        complete_since: column(row, 7),
        complete_through: column(row, 8),
        layout: column(row, 9),
    }
}

pub(crate) fn release(
    server: &MysqlServer,
    name: &str,
    (epoch, holder): (u64, Token),
    deadline: Instant,
) -> Result<()> {
    let mut script = Script::default();
    script.push(&format!(
        "UPDATE onceonly_owners SET lease_until = 0, released = 1 WHERE space = {} AND epoch = {}
         AND holder = {}",
        space::id(name),
        signed(epoch),
        hex(holder.as_bytes())
    ));
    server.call(deadline, async |link: &mut Link| run(link, &script).await.map(drop))
}
