//! The store of a consumer.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use onceonly::{Dedup, Ownership};
use onceonly_postgres::PostgresAuthority;

/// A dead owner's message is granted again after it, at the latest.
pub(crate) const LEASE: Duration = Duration::from_secs(1);

pub(crate) fn open(server: &str, schema: &str, dir: &Path) -> Result<Dedup> {
    let authority = PostgresAuthority::builder(server).schema(schema).build()?;
    Ok(Dedup::builder()
        .window(Duration::from_secs(24 * 3_600))
        .expected_keys(100_000)
        .secret([7; 32])
        .lease(LEASE)
        .lock_wait(Duration::from_secs(10))
        .authority(authority, Ownership::Shared)
        .authority_space("effects")
        .authority_deadline(Duration::from_secs(10))
        .open(dir)?)
}

/// The key of a message.
pub(crate) fn key(message: i64) -> String {
    format!("message-{message}")
}
