//! `Ownership::Exclusive`: one store at a time writes a space, and the next owner knows its keys.

#[path = "../common/mod.rs"]
mod common;

mod claims;
mod fixture;
mod forgetting;
mod journal;
mod model;
mod opening;
mod outages;
mod owners;
mod sealing;
mod takeover;
mod warm;
