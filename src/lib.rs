//! Exact, windowed, persistent deduplication for consumers of at-least-once queues: "was this message
//! id seen within the last window?", answered in nanoseconds, remembered through `kill -9`.
//!
//! A store is a directory. In front is a rotating Bloom filter, one bit-sliced block a key, that
//! answers "definitely new" with one cache miss; behind it are exact sets of 128-bit digests, which
//! alone say "duplicate"; both are mapped files. `docs/design.md` has the whole picture.
//!
//! It is not a cache (it never evicts a live key), not a queue, and not distributed: one process
//! owns a store at a time. Stores of several processes share keys through an [`authority`].
//!
//! ```
//! use onceonly::{Dedup, Outcome};
//! use std::time::Duration;
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path().join("orders-0");
//! let dedup = Dedup::builder().window(Duration::from_secs(3600)).open(&dir)?;
//! # fn handle(_: &str) -> Result<u32, std::io::Error> { Ok(1) }
//! for message in ["order-1001", "order-1002", "order-1001"] {
//!     match dedup.process_once(message, |_claim| handle(message))? {
//!         Outcome::Done(_) | Outcome::Duplicate { .. } => { /* acknowledge */ }
//!         Outcome::InFlight { lease_left, .. } => { /* retry after lease_left */ }
//!         Outcome::Uncommitted { value, error } => { /* done, but not marked */ }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cost
//!
//! A key that is new costs its digest, one lock and one cache miss, whatever the size of the window;
//! one that the filter suspects (a duplicate, or one new key in a thousand) a look-up in one or two
//! pages for each slice that it may be in. Rotation and expiry cost nothing at the call. Of batches
//! the misses overlap. What costs more says so: [`Dedup::stats`] and [`Dedup::claims`] visit every
//! shard, [`Scope::explain`] every live slice, [`offline`] the files.
//!
//! # Errors and panics
//!
//! An error never marks a key: asking again gives the answer that the first call should have given.
//! [`Error::is_transient`] tells "give the message back" from "stop and look". No call panics on
//! its input.
//!
//! # Features
//!
//! None by default. `stream` brings `once_by_key` for streams, `serde` a [`Builder`] from a
//! configuration file and into one, `metrics` and `tracing` what an operator reads, by the facades of these
//! names (docs/operations.md), `conformance` the suite for who writes an [`authority`].

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("onceonly supports Linux, and builds on macOS: it needs mapped files and boot time");
#[cfg(target_endian = "big")]
compile_error!("onceonly's files are little-endian, and mapped as they are");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("onceonly maps files that do not fit an address space of 32 bits");

mod adapter;
pub mod authority;
mod catalog;
mod claim;
mod config;
mod dedup;
mod digest;
mod engine;
mod error;
mod exact;
mod explain;
mod filter;
mod format;
mod gather;
mod journal;
mod key;
mod ledger;
mod log;
pub mod offline;
mod plan;
mod quota;
mod random;
mod replay;
mod shadow;
mod shard;
mod stats;
mod storage;
mod sync;
mod telemetry;
mod time;
mod transfer;
mod verdict;
mod worker;

pub use adapter::{ItemError, OnceByKey, OnceIterator};
#[cfg(feature = "stream")]
pub use adapter::{OnceByKeyStream, OnceStream};
pub use authority::{Dialect, SqlValue};
pub use claim::{
    Claim, ClaimGuard, ClaimOptions, CommitError, CommitStatement, InTransaction, Outcome,
    ProcessError,
};
pub use config::{Builder, Durability, OnOutage, Ownership};
pub use dedup::{Dedup, Scope};
pub use digest::DigestKind;
pub use error::{Error, Result};
pub use explain::{Explanation, KeyState, KeyTrace, Sighting, Tier};
pub use key::Key;
pub use plan::Plan;
pub use shadow::Shadowed;
pub use stats::{
    AuthorityStats, BreakerState, ClaimInfo, Exported, Imported, OwnerStats, RecoveryReport,
    ShadowStats, SliceStats, Stats, WarmUp,
};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
pub use transfer::EXPORT_HEAD;
pub use verdict::{BatchError, Seen, Verdict};

/// A disk that loses power, for the tests of this crate.
#[cfg(feature = "test-storage")]
#[doc(hidden)]
pub mod sim {
    pub use crate::storage::sim::{Fault, Image, Mix, SimDisk, Watch};
}

/// The examples of the README and of the operations guide compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/operations.md")]
struct DocumentationExamples;
