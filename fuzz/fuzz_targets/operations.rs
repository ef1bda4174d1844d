//! Bytes → settings and operations, restarts included, carried out on a store and on the naive
//! model of the contract (`tests/common`). Any answer that the contract forbids is a crash.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
mod decode;

use arbitrary::Unstructured;
use common::ops::Op;
use common::pair::run;
use libfuzzer_sys::fuzz_target;

/// Beyond this a case only repeats itself.
const MAX_OPS: usize = 300;

fuzz_target!(|data: &[u8]| {
    let mut u = Unstructured::new(data);
    let Ok(event_time) = u.arbitrary() else { return };
    let Ok(shape) = decode::shape(&mut u, event_time) else { return };
    let mut ops: Vec<Op> = Vec::new();
    while !u.is_empty() && ops.len() < MAX_OPS {
        let Ok(op) = decode::op(&mut u, &shape) else { break };
        ops.push(op);
    }
    run(shape, &ops);
});
