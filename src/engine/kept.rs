//! What is kept with marks, for whoever comes again.

use std::sync::atomic::Ordering::Acquire;

use super::Engine;
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::error::Result;
use crate::format::kept::Kept;
use crate::shard::Shard;

impl Engine {
    /// Whether anything was ever kept: most stores keep nothing.
    #[inline]
    pub(super) fn keeps(&self) -> bool {
        self.tools.has_kept.load(Acquire)
    }

    /// What is kept with a key that is a duplicate. That it cannot be read is noted: the key is a
    /// duplicate all the same.
    #[cold]
    #[inline(never)]
    pub(super) fn kept_of(&self, shard: &Shard, digest: Digest) -> Option<Box<Kept>> {
        let mask = shard.suspects(digest);
        let kept = shard.find(digest, mask).and_then(|slice| match slice {
            Some(slice) => shard.kept(&self.tools, digest, slice),
            None => Ok(None),
        });
        kept.unwrap_or_else(|error| {
            self.note_background_error(&error);
            None
        })
        .map(Box::new)
    }

    /// The result that is kept with a live key.
    pub(crate) fn result(&self, digest: Digest, on_outage: OnOutage) -> Result<Option<Vec<u8>>> {
        if let Some(shared) = self.shared() {
            return self.result_shared(shared, digest, on_outage);
        }
        let kept = self.kept_here(digest)?;
        Ok(kept.and_then(|kept| kept.result))
    }

    /// What is kept here with a live key.
    fn kept_here(&self, digest: Digest) -> Result<Option<Kept>> {
        self.tick()?;
        self.read_shard(digest, |shard, call| {
            let mask = shard.suspects(digest);
            let Some(slice) = shard.find(digest, mask)? else { return Ok(None) };
            shard.wait_for(&self.tools.log, call, digest);
            shard.kept(&self.tools, digest, slice)
        })
    }
}
