//! Runs the real command: every flag, every kind of bad input, kills and closed pipes.

mod fields;
mod killed;
mod lines;
mod stores;
mod support;
mod time;
mod transfer;
mod usage;
