//! Bytes → settings and operations, restarts included, carried out on a store and on the naive
//! model of the contract (`tests/common`). Any answer that the contract forbids is a panic.

use arbitrary::Unstructured;

use crate::common::ops::Op;
use crate::{common, decode};

/// Beyond this a case only repeats itself.
const MAX_OPS: usize = 300;

pub(crate) fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(event_time) = u.arbitrary() else { return };
    let Ok(shape) = decode::shape(&mut u, event_time) else { return };
    let mut ops: Vec<Op> = Vec::new();
    while !u.is_empty() && ops.len() < MAX_OPS {
        let Ok(op) = decode::op(&mut u, &shape) else { break };
        ops.push(op);
    }
    common::pair::run(shape, &ops);
}
