//! What the tests of onceonly's clients of SQL databases share.

mod children;
mod inbox;
mod lines;
mod logs;
mod model;
mod proxy;
mod races;
mod rates;

use std::time::{Duration, Instant};

use onceonly::authority::{Digest, Row, RowOp, Token};

pub use children::{Children, is_child};
pub use inbox::{Inbox, Session};
pub use lines::lines_fail;
pub use logs::logs_are_in_order;
pub use model::{all_at_once, beside_memory};
pub use proxy::{Line, Proxy};
pub use races::{KEYS, print_wins_of_a_store, race};
pub use rates::rates;

/// Long enough for every answer.
pub const LONG: Duration = Duration::from_secs(60);

/// A deadline that nothing should come near to.
#[must_use]
pub fn soon() -> Instant {
    Instant::now() + LONG
}

/// One row that is observed by the token of this number.
#[must_use]
pub fn observe(space: &str, digest: u8, token: u8) -> Row<'_> {
    let token = Token::from_bytes([token; 16]);
    let op = RowOp::Observe { token, keep: LONG, value: &[] };
    Row { space, digest: Digest::from_bytes([digest; 16]), op }
}

/// One row that is claimed by the token of this number.
#[must_use]
pub fn claim(space: &str, digest: u8, token: u8) -> Row<'_> {
    let token = Token::from_bytes([token; 16]);
    let op = RowOp::Claim { token, previous: None, lease: LONG, keep: LONG, value: &[] };
    Row { op, ..observe(space, digest, 0) }
}
