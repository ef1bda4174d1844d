//! A row, as it is in the table.

use onceonly::authority::{AuthorityError, Result, RowAnswer, RowKind, Token};

use crate::time::span;

/// The row was abandoned or forgotten: it counts as absent. It stays for a while, so that the fence
/// of the next claim is above that of the last, whatever the clock does.
pub const CANCELLED: i16 = 0;
/// The row is marked.
pub const MARKED: i16 = 1;
/// The row is claimed.
pub const CLAIMED: i16 = 2;

/// A row. All times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// [`CANCELLED`], [`MARKED`] or [`CLAIMED`].
    pub state: i16,
    /// Of the observation or the claim.
    pub token: [u8; 16],
    /// Of the last claim.
    pub fence: i64,
    /// When it was marked.
    pub seen: i64,
    /// When others may have it: `expires` of a mark, the end of a claim's lease, 0 when cancelled.
    pub live_until: i64,
    /// When it is over, and may be deleted.
    pub expires: i64,
    /// The caller's bytes.
    pub value: Vec<u8>,
}

impl Stored {
    /// Others may not have it.
    #[must_use]
    pub fn is_live(&self, now: i64) -> bool {
        now < self.live_until
    }

    /// Its claim is this one, its lease over or not.
    #[must_use]
    pub fn is_claim_of(&self, token: Token, now: i64) -> bool {
        self.state == CLAIMED && self.token == *token.as_bytes() && now < self.expires
    }

    /// Its mark is this one.
    #[must_use]
    pub fn is_mark_of(&self, token: Token, now: i64) -> bool {
        self.state == MARKED && self.token == *token.as_bytes() && now < self.expires
    }

    /// What it is to others.
    #[must_use]
    pub fn look(self, now: i64) -> RowAnswer {
        if !self.is_live(now) {
            return RowAnswer::Absent;
        }
        if self.state == CLAIMED {
            RowAnswer::InFlight { lease_left: span(self.live_until - now), value: self.value }
        } else {
            RowAnswer::Duplicate { age: span(now.saturating_sub(self.seen)), value: self.value }
        }
    }
}

/// The answer to a step that these clients do not know: the engine is of a later release.
#[must_use]
pub fn unknown(kind: RowKind) -> Option<Result<RowAnswer>> {
    let known = [
        RowKind::Look,
        RowKind::Observe,
        RowKind::Refresh,
        RowKind::Claim,
        RowKind::Renew,
        RowKind::Commit,
        RowKind::Abandon,
        RowKind::Forget,
    ];
    let why = "a step that this client does not know: update it with the library";
    (!known.contains(&kind)).then(|| Err(AuthorityError::refused(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_of_this_release_are_known() {
        assert!(RowKind::ALL.into_iter().all(|kind| unknown(kind).is_none()));
    }
}
