//! What is kept with marks, for whoever comes again.

use std::sync::atomic::Ordering::Acquire;

use super::Engine;
use super::claims::Attempt;
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::kept::Kept;
use crate::shard::Shard;
use crate::verdict::Seen;

impl Engine {
    /// Whether anything was ever kept: most stores keep nothing.
    #[inline]
    pub(super) fn keeps(&self) -> bool {
        self.tools.has_kept.load(Acquire)
    }

    /// The answer to a claim of a key that is a duplicate, with what is kept. That it cannot be read is noted,
    /// and the key is a duplicate all the same; unless it has to be compared with a fingerprint.
    #[cold]
    #[inline(never)]
    pub(super) fn duplicate_in(
        &self,
        shard: &mut Shard,
        digest: Digest,
        fingerprint: Option<Digest>,
    ) -> Result<Attempt> {
        let kept = self.kept_in(shard, digest);
        if fingerprint.is_none() {
            return Ok(Attempt::Duplicate(kept.unwrap_or_else(|error| {
                self.note_background_error(&error);
                None
            })));
        }
        let kept = kept?;
        if kept.as_ref().is_some_and(|kept| kept.conflicts(fingerprint)) {
            shard.counters.conflicts += 1;
            return Ok(Attempt::Conflict);
        }
        Ok(Attempt::Duplicate(kept))
    }

    /// [`Engine::duplicate_in`], of a key that was a duplicate a moment ago.
    #[cold]
    #[inline(never)]
    pub(super) fn duplicate_with(
        &self,
        digest: Digest,
        fingerprint: Option<Digest>,
    ) -> Result<Attempt> {
        self.read_shard(digest, |shard, _| self.duplicate_in(shard, digest, fingerprint))
    }

    /// What is kept here with a live key.
    pub(super) fn kept_in(&self, shard: &Shard, digest: Digest) -> Result<Option<Box<Kept>>> {
        let mask = shard.suspects(digest);
        let Some(slice) = shard.find(digest, mask)? else { return Ok(None) };
        Ok(shard.kept(&self.tools, digest, slice)?.map(Box::new))
    }

    /// [`Engine::observe`] of a message with a fingerprint, which is kept with the mark.
    pub(crate) fn observe_with(
        &self,
        digest: Digest,
        fingerprint: Digest,
        on_outage: OnOutage,
    ) -> Result<Seen> {
        self.prefetch(digest);
        if let Some(shared) = self.admit(&[digest], on_outage)? {
            return self.observe_with_shared(shared, digest, fingerprint, on_outage);
        }
        self.require_event_time(false, "observe_with")?;
        self.tick_clock();
        let bytes = Kept::of(fingerprint).encode(digest).into();
        let tools = &self.tools;
        self.with_shard(digest, |shard, call| {
            let target = shard.current();
            shard.displace_claim(tools, call, digest, || self.time.now())?;
            let mask = shard.suspects(digest);
            let Some(seen) = shard.find_counted(digest, mask)? else {
                shard.keep_and_mark(tools, call, digest, target.slice, &bytes, |shard, call| {
                    shard.record(tools, call, digest, target)
                })?;
                return Ok(Seen::New);
            };
            let kept = shard.kept(tools, digest, seen)?;
            if kept.is_some_and(|kept| kept.conflicts(Some(fingerprint))) {
                shard.wait_for(&tools.log, call, digest);
                shard.counters.conflicts += 1;
                return Ok(Seen::Conflict);
            }
            shard.seen_again(tools, call, digest, seen, target)?;
            Ok(Seen::Duplicate)
        })
    }

    /// The result that is kept with a live key.
    pub(crate) fn result(&self, digest: Digest, on_outage: OnOutage) -> Result<Option<Vec<u8>>> {
        if let Some(shared) = self.admit(&[digest], on_outage)? {
            return self.result_shared(shared, digest, on_outage);
        }
        self.tick()?;
        self.read_shard(digest, |shard, call| {
            shard.wait_for(&self.tools.log, call, digest);
            Ok(self.kept_in(shard, digest)?.and_then(|kept| kept.result))
        })
    }
}
