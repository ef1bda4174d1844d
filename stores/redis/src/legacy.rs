//! Keys that `SET … NX` has marked before a store decided.

use std::time::Instant;

use onceonly::authority::{Legacy, Result};
use redis::Value;

use crate::authority::RedisAuthority;
use crate::keys::slot_of;
use crate::reply::unexpected;
use crate::script::Call;

/// Keys of one round trip.
const MOST_KEYS: usize = 4_096;

impl Legacy for RedisAuthority {
    fn are_marked(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>> {
        self.of_each("EXISTS", keys, deadline)
    }

    fn forget(&self, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>> {
        self.of_each("DEL", keys, deadline)
    }
}

impl RedisAuthority {
    /// Whether a command says one, not none, of each key: all of them in one pipeline a node.
    fn of_each(&self, command: &str, keys: &[&[u8]], deadline: Instant) -> Result<Vec<bool>> {
        let topology = self.fleet.topology(deadline)?;
        let prefix = self.legacy_prefix.as_deref().unwrap_or_default();
        let mut all = Vec::with_capacity(keys.len());
        for some in keys.chunks(MOST_KEYS) {
            let calls = some.iter().map(|key| {
                let name = [prefix, key].concat();
                let slot = if topology.is_cluster { slot_of(&name) } else { 0 };
                let mut call = Call::plain(slot, &[command]);
                call.arg(name);
                call
            });
            let calls: Vec<Call> = calls.collect();
            for told in self.fleet.exchange(&calls, deadline).told {
                match told.map_err(|failed| failed.error)? {
                    Value::Int(count) => all.push(count > 0),
                    _ => return Err(unexpected()),
                }
            }
        }
        Ok(all)
    }
}
