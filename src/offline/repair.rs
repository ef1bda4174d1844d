//! `repair`: what is damaged is set aside, what is not is kept, and what may be lost is noted.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::verify::sound_pages;
use super::{Verification, View};
use crate::catalog::Slice;
use crate::engine;
use crate::error::{Error, Result};
use crate::exact::run::{Run, RunWriter};
use crate::format::clock::{self, Anchor};
use crate::format::manifest::{Hole, RunEntry};
use crate::format::names::{self, Kind};
use crate::stats::RecoveryReport;
use crate::storage::{DirStorage, Storage};

/// What [`repair`](super::repair()) did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Repair {
    /// What was wrong.
    pub found: Verification,
    /// Files that were moved to `set-aside/`, in the store's directory.
    pub set_aside: Vec<String>,
    /// Keys of damaged sealed files that were copied to new ones.
    pub keys_kept: u64,
    /// Results and fingerprints that were damaged, or could not be relied on; their keys stay.
    pub values_lost: u64,
    /// What opening the repaired store found; `damage` says what may be lost.
    pub recovery: RecoveryReport,
    /// What is still wrong.
    pub left: Verification,
}

pub(super) fn repair(dir: &Path) -> Result<Repair> {
    // First of all, so that a wrong directory stays as it is.
    DirStorage::read_only(dir)?;
    let mut view = View::of(DirStorage::own(dir, Duration::ZERO, true)?, true)?;
    let mut repair = Repair { found: view.verify(None)?, ..Repair::default() };
    if repair.found.problems.is_empty() && repair.found.unknown_files.is_empty() {
        return Ok(repair);
    }
    view.mend(&mut repair)?;
    drop(view);
    // The rest is what every open does after a crash.
    let mut settings = super::stored_settings(dir)?;
    settings.any_filesystem = true;
    let mut config = settings.validate()?;
    config.any_space = true;
    let store = engine::open_dir(config, dir)?;
    store.settle();
    repair.recovery = store.stats().recovery;
    store.close()?;
    repair.set_aside.extend(repair.recovery.set_aside.iter().cloned());
    repair.left = super::verify(dir)?;
    Ok(repair)
}

impl View {
    /// Mends what an open leaves as it is: pages of sealed files, and filters that lack keys.
    fn mend(&mut self, repair: &mut Repair) -> Result<()> {
        if names(&repair.found, names::CLOCK) {
            self.mend_clock(repair)?;
        }
        let now_ns = self.now_ns()?;
        let slices = self.live(now_ns);
        let mut manifest = self.manifest.clone();
        let mut damaged = Vec::new();
        let mut lost_slices = BTreeSet::new();
        for entry in &mut manifest.runs {
            // What has expired is removed by the next open, and what cannot be opened set aside.
            let slice = slices.iter().find(|slice| slice.sequence == entry.slice);
            let (Some(slice), Ok(run)) = (slice, self.open_run(entry.file)) else { continue };
            let (pages, keys) = sound_pages(&run)?;
            if run.slice != entry.slice || pages.len() == run.page_count() && keys == entry.keys {
                continue;
            }
            damaged.push(names::numbered(Kind::Run, entry.file));
            lost_slices.insert(entry.slice);
            let lost = entry.keys.max(run.keys).saturating_sub(keys);
            manifest.holes.push(hole(slice, now_ns, lost));
            if keys > 0 {
                let damaged = entry.file;
                *entry = self.copy(&run, &pages, manifest.next_file, keys)?;
                manifest.next_file += 1;
                // What of it an authority lacks it lacks still.
                if let Some(owner) = &mut manifest.owner
                    && owner.unsent.contains(&damaged)
                {
                    owner.unsent.push(entry.file);
                }
            } else {
                entry.keys = 0;
            }
            repair.keys_kept += keys;
        }
        manifest.runs.retain(|entry| entry.keys > 0);
        let trusted = (&slices[..], &lost_slices);
        self.mend_values(&mut manifest, trusted, repair, &mut damaged)?;
        let is_sound = |file| !names(&repair.found, &names::numbered(Kind::Filter, file));
        manifest.filters.retain(|filter| is_sound(filter.file));
        if manifest == self.manifest {
            return Ok(());
        }
        manifest.sequence += 1;
        manifest.link(true);
        self.storage.sync_names()?;
        // That it was restored has to be seen by the next open.
        let kept = self.is_restored().then_some(manifest.stamp);
        let content = |stamp| manifest.encode(kept.unwrap_or(stamp));
        self.storage.replace(names::MANIFEST, &content)?;
        self.manifest = manifest;
        for name in damaged {
            match self.storage.set_aside(&name) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
                moved => moved?,
            }
            repair.set_aside.push(name);
        }
        self.storage.sync_names()
    }

    /// Keeps the record of time that is whole, in a new file.
    fn mend_clock(&self, repair: &mut Repair) -> Result<()> {
        let clock = self.storage.open(names::CLOCK, false).ok();
        let anchor = clock.and_then(|region| Anchor::load(region.cells()));
        match self.storage.set_aside(names::CLOCK) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(());
            }
            moved => moved?,
        }
        repair.set_aside.push(names::CLOCK.to_owned());
        if let Some(anchor) = anchor {
            let region = self.storage.create(names::CLOCK, clock::LEN)?;
            anchor.store(region.cells());
            self.storage.sync(names::CLOCK, &region)?;
        }
        self.storage.sync_names()
    }

    /// Writes the sound pages of a run to a new one.
    fn copy(&self, run: &Run, pages: &[usize], file: u64, keys: u64) -> Result<RunEntry> {
        // A repair that was interrupted may have left one.
        self.storage.remove(&names::numbered(Kind::Run, file))?;
        let mut out = RunWriter::create(&self.storage, file, run.slice, keys)?;
        let mut digests = Vec::new();
        for page in pages {
            digests.clear();
            run.read_page(*page, &mut digests)?;
            out.push_all(&digests)?;
        }
        let content = out.finish(self.header.store)?.content;
        Ok(RunEntry { file, slice: run.slice, keys, content })
    }
}

fn hole(slice: &Slice, now_ns: i64, lost: u64) -> Hole {
    let to_ns = slice.end_ns.min(now_ns.saturating_add(1));
    let reason = format!("{lost} keys of slice {} were on damaged pages", slice.sequence);
    Hole { from_ns: slice.start_ns, to_ns, reason }
}

fn names(found: &Verification, name: &str) -> bool {
    found.problems.iter().any(|problem| problem.file.ends_with(name))
}
