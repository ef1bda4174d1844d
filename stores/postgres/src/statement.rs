//! The commit of a claim as a statement for the user's own transaction.

use onceonly::authority::{Dialect, Row, RowOp, SqlValue, Statement};
use onceonly_sql_common::micros;

use crate::schema::quoted;

/// `None` for other databases, and for what is no commit.
pub(crate) fn of(row: &Row<'_>, dialect: Dialect, schema: &str) -> Option<Statement> {
    let (Dialect::Postgres, RowOp::Commit { token, keep, value }) = (dialect, row.op) else {
        return None;
    };
    let mut params = vec![
        SqlValue::Text(row.space.to_owned()),
        SqlValue::Bytes(row.digest.as_bytes().to_vec()),
        SqlValue::Bytes(token.as_bytes().to_vec()),
        SqlValue::Int(micros(keep)),
    ];
    let mut set_value = "";
    if !value.is_empty() {
        params.push(SqlValue::Bytes(value.to_vec()));
        set_value = ", value = CASE r.state WHEN 2 THEN $5 ELSE r.value END";
    }
    // All names have their schema: the session's search path is the user's. The clock is asked for in
    // each place, so that whoever waited for the row's lock does so after it. What was marked by a
    // commit before stays as it is, and counts as changed.
    let schema = quoted(schema);
    let now = format!("{schema}.clock_us()");
    let sql = format!(
        "UPDATE {schema}.rows AS r SET state = 1,
         seen = CASE r.state WHEN 2 THEN {now} ELSE r.seen END,
         live_until = CASE r.state WHEN 2 THEN {now} + $4::bigint ELSE r.live_until END,
         expires = CASE r.state WHEN 2 THEN {now} + $4::bigint ELSE r.expires END{set_value}
         WHERE r.space = (SELECT s.id FROM {schema}.spaces AS s WHERE s.name = $1::text)
         AND r.digest = $2::bytea AND r.token = $3::bytea AND r.state IN (1, 2)
         AND r.expires > {now}"
    );
    Some(Statement { sql, params })
}
