//! What onceonly's clients of SQL databases share: how time, rows and owners are kept in columns.
//!
//! **Internal**: made for `onceonly-sqlite`, `onceonly-postgres` and `onceonly-mysql`, and changed
//! whenever they need it.

mod mix;
#[cfg(feature = "net")]
mod net;
mod owner;
mod row;
mod time;

pub use mix::Mix;
#[cfg(feature = "net")]
pub use net::{Backoff, Pool, Reactor, Tidier};
pub use owner::{Decision, Owner, acquire};
pub use row::{CANCELLED, CLAIMED, MARKED, Stored, unknown};
pub use time::{micros, micros_of, remaining, signed, span, timestamp, unsigned, until};
