//! The commit of a claim as a statement for the user's own transaction.

use onceonly::authority::{Dialect, Row, RowOp, SqlValue, Statement};
use onceonly_sql_common::micros;

use crate::space;

/// The server's clock in UTC, whatever the time zone of the session.
const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))";

/// `None` for other databases, and for what is no commit.
///
/// Sessions count rows that an update found, or only those that it changed (`CLIENT_FOUND_ROWS`). So
/// one that was marked before changes too, in what nobody sees: its fence, which is for the next claim
/// to pass. Bytes go as digits, which are the same in every character set. Assignments are made from
/// left to right, so the state comes last.
pub(crate) fn of(row: &Row<'_>, dialect: Dialect, database: &str) -> Option<Statement> {
    let (Dialect::Mysql, RowOp::Commit { token, keep, value }) = (dialect, row.op) else {
        return None;
    };
    let keep = SqlValue::Int(micros(keep));
    let mut params = vec![keep.clone(), keep];
    let mut set_value = "";
    if !value.is_empty() {
        params.push(SqlValue::Text(digits(value)));
        set_value = "value = IF(state = 2, UNHEX(?), value), ";
    }
    params.extend([
        SqlValue::Int(space::id(row.space)),
        SqlValue::Text(digits(row.digest.as_bytes())),
        SqlValue::Text(digits(token.as_bytes())),
    ]);
    let database = database.replace('`', "``");
    let sql = format!(
        "UPDATE `{database}`.onceonly_rows SET fence = IF(state = 1, fence + 1, fence),
         seen = IF(state = 2, {NOW}, seen),
         live_until = IF(state = 2, {NOW} + ?, live_until),
         expires = IF(state = 2, {NOW} + ?, expires), {set_value}state = 1
         WHERE space = ? AND digest = UNHEX(?) AND token = UNHEX(?) AND state IN (1, 2)
         AND expires > {NOW}"
    );
    Some(Statement { sql, params })
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
