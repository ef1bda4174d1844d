//! Those that are compared: the engine with a server behind it, and the server alone.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceonly::{Builder, Dedup, Ownership, Verdict};
use onceonly_postgres::PostgresAuthority;
use onceonly_redis::RedisAuthority;
use tempfile::TempDir;

use super::PATIENCE;
use crate::args::Result;
use crate::contestants::digest;
use crate::contestants::stores::Tables;
use crate::keys::Key;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Postgres,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Redis => "Redis",
            Kind::Postgres => "PostgreSQL",
        }
    }
}

/// A server with nothing in it.
pub(crate) struct Server<T> {
    pub(crate) tables: T,
    kind: Kind,
    empty: f64,
    /// Deleted after the server has ended.
    _dir: TempDir,
}

impl<T: Tables> Server<T> {
    pub(crate) fn start(kind: Kind, dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("server-").tempdir_in(dir)?;
        let tables = T::open(dir.path(), 0)?;
        let mut server = Server { tables, kind, empty: 0.0, _dir: dir };
        server.empty = server.holds()?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> Result<String> {
        self.tables.url().ok_or_else(|| "no server".into())
    }

    /// Settings of stores that all have this server behind them.
    pub(crate) fn stores(&self, live: u64, ownership: Ownership) -> Result<Builder> {
        let builder = Dedup::builder()
            .window(Duration::from_secs(24 * 3600))
            .expected_keys(live)
            .secret([7; 32])
            .authority_space("orders-0");
        let url = self.url()?;
        Ok(match self.kind {
            Kind::Redis => {
                builder.authority(Arc::new(RedisAuthority::builder(url).build()?), ownership)
            }
            Kind::Postgres => {
                builder.authority(Arc::new(PostgresAuthority::builder(&url).build()?), ownership)
            }
        })
    }

    /// Bytes that it took for keys: of memory for Redis, of tables and indexes for PostgreSQL.
    pub(crate) fn bytes(&self) -> Result<f64> {
        Ok(self.holds()? - self.empty)
    }

    fn holds(&self) -> Result<f64> {
        let url = self.url()?;
        match self.kind {
            Kind::Redis => {
                let mut connection = redis::Client::open(url)?.get_connection()?;
                let info: String = redis::cmd("INFO").arg("memory").query(&mut connection)?;
                let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
                Ok(line.ok_or("no used_memory")?.trim().parse()?)
            }
            Kind::Postgres => {
                let mut client = postgres::Client::connect(&url, postgres::NoTls)?;
                let query = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 \
                             FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                             WHERE relkind = 'r' AND nspname !~ '^pg_|^information_schema'";
                Ok(client.query_one(query, &[])?.get(0))
            }
        }
    }
}

/// What a store asked of its server, and why.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked {
    pub(crate) looked_up: u64,
    pub(crate) false_positives: u64,
    pub(crate) duplicates: u64,
    pub(crate) calls: u64,
    pub(crate) written: u64,
    pub(crate) chunks: u64,
}

impl Asked {
    pub(crate) fn of(store: &Dedup) -> Self {
        let stats = store.stats();
        let (authority, owner) = (stats.authority.unwrap_or_default(), stats.owner);
        let owned = |of: fn(&onceonly::OwnerStats) -> u64| owner.as_ref().map_or(0, of);
        let written = owned(|owner| owner.keys_written);
        Asked {
            // Those that are written are rows of a call too.
            looked_up: authority.rows.saturating_sub(written),
            false_positives: stats.filter_false_positive,
            duplicates: stats.duplicate,
            calls: authority.calls,
            written,
            chunks: owned(|owner| owner.chunks_written),
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Asked {
            looked_up: self.looked_up - before.looked_up,
            false_positives: self.false_positives - before.false_positives,
            duplicates: self.duplicates - before.duplicates,
            calls: self.calls - before.calls,
            written: self.written - before.written,
            chunks: self.chunks - before.chunks,
        }
    }
}

/// The engine, on disk, with a server behind it.
pub(crate) struct Hybrid<T> {
    store: Dedup,
    server: Server<T>,
    /// Deleted after the store is closed.
    _dir: TempDir,
}

impl<T: Tables> Hybrid<T> {
    pub(crate) fn exclusive(live: u64, kind: Kind, dir: &Path) -> Result<Self> {
        let server = Server::start(kind, dir)?;
        let dir = tempfile::Builder::new().prefix("store-").tempdir_in(dir)?;
        let store = server.stores(live, Ownership::Exclusive)?.open(dir.path())?;
        Ok(Hybrid { store, server, _dir: dir })
    }

    pub(crate) fn run(&self, keys: &[Key], batch: usize) -> Result<Vec<bool>> {
        observe(&self.store, keys, batch)
    }

    /// Until the server has acknowledged all of it.
    pub(crate) fn wait_until_written(&self) -> Result<()> {
        wait_until_written(&self.store)
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked::of(&self.store)
    }

    pub(crate) fn server_bytes(&self) -> Result<f64> {
        self.wait_until_written()?;
        self.server.bytes()
    }
}

pub(crate) fn observe(store: &Dedup, keys: &[Key], batch: usize) -> Result<Vec<bool>> {
    let (mut answers, mut verdicts) = (Vec::with_capacity(keys.len()), Vec::new());
    for keys in keys.chunks(batch) {
        store.observe_batch_into(keys, &mut verdicts)?;
        answers.extend(verdicts.iter().map(|&verdict| verdict == Verdict::Duplicate));
    }
    Ok(answers)
}

pub(crate) fn wait_until_written(store: &Dedup) -> Result<()> {
    let begun = Instant::now();
    while store.stats().owner.is_none_or(|owner| owner.queued > 0) {
        if begun.elapsed() > PATIENCE {
            return Err("the server does not take the keys".into());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(())
}

/// The server, asked for every message.
pub(crate) struct Plain<T> {
    server: Server<T>,
}

impl<T: Tables> Plain<T> {
    pub(crate) fn open(_live: u64, dir: &Path) -> Result<Self> {
        let kind = if T::NAME.starts_with("Redis") { Kind::Redis } else { Kind::Postgres };
        Ok(Plain { server: Server::start(kind, dir)? })
    }

    pub(crate) fn name(&self, batch: usize) -> String {
        match (self.server.kind, batch) {
            (Kind::Redis, 1) => "SET NX EX, one at a time".to_owned(),
            (Kind::Redis, _) => format!("SET NX EX, {batch} a pipeline"),
            (Kind::Postgres, _) => format!("INSERT … ON CONFLICT DO NOTHING, {batch} a statement"),
        }
    }

    pub(crate) fn run(&self, keys: &[Key], batch: usize) -> Result<Vec<bool>> {
        let mut answers = vec![false; keys.len()];
        let mut digests = Vec::with_capacity(batch);
        for (keys, answers) in keys.chunks(batch).zip(answers.chunks_mut(batch)) {
            digests.clear();
            digests.extend(keys.iter().map(|key| digest(key).to_be_bytes()));
            self.server.tables.observe(0, &digests, answers)?;
        }
        Ok(answers)
    }

    pub(crate) fn server_bytes(&self) -> Result<f64> {
        self.server.bytes()
    }
}
