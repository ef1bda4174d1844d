//! The authority: what it is made of, and how the engine asks it.

use std::fmt;
use std::time::Instant;

use onceonly::Timestamp;
use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, Bucket, Forgotten, Legacy, Opened,
    Result, Row, Server, SliceInfo, StoredChunk, Token,
};

use crate::builder::Builder;
use crate::fleet::Fleet;
use crate::keys::Keys;
use crate::reply::{Reply, unexpected};
use crate::script::{Call, OPEN};
use crate::{owner, rows};

/// Redis, a single server or a Cluster, as the authority of stores.
///
/// Made by [`RedisAuthority::builder`]. It connects when the first store is opened with it, keeps a few
/// connections a node, and may be shared: stores that are given one `Arc` of it are asked for together.
pub struct RedisAuthority {
    pub(crate) fleet: Fleet,
    pub(crate) keys: Keys,
    pub(crate) name: String,
    /// What the keys begin with that something else has marked.
    pub(crate) legacy_prefix: Option<Vec<u8>>,
}

impl RedisAuthority {
    /// Settings of an authority at `url`: `redis://[user:password@]host[:port][/database]`; `rediss://`
    /// for TLS, with the feature `rustls`; `unix:///path`.
    ///
    /// ```
    /// use onceonly_redis::RedisAuthority;
    ///
    /// let authority = RedisAuthority::builder("redis://127.0.0.1:6379").build()?;
    /// # Ok::<(), onceonly_redis::UrlError>(())
    /// ```
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }

    /// The answer of one script, and the incarnation of who gave it.
    pub(crate) fn one(&self, call: Call, deadline: Instant) -> Result<(Reply, u64)> {
        let mut exchanged = self.fleet.exchange(&[call], deadline);
        let told = exchanged.told.pop().ok_or_else(unexpected)?;
        Ok((Reply::new(told.map_err(|failed| failed.error)?)?, exchanged.incarnation))
    }

    /// The time of some server, where nothing else was to be asked.
    pub(crate) fn time(&self, deadline: Instant) -> Result<Server> {
        let (reply, incarnation) = self.one(Call::plain(0, &["TIME"]), deadline)?;
        Ok(Server { time: time_of(reply)?, incarnation })
    }
}

/// The reply to `TIME`: seconds, and microseconds.
pub(crate) fn time_of(mut reply: Reply) -> Result<Timestamp> {
    let (seconds, micros): (i64, i64) = (reply.number()?, reply.number()?);
    Ok(Timestamp::from_unix_nanos(seconds.saturating_mul(1_000_000_000) + micros * 1_000))
}

impl Authority for RedisAuthority {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        let names = self.fleet.survey(deadline)?;
        let names: Vec<String> = names.iter().map(|name| format!("{name:016x}")).collect();
        let keys = self.keys.space(space);
        let mut call = Call::script(keys.slot(), &OPEN, [keys.space()].iter());
        call.number(check).arg(names.join(" "));
        let (mut reply, incarnation) = self.one(call, deadline)?;
        let server = Server { time: reply.moment()?, incarnation };
        let check = reply.number()?;
        let complete_since = reply.moment()?;
        Ok(Opened { server, check, forgotten: reply.number()?, complete_since })
    }

    fn legacy(&self) -> Option<&dyn Legacy> {
        self.legacy_prefix.is_some().then_some(self)
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        rows::rows(self, rows, deadline)
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        rows::forgotten(self, space, after, deadline)
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        owner::acquire(self, space, request, deadline)
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        owner::append(self, appends, deadline)
    }

    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()> {
        owner::release(self, space, (epoch, holder), deadline)
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        owner::slices(self, space, deadline)
    }

    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>> {
        owner::read(self, space, buckets, deadline)
    }
}

/// Without passwords.
impl fmt::Debug for RedisAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisAuthority").field("name", &self.name).finish_non_exhaustive()
    }
}
