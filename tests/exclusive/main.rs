//! `Ownership::Exclusive`: one store at a time writes a space, and the next owner knows its keys.

#[path = "../common/mod.rs"]
mod common;

mod claims;
mod fixture;
mod forgetting;
mod journal;
mod model;
mod outages;
mod owners;
mod takeover;
mod warm;
