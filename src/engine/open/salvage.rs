//! What of the unsealed records can be relied on when a store is opened.
//!
//! The journal's maps are whole after a crash of the process (the kernel has every store) and after
//! a clean close (they were synced). After a power loss they are not, and the logs decide: they have
//! the tombstones of every level, and all marks of `Interval` and `Sync`.

use std::collections::HashMap;

use super::Opening;
use super::files::is_lost;
use crate::engine::time::NO_WATERMARK;
use crate::error::Result;
use crate::format::chunk::{self, ChunkKind};
use crate::format::log::Entry;
use crate::format::manifest::Era;
use crate::format::names::{self, Kind};
use crate::journal::Segment;
use crate::log::{self, Level, Logged};

/// Where unsealed records are read back from.
#[derive(Debug, Default)]
pub(in crate::engine) enum Source {
    /// The journal, which is whole.
    #[default]
    Journal,
    /// The logs, and whatever chunks of digests reached the disk if the logs have no marks.
    Logs { logged: Logged, chunks: bool },
    /// Nothing: a key that was forgotten could come back.
    Nothing(String),
}

/// What may be lost, before it is known what time it is.
#[derive(Debug)]
pub(super) struct Loss {
    /// Nothing acknowledged before this instant is lost.
    pub(super) from_ns: i64,
    pub(super) reason: String,
}

impl Opening {
    /// Decides where unsealed records come from, and what may be missing.
    pub(super) fn choose_source(&mut self) -> Result<()> {
        if self.report.created {
            return Ok(());
        }
        let whole = self.trusted || self.report.clean_close;
        let damage = if whole { self.verify_journals(&self.logged_tombstones()?)? } else { None };
        if whole && damage.is_none() {
            if !self.trusted && !self.same_place {
                // A copy: what the original acknowledged after it was closed is not here.
                self.lose_since(self.manifest.covered_ns, "the files were copied or restored");
            }
            return Ok(());
        }
        let (storage, store) = (&*self.storage, self.header.store);
        let logged = match log::read_all(storage, store, &self.manifest.logs) {
            Ok(logged) => logged,
            Err(error) if is_lost(&error) => {
                let reason = damage.unwrap_or_else(|| error.to_string());
                self.source = Source::Nothing(reason);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let level = self.manifest.level;
        let has_marks = Level::code_has_marks(level);
        let covered_ns = self.manifest.covered_ns.max(logged.covered_ns);
        match damage {
            Some(reason) if !has_marks => self.lose_since(i64::MIN, &reason),
            Some(reason) => self.report.damage.push(format!("{reason}; read from the log")),
            None if level == Level::Sync.code() && self.same_place => {}
            None if level == Level::Sync.code() => {
                self.lose_since(covered_ns, "the files were copied or restored");
            }
            None => self
                .lose_since(covered_ns, "the files may lack what was not yet written to the disk"),
        }
        self.source = Source::Logs { logged, chunks: !has_marks };
        Ok(())
    }

    /// Something that was acknowledged may be missing.
    pub(super) fn is_lossy(&self) -> bool {
        !self.losses.is_empty() || matches!(self.source, Source::Nothing(_))
    }

    fn lose_since(&mut self, from_ns: i64, reason: &str) {
        self.losses.push(Loss { from_ns, reason: reason.to_owned() });
    }

    /// How many tombstones each segment has at least. The logs were synced: what they count was there
    /// when the last owner died, though the kernel may have failed to write it back since. After a
    /// clean close the journal was synced too.
    fn logged_tombstones(&self) -> Result<HashMap<u64, u64>> {
        let mut counts = HashMap::new();
        if self.report.clean_close {
            return Ok(counts);
        }
        let logged = match log::read_all(&*self.storage, self.header.store, &self.manifest.logs) {
            Ok(logged) => logged,
            Err(error) if is_lost(&error) => return Ok(counts),
            Err(error) => return Err(error),
        };
        for entry in logged.entries {
            if let Entry::Count(segment, tombstones) = entry {
                let least = counts.entry(segment).or_insert(0);
                *least = tombstones.max(*least);
            }
        }
        Ok(counts)
    }

    /// Whether the journal is what it should be, and if not, why.
    fn verify_journals(&self, tombstones: &HashMap<u64, u64>) -> Result<Option<String>> {
        for id in &self.manifest.journals {
            let name = names::numbered(Kind::Journal, *id);
            match Segment::open(&*self.storage, self.header.store, *id) {
                Ok(segment) => {
                    let logged = tombstones.get(id).copied().unwrap_or(0);
                    if let Err(why) = segment.verify(logged) {
                        return Ok(Some(format!("{name}: {why}")));
                    }
                }
                Err(error) if is_lost(&error) => return Ok(Some(error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The start of the newest slice that anything on the disk belongs to: time is not before it,
    /// whatever became of the record of time.
    pub(super) fn newest_start(&self) -> i64 {
        let mut newest = self.manifest.runs.iter().map(|run| run.slice).max().unwrap_or(0);
        match &self.source {
            Source::Logs { logged, chunks } => {
                newest = newest.max(logged.newest_slice());
                if *chunks {
                    newest = newest.max(self.newest_chunk());
                }
            }
            // The watermark is not on the clock of the machine.
            Source::Journal if self.config.event_time => newest = newest.max(self.newest_chunk()),
            Source::Journal | Source::Nothing(_) => {}
        }
        start_of(&self.manifest.eras, newest).unwrap_or(NO_WATERMARK)
    }

    fn newest_chunk(&self) -> u64 {
        let (storage, store) = (&*self.storage, self.header.store);
        let opened = self.manifest.journals.iter().map(|id| Segment::open(storage, store, *id));
        let newest_of = |segment: Segment| {
            let kinds = (0..segment.chunks())
                .map(|number| chunk::kind(segment.chunk(number), segment.id, number as usize));
            let slices = kinds.filter_map(|kind| match kind {
                Ok(Some(ChunkKind::Digests(slice))) => Some(slice),
                _ => None,
            });
            slices.max().unwrap_or(0)
        };
        opened.flatten().map(newest_of).max().unwrap_or(0)
    }

    /// Without the tombstones no key that was recorded before can be trusted: a forgotten one would
    /// be a false `Duplicate`. All their files are set aside.
    pub(super) fn set_all_aside(&mut self) {
        let journals = std::mem::take(&mut self.manifest.journals).into_iter();
        let journals = journals.map(|id| names::numbered(Kind::Journal, id));
        self.manifest.refreshed.clear();
        let runs = std::mem::take(&mut self.manifest.runs).into_iter();
        let runs = runs.map(|run| names::numbered(Kind::Run, run.file));
        let logs = std::mem::take(&mut self.manifest.logs).into_iter();
        let logs = logs.map(|log| names::numbered(Kind::Log, log.file));
        let values = std::mem::take(&mut self.manifest.values).into_iter();
        let values = values.map(|values| names::numbered(Kind::Values, values.file));
        for name in journals.chain(runs).chain(values).chain(logs) {
            if self.storage.set_aside(&name).is_ok() {
                self.report.set_aside.push(name);
            }
        }
        // What the filter still shows of them only costs look-ups until it rotates away.
    }
}

/// When a slice begins; `None` for one that no era has.
fn start_of(eras: &[Era], slice: u64) -> Option<i64> {
    let era = eras.iter().rev().find(|era| era.first <= slice)?;
    let offset = i64::try_from(slice - era.first).ok()?;
    Some(era.start_ns.saturating_add(offset.saturating_mul(era.slice_ns)).min(era.end_ns))
}

/// A segment that was lost, or that is read as far as it goes.
pub(in crate::engine) fn open_if_there(opening: Result<Segment>) -> Result<Option<Segment>> {
    match opening {
        Ok(segment) => Ok(Some(segment)),
        Err(error) if is_lost(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Logged {
    fn newest_slice(&self) -> u64 {
        let slices = self.entries.iter().map(|entry| match entry {
            Entry::Digests(slice, _) => *slice,
            Entry::Record(_) | Entry::Count(..) => 0,
        });
        slices.max().unwrap_or(0)
    }
}
