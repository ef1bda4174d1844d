//! Settings of an authority.

use std::str::FromStr;

use onceonly::authority::{AuthorityError, Result};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::PostgresAuthority;

/// Settings of a [`PostgresAuthority`]; see [`PostgresAuthority::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    url: String,
    pub(crate) config: Config,
    pub(crate) schema: String,
    pub(crate) migrates: bool,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        let (config, schema) = (Config::new(), "onceonly".to_owned());
        Builder { url: url.to_owned(), config, schema, migrates: true }
    }

    /// The schema that has the tables. Default: `onceonly`.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Whether a missing schema and its tables are made when a space is opened. Default: true.
    /// Without, run [`crate::migrations`] first.
    #[must_use]
    pub fn migrates(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// An authority; the server is asked when a store is opened, no sooner.
    ///
    /// # Errors
    /// The address is none, or wants what this client does not have.
    pub fn build(mut self) -> Result<PostgresAuthority> {
        // The address may have a password, and its error does not show it.
        self.config = Config::from_str(&self.url).map_err(AuthorityError::refused)?;
        if self.config.get_ssl_mode() == SslMode::Require {
            return Err(AuthorityError::refused(
                "this client has no TLS: connect through a tunnel, and leave sslmode out",
            ));
        }
        if self.config.get_application_name().is_none() {
            self.config.application_name("onceonly");
        }
        self.url.clear();
        Ok(PostgresAuthority::new(self))
    }

    /// The address without the password.
    pub(crate) fn name(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        let ports = self.config.get_ports().iter().map(u16::to_string);
        let ports = ports.collect::<Vec<_>>().join(",");
        let ports = if ports.is_empty() { "5432".to_owned() } else { ports };
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        format!("PostgreSQL at {hosts}:{ports}, database {database}, schema {}", self.schema)
    }
}
