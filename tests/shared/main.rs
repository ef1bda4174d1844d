//! `Ownership::Shared`: several stores and one authority.

#[path = "../common/mod.rs"]
mod common;
#[path = "../strategies/mod.rs"]
mod strategies;

mod batches;
mod bold;
mod claims;
mod fingerprints;
mod fixture;
mod forgetting;
mod honesty;
mod inbox;
mod legacy;
mod model;
mod outages;
mod results;
mod winners;
