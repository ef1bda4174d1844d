//! What the examples share: the work that a message asks for, an account of what was done how often,
//! and a harness that kills consumers and compares the account with what was sent.

mod broker;
mod campaign;
mod command;
mod consumer;
mod effects;
mod judge;
mod message;
mod meter;

pub use broker::{Broker, Consume};
pub use campaign::{Options, campaign, measure};
pub use command::main;
pub use consumer::{Answer, Consumer, Delivery, Handler, open_store};
pub use effects::{Books, Done, Journal, Tally};
pub use judge::Report;
pub use message::Message;
pub use meter::Meter;

/// The most messages that a consumer takes at once. Of effects that no transaction protects, a kill
/// may double that many.
pub const BATCH: usize = 64;

/// The guides have their code compiled and run here, where crates for UUIDs and digests may be.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/ids.md")]
#[doc = include_str!("../../../docs/migration.md")]
struct Guides;
