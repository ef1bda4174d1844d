//! `inspect`: slices, coverage, sizes and claims.

use std::time::Duration;

use super::chain::hex;
use super::{View, duration};
use crate::catalog::Slice;
use crate::digest::{Digest, DigestKind};
use crate::engine::FilterSet;
use crate::error::Result;
use crate::filter::{Columns, SAMPLE_BLOCKS, SAMPLE_FILTERS, Sample};
use crate::format::names::{self, Kind};
use crate::replay::{OpenClaim, Replay};
use crate::stats::{ClaimInfo, SliceStats};
use crate::storage::Storage;
use crate::time::Timestamp;

/// What [`inspect`](super::inspect()) tells.
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
    /// Share of the filter's bits that are set, in the fullest live column of a sample.
    pub filter_fill: f64,
    /// How often the filter suspects a new key, as its bits stand in that sample.
    pub filter_false_positive_rate: f64,
    /// The head of the chain of hashes over what is sealed, in hexadecimal; `None` before anything was
    /// sealed. Noted elsewhere, it tells [`verify_head`](super::verify_head()) later whether history up to
    /// now was edited.
    pub chain_head: Option<String>,
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

impl View {
    pub(super) fn inspect(&self) -> Result<Inspection> {
        let now_ns = self.now_ns()?;
        let slices = self.slices(now_ns)?;
        let mut unsealed_keys = 0;
        let is_live = |slice| slices.iter().any(|s: &Slice| s.sequence == slice);
        let control = self.read_journal(|slice, _| unsealed_keys += u64::from(is_live(slice)))?;
        let sealed: u64 = slices.iter().flat_map(|s| &s.runs).map(|run| run.keys).sum();
        let geometry = &self.manifest.geometry;
        let holes = self.manifest.holes.iter().map(|hole| hole.to_ns);
        let hole = holes.fold(self.manifest.complete_since_ns, i64::max);
        let (filter_fill, filter_false_positive_rate) = self.filter_fill(&slices);
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
            filter_fill,
            filter_false_positive_rate,
            chain_head: self.manifest.chain.head().as_ref().map(hex),
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

    /// Fill of the fullest live column, and the rate of false positives that the bits come to.
    fn filter_fill(&self, slices: &[Slice]) -> (f64, f64) {
        let columns = Columns::for_slices(self.manifest.geometry.slices);
        let mut sample = Sample::default();
        let filters = self.manifest.filters.iter().take(SAMPLE_FILTERS).filter_map(|entry| {
            let (storage, store) = (&self.storage, self.header.store);
            let file = FilterSet::open(storage, store, entry.file, columns, false).ok()?;
            file.filter(entry.shard as usize)
        });
        filters.for_each(|filter| filter.sample(SAMPLE_BLOCKS, &mut sample));
        let live = slices.iter().fold(0, |live, slice| live | 1 << slice.column);
        (sample.fill(live), sample.false_positive_rate(live, columns.hashes()))
    }

    fn files(&self) -> Result<Vec<FileInfo>> {
        let mut files: Vec<FileInfo> = Vec::new();
        for name in self.storage.list()? {
            let kind = match names::parse(&name) {
                Some((Kind::Journal, _)) => "unsealed records",
                Some((Kind::Run, _)) => "sealed part",
                Some((Kind::Filter, _)) => "filter",
                Some((Kind::Log, _)) => "log",
                Some((Kind::Values, _)) => "kept with sealed keys",
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
}

pub(super) fn claim_info(digest: Digest, claim: &OpenClaim, now_ns: i64) -> ClaimInfo {
    ClaimInfo {
        token: claim.token,
        digest: format!("{:016x}{:016x}", digest.hi, digest.lo),
        lease_left: duration(claim.deadline_ns.saturating_sub(now_ns)),
        orphaned: false,
        event_time: claim.event_ns.map(Timestamp::from_unix_nanos),
        note: claim.note.clone(),
    }
}

fn claim_infos(control: &Replay, now_ns: i64) -> Vec<ClaimInfo> {
    let claims = control.claims.iter();
    let mut claims: Vec<_> = claims.map(|(d, claim)| claim_info(*d, claim, now_ns)).collect();
    claims.sort_by_key(|claim| claim.token);
    claims
}
