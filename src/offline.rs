//! Looking at a store without owning it: also while another process has it open. What these calls
//! see is the state as of some moment during the call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::{Slice, Timeline};
use crate::claim::ClaimInfo;
use crate::config::{Builder, Settings};
use crate::digest::{Digest, DigestKind, KeyHasher};
use crate::engine::{FilterFile, in_order, read_header, read_manifest};
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::explain::{Explanation, KeyState, Sighting, Tier};
use crate::filter::Columns;
use crate::format::chunk::{self, ChunkKind};
use crate::format::clock::Anchor;
use crate::format::header::StoreHeader;
use crate::format::manifest::Manifest;
use crate::format::names::{self, Kind};
use crate::format::record;
use crate::journal::Segment;
use crate::replay::{OpenClaim, Replay};
use crate::stats::SliceStats;
use crate::storage::{DirStorage, Storage};
use crate::time::{ClockSource, Timestamp};

/// What [`inspect`] tells.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The time of the store at which this was true.
    pub as_of: Timestamp,
    /// Version of the files.
    pub format_version: u32,
    /// When the store was created.
    pub created: Timestamp,
    /// How long a key is remembered, at least.
    pub window: Duration,
    /// Slices of the window.
    pub slices: u32,
    /// Keys per window that the store was sized for.
    pub expected_keys: u64,
    /// The filter's wanted rate of false positives.
    pub false_positive_rate: f64,
    /// Whether the window follows the timestamps of events.
    pub event_time: bool,
    /// How keys are digested.
    pub digest: DigestKind,
    /// The process that has the store open.
    pub owner_pid: Option<u32>,
    /// See [`crate::Dedup::guaranteed_since`].
    pub guaranteed_since: Timestamp,
    /// When the store was closed, if it is.
    pub last_clean_close: Option<Timestamp>,
    /// Live records.
    pub keys_live: u64,
    /// Those of them that are not sealed yet.
    pub unsealed_keys: u64,
    /// Bytes of all files.
    pub disk_bytes: u64,
    /// Share of the filter's bits that are set, in the fullest column of a sample.
    pub filter_fill: f64,
    /// Live slices, oldest first.
    pub live_slices: Vec<SliceStats>,
    /// Claims in flight.
    pub claims: Vec<ClaimInfo>,
    /// All files of the store.
    pub files: Vec<FileInfo>,
}

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// Its name in the directory.
    pub name: String,
    /// What it holds.
    pub kind: &'static str,
    /// Its allocated size.
    pub bytes: u64,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Files that were checked.
    pub files_checked: u64,
    /// Pages and chunks that were checked.
    pub blocks_checked: u64,
    /// Digests that were checked.
    pub keys_checked: u64,
    /// What does not hold what it should.
    pub problems: Vec<Problem>,
    /// Files that are not the store's.
    pub unknown_files: Vec<String>,
}

/// One finding of [`verify`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

/// How often a look starts again because the owner replaced a file meanwhile.
const ATTEMPTS: usize = 20;

/// Slices, coverage, sizes and claims of the store in `dir`. Nothing is changed.
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Version`], [`Error::Corrupt`], [`Error::Io`].
pub fn inspect(dir: impl AsRef<Path>) -> Result<Inspection> {
    retry(dir.as_ref(), |view| view.inspect())
}

/// Checks every checksum and every order that the format promises. Nothing is changed; O(size).
///
/// # Errors
/// [`Error::NotAStore`], [`Error::Version`], [`Error::Io`]; damage is no error but a finding.
pub fn verify(dir: impl AsRef<Path>) -> Result<Verification> {
    let dir = dir.as_ref();
    let damaged = |error: Error| match error {
        Error::Corrupt { file, detail } => Ok(Verification {
            files_checked: 1,
            problems: vec![Problem { file, detail }],
            ..Verification::default()
        }),
        other => Err(other),
    };
    retry(dir, |view| view.verify()).or_else(damaged)
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
    Ok(limited.into_settings())
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
}

impl View {
    fn load(dir: &Path) -> Result<Self> {
        let storage = DirStorage::read_only(dir)?;
        let none = || Error::NotAStore { dir: dir.to_owned() };
        let header = read_header(&storage)?.ok_or_else(none)?;
        let manifest = read_manifest(&storage, &header)?.ok_or_else(none)?;
        Ok(View { storage, header, manifest })
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

    fn anchor(&self) -> Result<Option<Anchor>> {
        Ok(Anchor::load(&self.storage.open(names::CLOCK, false)?))
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
        Ok(slices)
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

    fn inspect(&self) -> Result<Inspection> {
        let now_ns = self.now_ns()?;
        let slices = self.slices(now_ns)?;
        let mut unsealed_keys = 0;
        let is_live = |slice| slices.iter().any(|s: &Slice| s.sequence == slice);
        let control = self.read_journal(|slice, _| unsealed_keys += u64::from(is_live(slice)))?;
        let sealed: u64 = slices.iter().flat_map(|s| &s.runs).map(|run| run.keys).sum();
        let geometry = &self.manifest.geometry;
        let holes = self.manifest.holes.iter().map(|hole| hole.to_ns);
        let hole = holes.fold(self.manifest.complete_since_ns, i64::max);
        let since = hole.max(now_ns.saturating_sub(geometry.window_ns));
        let closed = self.manifest.closed_ns;
        Ok(Inspection {
            as_of: Timestamp::from_unix_nanos(now_ns),
            format_version: self.header.version,
            created: Timestamp::from_unix_nanos(self.header.created_ns),
            window: duration(geometry.window_ns),
            slices: geometry.slices,
            expected_keys: geometry.expected_keys,
            false_positive_rate: geometry.false_positive_rate,
            event_time: self.header.event_time,
            digest: self.header.digest,
            owner_pid: self.storage.owner(),
            guaranteed_since: Timestamp::from_unix_nanos(since),
            last_clean_close: (closed != i64::MIN).then(|| Timestamp::from_unix_nanos(closed)),
            keys_live: sealed + unsealed_keys,
            unsealed_keys,
            disk_bytes: self.storage.allocated_bytes(),
            filter_fill: self.filter_fill(),
            live_slices: slices.iter().map(|slice| self.slice_stats(slice)).collect(),
            claims: claim_infos(&control, self.clock_ns()?),
            files: self.files()?,
        })
    }

    fn slice_stats(&self, slice: &Slice) -> SliceStats {
        let holes = self.manifest.holes.iter().map(|hole| (hole.from_ns, hole.to_ns));
        let mut holes = holes.chain([(i64::MIN, self.manifest.complete_since_ns)]);
        let expires = slice.end_ns.saturating_add(self.manifest.geometry.window_ns);
        SliceStats {
            sequence: slice.sequence,
            start: Timestamp::from_unix_nanos(slice.start_ns),
            end: Timestamp::from_unix_nanos(slice.end_ns),
            expires: Timestamp::from_unix_nanos(expires),
            sealed_keys: slice.runs.iter().map(|run| run.keys).sum(),
            sealed_parts: slice.runs.len() as u64,
            complete: !holes.any(|(from, to)| from < slice.end_ns && slice.start_ns < to),
        }
    }

    fn filter_fill(&self) -> f64 {
        let columns = Columns::for_slices(self.manifest.geometry.slices);
        let filters = self.manifest.filters.iter().filter_map(|entry| {
            let (storage, store) = (&self.storage, self.header.store);
            let file = FilterFile::open(storage, store, entry.file, columns, false).ok()?;
            file.filter(entry.shard as usize)
        });
        filters.flat_map(|filter| filter.fill(256)).fold(0.0, f64::max)
    }

    fn files(&self) -> Result<Vec<FileInfo>> {
        let mut files: Vec<FileInfo> = Vec::new();
        for name in self.storage.list()? {
            let kind = match names::parse(&name) {
                Some((Kind::Journal, _)) => "unsealed records",
                Some((Kind::Run, _)) => "sealed part",
                Some((Kind::Filter, _)) => "filter",
                None => match &*name {
                    names::LOCK => "lock",
                    names::STORE => "header",
                    names::MANIFEST => "manifest",
                    names::CLOCK => "time",
                    _ => "unknown",
                },
            };
            let bytes = self.storage.path(&name).metadata().map_or(0, |meta| meta.len());
            files.push(FileInfo { name, kind, bytes });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn explain(&self, digest: Digest) -> Result<Explanation> {
        let slices = self.slices(self.now_ns()?)?;
        let mut unsealed = Vec::new();
        let control = self.read_journal(|slice, found| {
            if found == digest {
                unsealed.push(slice);
            }
        })?;
        let mut sightings = Vec::new();
        for slice in &slices {
            let mut tiers = Vec::new();
            for run in &slice.runs {
                if run.contains(digest)? {
                    tiers = vec![Tier::Sealed];
                }
            }
            if unsealed.contains(&slice.sequence) {
                tiers.push(Tier::Unsealed);
            }
            sightings.extend(tiers.into_iter().map(|tier| Sighting {
                slice: slice.sequence,
                not_before: Timestamp::from_unix_nanos(slice.start_ns),
                before: Timestamp::from_unix_nanos(slice.end_ns),
                tier,
            }));
        }
        let state = self.state(digest, &control, sightings.last(), self.clock_ns()?);
        let text = format!("{:016x}{:016x}", digest.hi, digest.lo);
        Ok(Explanation { state, digest: text, suspected_slices: None, sightings })
    }

    fn state(
        &self,
        digest: Digest,
        control: &Replay,
        newest: Option<&Sighting>,
        clock_ns: i64,
    ) -> KeyState {
        if control.tombstones.get(&digest).is_some_and(|tombstone| tombstone.revived == 0) {
            return KeyState::Forgotten;
        }
        if let Some(newest) = newest {
            let end_ns = newest.before.as_unix_nanos();
            let expires = end_ns.saturating_add(self.manifest.geometry.window_ns);
            return KeyState::Live { expires: Timestamp::from_unix_nanos(expires) };
        }
        match control.claims.get(&digest) {
            Some(claim) => {
                let info = claim_info(digest, claim, clock_ns);
                KeyState::InFlight { token: info.token, lease_left: info.lease_left }
            }
            None => KeyState::Unknown,
        }
    }

    fn verify(&self) -> Result<Verification> {
        let mut found = Verification { files_checked: 2, ..Verification::default() };
        let now_ns = self.now_ns()?;
        let live = self.live(now_ns);
        for entry in &self.manifest.runs {
            if live.iter().any(|slice| slice.sequence == entry.slice) {
                let checked = self.verify_run(entry.file, entry.slice, &mut found);
                note(&mut found, checked)?;
            }
        }
        for id in &self.manifest.journals {
            let checked = self.verify_journal(*id, &mut found);
            note(&mut found, checked)?;
        }
        let columns = Columns::for_slices(self.manifest.geometry.slices);
        let mut filters: Vec<u64> = self.manifest.filters.iter().map(|f| f.file).collect();
        filters.dedup();
        for file in filters {
            found.files_checked += 1;
            let (storage, store) = (&self.storage, self.header.store);
            let opened = FilterFile::open(storage, store, file, columns, false);
            note(&mut found, opened.map(drop))?;
        }
        let foreign = self.storage.list()?.into_iter().filter(|name| !names::is_ours(name));
        found.unknown_files = foreign.collect();
        Ok(found)
    }

    fn verify_run(&self, file: u64, slice: u64, found: &mut Verification) -> Result<()> {
        found.files_checked += 1;
        let run = self.open_run(file)?;
        let path = self.storage.path(&names::numbered(Kind::Run, file));
        if run.slice != slice {
            return Err(Error::corrupt(path, "it belongs to another slice"));
        }
        let mut last = None;
        let mut digests = Vec::new();
        for page in 0..run.page_count() {
            digests.clear();
            let read = run.read_page(page, &mut digests);
            note(found, read)?;
            found.blocks_checked += 1;
            found.keys_checked += digests.len() as u64;
            if last.into_iter().chain(digests.iter().copied()).is_sorted_by(|a, b| a < b) {
                last = digests.last().copied().or(last);
            } else {
                return Err(Error::corrupt(path, format!("page {} is out of order", page + 1)));
            }
        }
        Ok(())
    }

    fn verify_journal(&self, id: u64, found: &mut Verification) -> Result<()> {
        found.files_checked += 1;
        let segment = Segment::open(&self.storage, self.header.store, id)?;
        let path = self.storage.path(&names::numbered(Kind::Journal, id));
        let verified = segment.verify().map_err(|why| Error::corrupt(&path, why));
        note(found, verified)?;
        for number in 0..segment.chunks() {
            let chunk = segment.chunk(number);
            found.blocks_checked += 1;
            if let Ok(Some(ChunkKind::Digests(_))) = chunk::kind(chunk, id, number as usize) {
                found.keys_checked += chunk::digests(chunk).count() as u64;
            }
        }
        Ok(())
    }
}

/// Turns damage into a finding; other errors end the look.
fn note(found: &mut Verification, result: Result<()>) -> Result<()> {
    match result {
        Err(Error::Corrupt { file, detail }) => {
            found.problems.push(Problem { file, detail });
            Ok(())
        }
        other => other,
    }
}

fn claim_info(digest: Digest, claim: &OpenClaim, now_ns: i64) -> ClaimInfo {
    ClaimInfo {
        token: claim.token,
        digest: format!("{:016x}{:016x}", digest.hi, digest.lo),
        lease_left: duration(claim.deadline_ns.saturating_sub(now_ns)),
        orphaned: false,
        note: claim.note.clone(),
    }
}

fn claim_infos(control: &Replay, now_ns: i64) -> Vec<ClaimInfo> {
    let claims = control.claims.iter();
    let mut claims: Vec<_> = claims.map(|(d, claim)| claim_info(*d, claim, now_ns)).collect();
    claims.sort_by_key(|claim| claim.token);
    claims
}
