//! Event time: the window follows the greatest timestamp seen.

use super::Engine;
use super::time::NO_WATERMARK;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::shard::{Shard, Target};
use crate::time::{Timestamp, nanos};
use crate::verdict::{BatchError, Verdict};

impl Engine {
    /// Accepts a timestamp: refuses one from the future, and begins the slices that it makes due.
    pub(super) fn advance_to(&self, time: Timestamp) -> Result<()> {
        let time_ns = time.as_unix_nanos();
        if time_ns <= self.time.watermark() {
            // Another thread may have moved the watermark, and not begun the slice yet.
            if self.time.is_past(time_ns) {
                self.rotate(self.time.watermark());
            }
            return Ok(());
        }
        let lead = nanos(self.config.max_event_lead);
        if time_ns > self.time.now().saturating_add(lead) {
            let max_lead = self.config.max_event_lead;
            return Err(Error::TimestampAhead { timestamp: time, max_lead });
        }
        if self.is_closed() {
            return Err(Error::Closed);
        }
        if self.time.watermark() == NO_WATERMARK {
            // What happened before the first event that this store heard of, it cannot know.
            self.ledger.update(|manifest| {
                manifest.complete_since_ns = manifest.complete_since_ns.max(time_ns);
            })?;
        }
        let watermark = self.time.raise_watermark(time_ns);
        if self.time.is_past(watermark) {
            self.rotate(watermark);
        }
        Ok(())
    }

    /// Where a key of event time `time_ns` goes; `None` when that is before the window.
    pub(super) fn event_target(&self, shard: &Shard, time_ns: i64) -> Option<Target> {
        if time_ns.saturating_add(self.config.window_ns) < self.time.watermark() {
            return None;
        }
        let slice = shard.catalog.slice_at(time_ns)?;
        Some(Target { slice: slice.sequence, column: slice.column })
    }

    pub(crate) fn observe_at(&self, digest: Digest, time: Timestamp) -> Result<Verdict> {
        self.require_event_time(true, "observe_at")?;
        self.advance_to(time)?;
        self.with_shard(digest, |shard, call| {
            let Some(target) = self.event_target(shard, time.as_unix_nanos()) else {
                shard.counters.too_old += 1;
                return Ok(Verdict::TooOld);
            };
            shard.observe(&self.tools, call, digest, target, || self.time.now())
        })
    }

    /// In order, so that the watermark moves as it would one key at a time. All timestamps are
    /// checked, all claims looked at and all space is set aside before the first mark.
    pub(crate) fn observe_batch_at(
        &self,
        keys: impl Iterator<Item = (Digest, Timestamp)>,
    ) -> Result<Vec<Verdict>, BatchError> {
        let keys: Vec<_> = keys.collect();
        let none = |error| BatchError::new(vec![None; keys.len()], error);
        self.require_event_time(true, "observe_batch_at").map_err(none)?;
        let ahead = self.time.now().saturating_add(nanos(self.config.max_event_lead));
        // What the watermark has reached was accepted before, maybe under another limit.
        let ahead = ahead.max(self.time.watermark());
        if let Some((_, time)) = keys.iter().find(|(_, time)| time.as_unix_nanos() > ahead) {
            let max_lead = self.config.max_event_lead;
            return Err(none(Error::TimestampAhead { timestamp: *time, max_lead }));
        }
        let digests: Vec<Digest> = keys.iter().map(|(digest, _)| *digest).collect();
        let mut call = self.prepare_batch(&digests).map_err(none)?;
        let mut verdicts = vec![None; keys.len()];
        let mut failure = None;
        for ((digest, time), verdict) in keys.iter().zip(&mut verdicts) {
            match self.observe_prepared_at(*digest, *time, &mut call) {
                Ok(answer) => *verdict = Some(answer),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let new = verdicts.iter().flatten().filter(|v| **v == Verdict::New).count();
        if let Err(error) = self.finish_batch(call, new) {
            return Err(BatchError::new(vec![None; keys.len()], error));
        }
        match failure {
            Some(error) => Err(BatchError::new(verdicts, error)),
            None => Ok(verdicts.into_iter().flatten().collect()),
        }
    }

    fn observe_prepared_at(
        &self,
        digest: Digest,
        time: Timestamp,
        batch: &mut super::batch::Prepared,
    ) -> Result<Verdict> {
        self.advance_to(time)?;
        let mut shard = self.enter(self.shard_of(digest))?;
        let Some(target) = self.event_target(&shard, time.as_unix_nanos()) else {
            shard.counters.too_old += 1;
            return Ok(Verdict::TooOld);
        };
        shard.observe(&self.tools, &mut batch.call, digest, target, || self.time.now())
    }
}
