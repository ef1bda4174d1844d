#![allow(dead_code, reason = "each test uses some of it")]
//! A schema of its own for each test, on the server that `ONCEONLY_POSTGRES` names.

use std::env;
use std::process::{Command, id};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onceonly_postgres::PostgresAuthority;
use tokio_postgres::NoTls;

/// Where Debian's package puts it.
const DEFAULT: &str = "postgres://postgres@127.0.0.1:5432/test";

/// The address of a server that answers; started if it is one of this machine that does not run.
pub(crate) fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let url = env::var("ONCEONLY_POSTGRES").unwrap_or_else(|_| DEFAULT.to_owned());
        if execute(&url, "SELECT 1").is_ok() {
            return url;
        }
        let list = Command::new("pg_lsclusters").arg("-h").output();
        let list = list.map(|list| String::from_utf8_lossy(&list.stdout).into_owned());
        for cluster in list.unwrap_or_default().lines() {
            let mut words = cluster.split_whitespace();
            if let (Some(version), Some(name)) = (words.next(), words.next()) {
                let _ = Command::new("pg_ctlcluster").args([version, name, "start"]).status();
            }
        }
        for _ in 0..50 {
            if execute(&url, "SELECT 1").is_ok() {
                return url;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!(
            "no PostgreSQL at {url}: apt-get install postgresql, or name another in \
             ONCEONLY_POSTGRES"
        );
    })
}

/// Statements by a connection of their own.
pub(crate) fn execute(url: &str, statements: &str) -> Result<(), tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute(statements).await
    })
}

/// A number by a connection of its own.
pub(crate) fn number(url: &str, query: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client.query_one(query, &[]).await.unwrap().get(0)
    })
}

/// A name that nobody else has; its schema is dropped at the end.
pub(crate) struct Schema {
    pub(crate) name: String,
}

impl Schema {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Schema { name: format!("onceonly_test_{since}_{}_{count}", id()) }
    }

    pub(crate) fn connect(&self) -> PostgresAuthority {
        PostgresAuthority::builder(url()).schema(&self.name).build().unwrap()
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let _ = execute(url(), &format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name));
    }
}
