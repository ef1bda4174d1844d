//! Stores from the shelf, on disk or in a server, each with the settings that suit the job best and
//! survive what the engine's default survives: the death of the process, not a power loss.
//!
//! Keys are stored as their digests of 16 bytes. Embedded stores get two generations, of which the
//! older is emptied whole once a window: nothing that they offer expires keys more cheaply.

mod fjall;
mod lmdb;
mod postgres;
mod redis;
mod sqlite;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::{Contestant, Mode, digest};
use crate::args::Result;
use crate::keys::Key;
use crate::memory;

pub(crate) use fjall::Fjall;
pub(crate) use lmdb::Lmdb;
pub(crate) use postgres::Postgres;
pub(crate) use redis::Redis;
pub(crate) use sqlite::Sqlite;

pub(crate) type Digest = [u8; 16];

/// Two tables of digests, of which one is the current.
pub(crate) trait Tables: Send + Sync + Sized {
    const NAME: &'static str;
    const SIZES: &'static [Mode] = &[Mode::Batch(1000)];

    fn open(path: &Path, live: u64) -> Result<Self>;
    /// One batch, one transaction: whether each digest is in either table; those in neither go
    /// into the current one.
    fn observe(&self, current: usize, digests: &[Digest], answers: &mut [bool]) -> Result<()>;
    fn clear(&self, table: usize) -> Result<()>;
    /// Memory outside of this process.
    fn told_memory_bytes(&self) -> Option<u64> {
        None
    }
    /// Bytes on the disk; `path` is the directory it was opened in.
    fn disk_bytes(&self, path: &Path) -> u64 {
        memory::disk_by_kind(path).unwrap_or_default().values().sum()
    }
    /// The process of its server, to be killed in the middle.
    fn server_pid(&self) -> Option<u32> {
        None
    }
    /// Where its server is found.
    fn url(&self) -> Option<String> {
        None
    }
}

/// Tables in a directory that is deleted with them, or kept.
pub(crate) struct Rotating<T> {
    tables: T,
    path: std::path::PathBuf,
    live: u64,
    generation: AtomicU64,
    /// Deleted after the tables are closed: fields are dropped in order.
    _dir: Option<TempDir>,
}

impl<T: Tables> Rotating<T> {
    pub(crate) fn new(live: u64, dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("peer-").tempdir_in(dir)?;
        let path = dir.path().to_owned();
        Ok(Rotating { _dir: Some(dir), ..Self::at(live, &path)? })
    }

    pub(crate) fn at(live: u64, path: &Path) -> Result<Self> {
        let tables = T::open(path, live)?;
        let generation = AtomicU64::new(0);
        Ok(Rotating { tables, path: path.to_owned(), live, generation, _dir: None })
    }
}

impl<T: Tables> Contestant for Rotating<T> {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn modes(&self, _batch: usize) -> Vec<Mode> {
        T::SIZES.to_vec()
    }

    fn slow(&self) -> bool {
        true
    }

    fn advance(&self, now: u64) {
        let generation = now / self.live;
        if self.generation.swap(generation, Ordering::Relaxed) != generation {
            self.tables.clear(generation as usize % 2).expect("clear the older table");
        }
    }

    fn observe_each(&self, keys: &[Key], answers: &mut [bool]) {
        self.observe_batches(keys, 1, answers);
    }

    fn observe_batches(&self, keys: &[Key], batch: usize, answers: &mut [bool]) {
        let current = self.generation.load(Ordering::Relaxed) as usize % 2;
        let mut digests: Vec<Digest> = Vec::with_capacity(batch);
        for (keys, answers) in keys.chunks(batch).zip(answers.chunks_mut(batch)) {
            digests.clear();
            digests.extend(keys.iter().map(|key| digest(key).to_be_bytes()));
            self.tables.observe(current, &digests, answers).expect("observe");
        }
    }

    fn disk_bytes(&self) -> u64 {
        self.tables.disk_bytes(&self.path)
    }

    fn told_memory_bytes(&self) -> Option<u64> {
        self.tables.told_memory_bytes()
    }

    fn server_pid(&self) -> Option<u32> {
        self.tables.server_pid()
    }
}
