//! An authority in memory, for tests and examples: it does what a server does, and its faults are
//! made by hand. With the feature `conformance`.
//!
//! ```
//! use onceonly::authority::memory::{Fault, MemoryAuthority};
//! use onceonly::authority::{Authority, AuthorityError};
//! use std::time::{Duration, Instant};
//!
//! let authority = MemoryAuthority::new();
//! let deadline = || Instant::now() + Duration::from_millis(100);
//! authority.fail_next(1, Fault::Refuse);
//! let failed = authority.open("orders", 7, deadline());
//! assert!(matches!(failed, Err(AuthorityError::Transient(_))));
//! assert_eq!(authority.open("orders", 7, deadline())?.check, 7);
//! # Ok::<(), AuthorityError>(())
//! ```

mod faults;
mod legacy;
mod packed;
mod rows;
mod statement;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

pub use faults::{Calls, Fault};

use super::{
    Acquire, Acquired, Answers, Append, Appended, Authority, Bucket, Dialect, Digest, Forgotten,
    Legacy, Opened, Result, Row, Server, SliceInfo, SqlValue, Statement, StoredChunk, Token,
};
use crate::time::{Clock, ClockSource, Timestamp};
use faults::Faults;

/// The server and one of its clients. Clones are more clients of the same server, with the same
/// faults.
#[derive(Clone, Debug)]
pub struct MemoryAuthority {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: ClockSource,
    state: Mutex<State>,
    faults: Mutex<Faults>,
    legacy: Mutex<Option<legacy::Marks>>,
}

/// What the server keeps.
#[derive(Clone, Debug, Default)]
struct State {
    incarnation: u64,
    spaces: HashMap<String, Space>,
}

#[derive(Clone, Debug, Default)]
struct Space {
    check: Option<u64>,
    /// When it was first opened, or may have lost rows.
    complete_since_ns: Option<i64>,
    rows: HashMap<Digest, rows::Stored>,
    /// Number, when it may go, digest.
    forgotten: Vec<(u64, i64, Digest)>,
    /// The number of the newest entry.
    last_forgotten: u64,
    owner: Option<packed::Owner>,
    chunks: BTreeMap<Bucket, Vec<packed::Kept>>,
}

/// What a server had at some moment: a backup, or the replica that takes over.
#[derive(Clone, Debug)]
pub struct Snapshot(State);

impl Default for MemoryAuthority {
    fn default() -> Self {
        MemoryAuthority::new()
    }
}

impl MemoryAuthority {
    /// An empty server, with the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        MemoryAuthority::with_clock(crate::time::SystemClock)
    }

    /// An empty server whose time is the wall clock of `clock`.
    pub fn with_clock(clock: impl Clock) -> Self {
        let (state, faults, legacy) = Default::default();
        let shared = Shared { clock: clock.source(), state, faults, legacy };
        MemoryAuthority { shared: Arc::new(shared) }
    }

    /// What the server has now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.shared.state.lock().clone())
    }

    /// Restarts the server with what it had then; with nothing, if `None`.
    pub fn restart(&self, with: Option<Snapshot>) {
        let mut state = self.shared.state.lock();
        let incarnation = state.incarnation + 1;
        *state = with.map_or_else(State::default, |snapshot| snapshot.0);
        state.incarnation = incarnation;
        // What was acknowledged after the snapshot is not there.
        let now_ns = self.now_ns();
        state.spaces.values_mut().for_each(|space| space.complete_since_ns = Some(now_ns));
    }

    /// Rows of a space that are claimed or marked and not over.
    #[must_use]
    pub fn live_rows(&self, space: &str) -> u64 {
        let now_ns = self.now_ns();
        let state = self.shared.state.lock();
        let rows = state.spaces.get(space).map(|space| space.rows.values());
        rows.map_or(0, |rows| rows.filter(|row| row.is_live(now_ns)).count() as u64)
    }

    /// Chunks of a space, and the bytes of their data.
    #[must_use]
    pub fn chunks(&self, space: &str) -> (u64, u64) {
        let state = self.shared.state.lock();
        let chunks = state.spaces.get(space).map(|space| space.chunks.values().flatten());
        chunks.map_or((0, 0), |chunks| {
            chunks.fold((0, 0), |(n, bytes), chunk| (n + 1, bytes + chunk.data.len() as u64))
        })
    }

    /// What a transaction with this statement does when it is committed; the number of rows that it
    /// changes.
    #[must_use]
    pub fn execute(&self, params: &[SqlValue]) -> u64 {
        let now_ns = self.now_ns();
        statement::execute(&mut self.shared.state.lock(), params, now_ns)
    }

    fn now_ns(&self) -> i64 {
        self.shared.clock.wall_nanos()
    }

    /// One call: the faults, then the work under the server's lock.
    fn call<T>(
        &self,
        deadline: Instant,
        count: impl FnOnce(&mut Calls),
        work: impl FnOnce(&mut State, i64) -> Result<T>,
    ) -> Result<T> {
        self.count(count);
        let fault = self.meet_fault(deadline)?;
        let answer = work(&mut self.shared.state.lock(), self.now_ns());
        self.answer_with(fault, deadline, answer)
    }
}

impl State {
    fn space(&mut self, name: &str) -> &mut Space {
        self.spaces.entry(name.to_owned()).or_default()
    }

    fn server(&self, now_ns: i64) -> Server {
        Server { time: Timestamp::from_unix_nanos(now_ns), incarnation: self.incarnation }
    }
}

impl Authority for MemoryAuthority {
    fn legacy(&self) -> Option<&dyn Legacy> {
        self.shared.legacy.lock().is_some().then_some(self)
    }

    fn name(&self) -> String {
        "the authority in memory".to_owned()
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        self.call(
            deadline,
            |calls| calls.open += 1,
            |state, now_ns| {
                let server = state.server(now_ns);
                let space = state.space(space);
                let check = *space.check.get_or_insert(check);
                let since_ns = *space.complete_since_ns.get_or_insert(now_ns);
                let complete_since = Timestamp::from_unix_nanos(since_ns);
                Ok(Opened { server, check, forgotten: space.last_forgotten, complete_since })
            },
        )
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        let count = |calls: &mut Calls| {
            calls.rows += 1;
            calls.rows_sent += rows.len() as u64;
        };
        self.call(deadline, count, |state, now_ns| {
            let server = state.server(now_ns);
            let rows = rows.iter().map(|row| Ok(state.space(row.space).step(row, now_ns)));
            Ok(Answers { server, rows: rows.collect() })
        })
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        self.call(
            deadline,
            |calls| calls.forgotten += 1,
            |state, now_ns| {
                let server = state.server(now_ns);
                Ok(state.space(space).forgotten_after(after, server))
            },
        )
    }

    fn statement(&self, row: &Row<'_>, dialect: Dialect) -> Option<Statement> {
        (dialect == Dialect::Sqlite).then(|| statement::of(row)).flatten()
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        self.call(
            deadline,
            |calls| calls.acquire += 1,
            |state, now_ns| {
                let server = state.server(now_ns);
                packed::acquire(&mut state.space(space).owner, request, server)
            },
        )
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        let count = |calls: &mut Calls| {
            calls.append += 1;
            calls.chunks_sent += appends.iter().map(|a| a.chunks.len() as u64).sum::<u64>();
        };
        self.call(deadline, count, |state, now_ns| {
            let server = state.server(now_ns);
            Ok(appends.iter().map(|one| state.space(one.space).append(one, server)).collect())
        })
    }

    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Result<()> {
        self.call(
            deadline,
            |calls| calls.release += 1,
            |state, _| {
                packed::release(&mut state.space(space).owner, epoch, holder);
                Ok(())
            },
        )
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        self.call(
            deadline,
            |calls| calls.slices += 1,
            |state, now_ns| Ok(state.space(space).slices(now_ns)),
        )
    }

    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>> {
        let count = |calls: &mut Calls| {
            calls.read += 1;
            calls.buckets_read += buckets.len() as u64;
        };
        self.call(deadline, count, |state, now_ns| {
            let space = state.space(space);
            Ok(buckets.iter().map(|bucket| space.read(bucket, now_ns)).collect())
        })
    }
}

/// Whether two tokens are one.
fn same(left: Option<Token>, right: Token) -> bool {
    left == Some(right)
}
