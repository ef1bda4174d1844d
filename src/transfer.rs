//! Moving a partition by hand: the calls that write a store's live keys to a stream, and read them.

use std::io::{Read, Write};
use std::path::Path;

use crate::config::Builder;
use crate::dedup::Dedup;
use crate::engine;
use crate::error::Result;
use crate::format::transfer::HEAD;
use crate::offline;
use crate::stats::{Exported, Imported};

impl Dedup {
    /// Writes all live keys to `to`, with what is kept with them, the claims in flight and what the store
    /// vouches for: for [`Dedup::import`] of another store with the same digest and secret, with
    /// whatever window, slices and shards. The secret itself is not in it.
    ///
    /// Other calls go on meanwhile. What was acknowledged before this call is in it; to move a
    /// partition, stop giving it messages first. O(live keys), some tens of nanoseconds a key; memory is
    /// that of the unsealed values and of one slice's results.
    ///
    /// # Errors
    /// [`crate::Error::Io`] when `to` refuses; [`crate::Error::Corrupt`] when a page of a sealed file is
    /// damaged; [`crate::Error::Closed`]. [`crate::Error::Config`] for a store with an authority, which
    /// has what this store was told.
    pub fn export(&self, mut to: impl Write) -> Result<Exported> {
        self.engine().export(&mut to)
    }

    /// Takes over what [`Dedup::export`] of another store has written. A key stays at least as long as
    /// there, where this store's window is not shorter, and at most one slice longer: it goes to the slice
    /// that holds the end of its own. What this store has, or has forgotten, stays as it is.
    ///
    /// Other calls go on meanwhile, and know each part as it comes. After an error, or when the process
    /// dies, the keys that were taken over stay, and importing the whole stream again comes to the right
    /// result; only a call that returns `Ok` changes what the store vouches for
    /// ([`Dedup::guaranteed_since`]): from then on it is what both stores vouched for. Nothing is read
    /// behind the stream's end. Claims in flight come with their notes and what is left of their leases,
    /// and are taken over like those of a dead owner ([`Dedup::expired_claims`]). O(keys), below a
    /// microsecond a key; memory is 64 MiB for keys and 32 MiB for results.
    ///
    /// # Errors
    /// [`crate::Error::Mismatch`] for another digest, secret or mode of time, and
    /// [`crate::Error::Version`] for a stream of a newer release, before anything is taken over.
    /// [`crate::Error::Corrupt`] names the block of a damaged stream. [`crate::Error::Full`],
    /// [`crate::Error::Io`], [`crate::Error::Closed`]; [`crate::Error::TimestampAhead`] in event time.
    /// [`crate::Error::Config`] for a store with an authority: [`Dedup::warm_up`] is its way.
    pub fn import(&self, mut from: impl Read) -> Result<Imported> {
        self.engine().import(&mut from)
    }
}

/// Bytes of an exported stream that [`Builder::exported`] asks for.
pub const EXPORT_HEAD: usize = HEAD;

impl Builder {
    /// The settings of the store that wrote an exported stream, from the first bytes of that: for a new
    /// store that is to import it. The secret is not among them.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`], [`crate::Error::Version`].
    pub fn exported(head: &[u8; EXPORT_HEAD]) -> Result<Builder> {
        let head = engine::head_of(head)?;
        let span = |ns: i64| std::time::Duration::from_nanos(ns.max(0).unsigned_abs());
        Ok(Builder::default()
            .window(span(head.window_ns))
            .slices(head.slices)
            .expected_keys(head.expected_keys)
            .false_positive_rate(f64::from_bits(head.false_positive_rate))
            .lease(span(head.lease_ns))
            .digest(head.digest)
            .event_time(head.event_time))
    }

    /// Digest and secret of the store in `dir`, for a new store that is to exchange keys with it.
    ///
    /// # Errors
    /// [`crate::Error::NotAStore`], [`crate::Error::Unfinished`], [`crate::Error::Version`],
    /// [`crate::Error::Corrupt`], [`crate::Error::Io`].
    pub fn secret_of(self, dir: impl AsRef<Path>) -> Result<Builder> {
        let (digest, secret) = offline::stored_secret(dir.as_ref())?;
        Ok(self.digest(digest).secret(secret))
    }
}
