//! Shorthands: digests, tokens, single rows.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onceonly::authority::{
    Answers, Authority, AuthorityError, Digest, Result, Row, RowAnswer, RowOp, Token,
};
use onceonly_redis::RedisAuthority;

pub(crate) const SPACE: &str = "orders";
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// Long enough for every answer.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn next_bytes() -> [u8; 16] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    // Spread, so that all groups of rows and all nodes get some.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mixed.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub(crate) fn digest() -> Digest {
    Digest::from_bytes(next_bytes())
}

pub(crate) fn digests(count: usize) -> Vec<Digest> {
    let mut digests: Vec<Digest> = (0..count).map(|_| digest()).collect();
    digests.sort_unstable();
    digests
}

pub(crate) fn token() -> Token {
    Token::from_bytes(next_bytes())
}

pub(crate) fn observe() -> RowOp<'static> {
    RowOp::Observe { token: token(), keep: HOUR, value: &[] }
}

pub(crate) fn ask(
    authority: &RedisAuthority,
    digests: &[Digest],
    mut op: impl FnMut() -> RowOp<'static>,
    deadline: Instant,
) -> Result<Answers> {
    let rows: Vec<Row<'_>> =
        digests.iter().map(|digest| Row { space: SPACE, digest: *digest, op: op() }).collect();
    authority.rows(&rows, deadline)
}

pub(crate) fn row(authority: &RedisAuthority, digest: Digest, op: RowOp<'static>) -> RowAnswer {
    let mut answers = ask(authority, &[digest], || op, soon()).unwrap();
    answers.rows.pop().unwrap().unwrap()
}

pub(crate) fn is_duplicate(answer: &RowAnswer) -> bool {
    matches!(answer, RowAnswer::Duplicate { .. })
}

pub(crate) fn incarnation(authority: &RedisAuthority) -> u64 {
    ask(authority, &digests(64), || RowOp::Look, soon()).unwrap().server.incarnation
}

/// With its cause.
pub(crate) fn text(error: &AuthorityError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}
