#![allow(dead_code, reason = "each test uses some of it")]
//! A database of its own for each test, on the server that `ONCEONLY_MYSQL` names.

use std::env;
use std::process::{Command, Stdio, id};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use onceonly_mysql::MysqlAuthority;

/// Where Debian's package puts it; a user who may make databases.
const DEFAULT: &str = "mysql://root@127.0.0.1:3306";

/// The address of a server that answers; started if it is one of this machine that does not run.
pub(crate) fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let url = env::var("ONCEONLY_MYSQL").unwrap_or_else(|_| DEFAULT.to_owned());
        let url = url.trim_end_matches('/').to_owned();
        if execute(&url, "SELECT 1").is_ok() {
            return url;
        }
        let start = ["mariadbd-safe", "mysqld_safe"].iter().find_map(|command| {
            let quiet = || Stdio::null();
            Command::new(command).stdout(quiet()).stderr(quiet()).spawn().ok()
        });
        for _ in 0..if start.is_some() { 100 } else { 1 } {
            if execute(&url, "SELECT 1").is_ok() {
                return url;
            }
            thread::sleep(Duration::from_millis(200));
        }
        panic!(
            "no MySQL or MariaDB at {url}: apt-get install mariadb-server, or name another in \
             ONCEONLY_MYSQL, without a database"
        );
    })
}

fn block<T>(
    url: &str,
    work: impl AsyncFnOnce(&mut Conn) -> mysql_async::Result<T>,
) -> mysql_async::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let opts = OptsBuilder::from_opts(Opts::from_url(url)?).prefer_socket(false);
        let mut conn = Conn::new(opts).await?;
        let done = work(&mut conn).await?;
        conn.disconnect().await?;
        Ok(done)
    })
}

/// Statements by a connection of their own.
pub(crate) fn execute(url: &str, statements: &str) -> mysql_async::Result<()> {
    block(url, async |conn| conn.query_drop(statements).await)
}

/// A number by a connection of its own.
pub(crate) fn number(url: &str, query: &str) -> i64 {
    block(url, async |conn| conn.query_first(query).await).unwrap().unwrap_or_default()
}

/// A database that nobody else has; it is dropped at the end.
pub(crate) struct Database {
    pub(crate) name: String,
}

impl Database {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onceonly_test_{since}_{}_{count}", id());
        execute(url(), &format!("CREATE DATABASE {name}")).unwrap();
        Database { name }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/{}", url(), self.name)
    }

    pub(crate) fn connect(&self) -> MysqlAuthority {
        MysqlAuthority::builder(&self.url()).build().unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = execute(url(), &format!("DROP DATABASE IF EXISTS {}", self.name));
    }
}
