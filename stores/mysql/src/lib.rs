//! MySQL or MariaDB as the [authority](onceonly::authority) of onceonly stores.

mod answers;
mod builder;
mod chunks;
mod error;
mod owner;
mod pieces;
mod rows;
mod schema;
mod script;
mod server;
mod session;
mod space;
mod spans;
mod tidy;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, Bucket, Forgotten, Opened, Result,
    Row, SliceInfo, StoredChunk,
};
use onceonly_sql_common::Tidier;

pub use builder::Builder;
use server::MysqlServer;
use spans::Spans;

/// How often the server is tidied up.
const TIDYING: Duration = Duration::from_secs(5);

/// A server that decides about keys for several processes. See the [crate](self).
///
/// Give all stores of a process one of them, in an `Arc`: then what they ask goes in one round trip.
#[derive(Debug)]
pub struct MysqlAuthority {
    name: String,
    shared: Arc<Shared>,
    /// Begins when the first space is opened.
    tidier: OnceLock<Option<Tidier>>,
}

#[derive(Debug)]
struct Shared {
    server: MysqlServer,
    spans: Spans,
}

impl MysqlAuthority {
    /// Settings for a server: `mysql://user:password@host:3306/database`.
    #[must_use]
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(crate) fn new(builder: Builder) -> Self {
        let (name, spans) = (builder.name(), Spans::default());
        let shared = Shared { server: MysqlServer::new(builder), spans };
        MysqlAuthority { name, shared: Arc::new(shared), tidier: OnceLock::new() }
    }

    fn tidy_up(&self) {
        self.tidier.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            // What fails is tried again; without a thread another process does it.
            let batch = move || tidy::batch(&shared.server, &shared.spans).unwrap_or(false);
            Tidier::start("onceonly-tidy", TIDYING, batch).ok()
        });
    }
}

/// The statements that make the tables, for those who keep migrations of their own
/// ([`Builder::migrates`]).
#[must_use]
pub fn migrations() -> &'static str {
    schema::MIGRATIONS
}

impl Authority for MysqlAuthority {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn open(&self, space: &str, check: u64, deadline: Instant) -> Result<Opened> {
        let opened = space::open(&self.shared.server, space, check, deadline)?;
        self.tidy_up();
        Ok(opened)
    }

    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Result<Answers> {
        rows::rows(&self.shared.server, rows, deadline)
    }

    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Result<Forgotten> {
        space::forgotten(&self.shared.server, space, after, deadline)
    }

    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Result<Acquired> {
        owner::acquire(&self.shared.server, space, request, deadline)
    }

    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Result<Vec<Result<Appended>>> {
        chunks::append(&self.shared.server, &self.shared.spans, appends, deadline)
    }

    fn release(&self, space: &str, epoch: u64, deadline: Instant) -> Result<()> {
        owner::release(&self.shared.server, space, epoch, deadline)
    }

    fn slices(&self, space: &str, deadline: Instant) -> Result<Vec<SliceInfo>> {
        chunks::slices(&self.shared.server, space, deadline)
    }

    fn read(
        &self,
        space: &str,
        buckets: &[Bucket],
        deadline: Instant,
    ) -> Result<Vec<Vec<StoredChunk>>> {
        chunks::read(&self.shared.server, space, buckets, deadline)
    }
}
