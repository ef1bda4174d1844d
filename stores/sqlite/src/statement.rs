//! The commit of a claim as a statement for the user's own transaction.

use onceonly::authority::{Dialect, Row, RowOp, SqlValue, Statement};
use onceonly_sql_common::micros;

/// SQLite's own clock has milliseconds and is rounded down: a mark lives that much longer.
const TICK: i64 = 1_000;

/// The clock of the machine, the same throughout the statement. Older releases of SQLite know it too.
const NOW: &str = "(strftime('%s', 'now') * 1000000 + substr(strftime('%f', 'now'), 4) * 1000)";

/// `None` for other databases, and for what is no commit.
pub(crate) fn of(row: &Row<'_>, dialect: Dialect) -> Option<Statement> {
    let (Dialect::Sqlite, RowOp::Commit { token, keep, value }) = (dialect, row.op) else {
        return None;
    };
    let mut params = vec![
        SqlValue::Text(row.space.to_owned()),
        SqlValue::Bytes(row.digest.as_bytes().to_vec()),
        SqlValue::Bytes(token.as_bytes().to_vec()),
        SqlValue::Int(micros(keep).saturating_add(TICK)),
    ];
    let mut set_value = "";
    if !value.is_empty() {
        params.push(SqlValue::Bytes(value.to_vec()));
        set_value = ", value = CASE state WHEN 2 THEN ?5 ELSE value END";
    }
    // What was marked by a commit before stays as it is, and counts as changed.
    let sql = format!(
        "UPDATE main.onceonly_rows SET state = 1,
         seen = CASE state WHEN 2 THEN {NOW} ELSE seen END,
         live_until = CASE state WHEN 2 THEN {NOW} + ?4 ELSE live_until END,
         expires = CASE state WHEN 2 THEN {NOW} + ?4 ELSE expires END{set_value}
         WHERE space = (SELECT id FROM main.onceonly_spaces WHERE name = ?1) AND digest = ?2
         AND token = ?3 AND state IN (1, 2) AND expires > {NOW}"
    );
    Some(Statement { sql, params })
}
