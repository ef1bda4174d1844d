//! What the kernel could not write back.
//!
//! It takes such a page for clean: the next sync succeeds without it, and under memory pressure the
//! page is dropped and read from the disk again, as it was there. So a file with such a page is never
//! synced again. What the journal holds is sealed into new files, from memory; filters are rebuilt
//! from the exact files. Until that is done the next open does not trust the maps, and
//! `guaranteed_since` vouches for nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use super::Engine;
use crate::error::{Error, Result};
use crate::format::clock::Maps;
use crate::format::manifest::FilterEntry;
use crate::format::names::{self, Kind};
use crate::journal::Segment;

/// Heartbeats from one look to the next: the kernel writes back what is some seconds old.
const LOOK_EVERY: u64 = 10;

impl Engine {
    /// Once a second. Looks now and then whether the kernel could write back what it wrote back, and
    /// tries again what did not come to its end.
    pub(super) fn look_now_and_then(&self) {
        let beat = self.maintenance.beats.fetch_add(1, AcqRel);
        if beat % LOOK_EVERY == LOOK_EVERY - 1 && self.ledger.storage().is_lasting() {
            self.schedule_look();
        }
    }

    /// Has the job that seals look first: what is found is sealed.
    pub(super) fn schedule_look(&self) {
        self.maintenance.look_due.store(true, Release);
        self.schedule_seal();
    }

    /// Looks, if that is due.
    pub(super) fn look_at_maps(&self) -> Result<()> {
        if !self.maintenance.look_due.swap(false, AcqRel) {
            return Ok(());
        }
        let storage = self.ledger.storage();
        for segment in self.segments_in_use() {
            let name = names::numbered(Kind::Journal, segment.id);
            if let Err(error) = storage.written_back(&name, segment.region()) {
                self.suspect_journal(&error);
            }
        }
        if let Err(error) = storage.written_back(names::CLOCK, &self.time.region()) {
            // The page is dirty again by that, and a later write-back has all of it.
            self.note_background_error(&error);
            self.time.record_anchor();
        }
        let filters = self.look_at_filters();
        let healed = if self.is_journal_suspect() { self.heal_journal() } else { Ok(()) };
        healed.and(filters)
    }

    /// Segments of the journal that are open, and those that shards hold until they are sealed.
    pub(super) fn segments_in_use(&self) -> Vec<Arc<Segment>> {
        let mut segments = self.tools.journal.open_segments();
        for shard in &self.shards {
            let shard = shard.lock();
            let held = shard.frozen.iter().map(|f| &f.segment);
            for segment in held.chain(shard.active.as_ref().map(|a| &a.segment)) {
                if !segments.iter().any(|known| known.id == segment.id) {
                    segments.push(Arc::clone(segment));
                }
            }
        }
        segments
    }

    pub(super) fn is_journal_suspect(&self) -> bool {
        self.maintenance.journal_suspect.load(Acquire)
    }

    /// The kernel may drop pages of the journal.
    #[cold]
    pub(super) fn suspect_journal(&self, error: &Error) {
        self.note_background_error(error);
        self.maintenance.journal_suspect.store(true, Release);
        self.time.set_suspect(Maps::Journal, true);
    }

    /// What the journal holds is still in memory, so it is sealed, into new files, and its own are
    /// given up. The new ones are synced, once: what is carried over is in them.
    #[cold]
    pub(super) fn heal_journal(&self) -> Result<()> {
        let poisoned = |detail: String| Err(Error::Poisoned { detail });
        match self.tools.journal.retire_all().and_then(|()| self.seal_due()) {
            Ok(()) if self.tools.journal.full_segments().is_empty() => {}
            Ok(()) => return poisoned("the journal could not be written".to_owned()),
            Err(error) => return poisoned(error.to_string()),
        }
        if let Err(error) = self.sync_journals() {
            return poisoned(error.to_string());
        }
        self.maintenance.journal_suspect.store(false, Release);
        self.time.set_suspect(Maps::Journal, false);
        Ok(())
    }

    /// A filter with a page that was dropped would hide keys: nobody asks it any more, and it is
    /// rebuilt. Until then every key is looked up in the exact set.
    fn look_at_filters(&self) -> Result<()> {
        let filters = self.ledger.read(|manifest| manifest.filters.clone());
        let mut seen = Vec::new();
        for FilterEntry { file, shard } in &filters {
            let Some(shard) = self.shards.get(*shard as usize) else { continue };
            let region = shard.lock().filter.as_ref().map(|filter| filter.region().clone());
            let Some(region) = region.filter(|_| !seen.contains(file)) else { continue };
            seen.push(*file);
            let name = names::numbered(Kind::Filter, *file);
            if let Err(error) = self.ledger.storage().written_back(&name, &region) {
                self.note_background_error(&error);
                self.time.set_suspect(Maps::Filters, true);
                self.maintenance.filters_suspect.lock().push(*file);
                for of_file in filters.iter().filter(|filter| filter.file == *file) {
                    let shard = self.shards.get(of_file.shard as usize);
                    drop(shard.and_then(|shard| shard.lock().filter.take()));
                }
            }
        }
        let suspect = self.maintenance.filters_suspect.lock().clone();
        if suspect.is_empty() {
            return Ok(());
        }
        self.schedule_rebuild();
        self.ledger.update(|manifest| {
            manifest.filters.retain(|filter| !suspect.contains(&filter.file));
        })?;
        suspect.iter().for_each(|file| self.remove_file(Kind::Filter, *file));
        self.maintenance.filters_suspect.lock().clear();
        self.time.set_suspect(Maps::Filters, false);
        Ok(())
    }
}
