//! What the control records of a journal come to, for whoever reads one back.

use std::collections::HashMap;

use crate::digest::{Digest, DigestMap};
use crate::format::record::Record;

/// A claim that was in flight.
#[derive(Clone, Debug)]
pub(crate) struct OpenClaim {
    pub(crate) token: u64,
    pub(crate) deadline_ns: i64,
    pub(crate) note: Vec<u8>,
}

/// Claims and tombstones after all records so far. Records of one digest come in the order in which
/// they were written.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) claims: DigestMap<OpenClaim>,
    /// Forgotten digests, with the newest slice that may hold them.
    pub(crate) tombstones: DigestMap<u64>,
    /// Which digest a token stands for.
    tokens: HashMap<u64, Digest>,
}

impl Replay {
    pub(crate) fn apply(&mut self, record: Record<'static>) {
        match record {
            Record::Tombstone { digest, slice } => {
                self.claims.remove(&digest);
                if slice > 0 {
                    self.tombstones.insert(digest, slice);
                }
            }
            Record::Revived { digest } => {
                self.tombstones.remove(&digest);
            }
            Record::Claim { digest, token, deadline_ns, note } => {
                self.tokens.insert(token, digest);
                let claim = OpenClaim { token, deadline_ns, note: note.into_owned() };
                self.claims.insert(digest, claim);
            }
            Record::Commit { token } | Record::Abandon { token } => self.end(token),
            // Side values come with the releases that write them.
            Record::Value { .. } => {}
        }
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
