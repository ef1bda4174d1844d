//! PostgreSQL on loopback: a thousand keys a statement by `unnest`, in a server of its own with nothing
//! else to do. Its log is written at every statement and never synced: commits that do not wait for
//! the write (`synchronous_commit` off) were lost when the server was killed.

mod server;

use std::collections::HashSet;
use std::path::Path;

use parking_lot::Mutex;
use postgres::{Client, Statement};
use postgres_types::{ToSql, Type};

use super::{Digest, Tables};
use crate::args::Result;
use crate::memory;
use server::Server;

pub(crate) struct Postgres {
    client: Mutex<Client>,
    statements: [Statement; 2],
    /// Ended after the connection is closed.
    server: Server,
}

const TABLES: [&str; 2] = ["a", "b"];

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
        let (server, mut client) = Server::start(path)?;
        for table in TABLES {
            client.batch_execute(&format!(
                "CREATE TABLE IF NOT EXISTS {table} (key uuid PRIMARY KEY)"
            ))?;
        }
        let observe = |current: usize| {
            format!(
                "INSERT INTO {} SELECT k FROM unnest($1::uuid[]) k \
                 WHERE NOT EXISTS (SELECT 1 FROM {} WHERE key = k) \
                 ON CONFLICT DO NOTHING RETURNING key",
                TABLES[current],
                TABLES[1 - current]
            )
        };
        let statements = [client.prepare(&observe(0))?, client.prepare(&observe(1))?];
        Ok(Postgres { client: Mutex::new(client), statements, server })
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
        let truncate = format!("TRUNCATE {}", TABLES[table]);
        Ok(self.client.lock().batch_execute(&truncate)?)
    }

    /// The tables alone: a log of a size that was allowed is not the keys'.
    fn disk_bytes(&self, _path: &Path) -> u64 {
        let size = |table: &&str| -> Option<i64> {
            let query = format!("SELECT pg_total_relation_size('{table}')");
            Some(self.client.lock().query_one(&query, &[]).ok()?.get(0))
        };
        TABLES.iter().filter_map(size).map(|bytes| bytes.unsigned_abs()).sum()
    }

    fn told_memory_bytes(&self) -> Option<u64> {
        memory::of_server(self.server.pid()).ok()
    }

    fn server_pid(&self) -> Option<u32> {
        Some(self.server.pid())
    }

    fn url(&self) -> Option<String> {
        Some(format!("postgres://postgres@127.0.0.1:{}/postgres", self.server.port()))
    }
}
