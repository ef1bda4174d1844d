//! What is kept with marks that an authority has.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::decide::{Deciding, Said, Wanted};
use super::drive::{Looked, Next, Round, Turn};
use super::{Shared, unfit};
use crate::authority::{RowAnswer, RowOp};
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::kept::Kept;
use crate::shard::Shard;
use crate::verdict::Seen;

impl Engine {
    /// What an authority has kept with a key; an error if that is not what was written for this key.
    pub(super) fn accepted(&self, digest: Digest, value: Vec<u8>) -> Result<Option<Arc<[u8]>>> {
        if value.is_empty() {
            return Ok(None);
        }
        match Kept::decode(digest, &value) {
            Ok(_) => Ok(Some(value.into())),
            Err(why) => {
                let name = self.shared().map(|shared| shared.link.name());
                Err(Error::corrupt(name.unwrap_or_default(), why))
            }
        }
    }

    /// What an authority has kept with a key, where the key's mark matters and what is kept may be lacking.
    pub(super) fn accepted_if_sound(&self, digest: Digest, value: Vec<u8>) -> Option<Arc<[u8]>> {
        self.accepted(digest, value).unwrap_or_else(|error| {
            self.note_background_error(&error);
            None
        })
    }

    /// An observation of a message with a fingerprint.
    pub(in crate::engine) fn observe_with_shared(
        &self,
        shared: &Shared,
        digest: Digest,
        fingerprint: Digest,
        policy: OnOutage,
    ) -> Result<Seen> {
        self.tick_clock();
        let wanted = Wanted::Observe(Some(fingerprint));
        let said = self.decide(shared, &[digest], wanted, policy).pop().flatten();
        match said.unwrap_or(Err(Error::Closed))? {
            Said::New(_) => Ok(Seen::New),
            Said::Duplicate(kept) if self.conflicts(kept.as_deref(), Some(fingerprint)) => {
                Ok(Seen::Conflict)
            }
            Said::Duplicate(_) => Ok(Seen::Duplicate),
            Said::InFlight(lease_left) => Err(Error::InFlight { lease_left }),
        }
    }

    /// Whether a message is another one than that which is marked; counts it.
    pub(super) fn conflicts(&self, kept: Option<&Kept>, fingerprint: Option<Digest>) -> bool {
        let conflicts = kept.is_some_and(|kept| kept.conflicts(fingerprint));
        if conflicts {
            // Anywhere: counters are added up.
            self.shards[0].lock().counters.conflicts += 1;
        }
        conflicts
    }

    /// The result that is kept with a live key: the one that is known here, or the authority's.
    pub(in crate::engine) fn result_shared(
        &self,
        shared: &Shared,
        digest: Digest,
        policy: OnOutage,
    ) -> Result<Option<Vec<u8>>> {
        self.tick_clock();
        let fresh = Cell::new(shared.link.is_fresh());
        let found = self.drive(
            shared,
            &[digest],
            (&fresh, policy),
            |shard, call, at, digest| {
                let mask = shard.suspects(digest);
                if let Ok(Some(slice)) = shard.find(digest, mask) {
                    if !fresh.get() {
                        return Looked::Stale;
                    }
                    shard.wait_for(&self.tools.log, call, digest);
                    // What cannot be read here the authority knows.
                    if let Ok(Some(kept)) = shard.kept(&self.tools, digest, slice) {
                        return Looked::Said(Ok(kept.result));
                    }
                }
                Looked::Ask(Turn::new(at, digest, RowOp::Look, self.time.now()))
            },
            |_, _, answer| {
                Next::Done(match answer {
                    Ok(RowAnswer::Duplicate { value, .. }) if !value.is_empty() => {
                        Kept::decode(digest, &value)
                            .map(|kept| kept.result)
                            .map_err(|why| Error::corrupt(shared.link.name(), why))
                    }
                    Ok(
                        RowAnswer::Duplicate { .. }
                        | RowAnswer::Absent
                        | RowAnswer::InFlight { .. },
                    ) => Ok(None),
                    Ok(_) => Err(shared.error(&unfit(), false)),
                    Err(failure) => Err(shared.error(&failure, false)),
                })
            },
        );
        found.into_iter().flatten().next().unwrap_or(Err(Error::Closed))
    }
}

impl Deciding<'_> {
    /// The answer to a key that the authority holds.
    pub(super) fn duplicate_there(
        &self,
        round: &mut Round,
        turn: &mut Turn,
        age: Duration,
        value: Vec<u8>,
    ) -> Next<Said> {
        if let Err(error) = self.take_value(turn, value) {
            self.end(round, turn, turn.earlier, |_| {});
            return Next::Done(Err(error));
        }
        if !self.engine.tools.refresh_on_duplicate {
            return Next::Done(Ok(self.duplicate(round, turn, age)));
        }
        turn.op = self.refresh();
        Next::Again
    }

    /// A duplicate that is known here, with what is kept here where that is asked for.
    pub(super) fn duplicate_of(&self, shard: &Shard, digest: Digest) -> Result<Said> {
        let asks = !self.observes() || self.fingerprint().is_some();
        if !(asks && self.engine.keeps()) {
            return Ok(Said::Duplicate(None));
        }
        self.or_noted(self.engine.kept_in(shard, digest)).map(Said::Duplicate)
    }

    /// What is kept and cannot be read is noted, unless it has to be compared with a fingerprint.
    fn or_noted<T>(&self, kept: Result<Option<T>>) -> Result<Option<T>> {
        if self.fingerprint().is_some() {
            return kept;
        }
        Ok(kept.unwrap_or_else(|error| {
            self.engine.note_background_error(&error);
            None
        }))
    }

    /// What the authority has kept takes the place of what was to be kept.
    fn take_value(&self, turn: &mut Turn, value: Vec<u8>) -> Result<()> {
        turn.value = self.or_noted(self.engine.accepted(turn.digest, value))?;
        Ok(())
    }

    /// A duplicate with what the authority has kept.
    pub(super) fn duplicate_with(&self, turn: &Turn) -> Said {
        let kept = turn.value.as_ref().and_then(|value| Kept::decode(turn.digest, value).ok());
        Said::Duplicate(kept.map(Box::new))
    }
}
