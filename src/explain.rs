//! Why a key gets the answer that it gets.

use std::time::Duration;

use crate::catalog::Slice;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::kept::Kept;
use crate::time::Timestamp;

/// What the store knows of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// What the tiers say.
    pub state: KeyState,
    /// Digest of the key, in hexadecimal.
    pub digest: String,
    /// Live slices that the filter suspects; `None` while the filter is being rebuilt.
    pub suspected_slices: Option<Vec<u64>>,
    /// Where the exact set holds the key, oldest first.
    pub sightings: Vec<Sighting>,
    /// What is kept of its first claim and its duplicates; `None` where nothing is, as in stores without
    /// [`crate::Builder::trace`].
    pub trace: Option<KeyTrace>,
    /// Shadow mode: whatever the state says, the answer is `New`.
    pub shadow: bool,
}

/// What a store with [`crate::Builder::trace`] keeps of a live key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyTrace {
    /// When the claim was granted that marked it; `None` where an observation did (the sightings say
    /// between when and when).
    pub claimed: Option<Timestamp>,
    /// Fencing token of that claim.
    pub token: Option<u64>,
    /// The first 128 bytes of the note of that claim.
    pub note: Vec<u8>,
    /// How often a duplicate of it was refused since. With an authority, by this store, without asking.
    pub refused: u64,
}

impl KeyTrace {
    pub(crate) fn new(kept: Option<Kept>, refused: u64) -> Option<Self> {
        let trace = kept.and_then(|kept| kept.trace);
        if trace.is_none() && refused == 0 {
            return None;
        }
        let claimed = trace.as_ref().map(|trace| Timestamp::from_unix_nanos(trace.claimed_ns));
        let token = trace.as_ref().map(|trace| trace.token);
        Some(KeyTrace { claimed, token, note: trace.unwrap_or_default().note, refused })
    }
}

/// What an observation would find.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// Not held: the next observe is `New`.
    Unknown,
    /// Held: the next observe is `Duplicate`.
    Live {
        /// When the newest record expires.
        expires: Timestamp,
    },
    /// Held, but forgotten by a call: the next observe is `New`.
    Forgotten,
    /// Claimed: the next observe is `Error::InFlight`.
    InFlight {
        /// Fencing token of the claim.
        token: u64,
        /// Time until the claim may be taken over.
        lease_left: Duration,
    },
}

/// A record of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sighting {
    /// Number of the slice.
    pub slice: u64,
    /// Recorded not before this.
    pub not_before: Timestamp,
    /// Recorded before this.
    pub before: Timestamp,
    /// The tier that holds it.
    pub tier: Tier,
}

/// A tier of the exact set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tier {
    /// The journal, not yet sealed.
    Unsealed,
    /// A sealed, ordered file.
    Sealed,
}

impl KeyState {
    /// The state of a key whose newest record this is.
    pub(crate) fn live(newest: &Sighting, window_ns: i64) -> Self {
        let expires = newest.before.as_unix_nanos().saturating_add(window_ns);
        KeyState::Live { expires: Timestamp::from_unix_nanos(expires) }
    }
}

/// Where `slices` (oldest first) hold a digest, whose unsealed records are in the slices `unsealed`.
pub(crate) fn sightings(
    slices: &[Slice],
    unsealed: &[u64],
    digest: Digest,
) -> Result<Vec<Sighting>> {
    let mut sightings = Vec::new();
    for slice in slices {
        let mut tiers = Vec::new();
        for run in &slice.runs {
            if run.contains(digest)? {
                tiers.push(Tier::Sealed);
                break;
            }
        }
        if unsealed.contains(&slice.sequence) {
            tiers.push(Tier::Unsealed);
        }
        sightings.extend(tiers.into_iter().map(|tier| Sighting {
            slice: slice.sequence,
            not_before: Timestamp::from_unix_nanos(slice.start_ns),
            before: Timestamp::from_unix_nanos(slice.end_ns),
            tier,
        }));
    }
    Ok(sightings)
}
