//! Keys that something else has marked before this store decided. They are asked for, of the authority's
//! server, until the store knows of a whole window by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::Engine;
use super::shared::error_of;
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gather::Link;
use crate::sync::{AtomicBool, AtomicU64};

/// A key as the user gave it, and as this store knows it.
pub(crate) type Named = (Digest, Box<[u8]>);

#[derive(Default)]
pub(super) struct Legacy {
    /// Keys of before count still.
    counts: AtomicBool,
    found: AtomicU64,
}

impl Engine {
    fn link(&self) -> Option<&Link> {
        let shared = self.shared.get().map(|shared| shared.link());
        shared.or_else(|| self.owned.get().map(|owner| owner.link()))
    }

    /// Once, when the authority is found.
    pub(super) fn begin_legacy(&self) {
        let has_legacy = self.link().is_some_and(Link::has_legacy);
        self.legacy.counts.store(has_legacy, Release);
    }

    /// Whether keys of before may have to be asked for.
    pub(crate) fn may_ask_legacy(&self) -> bool {
        self.legacy.counts.load(Acquire)
    }

    /// Whether keys of before count still; says no for ever once they do not.
    pub(crate) fn asks_legacy(&self) -> bool {
        if !self.may_ask_legacy() {
            return false;
        }
        let since_ns = self.guaranteed_since().as_unix_nanos();
        let complete = since_ns <= self.window_now().saturating_sub(self.config.window_ns);
        if complete && !self.is_closed() {
            self.legacy.counts.fetch_and(false, AcqRel);
        }
        !complete
    }

    /// Keys that were marked before, which are duplicates, though not of anything that this store has seen.
    pub(super) fn legacy_found(&self) -> u64 {
        self.legacy.found.load(Relaxed)
    }

    /// Which of the keys have to be asked for: not those that are known here.
    pub(crate) fn legacy_unknown(&self, keys: &[Named]) -> Result<Vec<usize>> {
        self.tick()?;
        let mut unknown = Vec::new();
        for (at, (digest, _)) in keys.iter().enumerate() {
            if !self.is_known(*digest)? {
                unknown.push(at);
            }
        }
        Ok(unknown)
    }

    /// Which of the keys were marked before. Waits for the server.
    pub(crate) fn legacy_seen(&self, keys: &[Named], policy: OnOutage) -> Result<Vec<bool>> {
        let mut seen = vec![false; keys.len()];
        let unknown = self.legacy_unknown(keys)?;
        if unknown.is_empty() {
            return Ok(seen);
        }
        let Some(link) = self.link() else { return Ok(seen) };
        let asked = unknown.iter().map(|at| keys[*at].1.clone()).collect();
        match link.legacy(asked, false) {
            Ok(marked) => {
                for (at, marked) in unknown.into_iter().zip(marked) {
                    seen[at] = marked;
                    self.count_legacy(marked);
                }
                Ok(seen)
            }
            Err(failure) if policy == OnOutage::AssumeNew && failure.error.is_transient() => {
                self.assume_legacy_unseen()?;
                Ok(seen)
            }
            Err(failure) => Err(error_of(link, &failure, false)),
        }
    }

    fn count_legacy(&self, marked: bool) {
        if marked {
            self.legacy.found.fetch_add(1, Relaxed);
            // Anywhere: counters are added up.
            self.shards[0].lock().counters.duplicate += 1;
        }
    }

    /// [`Engine::legacy_seen`] as a future.
    pub(crate) async fn legacy_seen_later(
        self: &Arc<Self>,
        keys: Vec<Named>,
        policy: OnOutage,
    ) -> Result<Vec<bool>> {
        if self.legacy_unknown(&keys)?.is_empty() {
            return Ok(vec![false; keys.len()]);
        }
        self.called_later(move |engine| engine.legacy_seen(&keys, policy)).await?
    }

    /// Has the mark of before deleted; says whether there was one.
    pub(crate) fn forget_legacy(&self, key: &[u8]) -> Result<bool> {
        let Some(link) = self.link() else { return Err(Error::Closed) };
        let forgotten = link.legacy(vec![key.into()], true);
        let forgotten = forgotten.map_err(|failure| error_of(link, &failure, false))?;
        Ok(forgotten.first().is_some_and(|was_there| *was_there))
    }

    fn assume_legacy_unseen(&self) -> Result<()> {
        if let Some(shared) = self.shared.get() {
            return self.note_assumption(shared.hole_until());
        }
        self.owned.get().map_or(Ok(()), |owner| self.note_assumption(owner.hole_until()))
    }
}
