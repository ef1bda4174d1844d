//! What the scripts for rows answer.

use std::time::Duration;

use onceonly::authority::{Result, RowAnswer};
use redis::Value;

use crate::failure::said_by_script;
use crate::reply::{Reply, unexpected};

// `lua/row.lua` has the same numbers.
const ABSENT: i64 = 0;
const MARKED: i64 = 1;
const DUPLICATE: i64 = 2;
const IN_FLIGHT: i64 = 3;
const GRANTED: i64 = 4;
const REFRESHED: i64 = 5;
const RENEWED: i64 = 6;
const COMMITTED: i64 = 7;
const LOST: i64 = 8;
const ABANDONED: i64 = 9;
const FORGOTTEN: i64 = 10;
const FAILED: i64 = 11;

/// One row's answer.
pub(crate) fn answer(value: Value) -> Result<RowAnswer> {
    let Value::Int(kind) = value else { return detailed(Reply::new(value)?) };
    match kind {
        ABSENT => Ok(RowAnswer::Absent),
        MARKED => Ok(RowAnswer::Marked),
        REFRESHED => Ok(RowAnswer::Refreshed),
        RENEWED => Ok(RowAnswer::Renewed),
        COMMITTED => Ok(RowAnswer::Committed),
        LOST => Ok(RowAnswer::Lost),
        ABANDONED => Ok(RowAnswer::Abandoned),
        _ => Err(unexpected()),
    }
}

fn detailed(mut reply: Reply) -> Result<RowAnswer> {
    match reply.number::<i64>()? {
        DUPLICATE => {
            let age = Duration::from_micros(reply.number()?);
            Ok(RowAnswer::Duplicate { age, value: reply.bytes()? })
        }
        IN_FLIGHT => {
            let lease_left = Duration::from_micros(reply.number()?);
            Ok(RowAnswer::InFlight { lease_left, value: reply.bytes()? })
        }
        GRANTED => Ok(RowAnswer::Granted { fence: reply.number()? }),
        FORGOTTEN => Ok(RowAnswer::Forgotten { live: reply.number::<i64>()? == 1 }),
        FAILED => Err(said_by_script(&String::from_utf8_lossy(&reply.bytes()?))),
        _ => Err(unexpected()),
    }
}
