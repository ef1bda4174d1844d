//! Redis as the [authority](onceonly::authority) of [onceonly] stores: several processes ask whether a
//! message was seen before, and one of them is told `New`. A single server or a Cluster; which it is, the
//! server says.
//!
//! ```no_run
//! use onceonly::{Dedup, Outcome, Ownership};
//! use onceonly_redis::RedisAuthority;
//! use std::{error::Error, time::Duration};
//!
//! fn consume(ids: &[&str], handle: impl Fn(&str) -> std::io::Result<()>) -> Result<(), Box<dyn Error>> {
//!     let redis = RedisAuthority::builder("redis://127.0.0.1:6379").build()?;
//!     let dedup = Dedup::builder()
//!         .window(Duration::from_secs(3600))
//!         .authority(redis, Ownership::Shared)
//!         .authority_space("orders")        // the same in all processes
//!         .secret([7; 32])                  // too
//!         .open("state/orders-consumer-a")?;
//!     for id in ids {
//!         match dedup.process_once(id, |_claim| handle(id))? {
//!             Outcome::Done(()) | Outcome::Duplicate { .. } => { /* acknowledge */ }
//!             Outcome::InFlight { lease_left, .. } => { /* another process has it: retry after that */ }
//!             Outcome::Uncommitted { error, .. } => { /* done, but not marked: it may come again */ }
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # What the server has to be
//!
//! | setting | value | why |
//! |---|---|---|
//! | version | 6.2 or newer, or Valkey | expiry at a moment, in the command that writes |
//! | `maxmemory-policy` | `noeviction` | any other may throw a live mark away, and its key is `New` twice. Opening a store refuses it, unless [`Builder::allow_eviction`]; a server whose policy changes later is noticed within a second of use |
//! | `appendonly` | `yes`, `appendfsync everysec` or `always` | without it a restart is empty |
//! | rights of the user | `EVAL`, `EVALSHA`, `INFO`, `TIME`, `GET SET DEL PTTL PEXPIREAT`, `EXISTS` for keys of before, `HGET HMGET HSET HSETNX HGETALL HDEL`, `XADD XRANGE XTRIM`; in a Cluster `CLUSTER SLOTS` and `ASKING` | on keys that begin with the prefix |
//! | clocks of a Cluster's nodes | kept by NTP | leases and marks are in the time of the node that has them |
//!
//! When the server is full, writes are errors, nothing that lives is lost, and asking again works when
//! keys have expired.
//!
//! # What a restart or a failover may lose
//!
//! Redis acknowledges before a replica has it, and before the disk has it (except with `appendfsync
//! always`). So a master that dies may take the last writes with it, mostly less than a second of them:
//! their keys are `New` once more, their claims are granted once more. That cannot be prevented here, and
//! is not hidden: a process or a master that is another than before is noticed (`run_id`, and the history
//! of replication), with the first answer that comes from it. The stores then trust nothing that they knew
//! of the server, and `guaranteed_since` moves to that moment: it is pessimistic where nothing was lost.
//! In a Cluster that holds when one master of them is another; a node that is only added moves nothing.
//! Not noticed until a store is opened: `FLUSHALL`, and keys that somebody deletes.
//!
//! # Keys
//!
//! `orders` is the space, `onceonly` the prefix ([`Builder::key_prefix`]), `3f` the first byte of the
//! digest. `{`, `}` and `%` in their names are written as `%7B`, `%7D` and `%25`.
//!
//! | key | type | what | expires |
//! |---|---|---|---|
//! | `onceonly:{orders:3f}:3fa9…` (32 digits) | string | `Shared`: one key that was marked or claimed | by itself |
//! | `onceonly:{orders}:space` | hash | `check`, `since` (µs), `servers`; `forgotten`, `keep` of the log | never |
//! | `onceonly:{orders}:forgotten` | stream | the forget log: field `digest`, 16 bytes | by itself |
//! | `onceonly:{orders}:owner` | hash | `Exclusive`: `epoch`, `holder`, `lease_until` (µs), how far he came | never |
//! | `onceonly:{orders}:slices` | hash | slice → when it is over (ms), bytes | never |
//! | `onceonly:{orders}:chunks:SLICE:PART` | hash | number → when it is over (8 bytes, ms, big endian), data | by itself |
//!
//! A row is there while its key is marked or claimed; `GET` says which:
//!
//! | text | |
//! |---|---|
//! | `m +000000003600001 TOKEN` | marked, so many milliseconds before it expires (`PTTL`) |
//! | `m 1764133065000000 TOKEN VALUE` | marked then, in microseconds since 1970 |
//! | `c 1764133095000000 TOKEN 1764133065000000 VALUE` | claimed until then, with this fence |
//!
//! A token is 16 bytes; a value and the blank before it are missing where it is empty. A space that is of
//! no use any more is deleted by deleting its keys, when no store has it open.
//!
//! In a Cluster the rows of a space are spread over the nodes in 256 groups. Everything of `Exclusive` is in
//! one slot, because one script checks the epoch and writes the chunks: chunks in another slot could
//! be written by an owner who was followed in between. So a space of that kind lives on one node; many
//! spaces (one a partition) are spread.
//!
//! # Coming from `SET … NX`
//!
//! [`Builder::legacy_prefix`] names the keys that another program has marked so far. While the window of a
//! store is not complete, a key that is not known here is looked for there first, and is a duplicate if it is
//! there: `EXISTS dedup:order-1001`, all of a batch or of concurrent callers in one pipeline. Those keys are
//! left to expire as they were set to.
//!
//! # What it costs
//!
//! A plain observation is one `SET … NX PX`, whichever slot it has, and all of a call go to a node in one
//! pipeline; a key that has a row already takes a script and a second round trip. All else is one script
//! for up to 256 rows of a slot. A row takes about 210 bytes of the server's memory with a short prefix and
//! space, a key in chunks of at least 64 digests 16.5 to 25. `examples/measure.rs` says what your
//! server's processor pays.
//!
//! # Deadlines
//!
//! A call returns by its deadline or some milliseconds after it. Beyond that: resolving a host name takes as
//! long as the system lets it, each address of a name is tried for as long as the first, and a server that
//! sends a reply piece by piece has that long for each piece. A connection on which a reply is due is
//! closed, never used again.

mod answer;
mod authority;
mod builder;
mod connection;
mod exchange;
mod failure;
mod fleet;
mod info;
mod keys;
mod legacy;
mod node;
mod owner;
mod reply;
mod rows;
mod script;
mod sending;

mod topology;

pub use authority::RedisAuthority;
pub use builder::{Builder, UrlError};

/// Its example is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
