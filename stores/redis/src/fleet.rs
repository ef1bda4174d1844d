//! The servers: where they are, and which of them has what.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use onceonly::authority::{AuthorityError, Result};
use parking_lot::Mutex;
use redis::{ConnectionAddr, ConnectionInfo};

use crate::connection::{Connection, left};
use crate::failure::{Refusal, not_connected, refused, too_late};
use crate::info::Info;
use crate::node::{Node, connect_to};
use crate::script::Call;
use crate::topology::{Topology, host_and_port, ranges};

/// Who may know the masters is asked one after the other; each gets this part of the time left.
const SHARE: u32 = 3;

pub(crate) struct Fleet {
    /// Where to begin: a server, its replicas, nodes of one Cluster.
    seeds: Vec<ConnectionInfo>,
    allow_eviction: bool,
    known: Mutex<Known>,
    /// Held by who finds out anew; the others wait for him.
    finding: Mutex<()>,
}

#[derive(Default)]
struct Known {
    topology: Option<Arc<Topology>>,
    /// Somebody was not where it should be.
    stale: bool,
    /// A node that is said to know better.
    hint: Option<String>,
    nodes: HashMap<String, Arc<Node>>,
}

impl Fleet {
    pub(crate) fn new(seeds: Vec<ConnectionInfo>, allow_eviction: bool) -> Self {
        Fleet { seeds, allow_eviction, known: Mutex::default(), finding: Mutex::default() }
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.seeds.iter().map(|seed| seed.addr().to_string()).collect()
    }

    /// See [`Topology::incarnation`].
    pub(crate) fn incarnation(&self, told: &[(Arc<Node>, u64)]) -> u64 {
        let topology = self.known.lock().topology.clone();
        topology.map_or(0, |topology| topology.incarnation(told))
    }

    /// The masters, found anew if somebody was not where it should be.
    pub(crate) fn topology(&self, deadline: Instant) -> Result<Arc<Topology>> {
        if let Some(topology) = self.current() {
            return Ok(topology);
        }
        let _finding = self.finding.try_lock_until(deadline).ok_or_else(too_late)?;
        // Somebody else may have been first.
        self.current().map_or_else(|| self.find(deadline), Ok)
    }

    /// Finds all masters anew and asks each what it is.
    pub(crate) fn survey(&self, deadline: Instant) -> Result<Vec<u64>> {
        self.mark_stale(None);
        let topology = self.topology(deadline)?;
        for node in &topology.masters {
            let (connection, _) = node.asked(deadline)?;
            node.give_back(connection);
        }
        topology.identities().ok_or_else(too_late)
    }

    fn current(&self) -> Option<Arc<Topology>> {
        let known = self.known.lock();
        known.topology.clone().filter(|_| !known.stale)
    }

    pub(crate) fn mark_stale(&self, hint: Option<String>) {
        let mut known = self.known.lock();
        known.stale = true;
        known.hint = hint.or(known.hint.take());
    }

    /// The node with an address that another node named.
    pub(crate) fn node_named(&self, address: &str) -> Result<Arc<Node>> {
        let wrong = || AuthorityError::transient(format!("`{address}` is no address of a node"));
        let (host, port) = host_and_port(address).ok_or_else(wrong)?;
        self.node(connect_to(self.template()?, host, port))
    }

    fn template(&self) -> Result<&ConnectionInfo> {
        self.seeds.first().ok_or_else(|| AuthorityError::refused("no server was named"))
    }

    fn node(&self, connect: ConnectionInfo) -> Result<Arc<Node>> {
        let address = connect.addr().to_string();
        let make = || Arc::new(Node::new(connect, self.allow_eviction));
        Ok(Arc::clone(self.known.lock().nodes.entry(address).or_insert_with(make)))
    }

    /// Who may know, the likeliest first.
    fn candidates(&self) -> Result<Vec<Arc<Node>>> {
        let (hint, topology) = {
            let mut known = self.known.lock();
            (known.hint.take(), known.topology.clone())
        };
        let hinted = hint.and_then(|hint| self.node_named(&hint).ok());
        let mut all: Vec<Arc<Node>> = hinted.into_iter().collect();
        all.extend(topology.iter().flat_map(|topology| topology.masters.clone()));
        for seed in &self.seeds {
            all.push(self.node(seed.clone())?);
        }
        all.sort_by_key(|node| node.is_shunned());
        let mut once: Vec<Arc<Node>> = Vec::new();
        for node in all {
            if once.iter().all(|other| other.address != node.address) {
                once.push(node);
            }
        }
        Ok(once)
    }

    fn find(&self, deadline: Instant) -> Result<Arc<Topology>> {
        let mut failed = None;
        for node in self.candidates()? {
            let Some(time) = left(deadline) else { break };
            let alone = self.seeds.len() == 1 && self.known.lock().nodes.len() == 1;
            let until = if alone { deadline } else { Instant::now() + time / SHARE };
            let found = node.look(until).and_then(|(connection, info)| {
                self.ask_for_masters(&node, connection, &info, until)
            });
            match found {
                Ok(topology) => return self.learn(topology, deadline),
                // The first is mostly the one that says most.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(too_late))
    }

    fn ask_for_masters(
        &self,
        node: &Arc<Node>,
        mut connection: Connection,
        info: &Info,
        deadline: Instant,
    ) -> Result<Topology> {
        if !info.in_cluster {
            node.learn(info)?;
            node.give_back(connection);
            return Ok(Topology::single(Arc::clone(node)));
        }
        let address = &node.address;
        let reply = connection.exchange(&Call::plain(0, &["CLUSTER", "SLOTS"]), deadline);
        let reply = match reply.map_err(|error| not_connected(address, error))? {
            redis::Value::ServerError(error) => return Err(refused(Refusal::of(error), address)),
            reply => reply,
        };
        let host = match node.connect.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host,
            _ => return Err(AuthorityError::refused("a Cluster needs addresses with ports")),
        };
        let ranges = ranges(reply, host)?.into_iter().map(|(first, last, host, port)| {
            Ok((first, last, self.node(connect_to(self.template()?, &host, port))?))
        });
        let ranges = ranges.collect::<Result<Vec<_>>>()?;
        if ranges.is_empty() {
            return Err(AuthorityError::transient(format!(
                "{address} knows no slots of its Cluster"
            )));
        }
        // Where it is a master, the connection is of use.
        if node.learn(info).is_ok() {
            node.give_back(connection);
        }
        Ok(Topology::cluster(ranges))
    }

    /// Takes in what was found. Masters that are new here are asked what they are, so that the first
    /// answer of one says already that it is another.
    fn learn(&self, topology: Topology, deadline: Instant) -> Result<Arc<Topology>> {
        let topology = Arc::new(topology);
        for node in topology.masters.iter().filter(|node| node.identity().is_none()) {
            let Some(time) = left(deadline) else { break };
            match node.connection(Instant::now() + time / SHARE) {
                Ok(connection) => node.give_back(connection),
                Err(error @ AuthorityError::Evicting { .. }) => return Err(error),
                // Its rows will have that error; those of others need not.
                Err(_) => {}
            }
        }
        let mut known = self.known.lock();
        known.nodes.retain(|address, _| {
            let is_master = |node: &Arc<Node>| node.address == *address;
            topology.masters.iter().any(is_master)
        });
        (known.topology, known.stale) = (Some(Arc::clone(&topology)), false);
        Ok(topology)
    }
}
