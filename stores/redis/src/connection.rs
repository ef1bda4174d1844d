//! One connection. It is used for one exchange at a time, and kept only when no reply is due on it.

use std::time::{Duration, Instant};

use onceonly::authority::Result;
use redis::{Client, ConnectionInfo, RedisResult, Value};

use crate::failure::{no_reply, not_connected, too_late};
use crate::info::Info;
use crate::script::{Call, Form};

/// How long a server is taken for the one that it was. Before the next use after that it is asked again,
/// which finds connections that have broken meanwhile too.
const TRUSTED: Duration = Duration::from_secs(1);
/// A reply that has come is read even when the deadline has passed.
const LEAST_WAIT: Duration = Duration::from_millis(1);

pub(crate) struct Connection {
    inner: redis::Connection,
    /// The process that opened it.
    process: u32,
    /// What the server was when it was asked, and when that was.
    pub(crate) identity: u64,
    asked: Instant,
    /// When the time to wait for replies was set last.
    timed: Option<Instant>,
}

/// Time left, unless there is none.
pub(crate) fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

impl Connection {
    /// Connects, and asks the server what it is.
    pub(crate) fn open(
        address: &str,
        info: &ConnectionInfo,
        deadline: Instant,
    ) -> Result<(Self, Info)> {
        let time = left(deadline).ok_or_else(too_late)?;
        let client = Client::open(info.clone()).map_err(|error| not_connected(address, error))?;
        let inner = client
            .get_connection_with_timeout(time)
            .map_err(|error| not_connected(address, error))?;
        let process = std::process::id();
        let mut connection =
            Connection { inner, process, identity: 0, asked: Instant::now(), timed: None };
        let info = connection.ask(address, deadline)?;
        Ok((connection, info))
    }

    /// Whether another process has it too: a child that was forked must not read what its parent is
    /// waiting for.
    pub(crate) fn is_inherited(&self) -> bool {
        self.process != std::process::id()
    }

    /// Whether the server was asked so lately that it is taken for what it was.
    pub(crate) fn is_trusted(&self) -> bool {
        self.asked.elapsed() < TRUSTED
    }

    /// Asks the server what it is. Without an answer nothing is lost: the next one may be asked.
    pub(crate) fn ask(&mut self, address: &str, deadline: Instant) -> Result<Info> {
        let asked = Instant::now();
        let reply = self.exchange(&Call::plain(0, &["INFO"]), deadline);
        let text = match reply.map_err(|error| not_connected(address, error))? {
            Value::BulkString(text) => text,
            Value::ServerError(error) => {
                let error = crate::failure::Refusal::of(error);
                return Err(crate::failure::refused(error, address));
            }
            _ => return Err(crate::reply::unexpected()),
        };
        let info = Info::parse(&String::from_utf8_lossy(&text))?;
        (self.asked, self.identity) = (asked, info.identity);
        Ok(info)
    }

    /// One command that changes nothing.
    pub(crate) fn exchange(&mut self, call: &Call, deadline: Instant) -> RedisResult<Value> {
        let mut bytes = Vec::new();
        call.write(Form::Hash, &mut bytes);
        self.write(&bytes, deadline)?;
        self.read(deadline)
    }

    /// Sends commands. After an error some of them may have been.
    pub(crate) fn send(&mut self, address: &str, bytes: &[u8], deadline: Instant) -> Result<()> {
        self.write(bytes, deadline).map_err(|error| no_reply(address, error))
    }

    /// The next reply. After an error the connection is of no use any more.
    pub(crate) fn receive(&mut self, address: &str, deadline: Instant) -> Result<Value> {
        self.read(deadline).map_err(|error| no_reply(address, error))
    }

    fn write(&mut self, bytes: &[u8], deadline: Instant) -> RedisResult<()> {
        self.inner.set_write_timeout(Some(left(deadline).unwrap_or(LEAST_WAIT).max(LEAST_WAIT)))?;
        self.timed = None;
        self.inner.send_packed_command(bytes)
    }

    fn read(&mut self, deadline: Instant) -> RedisResult<Value> {
        // Replies that are there already take no time, and need no system call each.
        let now = Instant::now();
        if self.timed.is_none_or(|timed| now.duration_since(timed) > LEAST_WAIT) {
            let time = deadline.saturating_duration_since(now).max(LEAST_WAIT);
            self.inner.set_read_timeout(Some(time))?;
            self.timed = Some(now);
        }
        self.inner.recv_response()
    }
}
