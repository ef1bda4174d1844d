//! Order, stock, payment: a saga whose steps are claimed one by one. What a dead or stuck worker has
//! left half done is found by `expired_claims()` on a schedule, and driven on or undone.

mod campaign;
mod database;
mod judge;
mod machine;
mod provider;
mod saga;
mod shop;
mod worker;

pub use campaign::{Options, POSTGRES, campaign};
pub use database::Place;
pub use judge::Report;
pub use machine::{Advance, State};
pub use provider::{Charge, Provider};
pub use saga::{Desk, Ending, Saga, Taken};
pub use shop::{Cancel, Shop};
pub use worker::{Work, work};

/// One try to carry out an order: after a cancellation the order may be taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    pub order: i64,
    pub number: i64,
}
