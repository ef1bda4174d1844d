//! Looking at a store without owning it: also while another process has it open. What these calls
//! see is the state as of some moment during the call.

mod chain;
mod explain;
mod filters;
mod inspect;
mod repair;
mod values;
mod verify;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Slice, Timeline};
use crate::config::{Builder, Settings};
use crate::digest::{Digest, DigestKind, KeyHasher, SECRET_LEN};
use crate::engine::{in_order, read_header, read_manifest};
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::explain::Explanation;
use crate::filter::Columns;
use crate::format::chain::Hash;
use crate::format::chunk::{self, ChunkKind};
use crate::format::clock::Anchor;
use crate::format::header::StoreHeader;
use crate::format::manifest::Manifest;
use crate::format::{names, record};
use crate::journal::Segment;
use crate::replay::Replay;
use crate::storage::{DirStorage, Storage};
use crate::time::ClockSource;

pub use chain::{ChainReport, NotedHead};
pub use inspect::{FileInfo, Inspection};
pub use repair::Repair;
pub use verify::{Problem, Verification};

/// How often a look starts again because the owner replaced a file meanwhile.
const ATTEMPTS: usize = 20;

/// Slices, coverage, sizes and claims of the store in `dir`. Nothing is changed.
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Unfinished`], [`Error::Version`], [`Error::Corrupt`],
/// [`Error::Io`].
pub fn inspect(dir: impl AsRef<Path>) -> Result<Inspection> {
    retry(dir.as_ref(), |view| view.inspect())
}

/// Checks every checksum and every order that the format promises. Nothing is changed; O(size).
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Unfinished`], [`Error::Version`], [`Error::Io`]; damage is no
/// error but a finding.
pub fn verify(dir: impl AsRef<Path>) -> Result<Verification> {
    verified(dir.as_ref(), None)
}

/// [`verify`], and whether `head`, the head of the store's chain of hashes as [`inspect`] or [`verify`] told
/// it earlier, is on the chain: then what was sealed until then has not been edited since, as far as it
/// is kept ([`ChainReport::noted`] says how far). If not, that is one of the problems.
///
/// # Errors
/// [`Error::Config`] when `head` is not 64 hexadecimal digits; those of [`verify`].
pub fn verify_head(dir: impl AsRef<Path>, head: &str) -> Result<Verification> {
    let head = chain::parse(head)?;
    verified(dir.as_ref(), Some(&head))
}

fn verified(dir: &Path, head: Option<&Hash>) -> Result<Verification> {
    let damaged = |error: Error| match error {
        Error::Corrupt { file, detail } => Ok(Verification {
            files_checked: 1,
            problems: vec![Problem { file, detail }],
            ..Verification::default()
        }),
        other => Err(other),
    };
    retry(dir, |view| view.verify(head)).or_else(damaged)
}

/// Sets aside what is damaged in the store in `dir`, keeps what is not, and notes what may be lost, so
/// that the store opens and answers again. Without problems and unknown files nothing is changed.
/// Sealed files lose only their damaged pages; all else is what every open does after a crash.
///
/// # Errors
/// [`Error::Locked`] while a process has the store open. [`Error::Corrupt`] when the header or the
/// manifest is damaged: then a backup or a new directory is needed. Those of [`verify`].
pub fn repair(dir: impl AsRef<Path>) -> Result<Repair> {
    repair::repair(dir.as_ref())
}

/// Where the store in `dir` holds `key` of `scope` (`None`: the root). The filter is not asked.
///
/// # Errors
/// Those of [`inspect`].
pub fn explain(dir: impl AsRef<Path>, scope: Option<&[u8]>, key: &[u8]) -> Result<Explanation> {
    retry(dir.as_ref(), |view| {
        let (kind, secret) = (view.header.digest, &view.header.secret);
        let hasher = match scope {
            None => KeyHasher::root(kind, secret),
            Some(name) => KeyHasher::scope(kind, secret, name),
        };
        view.explain(hasher.digest(key))
    })
}

pub(crate) fn stored_settings(dir: &Path) -> Result<Settings> {
    let view = View::load(dir)?;
    let g = &view.manifest.geometry;
    let builder = Builder::default()
        .window(duration(g.window_ns))
        .slices(g.slices)
        .expected_keys(g.expected_keys)
        .false_positive_rate(g.false_positive_rate)
        .event_time(view.header.event_time)
        .refresh_on_duplicate(g.refresh_on_duplicate)
        .max_event_lead(duration(g.max_event_lead_ns))
        .lease(duration(g.lease_ns))
        .shards(1 << g.shard_bits);
    let limited = if g.max_keys > 0 { builder.max_keys(g.max_keys) } else { builder };
    Ok(limited.settings)
}

/// How the store in `dir` digests keys.
pub(crate) fn stored_secret(dir: &Path) -> Result<(DigestKind, [u8; SECRET_LEN])> {
    let view = View::load(dir)?;
    Ok((view.header.digest, view.header.secret))
}

fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.max(0).unsigned_abs())
}

fn retry<T>(dir: &Path, look: impl Fn(&View) -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match View::load(dir).and_then(|view| look(&view)) {
            // The owner seals and merges: a file that the manifest named a moment ago may be gone.
            Err(Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// The header and the manifest at one moment.
struct View {
    storage: DirStorage,
    header: StoreHeader,
    manifest: Manifest,
    /// Nobody else changes the files.
    quiet: bool,
}

impl View {
    fn load(dir: &Path) -> Result<Self> {
        let storage = DirStorage::read_only(dir)?;
        let quiet = storage.owner().is_none();
        View::of(storage, quiet)
    }

    fn of(storage: DirStorage, quiet: bool) -> Result<Self> {
        let unfinished = || Error::Unfinished { dir: storage.path("") };
        let header = read_header(&storage)?.ok_or_else(unfinished)?;
        let manifest = read_manifest(&storage, &header)?.ok_or_else(unfinished)?;
        Ok(View { storage, header, manifest, quiet })
    }

    fn is_closed(&self) -> bool {
        self.manifest.closed_ns != i64::MIN && self.manifest.close_error.is_empty()
    }

    /// Whether an open would use the maps as they are.
    fn is_trusted(&self) -> bool {
        let here = self.storage.place().is_ok_and(|place| place == self.manifest.place);
        here && self.manifest.boot_id == self.storage.boot_id() && !self.is_restored()
    }

    /// Whether the manifest was copied to where it is.
    fn is_restored(&self) -> bool {
        let stamp = self.manifest.stamp;
        stamp != 0 && self.storage.stamp(names::MANIFEST).is_ok_and(|found| found != stamp)
    }

    /// The time of the window: as recorded, moved on by the clocks since.
    fn now_ns(&self) -> Result<i64> {
        let newest_era = self.manifest.eras.last().map_or(i64::MIN, |era| era.start_ns);
        let anchor = self.anchor()?;
        let now = match anchor {
            Some(anchor) if self.header.event_time => anchor.watermark_ns,
            _ => self.clock_ns()?,
        };
        Ok(now.max(newest_era))
    }

    /// Where time stood last: as the clock file says, or else the manifest.
    fn anchor(&self) -> Result<Option<Anchor>> {
        let anchor = match self.storage.open(names::CLOCK, false) {
            Ok(region) => Anchor::load(region.cells()),
            Err(Error::Corrupt { .. }) => None,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(other) => return Err(other),
        };
        let kept = Some(self.manifest.anchor).filter(|anchor| anchor.engine_ns != i64::MIN);
        Ok(anchor.or(kept))
    }

    /// The time that leases run by.
    fn clock_ns(&self) -> Result<i64> {
        let Some(anchor) = self.anchor()? else { return Ok(i64::MIN) };
        let clock = ClockSource::system();
        let passed = if anchor.boot_id == clock.boot_id() {
            clock.boot_nanos().saturating_sub(anchor.boot_ns)
        } else {
            clock.wall_nanos().saturating_sub(anchor.wall_ns)
        };
        Ok(anchor.engine_ns.saturating_add(passed.max(0)))
    }

    fn live(&self, now_ns: i64) -> Vec<Slice> {
        let geometry = &self.manifest.geometry;
        let timeline = Timeline {
            window_ns: geometry.window_ns,
            columns: Columns::for_slices(geometry.slices),
            eras: self.manifest.eras.clone(),
        };
        timeline.live(now_ns)
    }

    fn open_run(&self, file: u64) -> Result<Run> {
        Run::open(&self.storage, self.header.store, file)
    }

    /// Live slices with their sealed parts.
    fn slices(&self, now_ns: i64) -> Result<Vec<Slice>> {
        let mut slices = self.live(now_ns);
        for entry in &self.manifest.runs {
            if let Some(slice) = slices.iter_mut().find(|s| s.sequence == entry.slice) {
                slice.runs.push(Arc::new(self.open_run(entry.file)?));
            }
        }
        for entry in &self.manifest.values {
            if let Some(slice) = slices.iter_mut().find(|s| s.sequence == entry.slice) {
                slice.values.push(Arc::new(self.open_values(entry.file)?));
            }
        }
        Ok(slices)
    }

    /// Reads the digests of those segments that open, each with its slice.
    fn read_sound_journals(&self, mut digest: impl FnMut(u64, Digest)) {
        for id in &self.manifest.journals {
            let Ok(segment) = Segment::open(&self.storage, self.header.store, *id) else {
                continue;
            };
            for number in 0..segment.chunks() {
                let chunk = segment.chunk(number);
                let kind = chunk::kind(chunk, segment.id, number as usize);
                if let Ok(Some(ChunkKind::Digests(slice))) = kind {
                    chunk::digests(chunk).for_each(|found| digest(slice, found));
                }
            }
        }
    }

    /// Reads the journal: each digest with its slice, and the control records.
    fn read_journal(&self, mut digest: impl FnMut(u64, Digest)) -> Result<Replay> {
        let mut control = Replay::default();
        let ids = &self.manifest.journals;
        for segment in in_order(&self.storage, self.header.store, ids)? {
            for number in 0..segment.chunks() {
                let chunk = segment.chunk(number);
                match chunk::kind(chunk, segment.id, number as usize) {
                    Ok(Some(ChunkKind::Digests(slice))) => {
                        chunk::digests(chunk).for_each(|d| digest(slice, d));
                    }
                    Ok(Some(ChunkKind::Control(_))) => {
                        record::records(chunk).flatten().for_each(|r| control.apply(r));
                    }
                    Ok(None) | Err(_) => {}
                }
            }
        }
        Ok(control)
    }
}
