//! Settings of an authority.

use std::fmt;
use std::time::Duration;

use mysql_async::{Opts, OptsBuilder};
use onceonly::authority::{AuthorityError, Result};

use crate::MysqlAuthority;

/// Settings of a [`MysqlAuthority`]; see [`MysqlAuthority::builder`].
#[derive(Clone)]
pub struct Builder {
    url: String,
    opts: Opts,
    pub(crate) migrates: bool,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Builder { url: url.to_owned(), opts: Opts::default(), migrates: true }
    }

    /// Whether missing tables are made when a space is opened. Default: true. Without, run
    /// [`crate::migrations`] first.
    #[must_use]
    pub fn migrates(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// An authority; the server is asked when a store is opened, no sooner.
    ///
    /// # Errors
    /// The address is none, names no database, or wants what this client does not have.
    pub fn build(mut self) -> Result<MysqlAuthority> {
        let opts = Opts::from_url(&self.url).map_err(AuthorityError::refused)?;
        if opts.db_name().is_none() {
            return Err(AuthorityError::refused(
                "the address names no database: mysql://user@host:3306/database",
            ));
        }
        if opts.ssl_opts().is_some() {
            return Err(AuthorityError::refused(
                "this client has no TLS: connect through a tunnel, and leave require_ssl out",
            ));
        }
        let opts = OptsBuilder::from_opts(opts)
            // An address of this machine may lead to another one.
            .prefer_socket(false)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(60)))
            // An update tells whether its row is there.
            .client_found_rows(true)
            .stmt_cache_size(0);
        self.opts = Opts::from(opts);
        self.url.clear();
        Ok(MysqlAuthority::new(self))
    }

    pub(crate) fn opts(&self) -> Opts {
        self.opts.clone()
    }

    /// The database that has the tables.
    pub(crate) fn database(&self) -> &str {
        // An address without one is refused.
        self.opts.db_name().unwrap_or_default()
    }

    /// The address without the password.
    pub(crate) fn name(&self) -> String {
        let (host, port) = (self.opts.ip_or_hostname(), self.opts.tcp_port());
        let database = self.opts.db_name().unwrap_or_default();
        format!("MySQL at {host}:{port}, database {database}")
    }
}

/// Without the password.
impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("server", &self.name())
            .field("migrates", &self.migrates)
            .finish_non_exhaustive()
    }
}
