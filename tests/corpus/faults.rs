//! Bytes → operations on a simulated disk, with a crash or a failing call at any point, and what every
//! key must be after it.

use crate::common::Rng;
use crate::common::ops::Level;
use crate::crash::{Numbers, crash_at_any_call, crash_during_recovery, fail_a_call};

/// Bytes of a fuzzer that say how long a run is, and what the crash leaves.
const LENGTH_BYTES: usize = 6;
const CRASH_BYTES: usize = 40;

/// What a fuzzer makes up: level, kind of crash, and all numbers that follow.
pub(crate) fn run(bytes: &[u8]) {
    let Some(([choice], rest)) = bytes.split_first_chunk() else { return };
    let (length, rest) = rest.split_at(rest.len().min(LENGTH_BYTES));
    let (crash, script) = rest.split_at(rest.len().min(CRASH_BYTES));
    let numbers = Numbers {
        length: Rng::from_bytes(length),
        script: Rng::from_bytes(script),
        crash: Rng::from_bytes(crash),
        name: format!("{} bytes", bytes.len()),
    };
    let level = Level::ALL[usize::from(choice % 3)];
    match choice / 3 % 3 {
        0 => crash_at_any_call(level, numbers, 2),
        1 => crash_during_recovery(level, numbers, 2),
        _ => fail_a_call(level, numbers),
    }
}
