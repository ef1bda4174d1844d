//! The owner record of a space.

use std::time::Instant;

use onceonly::authority::{Acquire, Acquired, Result, Token};
use onceonly_sql_common::{Decision, Owner, acquire as decide, signed};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

use crate::server::PostgresServer;
use crate::session::Link;
use crate::space;

/// Of several who want one space each waits here for the one before.
const LOCK: &str = "SELECT id FROM spaces WHERE name = $1 FOR UPDATE";

const LOAD: &str = "
SELECT epoch, holder, last, last_released, lease_until, released, position, complete_since,
    complete_through, layout, clock_us()
FROM (SELECT 1) one LEFT JOIN owners ON space = $1";

const STORE: &str = "
INSERT INTO owners (space, epoch, holder, last, last_released, lease_until, released, position,
    complete_since, complete_through, layout)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (space) DO UPDATE SET epoch = excluded.epoch, holder = excluded.holder,
    last = excluded.last, last_released = excluded.last_released,
    lease_until = excluded.lease_until, released = excluded.released,
    position = excluded.position, complete_since = excluded.complete_since,
    complete_through = excluded.complete_through, layout = excluded.layout";

const RELEASE: &str = "
UPDATE owners o SET lease_until = 0, released = true FROM spaces s
WHERE s.name = $1 AND o.space = s.id AND o.epoch = $2 AND o.holder = $3";

/// Seldom, so it may take a few round trips: the decision is the same as for the other databases.
pub(crate) fn acquire(
    server: &PostgresServer,
    name: &str,
    request: &Acquire,
    deadline: Instant,
) -> Result<Acquired> {
    let (told, ()) = server.call(deadline, async |link: &Link| space::make(link, &[name]).await)?;
    let decision =
        server.alone(deadline, async |client: &mut Client| step(client, name, request).await)?;
    decision.answer(told)
}

async fn step(client: &mut Client, name: &str, request: &Acquire) -> Result<Decision, Error> {
    let work = client.transaction().await?;
    let space: i32 = work.query_one(LOCK, &[&name]).await?.get(0);
    let row = work.query_one(LOAD, &[&space]).await?;
    let decision = decide(owner(&row), request, row.get(10));
    if let Decision::Granted(o) = &decision {
        let last = o.last.as_ref().map(<[u8; 16]>::as_slice);
        let (holder, layout) = (o.holder.as_slice(), i64::from(o.layout));
        let params: [&(dyn ToSql + Sync); 11] = [
            &space,
            &o.epoch,
            &holder,
            &last,
            &o.last_released,
            &o.lease_until,
            &o.released,
            &o.position,
            &o.complete_since,
            &o.complete_through,
            &layout,
        ];
        work.execute(STORE, &params).await?;
    }
    work.commit().await?;
    Ok(decision)
}

/// `None` where the join found nothing.
fn owner(row: &Row) -> Option<Owner> {
    let epoch: Option<i64> = row.get(0);
    Some(Owner {
        epoch: epoch?,
        holder: token(row.get(1)),
        last: row.get::<_, Option<&[u8]>>(2).map(token),
        last_released: row.get(3),
        lease_until: row.get(4),
        released: row.get(5),
        position: row.get(6),
        complete_since: row.get(7),
        complete_through: row.get(8),
        layout: u32::try_from(row.get::<_, i64>(9)).unwrap_or_default(),
    })
}

fn token(bytes: &[u8]) -> [u8; 16] {
    // Nobody else writes another length, and such a token is nobody's.
    bytes.try_into().unwrap_or_default()
}

pub(crate) fn release(
    server: &PostgresServer,
    name: &str,
    (epoch, holder): (u64, Token),
    deadline: Instant,
) -> Result<()> {
    let (_, ()) = server.call(deadline, async |link: &Link| {
        link.query(RELEASE, &[&name, &signed(epoch), &holder.as_bytes().as_slice()]).await.map(drop)
    })?;
    Ok(())
}
