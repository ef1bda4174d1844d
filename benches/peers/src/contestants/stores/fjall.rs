//! fjall, an LSM tree like RocksDB. Its journal goes to the operating system at every batch, so it
//! survives the death of the process.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::{Digest, Tables};
use crate::args::Result;

pub(crate) struct Fjall {
    database: Database,
    tables: [Keyspace; 2],
}

impl Tables for Fjall {
    const NAME: &'static str = "fjall (LSM), 1,000 a batch";

    fn open(path: &Path, _live: u64) -> Result<Self> {
        let database = Database::builder(path.join("fjall")).cache_size(512 << 20).open()?;
        let table = |name| database.keyspace(name, KeyspaceCreateOptions::default);
        let tables = [table("a")?, table("b")?];
        Ok(Fjall { database, tables })
    }

    fn observe(&self, current: usize, digests: &[Digest], answers: &mut [bool]) -> Result<()> {
        let mut batch = self.database.batch();
        let mut fresh = std::collections::HashSet::new();
        for (digest, answer) in digests.iter().zip(answers) {
            *answer = self.tables[1 - current].contains_key(digest)?
                || self.tables[current].contains_key(digest)?
                || !fresh.insert(digest);
            if !*answer {
                batch.insert(&self.tables[current], digest.as_slice(), [].as_slice());
            }
        }
        Ok(batch.commit()?)
    }

    fn clear(&self, table: usize) -> Result<()> {
        Ok(self.tables[table].clear()?)
    }
}
