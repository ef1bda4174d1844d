//! Which node has which slots.

use std::sync::Arc;

use onceonly::authority::{AuthorityError, Result};
use redis::Value;

use crate::info::hash;
use crate::keys::SLOTS;
use crate::node::Node;

/// The masters of a Cluster and their slots; without one, a server that has all.
pub(crate) struct Topology {
    /// Ranges of slots, ascending, with their masters.
    ranges: Vec<(u16, u16, Arc<Node>)>,
    /// The masters, each once.
    pub(crate) masters: Vec<Arc<Node>>,
    pub(crate) is_cluster: bool,
}

/// A range of slots, and host and port of its master.
pub(crate) type Range = (u16, u16, String, u16);

impl Topology {
    pub(crate) fn single(node: Arc<Node>) -> Self {
        let ranges = vec![(0, SLOTS - 1, Arc::clone(&node))];
        Topology { ranges, masters: vec![node], is_cluster: false }
    }

    pub(crate) fn cluster(mut ranges: Vec<(u16, u16, Arc<Node>)>) -> Self {
        ranges.sort_by_key(|(first, ..)| *first);
        let mut masters: Vec<Arc<Node>> = Vec::new();
        for (.., node) in &ranges {
            if masters.iter().all(|known| known.address != node.address) {
                masters.push(Arc::clone(node));
            }
        }
        Topology { ranges, masters, is_cluster: true }
    }

    pub(crate) fn node(&self, slot: u16) -> Result<&Arc<Node>> {
        let at = self.ranges.partition_point(|(_, last, _)| *last < slot);
        match self.ranges.get(at) {
            Some((first, _, node)) if *first <= slot => Ok(node),
            _ => Err(AuthorityError::transient(format!("no node of the Cluster has slot {slot}"))),
        }
    }

    /// The masters as they were last, by their identities; `None` while one has never answered.
    pub(crate) fn identities(&self) -> Option<Vec<u64>> {
        let mut identities =
            self.masters.iter().map(|node| node.identity()).collect::<Option<Vec<_>>>()?;
        identities.sort_unstable();
        Some(identities)
    }

    /// Another number when one of the masters is another. One that never answered counts as such. `told`
    /// has what those were whose answers it is for.
    pub(crate) fn incarnation(&self, told: &[(Arc<Node>, u64)]) -> u64 {
        let identity = |node: &Arc<Node>| {
            let told = told.iter().rev().find(|(other, _)| other.address == node.address);
            told.map(|(_, identity)| *identity).or(node.identity()).unwrap_or(0)
        };
        let mut identities: Vec<u64> = self.masters.iter().map(identity).collect();
        identities.sort_unstable();
        hash(identities.into_iter().flat_map(u64::to_le_bytes))
    }
}

/// Takes the reply to `CLUSTER SLOTS` apart. A node that does not name its host is the one that was
/// asked, or is reached by the same name.
pub(crate) fn ranges(reply: Value, asked_host: &str) -> Result<Vec<Range>> {
    let wrong = || AuthorityError::refused("CLUSTER SLOTS has a reply that is not understood");
    let Value::Array(entries) = reply else { return Err(wrong()) };
    let ranges = entries.into_iter().map(|entry| {
        let Value::Array(parts) = entry else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &parts[..] else {
            return None;
        };
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        let host = match host {
            Value::BulkString(host) => std::str::from_utf8(host).ok()?,
            Value::Nil => "",
            _ => return None,
        };
        let host = if host.is_empty() { asked_host } else { host };
        let slot = |number: i64| u16::try_from(number).ok().filter(|slot| *slot < SLOTS);
        Some((slot(*first)?, slot(*last)?, host.to_owned(), u16::try_from(*port).ok()?))
    });
    ranges.collect::<Option<Vec<_>>>().ok_or_else(wrong)
}

/// Host and port of `host:port`, where the host may be empty or have colons of its own.
pub(crate) fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_of_clusters_are_understood() {
        let node = |host: Value| Value::Array(vec![host, Value::Int(7_000), text("id")]);
        let range = |from, to, host| {
            Value::Array(vec![Value::Int(from), Value::Int(to), node(host), node(text("replica"))])
        };
        let reply = Value::Array(vec![
            range(0, 99, text("10.0.0.1")),
            range(100, 16_383, text("")),
            range(3, 3, Value::Nil),
        ]);
        let found = ranges(reply, "asked").unwrap();
        let found: Vec<_> =
            found.iter().map(|(from, to, host, port)| (*from, *to, &host[..], *port)).collect();
        let wanted =
            [(0, 99, "10.0.0.1", 7_000), (100, 16_383, "asked", 7_000), (3, 3, "asked", 7_000)];
        assert_eq!(found, wanted);
        for wrong in [Value::Nil, Value::Array(vec![range(0, 16_384, text("a"))])] {
            assert!(ranges(wrong, "asked").is_err());
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        assert_eq!(host_and_port("10.0.0.1:7"), Some(("10.0.0.1", 7)));
        assert_eq!(host_and_port(":7"), Some(("", 7)));
        assert_eq!(host_and_port("::1:7"), Some(("::1", 7)));
        assert_eq!(host_and_port("nothing"), None);
    }
}
