//! Rows and the forget log.

use std::time::Duration;

use super::Space;
use crate::authority::{Digest, Forgotten, Row, RowAnswer, RowOp, Server, Token};
use crate::time::nanos;

/// Forgotten digests of one answer, at most.
const MOST_FORGOTTEN: usize = 10_000;

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    token: Token,
    phase: Phase,
    expires_ns: i64,
    value: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Marked { seen_ns: i64 },
    Claimed { fence: u64, lease_until_ns: i64 },
}

impl Stored {
    /// Not over; a claim counts while others may not have it.
    pub(super) fn is_live(&self, now_ns: i64) -> bool {
        let over_ns = match self.phase {
            Phase::Marked { .. } => self.expires_ns,
            Phase::Claimed { lease_until_ns, .. } => lease_until_ns.min(self.expires_ns),
        };
        now_ns < over_ns
    }

    fn is_claim_of(&self, token: Token) -> bool {
        self.token == token && matches!(self.phase, Phase::Claimed { .. })
    }

    fn is_mark_of(&self, token: Token) -> bool {
        self.token == token && matches!(self.phase, Phase::Marked { .. })
    }
}

impl Space {
    /// One step of a row's life.
    pub(super) fn step(&mut self, row: &Row<'_>, now_ns: i64) -> RowAnswer {
        let digest = row.digest;
        if self.rows.get(&digest).is_some_and(|stored| stored.expires_ns <= now_ns) {
            self.rows.remove(&digest);
        }
        let until = |keep: Duration| now_ns.saturating_add(nanos(keep));
        match row.op {
            RowOp::Look => self.look(digest, now_ns),
            RowOp::Observe { token, keep, value } => {
                let ours = self.rows.get(&digest).is_some_and(|stored| stored.is_mark_of(token));
                if ours {
                    return RowAnswer::Marked;
                }
                if let live @ (RowAnswer::Duplicate { .. } | RowAnswer::InFlight { .. }) =
                    self.look(digest, now_ns)
                {
                    return live;
                }
                let phase = Phase::Marked { seen_ns: now_ns };
                let value = value.to_vec();
                self.rows.insert(digest, Stored { token, phase, expires_ns: until(keep), value });
                RowAnswer::Marked
            }
            RowOp::Refresh { keep } => match self.rows.get_mut(&digest) {
                Some(Stored { phase: Phase::Marked { seen_ns }, expires_ns, .. }) => {
                    (*seen_ns, *expires_ns) = (now_ns, until(keep));
                    RowAnswer::Refreshed
                }
                _ => RowAnswer::Absent,
            },
            RowOp::Claim { .. } => self.claim(digest, row.op, now_ns),
            RowOp::Renew { token, lease, keep } => match self.rows.get_mut(&digest) {
                Some(stored) if stored.is_claim_of(token) => {
                    if let Phase::Claimed { lease_until_ns, .. } = &mut stored.phase {
                        *lease_until_ns = until(lease);
                    }
                    stored.expires_ns = until(lease + keep);
                    RowAnswer::Renewed
                }
                _ => RowAnswer::Lost,
            },
            RowOp::Commit { token, keep, value } => match self.rows.get_mut(&digest) {
                Some(stored) if stored.is_claim_of(token) => {
                    stored.phase = Phase::Marked { seen_ns: now_ns };
                    stored.expires_ns = until(keep);
                    if !value.is_empty() {
                        stored.value = value.to_vec();
                    }
                    RowAnswer::Committed
                }
                Some(stored) if stored.is_mark_of(token) => RowAnswer::Committed,
                _ => RowAnswer::Lost,
            },
            RowOp::Abandon { token } => {
                if self.rows.get(&digest).is_some_and(|stored| stored.token == token) {
                    self.rows.remove(&digest);
                }
                RowAnswer::Abandoned
            }
            RowOp::Forget { keep } => {
                let forgotten = self.rows.remove(&digest);
                self.last_forgotten += 1;
                self.forgotten.push((self.last_forgotten, until(keep), digest));
                let marked = |stored: Stored| matches!(stored.phase, Phase::Marked { .. });
                RowAnswer::Forgotten { live: forgotten.is_some_and(marked) }
            }
        }
    }

    fn look(&self, digest: Digest, now_ns: i64) -> RowAnswer {
        let Some(stored) = self.rows.get(&digest).filter(|stored| stored.is_live(now_ns)) else {
            return RowAnswer::Absent;
        };
        let span = |ns: i64| Duration::from_nanos(ns.max(0).unsigned_abs());
        let value = stored.value.clone();
        match stored.phase {
            Phase::Marked { seen_ns } => {
                RowAnswer::Duplicate { age: span(now_ns.saturating_sub(seen_ns)), value }
            }
            Phase::Claimed { lease_until_ns, .. } => RowAnswer::InFlight {
                lease_left: span(lease_until_ns.saturating_sub(now_ns)),
                value,
            },
        }
    }

    fn claim(&mut self, digest: Digest, op: RowOp<'_>, now_ns: i64) -> RowAnswer {
        let RowOp::Claim { token, previous, lease, keep, value } = op else {
            return RowAnswer::Absent;
        };
        let stored = self.rows.get(&digest);
        let is_claim_of = |token: Token| stored.is_some_and(|stored| stored.is_claim_of(token));
        let again = is_claim_of(token);
        if !again
            && !previous.is_some_and(is_claim_of)
            && let live @ (RowAnswer::Duplicate { .. } | RowAnswer::InFlight { .. }) =
                self.look(digest, now_ns)
        {
            return live;
        }
        let by_clock = now_ns.max(0).unsigned_abs() / 1_000;
        let fence = match stored.map(|stored| stored.phase) {
            Some(Phase::Claimed { fence, .. }) if again => fence,
            Some(Phase::Claimed { fence, .. }) => by_clock.max(fence + 1),
            _ => by_clock,
        };
        let lease_until_ns = now_ns.saturating_add(nanos(lease));
        let phase = Phase::Claimed { fence, lease_until_ns };
        let expires_ns = lease_until_ns.saturating_add(nanos(keep));
        self.rows.insert(digest, Stored { token, phase, expires_ns, value: value.to_vec() });
        RowAnswer::Granted { fence }
    }

    pub(super) fn forgotten_after(&mut self, after: u64, server: Server) -> Forgotten {
        let now_ns = server.time.as_unix_nanos();
        self.forgotten.retain(|(_, expires_ns, _)| *expires_ns > now_ns);
        let new = self.forgotten.iter().filter(|(number, ..)| *number > after);
        let new: Vec<_> = new.take(MOST_FORGOTTEN).collect();
        let through = match new.last() {
            Some((number, ..)) => *number,
            None => after.min(self.last_forgotten),
        };
        Forgotten { server, digests: new.iter().map(|(_, _, digest)| *digest).collect(), through }
    }
}
