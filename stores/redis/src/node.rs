//! A server, or a node of a Cluster: its connections, and what it said it was.

use std::time::{Duration, Instant};

use onceonly::authority::{AuthorityError, Result};
use parking_lot::Mutex;
use redis::{ConnectionAddr, ConnectionInfo};

use crate::connection::Connection;
use crate::info::Info;

/// Connections that are kept while nobody needs them.
const MOST_IDLE: usize = 8;
/// How long a node that did not answer is left alone where there are others: their rows need not wait for
/// it each time.
const SHUNNED: Duration = Duration::from_millis(250);

pub(crate) struct Node {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) connect: ConnectionInfo,
    allow_eviction: bool,
    idle: Mutex<Vec<Connection>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    identity: Option<u64>,
    shunned_until: Option<Instant>,
}

impl Node {
    pub(crate) fn new(connect: ConnectionInfo, allow_eviction: bool) -> Self {
        Node {
            address: connect.addr().to_string(),
            connect,
            allow_eviction,
            idle: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// What it was when it was asked last; `None` if it never answered.
    pub(crate) fn identity(&self) -> Option<u64> {
        self.state.lock().identity
    }

    pub(crate) fn is_shunned(&self) -> bool {
        self.state.lock().shunned_until.is_some_and(|until| Instant::now() < until)
    }

    /// A connection to a master whose identity is known and whose memory is safe.
    pub(crate) fn connection(&self, deadline: Instant) -> Result<Connection> {
        let (connection, _) = self.connection_and_info(deadline, false)?;
        Ok(connection)
    }

    /// As [`Self::connection`], with what the server says now.
    pub(crate) fn asked(&self, deadline: Instant) -> Result<(Connection, Info)> {
        match self.connection_and_info(deadline, true)? {
            (connection, Some(info)) => Ok((connection, info)),
            (_, None) => Err(crate::reply::unexpected()),
        }
    }

    fn connection_and_info(
        &self,
        deadline: Instant,
        ask: bool,
    ) -> Result<(Connection, Option<Info>)> {
        loop {
            // Not in the condition of a loop, which would hold the lock.
            let idle = self.idle.lock().pop();
            let Some(mut connection) = idle else { break };
            if connection.is_inherited() {
                continue;
            }
            if !ask && connection.is_trusted() {
                return Ok((connection, None));
            }
            // One that has broken while nobody used it is no failure.
            if let Ok(info) = connection.ask(&self.address, deadline) {
                self.learn(&info)?;
                return Ok((connection, Some(info)));
            }
        }
        let (connection, info) = self.look(deadline)?;
        self.learn(&info)?;
        Ok((connection, Some(info)))
    }

    /// A new connection, to whatever it is.
    pub(crate) fn look(&self, deadline: Instant) -> Result<(Connection, Info)> {
        Connection::open(&self.address, &self.connect, deadline).inspect_err(|_| self.shun())
    }

    /// Notes what it is. One that is no master, or evicts, is none to be asked.
    pub(crate) fn learn(&self, info: &Info) -> Result<()> {
        if !info.is_master {
            return Err(AuthorityError::transient(format!(
                "{} is a replica; its master is looked for again",
                self.address
            )));
        }
        if !self.allow_eviction {
            info.check_eviction()?;
        }
        let mut state = self.state.lock();
        (state.identity, state.shunned_until) = (Some(info.identity), None);
        Ok(())
    }

    /// Takes a connection back on which no reply is due.
    pub(crate) fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.push(connection);
        }
    }

    /// One of its connections broke, or got no reply: the others are not better.
    pub(crate) fn failed(&self) {
        self.idle.lock().clear();
        self.shun();
    }

    fn shun(&self) {
        self.state.lock().shunned_until = Some(Instant::now() + SHUNNED);
    }
}

/// The settings of `template` for another address.
pub(crate) fn connect_to(template: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let addr = match template.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    template.clone().set_addr(addr)
}
