//! Campaigns: the same judges as the tests, for as long as one likes. Each is a command with a seed.
//!
//! ```sh
//! cargo run --release -p onceonly-campaigns -- images --runs 10000 --seed 1
//! cargo run --release -p onceonly-campaigns -- power --cycles 1000 --seed 1
//! cargo run --release -p onceonly-campaigns -- full --seed 1
//! cargo run --release -p onceonly-campaigns -- write-back --rounds 3
//! cargo run --release -p onceonly-campaigns -- calls --seed 1
//! cargo run --release -p onceonly-campaigns -- levels
//! cargo run --release -p onceonly-campaigns -- fixtures
//! cargo run --release -p onceonly-campaigns -- breaks
//! ```
#![expect(clippy::print_stdout, reason = "a command reports on standard output")]
#![allow(missing_docs, reason = "a command, not a library")]

mod args;
mod breaks;
mod calls;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/power/crash.rs"]
mod crash;
mod fixtures;
mod full;
#[path = "../../tests/power/judge.rs"]
mod judge;
mod levels;
mod power;
#[path = "../../tests/power/script.rs"]
mod script;
mod simulated;
mod write_back;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let args = args::Args::parse(words)?;
    match command.as_str() {
        "images" => simulated::run(&args),
        "power" => power::run(&args),
        "power-child" => power::child(&args),
        "full" => full::run(&args),
        "write-back" => write_back::run(&args),
        "write-back-child" => write_back::child(&args),
        "full-child" => full::child(&args),
        "calls" => calls::run(&args),
        "calls-child" => calls::child(&args),
        "levels" => levels::run(&args),
        "fixtures" => fixtures::run(&args),
        "breaks" => breaks::run(&args),
        other => {
            bail!(
                "no campaign {other:?}: images, power, full, write-back, calls, levels, fixtures or breaks"
            )
        }
    }
}
