//! The owner record of a space.

use onceonly::authority::{Acquire, Acquired, Result, Token};
use onceonly_sql_common::{self as common, Decision, Owner, signed};
use rusqlite::{OptionalExtension, params};

use crate::connection::Call;
use crate::error::before_commit;
use crate::space;

pub(crate) fn acquire(call: &Call<'_>, name: &str, request: &Acquire) -> Result<Acquired> {
    let space = space::id_or_new(call, name)?;
    let decision = common::acquire(load(call, space)?, request, call.now);
    if let Decision::Granted(owner) = &decision {
        store(call, space, owner)?;
    }
    decision.answer(call.server)
}

pub(crate) fn release(call: &Call<'_>, name: &str, epoch: u64, holder: Token) -> Result<()> {
    let Some(space) = space::id(call, name)? else { return Ok(()) };
    let mut update = call
        .db
        .prepare_cached(
            "UPDATE onceonly_owners SET lease_until = 0, released = 1
             WHERE space = ?1 AND epoch = ?2 AND holder = ?3",
        )
        .map_err(before_commit)?;
    update.execute(params![space, signed(epoch), holder.as_bytes()]).map_err(before_commit)?;
    Ok(())
}

pub(crate) fn load(call: &Call<'_>, space: i64) -> Result<Option<Owner>> {
    let mut select = call
        .db
        .prepare_cached(
            "SELECT epoch, holder, last, last_released, lease_until, released, position,
             complete_since, complete_through, layout FROM onceonly_owners WHERE space = ?1",
        )
        .map_err(before_commit)?;
    let owner = select.query_row([space], |row| {
        Ok(Owner {
            epoch: row.get(0)?,
            holder: row.get(1)?,
            last: row.get(2)?,
            last_released: row.get(3)?,
            lease_until: row.get(4)?,
            released: row.get(5)?,
            position: row.get(6)?,
            complete_since: row.get(7)?,
            complete_through: row.get(8)?,
            layout: row.get(9)?,
        })
    });
    owner.optional().map_err(before_commit)
}

pub(crate) fn store(call: &Call<'_>, space: i64, owner: &Owner) -> Result<()> {
    let mut replace = call
        .db
        .prepare_cached(
            "INSERT OR REPLACE INTO onceonly_owners
             (space, epoch, holder, last, last_released, lease_until, released, position,
              complete_since, complete_through, layout)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .map_err(before_commit)?;
    let columns = params![
        space,
        owner.epoch,
        owner.holder,
        owner.last,
        owner.last_released,
        owner.lease_until,
        owner.released,
        owner.position,
        owner.complete_since,
        owner.complete_through,
        owner.layout
    ];
    replace.execute(columns).map_err(before_commit)?;
    Ok(())
}
