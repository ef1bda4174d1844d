//! Settings of an authority.

use std::path::{Path, PathBuf, absolute};
use std::time::{Duration, Instant};

use onceonly::authority::Result;

use crate::SqliteAuthority;
use crate::connection::Database;

/// How long opening waits for others that open the file at the same time.
const OPENING: Duration = Duration::from_secs(10);

/// Settings of a [`SqliteAuthority`]; see [`SqliteAuthority::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) path: PathBuf,
    pub(crate) survives_power_loss: bool,
    pub(crate) migrates: bool,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Self {
        // With a whole path no name has a special meaning, and changing the directory changes
        // nothing.
        let path = absolute(path).unwrap_or_else(|_| path.to_owned());
        Builder { path, survives_power_loss: true, migrates: true }
    }

    /// Whether each call that writes waits for a sync of the disk (`PRAGMA synchronous`, `FULL` or
    /// `NORMAL`). Default: true.
    ///
    /// Without, nothing is lost while the machine runs, whatever dies; a power loss takes the last
    /// seconds. Then the spaces count as complete from the next boot on, and
    /// `guaranteed_since` of the stores says so.
    #[must_use]
    pub fn survives_power_loss(mut self, survives: bool) -> Self {
        self.survives_power_loss = survives;
        self
    }

    /// Whether missing tables are made. Default: true. Without, run [`crate::migrations`] first.
    #[must_use]
    pub fn migrates(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be opened or made, is of another release, has no tables though it should, or
    /// is on a file system that SQLite's log cannot work on.
    pub fn open(self) -> Result<SqliteAuthority> {
        let database = Database::new(self, Instant::now() + OPENING)?;
        Ok(SqliteAuthority { database })
    }
}
