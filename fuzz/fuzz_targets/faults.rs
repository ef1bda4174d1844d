//! Bytes → operations on a simulated disk, with crashes, failing calls and restarts:
//! `tests/corpus/faults.rs`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/power/crash.rs"]
mod crash;
#[path = "../../tests/corpus/faults.rs"]
mod faults;
#[path = "../../tests/power/judge.rs"]
mod judge;
#[path = "../../tests/power/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|data: &[u8]| faults::run(data));
