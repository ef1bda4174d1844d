//! What a store tells about itself.

use std::time::Duration;

use crate::time::Timestamp;

/// Counters and sizes, as of the call. Counters start at zero when the store is opened.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys answered `New` (committed claims included).
    pub new: u64,
    /// Keys answered `Duplicate`.
    pub duplicate: u64,
    /// Keys answered `TooOld`.
    pub too_old: u64,
    /// Observations refused because the key was claimed.
    pub in_flight: u64,
    /// Claims granted.
    pub claims_granted: u64,
    /// Claims committed.
    pub claims_committed: u64,
    /// Claims abandoned.
    pub claims_abandoned: u64,
    /// Claims held now.
    pub claims_held: u64,
    /// Keys forgotten.
    pub forgotten: u64,
    /// Duplicates recorded again by `refresh_on_duplicate`.
    pub refreshed: u64,
    /// Messages refused because their key was marked by one with another fingerprint.
    pub conflicts: u64,
    /// Keys for which the filter alone said "definitely new".
    pub filter_negative: u64,
    /// Keys that the filter suspected.
    pub filter_positive: u64,
    /// Suspected keys that the exact set did not hold.
    pub filter_false_positive: u64,
    /// `filter_false_positive` over all keys that were new; 0 before the first.
    pub false_positive_rate: f64,
    /// Share of the filter's bits that are set, in the fullest live column of a sample.
    pub filter_fill: f64,
    /// Keys that the filter is sized for; it is rebuilt larger when more are live.
    pub filter_capacity: u64,
    /// Shards whose filter is being rebuilt (all their keys are looked up in the exact set).
    pub filters_rebuilding: u64,
    /// Filters of shards that are in memory alone, because the kernel would hold up who changes a file
    /// of that size all over. The next open rebuilds them.
    pub filters_in_memory: u64,
    /// Live keys. A key that was refreshed counts once.
    pub keys_live: u64,
    /// Resident bytes: filter, index of unsealed records, unsealed records, claims.
    pub memory_bytes: u64,
    /// Bytes of all files (of the heap, for a store in memory).
    pub disk_bytes: u64,
    /// Live slices that hold keys, oldest first.
    pub slices: Vec<SliceStats>,
    /// Background jobs that failed and will be tried again; `last_background_error` says why.
    pub background_errors: u64,
    /// The last failure of a background job.
    pub last_background_error: Option<String>,
    /// The kernel could not write back what is not sealed yet: it is being sealed from memory, into new
    /// files, and `guaranteed_since` vouches for nothing until that is done.
    pub write_back_failed: bool,
    /// What opening the store found.
    pub recovery: RecoveryReport,
    /// What was asked of the authority; `None` for a store without one.
    pub authority: Option<AuthorityStats>,
    /// What was let through in shadow mode.
    pub shadow: ShadowStats,
    /// How the only writer of a space stands with its authority; `None` for every other store.
    pub owner: Option<OwnerStats>,
}

/// What a store has let through in shadow mode ([`crate::Builder::shadow`]): messages that were answered
/// `New` though the store said something else of them. The counters beside it count what it said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShadowStats {
    /// Would have been `Duplicate`.
    pub duplicate: u64,
    /// Would have been `TooOld`.
    pub too_old: u64,
    /// Would have been a conflict.
    pub conflict: u64,
    /// Would have had to wait for another owner.
    pub in_flight: u64,
    /// Calls that would have been an `Err`, those of guards included.
    pub failed: u64,
    /// The last such error.
    pub last_error: Option<String>,
}

/// How a store that is the only writer of its space stands with its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerStats {
    /// The epoch of the owner record: one higher for each owner.
    pub epoch: u64,
    /// The lease runs, and no other owner has followed as far as is known.
    pub is_owner: bool,
    /// Time that the store goes on if the authority is not heard of any more.
    pub lease_left: Duration,
    /// Keys that wait to be written to the authority, about.
    pub queued: u64,
    /// Number of the last chunk that the authority has acknowledged.
    pub position: u64,
    /// Everything that was acknowledged before this instant is written: what is missing if another owner
    /// has to follow now. The least value before the first write of this open.
    pub written_through: Timestamp,
    /// Keys written since the store was opened, forgotten ones and repetitions included.
    pub keys_written: u64,
    /// Chunks that they were written in.
    pub chunks_written: u64,
    /// Keys of owners before that were read since the store was opened.
    pub keys_read: u64,
    /// Parts that the keys of the owner before are read in.
    pub parts: u64,
    /// Those that are known here. When all are, the authority is not asked any more.
    pub parts_loaded: u64,
}

/// How far [`crate::Dedup::warm_up`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WarmUp {
    /// Parts of the space that are known here.
    pub parts_loaded: u64,
    /// All parts.
    pub parts: u64,
    /// Keys that were read by this call.
    pub keys: u64,
}

/// What [`crate::Dedup::export`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exported {
    /// Live keys. One that was recorded in two slices counts twice.
    pub keys: u64,
    /// Results, fingerprints and traces.
    pub values: u64,
    /// Claims in flight.
    pub claims: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// What the store vouched for then.
    pub guaranteed_since: Timestamp,
}

/// What [`crate::Dedup::import`] took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Keys that were not known here.
    pub keys: u64,
    /// Keys that were known here, as newly or more, or forgotten.
    pub known: u64,
    /// Keys that have expired on their way.
    pub expired: u64,
    /// Results, fingerprints and traces that were not known here.
    pub values: u64,
    /// Claims in flight that were not known here.
    pub claims: u64,
    /// What the store vouches for now.
    pub guaranteed_since: Timestamp,
}

/// What a store asked of its authority since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorityStats {
    /// Calls with keys of this store, those that failed and their repetitions included. Calls of
    /// several stores are counted by each.
    pub calls: u64,
    /// Keys of this store in those calls; over `calls` it is how many share a round trip.
    pub rows: u64,
    /// Most keys of this store in one call.
    pub largest_call: u64,
    /// Calls of any kind that failed.
    pub failed_calls: u64,
    /// Calls of which it is not known whether the server did what they asked for.
    pub undecided_calls: u64,
    /// Keys that were known here to be duplicates, and were not asked for.
    pub answered_here: u64,
    /// Keys that were answered without the authority because of `OnOutage::AssumeNew`.
    pub assumed_new: u64,
    /// Marks of the authority's that could not be kept here too (no space, `max_keys`): answers are
    /// right, and cost a call each time.
    pub not_kept: u64,
    /// Forgotten keys that were heard of from the authority, this store's own included.
    pub forgotten_read: u64,
    /// Keys for which the marks of before were asked ([`crate::authority::Legacy`]).
    pub legacy_asked: u64,
    /// Those of them that were marked: duplicates of what this store has not seen.
    pub legacy_duplicate: u64,
    /// Calls that wait for their turn now, of all stores with this authority.
    pub waiting: u64,
    /// Whether calls are made at all.
    pub breaker: BreakerState,
    /// The last failure of any store with this authority.
    pub last_error: Option<String>,
}

/// The circuit breaker of an authority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Calls are made.
    #[default]
    Closed,
    /// Several calls in a row have failed: none is made for a while.
    Open,
    /// The while is over: the next call decides.
    HalfOpen,
}

/// One slice of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SliceStats {
    /// Number of the slice; later slices have higher numbers.
    pub sequence: u64,
    /// Its first instant.
    pub start: Timestamp,
    /// The instant after its last.
    pub end: Timestamp,
    /// When its keys are forgotten.
    pub expires: Timestamp,
    /// Sealed records.
    pub sealed_keys: u64,
    /// Sealed parts.
    pub sealed_parts: u64,
    /// Whether every key acknowledged in this slice is known to be held.
    pub complete: bool,
}

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The store was created by this open.
    pub created: bool,
    /// The previous owner closed the store; false after a crash.
    pub clean_close: bool,
    /// The machine was restarted since the last open.
    pub rebooted: bool,
    /// Unsealed records read back from the journal.
    pub replayed_keys: u64,
    /// Claims that were in flight; they are granted again.
    pub replayed_claims: u64,
    /// Forgotten keys read back from the journal.
    pub replayed_tombstones: u64,
    /// Filters that had to be rebuilt, and why (empty when all were mapped as they were).
    pub filters_rebuilt: u64,
    /// Why they are rebuilt.
    pub rebuild_reason: Option<String>,
    /// Leftovers of interrupted work that were deleted (never part of the store).
    pub leftovers_removed: u64,
    /// Files that this engine did not write, moved to `set-aside/`.
    pub set_aside: Vec<String>,
    /// Slices that are no longer complete, with the reason.
    pub damage: Vec<String>,
    /// An error of the previous owner's last close.
    pub close_error: Option<String>,
}

/// A claim in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimInfo {
    /// Fencing token: later claims of the store have higher tokens.
    pub token: u64,
    /// Digest of the key, in hexadecimal (the store does not keep keys).
    pub digest: String,
    /// Time until the claim may be taken over; zero when it may be now.
    pub lease_left: Duration,
    /// The owner is gone: the claim was in flight when a former process ended.
    pub orphaned: bool,
    /// The timestamp given to `claim_at`, from which the key is remembered once it is committed;
    /// `None` in stores without event time.
    pub event_time: Option<Timestamp>,
    /// What [`crate::ClaimOptions::note`] gave.
    pub note: Vec<u8>,
}
