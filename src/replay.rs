//! What the control records of a journal come to, for whoever reads one back.

use std::collections::HashMap;

use crate::digest::{Digest, DigestMap};
use crate::format::kept::{self, Gathered};
use crate::format::record::Record;

/// A claim that was in flight.
#[derive(Clone, Debug)]
pub(crate) struct OpenClaim {
    pub(crate) token: u64,
    pub(crate) deadline_ns: i64,
    pub(crate) event_ns: Option<i64>,
    pub(crate) note: Vec<u8>,
}

/// What is known of a forgotten digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    /// The newest slice that may hold a dead record.
    pub(crate) newest: u64,
    /// The slice in which it was seen again, older than `newest` (late, in event time); zero if it
    /// was not. The key lives as long as that slice.
    pub(crate) revived: u64,
}

impl Tombstone {
    /// Notes that a digest was seen again in `slice`: the tombstone ends, unless dead records are
    /// in newer slices.
    pub(crate) fn revive(tombstones: &mut DigestMap<Tombstone>, digest: Digest, slice: u64) {
        if let Some(tombstone) = tombstones.get_mut(&digest) {
            tombstone.revived = slice;
            if slice >= tombstone.newest {
                tombstones.remove(&digest);
            }
        }
    }
}

/// Claims and tombstones after all records so far. Records of one digest come in the order in which
/// they were written.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) claims: DigestMap<OpenClaim>,
    pub(crate) tombstones: DigestMap<Tombstone>,
    /// Side values.
    pub(crate) values: DigestMap<Vec<u8>>,
    /// What is kept with marks, by the slice of the mark and what it is.
    pub(crate) kept: HashMap<(Digest, u64, u8), Gathered>,
    /// Which digest a token stands for.
    tokens: HashMap<u64, Digest>,
}

impl Replay {
    pub(crate) fn apply(&mut self, record: Record<'static>) {
        match record {
            Record::Tombstone { digest, slice } => {
                self.claims.remove(&digest);
                if slice > 0 {
                    self.tombstones.insert(digest, Tombstone { newest: slice, revived: 0 });
                }
            }
            Record::Revived { digest, slice } => {
                Tombstone::revive(&mut self.tombstones, digest, slice)
            }
            Record::Claim { digest, token, deadline_ns, event_ns, note } => {
                let note = note.into_owned();
                self.begin(digest, OpenClaim { token, deadline_ns, event_ns, note });
            }
            Record::Claims { first, deadline_ns, digests } => {
                for (token, digest) in (first..).zip(digests.iter()) {
                    let (event_ns, note) = (None, Vec::new());
                    self.begin(*digest, OpenClaim { token, deadline_ns, event_ns, note });
                }
            }
            Record::Commit { token } | Record::Abandon { token } => self.end(token),
            Record::Commits { first, count } => {
                (0..count).for_each(|number| self.end(first.wrapping_add(number)));
            }
            // The last one of a digest counts; what it means its writer knows.
            Record::Value { digest, slice, payload } => match kept::tag(&payload) {
                Some(tag) => self.kept.entry((digest, slice, tag)).or_default().add(&payload),
                None => drop(self.values.insert(digest, payload.into_owned())),
            },
        }
    }

    fn begin(&mut self, digest: Digest, claim: OpenClaim) {
        self.tokens.insert(claim.token, digest);
        self.claims.insert(digest, claim);
    }

    /// Ends a claim, unless another one has taken its place.
    fn end(&mut self, token: u64) {
        if let Some(digest) = self.tokens.remove(&token)
            && self.claims.get(&digest).is_some_and(|claim| claim.token == token)
        {
            self.claims.remove(&digest);
        }
    }
}
