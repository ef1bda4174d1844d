//! LMDB: a mapped B+ tree, written to in place and never synced.

use std::path::Path;

use heed::types::{Bytes, Unit};
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use super::{Digest, Tables};
use crate::args::Result;

pub(crate) struct Lmdb {
    env: Env,
    tables: [Database<Bytes, Unit>; 2],
}

impl Tables for Lmdb {
    const NAME: &'static str = "LMDB, 1,000 a transaction";

    fn open(path: &Path, live: u64) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(usize::try_from((live * 400).next_multiple_of(1 << 30))?).max_dbs(2);
        // SAFETY: no sync endangers the file only at a power loss, and this is a benchmark's own.
        unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP | EnvFlags::NO_READ_AHEAD);
        }
        // SAFETY: nobody else maps or changes the files of this directory.
        let env = unsafe { options.open(path) }?;
        let mut txn = env.write_txn()?;
        let tables =
            [env.create_database(&mut txn, Some("a"))?, env.create_database(&mut txn, Some("b"))?];
        txn.commit()?;
        Ok(Lmdb { env, tables })
    }

    fn observe(&self, current: usize, digests: &[Digest], answers: &mut [bool]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (digest, answer) in digests.iter().zip(answers) {
            *answer = self.tables[1 - current].get(&txn, digest)?.is_some()
                || self.tables[current].get_or_put(&mut txn, digest, &())?.is_some();
        }
        Ok(txn.commit()?)
    }

    fn clear(&self, table: usize) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        self.tables[table].clear(&mut txn)?;
        Ok(txn.commit()?)
    }
}
