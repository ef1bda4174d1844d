//! PostgreSQL on loopback: a thousand keys a statement by `unnest`, without waiting for the log to
//! be synced. Connects as `ONCEONLY_BENCH_POSTGRES` says (default: user postgres on 127.0.0.1) and
//! works in tables of its own, dropped at the end.

use std::collections::HashSet;
use std::path::Path;

use parking_lot::Mutex;
use postgres::{Client, NoTls, Statement};
use postgres_types::{ToSql, Type};

use super::{Digest, Tables};
use crate::args::Result;

pub(crate) struct Postgres {
    client: Mutex<Client>,
    tables: [String; 2],
    statements: [Statement; 2],
}

const CONNECT: &str = "host=127.0.0.1 user=postgres";

/// A digest as PostgreSQL's 16 bytes of fixed length.
#[derive(Debug)]
struct Uuid(Digest);

impl ToSql for Uuid {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut postgres_types::private::BytesMut,
    ) -> Result<postgres_types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(postgres_types::IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    postgres_types::to_sql_checked!();
}

/// The way back.
struct Found(Digest);

impl<'a> postgres_types::FromSql<'a> for Found {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Found(raw.try_into()?))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }
}

impl Tables for Postgres {
    const NAME: &'static str = "PostgreSQL, loopback, 1,000 a statement";

    fn open(path: &Path, _live: u64) -> Result<Self> {
        let connect = std::env::var("ONCEONLY_BENCH_POSTGRES");
        let mut client = Client::connect(connect.as_deref().unwrap_or(CONNECT), NoTls)?;
        // The same for the same directory, so that a process finds what one before has left.
        let id = xxhash_rust::xxh3::xxh3_64(path.as_os_str().as_encoded_bytes());
        let name = |table| format!("onceonly_bench_{id:016x}_{table}");
        let tables = [name("a"), name("b")];
        client.batch_execute("SET synchronous_commit = off")?;
        for table in &tables {
            client.batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS {table} (key uuid PRIMARY KEY)"
            ))?;
        }
        let observe = |current: usize| {
            format!(
                "INSERT INTO {} SELECT k FROM unnest($1::uuid[]) k \
                 WHERE NOT EXISTS (SELECT 1 FROM {} WHERE key = k) \
                 ON CONFLICT DO NOTHING RETURNING key",
                tables[current],
                tables[1 - current]
            )
        };
        let statements = [client.prepare(&observe(0))?, client.prepare(&observe(1))?];
        Ok(Postgres { client: Mutex::new(client), tables, statements })
    }

    fn observe(&self, current: usize, digests: &[Digest], answers: &mut [bool]) -> Result<()> {
        let keys: Vec<Uuid> = digests.iter().map(|&digest| Uuid(digest)).collect();
        let rows = self.client.lock().query(&self.statements[current], &[&keys])?;
        let mut new: HashSet<Digest> = rows.iter().map(|row| row.get::<_, Found>(0).0).collect();
        for (digest, answer) in digests.iter().zip(answers) {
            *answer = !new.remove(digest);
        }
        Ok(())
    }

    fn clear(&self, table: usize) -> Result<()> {
        let truncate = format!("TRUNCATE {}", self.tables[table]);
        Ok(self.client.lock().batch_execute(&truncate)?)
    }

    fn elsewhere_bytes(&self) -> u64 {
        let size = |table: &String| -> Option<i64> {
            let query = format!("SELECT pg_total_relation_size('{table}')");
            Some(self.client.lock().query_one(&query, &[]).ok()?.get(0))
        };
        self.tables.iter().filter_map(size).map(|bytes| bytes.unsigned_abs()).sum()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for table in &self.tables {
            let _ = self.client.get_mut().batch_execute(&format!("DROP TABLE IF EXISTS {table}"));
        }
    }
}
