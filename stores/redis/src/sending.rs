//! What is sent for rows: as little as their kinds, their slots and their sizes allow.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use onceonly::authority::{Row, RowOp};

use crate::authority::RedisAuthority;
use crate::keys::{SpaceKeys, slot};
use crate::node::Node;
use crate::script::{Call, STEP};
use crate::topology::Topology;

/// Rows of one script: others have their turn in between.
const MOST_ROWS: usize = 256;
/// Bytes of values of one script.
const MOST_BYTES: usize = 1 << 20;

/// A command, and what it is for.
pub(crate) struct Sent {
    pub(crate) call: Call,
    pub(crate) asks: Asks,
}

pub(crate) enum Asks {
    /// The server's time.
    Time,
    /// One row that is marked if there is none.
    Mark(usize),
    /// Steps of some rows, by a script.
    Steps(Vec<usize>),
}

/// The key of each row, and its slot.
pub(crate) struct RowKeys {
    keys: Vec<(Vec<u8>, u16)>,
}

impl RowKeys {
    pub(crate) fn new(authority: &RedisAuthority, rows: &[Row<'_>], is_cluster: bool) -> Self {
        let mut space: Option<(&str, SpaceKeys)> = None;
        let keys = rows.iter().map(|row| {
            if space.as_ref().is_none_or(|(name, _)| *name != row.space) {
                space = Some((row.space, authority.keys.space(row.space)));
            }
            let key = space.as_ref().map(|(_, keys)| keys.row(&row.digest)).unwrap_or_default();
            // One server has all slots: what goes to it need not be kept apart.
            let slot = if is_cluster { slot(&key) } else { 0 };
            (key, slot)
        });
        RowKeys { keys: keys.collect() }
    }

    /// One slot of each node: any of them may be the only one that answers.
    pub(crate) fn slots_of_all_nodes(&self, topology: &Topology) -> Vec<u16> {
        let mut nodes: Vec<(&Arc<Node>, u16)> = Vec::new();
        for (_, slot) in &self.keys {
            let Ok(node) = topology.node(*slot) else { continue };
            if nodes.iter().all(|(known, _)| !Arc::ptr_eq(known, node)) {
                nodes.push((node, *slot));
            }
            if nodes.len() == topology.masters.len() {
                break;
            }
        }
        nodes.into_iter().map(|(_, slot)| slot).collect()
    }
}

pub(crate) fn is_plain(op: &RowOp<'_>) -> bool {
    matches!(op, RowOp::Observe { value: [], .. })
}

/// Marks a row without a script. See `lua/row.lua` for what is written.
pub(crate) fn mark(row: usize, rows: &[Row<'_>], keys: &RowKeys) -> Sent {
    let (key, slot) = &keys.keys[row];
    let step = Step::of(&rows[row].op);
    // The server counts from the millisecond that has begun.
    let keep_ms = step.keep.div_ceil(1_000) + 1;
    let mut value = format!("m +{keep_ms:015} ").into_bytes();
    value.extend_from_slice(step.token);
    let mut call = Call::plain(*slot, &["SET"]);
    call.arg(key).arg(value).arg("NX").arg("PX").number(keep_ms);
    Sent { call, asks: Asks::Mark(row) }
}

/// Scripts for rows: as few as their slots and their sizes allow.
pub(crate) fn steps(of: Vec<usize>, rows: &[Row<'_>], keys: &RowKeys) -> Vec<Sent> {
    let mut slots: HashMap<u16, Vec<usize>> = HashMap::new();
    for row in of {
        slots.entry(keys.keys[row].1).or_default().push(row);
    }
    let mut sent = Vec::new();
    for of in slots.into_values() {
        let (mut some, mut bytes) = (Vec::new(), 0);
        for row in of {
            if some.len() >= MOST_ROWS || bytes >= MOST_BYTES {
                sent.push(script(std::mem::take(&mut some), rows, keys));
                bytes = 0;
            }
            some.push(row);
            bytes += Step::of(&rows[row].op).value.len();
        }
        sent.push(script(some, rows, keys));
    }
    sent
}

pub(crate) fn script(of: Vec<usize>, rows: &[Row<'_>], keys: &RowKeys) -> Sent {
    let slot = of.first().map_or(0, |row| keys.keys[*row].1);
    let names = of.iter().map(|row| &keys.keys[*row].0);
    let mut call = Call::script(slot, &STEP, names);
    for row in &of {
        let step = Step::of(&rows[*row].op);
        call.arg(step.name).arg(step.token).arg(step.previous);
        call.number(step.keep).number(step.lease).arg(step.value);
    }
    Sent { call, asks: Asks::Steps(of) }
}

/// What the scripts are told of a step; what it does not have is empty.
#[derive(Default)]
struct Step<'a> {
    name: &'static str,
    token: &'a [u8],
    previous: &'a [u8],
    keep: u64,
    lease: u64,
    value: &'a [u8],
}

impl<'a> Step<'a> {
    fn of(op: &'a RowOp<'_>) -> Self {
        let none = Step::default();
        match op {
            RowOp::Look => Step { name: "look", ..none },
            RowOp::Observe { token, keep, value } => {
                let (token, keep) = (token.as_bytes(), micros(*keep));
                Step { name: "observe", token, keep, value, ..none }
            }
            RowOp::Refresh { keep } => Step { name: "refresh", keep: micros(*keep), ..none },
            RowOp::Claim { token, previous, lease, keep, value } => Step {
                name: "claim",
                token: token.as_bytes(),
                previous: previous.as_ref().map_or(&[], |token| token.as_bytes()),
                keep: micros(*keep),
                lease: micros(*lease),
                value,
            },
            RowOp::Renew { token, lease, keep } => {
                let (keep, lease) = (micros(*keep), micros(*lease));
                Step { name: "renew", token: token.as_bytes(), keep, lease, ..none }
            }
            RowOp::Commit { token, keep, value } => {
                let (token, keep) = (token.as_bytes(), micros(*keep));
                Step { name: "commit", token, keep, value, ..none }
            }
            RowOp::Abandon { token } => Step { name: "abandon", token: token.as_bytes(), ..none },
            RowOp::Forget { .. } => Step { name: "forget", ..none },
            // A step of a later release of the engine; the script does not have it, and fails.
            _ => Step { name: "unknown", ..none },
        }
    }
}

/// Spans of more than a century are that long: sums of moments stay exact in a script's numbers.
pub(crate) fn micros(span: Duration) -> u64 {
    const CENTURY: u64 = 100 * 365 * 86_400 * 1_000_000;
    u64::try_from(span.as_micros()).unwrap_or(CENTURY).min(CENTURY)
}
