//! The statement of a commit, as if this were a database.

use std::time::Duration;

use super::State;
use crate::authority::{Digest, Row, RowAnswer, RowOp, SqlValue, Statement, Token};
use crate::time::nanos;

/// `None` for what is no commit.
pub(super) fn of(row: &Row<'_>) -> Option<Statement> {
    let RowOp::Commit { token, keep, value } = row.op else { return None };
    let params = vec![
        SqlValue::Text(row.space.to_owned()),
        SqlValue::Bytes(row.digest.as_bytes().to_vec()),
        SqlValue::Bytes(token.as_bytes().to_vec()),
        SqlValue::Int(nanos(keep)),
        SqlValue::Bytes(value.to_vec()),
    ];
    Some(Statement { sql: "(commit of a claim)".to_owned(), params })
}

/// Carries it out; parameters that are none of `of`'s change nothing.
pub(super) fn execute(state: &mut State, params: &[SqlValue], now_ns: i64) -> u64 {
    let [
        SqlValue::Text(space),
        SqlValue::Bytes(digest),
        SqlValue::Bytes(token),
        SqlValue::Int(keep_ns),
        SqlValue::Bytes(value),
    ] = params
    else {
        return 0;
    };
    let (Ok(digest), Ok(token)) = (digest[..].try_into(), token[..].try_into()) else { return 0 };
    let keep = Duration::from_nanos(keep_ns.unsigned_abs());
    let op = RowOp::Commit { token: Token::from_bytes(token), keep, value };
    let row = Row { space, digest: Digest::from_bytes(digest), op };
    u64::from(state.space(space).step(&row, now_ns) == RowAnswer::Committed)
}
