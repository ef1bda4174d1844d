//! Events of the crate `tracing`, with target `onceonly`: what an operator wants to read of a store. None
//! is on the path of a key.

#![cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody is told"))]

use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::stats::RecoveryReport;

macro_rules! tell {
    ($level:ident, $($event:tt)*) => {
        #[cfg(feature = "tracing")]
        {
            tracing::$level!(target: "onceonly", $($event)*);
        }
    };
}

/// A store was opened; each damage and each file that was set aside by itself.
pub(crate) fn opened(store: &Path, shadow: bool, found: &RecoveryReport) {
    tell!(
        info,
        store = %store.display(),
        shadow,
        created = found.created,
        clean_close = found.clean_close,
        rebooted = found.rebooted,
        replayed_keys = found.replayed_keys,
        replayed_claims = found.replayed_claims,
        filters_rebuilt = found.filters_rebuilt,
        "opened"
    );
    for damage in &found.damage {
        tell!(error, store = %store.display(), damage, "a slice is not complete");
    }
    for file in &found.set_aside {
        tell!(warn, store = %store.display(), file, "a file was set aside");
    }
}

pub(crate) fn closed(store: &Path, result: &Result<(), Error>) {
    match result {
        Ok(()) => {
            tell!(info, store = %store.display(), "closed");
        }
        Err(error) => {
            tell!(error, store = %store.display(), %error, "closed, and could not be written");
        }
    }
}

/// A new slice is the current one.
pub(crate) fn rotated(store: &Path, slice: u64) {
    tell!(debug, store = %store.display(), slice, "a slice has begun");
}

pub(crate) fn sealed(store: &Path, segments: usize) {
    tell!(debug, store = %store.display(), segments, "segments were sealed");
}

pub(crate) fn filters_built(store: &Path, shards: usize, in_memory: bool) {
    tell!(info, store = %store.display(), shards, in_memory, "filters were built");
}

pub(crate) fn background_error(store: &Path, error: &Error) {
    tell!(warn, store = %store.display(), %error, "work in the background failed; it is tried again");
}

/// Keys are answered `New` without the authority, by the store's policy.
pub(crate) fn assuming_new(store: &Path) {
    tell!(warn, store = %store.display(), "the authority does not answer: keys are assumed to be new");
}

/// Calls failed in a row: none is made for `pause`.
pub(crate) fn authority_down(authority: &str, error: &str, pause: Duration) {
    tell!(warn, authority, error, ?pause, "the authority does not answer");
}

pub(crate) fn authority_up(authority: &str) {
    tell!(info, authority, "the authority answers again");
}
