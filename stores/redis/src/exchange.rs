//! One round trip: calls are grouped by node, sent to all of them, and then the replies are read.
//!
//! The client's own Cluster connection is not used: it has one error for a whole pipeline, no deadline
//! over redirections, and does not tell which process has answered.

use std::sync::Arc;
use std::time::Instant;

use onceonly::authority::{AuthorityError, Result};
use redis::Value;

use crate::connection::{Connection, left};
use crate::failure::{Refusal, refused, same, too_late};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::script::{Call, Form};
use crate::topology::Topology;

/// Redirections, and scripts that a server does not have yet.
const MOST_ROUNDS: usize = 6;

/// Why a call has no reply.
pub(crate) struct Failed {
    pub(crate) error: AuthorityError,
    /// Its keys are on their way to another node, and not all in one place. Each by itself can be asked.
    pub(crate) moving: bool,
}

/// What came of some calls.
pub(crate) struct Exchanged {
    /// One a call, in their order.
    pub(crate) told: Vec<Result<Value, Failed>>,
    /// Of those who told it.
    pub(crate) incarnation: u64,
}

/// A call that is still to be made.
struct Due {
    call: usize,
    form: Form,
    /// The node that has the key of a slot which is being moved.
    asking: Option<String>,
}

/// What goes to one node in one round.
struct Part {
    node: Arc<Node>,
    dues: Vec<Due>,
}

struct Exchange<'a> {
    fleet: &'a Fleet,
    calls: &'a [Call],
    deadline: Instant,
    told: Vec<Option<Result<Value, Failed>>>,
    /// Who was asked, and what he was.
    asked: Vec<(Arc<Node>, u64)>,
    due: Vec<Due>,
}

impl Fleet {
    /// Makes all calls.
    pub(crate) fn exchange(&self, calls: &[Call], deadline: Instant) -> Exchanged {
        let due = |call| Due { call, form: Form::Hash, asking: None };
        let mut exchange = Exchange {
            fleet: self,
            calls,
            deadline,
            told: calls.iter().map(|_| None).collect(),
            asked: Vec::new(),
            due: (0..calls.len()).map(due).collect(),
        };
        for _ in 0..MOST_ROUNDS {
            if exchange.due.is_empty() {
                break;
            }
            exchange.round();
        }
        let never = || {
            let error = AuthorityError::transient("the servers sent the call on and on");
            Err(Failed { error, moving: false })
        };
        let incarnation = self.incarnation(&exchange.asked);
        let told = exchange.told.into_iter().map(|told| told.unwrap_or_else(never)).collect();
        Exchanged { told, incarnation }
    }
}

impl Exchange<'_> {
    fn round(&mut self) {
        let due = std::mem::take(&mut self.due);
        if left(self.deadline).is_none() {
            return due.iter().for_each(|due| self.fail(due, too_late()));
        }
        let topology = match self.fleet.topology(self.deadline) {
            Ok(topology) => topology,
            Err(error) => return due.iter().for_each(|due| self.fail(due, same(&error))),
        };
        let parts = self.parts(due, &topology);
        let many = parts.len() > 1;
        let mut left_parts = parts.len();
        let mut sent = Vec::with_capacity(parts.len());
        for part in parts {
            // None may use up the time of the others.
            let share = u32::try_from(left_parts).unwrap_or(u32::MAX).saturating_add(1);
            let time = left(self.deadline).unwrap_or_default();
            let until = if many { Instant::now() + time / share } else { self.deadline };
            left_parts -= 1;
            match self.send(&part, until, topology.masters.len() > 1) {
                Ok(connection) => {
                    self.asked.push((Arc::clone(&part.node), connection.identity));
                    sent.push((part, connection));
                }
                Err(error) => self.fail_part(&part, 0, &error),
            }
        }
        for (part, connection) in sent {
            self.receive(part, connection);
        }
    }

    fn parts(&mut self, due: Vec<Due>, topology: &Topology) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for due in due {
            let node = match &due.asking {
                Some(address) => self.fleet.node_named(address),
                None => topology.node(self.calls[due.call].slot).cloned(),
            };
            match node {
                Ok(node) => match parts.iter_mut().find(|part| Arc::ptr_eq(&part.node, &node)) {
                    Some(part) => part.dues.push(due),
                    None => parts.push(Part { node, dues: vec![due] }),
                },
                Err(error) => {
                    self.fleet.mark_stale(None);
                    self.fail(&due, error);
                }
            }
        }
        parts
    }

    fn send(&self, part: &Part, until: Instant, has_others: bool) -> Result<Connection> {
        let node = &part.node;
        let sent = if has_others && node.is_shunned() {
            Err(AuthorityError::transient(format!("{} did not answer a moment ago", node.address)))
        } else {
            node.connection(until)
        };
        let mut connection = sent.inspect_err(|_| self.fleet.mark_stale(None))?;
        let size = part.dues.iter().map(|due| self.calls[due.call].len() + 128).sum();
        let mut bytes = Vec::with_capacity(size);
        for due in &part.dues {
            if due.asking.is_some() {
                Call::plain(0, &["ASKING"]).write(Form::Hash, &mut bytes);
            }
            self.calls[due.call].write(due.form, &mut bytes);
        }
        connection.send(&node.address, &bytes, self.deadline).inspect_err(|_| {
            node.failed();
            self.fleet.mark_stale(None);
        })?;
        Ok(connection)
    }

    /// Reads one reply a call. A connection that fails on the way is dropped, with whatever may still
    /// come on it.
    fn receive(&mut self, part: Part, mut connection: Connection) {
        let node = &part.node;
        for (at, due) in part.dues.iter().enumerate() {
            let asked = match due.asking {
                Some(_) => connection.receive(&node.address, self.deadline).map(drop),
                None => Ok(()),
            };
            match asked.and_then(|()| connection.receive(&node.address, self.deadline)) {
                Ok(Value::ServerError(error)) => self.refused(due, Refusal::of(error), node),
                Ok(value) => self.told[due.call] = Some(Ok(value)),
                Err(error) => {
                    node.failed();
                    self.fleet.mark_stale(None);
                    return self.fail_part(&part, at, &error);
                }
            }
        }
        node.give_back(connection);
    }

    fn refused(&mut self, due: &Due, refusal: Refusal, node: &Node) {
        let again = |form, asking| Due { call: due.call, form, asking };
        match refusal {
            Refusal::NoScript if due.form == Form::Hash => {
                self.due.push(again(Form::Text, due.asking.clone()));
            }
            Refusal::Moved(to) => {
                self.fleet.mark_stale(Some(named(&to, node)));
                self.due.push(again(due.form, None));
            }
            Refusal::Ask(to) => self.due.push(again(due.form, Some(named(&to, node)))),
            Refusal::TryAgain => {
                let error = refused(Refusal::TryAgain, &node.address);
                self.told[due.call] = Some(Err(Failed { error, moving: true }));
            }
            refusal => {
                if matches!(refusal, Refusal::NotHere(_)) {
                    self.fleet.mark_stale(None);
                }
                self.fail(due, refused(refusal, &node.address));
            }
        }
    }

    fn fail(&mut self, due: &Due, error: AuthorityError) {
        self.told[due.call] = Some(Err(Failed { error, moving: false }));
    }

    fn fail_part(&mut self, part: &Part, from: usize, error: &AuthorityError) {
        part.dues[from..].iter().for_each(|due| self.fail(due, same(error)));
    }
}

/// An address that a node named. Without a host it is that of the node.
fn named(address: &str, node: &Node) -> String {
    match (address.strip_prefix(':'), node.address.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        _ => address.to_owned(),
    }
}
