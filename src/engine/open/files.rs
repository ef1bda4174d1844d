//! The sealed parts and the filters of a store that is being opened.

use std::sync::Arc;

use super::Opening;
use crate::catalog::Timeline;
use crate::config::Config;
use crate::engine::rebuild::FilterSet;
use crate::engine::time::EngineTime;
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::filter::{Columns, Filter, sizing};
use crate::format::manifest::{FilterEntry, Hole};
use crate::format::names;
use crate::plan::shard_blocks;

impl Opening {
    /// Maps the sealed parts of live slices; one that is damaged is set aside and leaves a hole.
    pub(super) fn open_runs(
        &mut self,
        timeline: &Timeline,
        time: &EngineTime,
    ) -> Result<Vec<Arc<Run>>> {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let live = timeline.live(now_ns);
        let is_live = |sequence| live.iter().any(|slice| slice.sequence == sequence);
        self.manifest.refreshed.retain(|refreshed| is_live(refreshed.slice));
        let mut runs = Vec::new();
        for entry in std::mem::take(&mut self.manifest.runs) {
            let name = names::numbered(names::Kind::Run, entry.file);
            let Some(slice) = live.iter().find(|slice| slice.sequence == entry.slice) else {
                self.storage.remove(&name)?;
                continue;
            };
            match Run::open(&*self.storage, self.header.store, entry.file) {
                Ok(run) if run.slice == entry.slice => {
                    runs.push(Arc::new(run));
                    self.manifest.runs.push(entry);
                }
                Err(error) if !is_lost(&error) => return Err(error),
                lost => {
                    let reason = lost.err().map_or_else(
                        || format!("{name} belongs to another slice"),
                        |error| error.to_string(),
                    );
                    // What was lost was acknowledged before now.
                    let to_ns = slice.end_ns.min(now_ns.saturating_add(1));
                    self.lose(&name, slice.start_ns, to_ns, reason);
                }
            }
        }
        Ok(runs)
    }

    fn lose(&mut self, name: &str, from_ns: i64, to_ns: i64, reason: String) {
        if self.storage.set_aside(name).is_ok() {
            self.report.set_aside.push(name.to_owned());
        }
        self.report.damage.push(reason.clone());
        self.manifest.holes.push(Hole { from_ns, to_ns, reason });
    }

    /// Maps the filters, or says why they are rebuilt. A new store gets new ones.
    pub(super) fn open_filters(&mut self) -> Result<Vec<Option<Filter>>> {
        let shards = 1 << self.config.shard_bits;
        let columns = Columns::for_slices(self.config.slices);
        let old = &self.manifest.geometry;
        let same = (old.window_ns, old.slice_ns, old.slices, old.shard_bits)
            == (
                self.config.window_ns,
                self.config.slice_ns,
                self.config.slices,
                self.config.shard_bits,
            );
        let reason = if !self.trusted {
            Some("the machine was restarted, or the files were moved")
        } else if self.filters_suspect {
            Some("the kernel could not write them back")
        } else if !same {
            Some("window, slices or shards have changed")
        } else {
            None
        };
        if self.report.created {
            return self.create_filters(shards, columns);
        }
        let mut filters: Vec<Option<Filter>> = (0..shards).map(|_| None).collect();
        let entries = std::mem::take(&mut self.manifest.filters);
        let mut files: Vec<u64> = entries.iter().map(|entry| entry.file).collect();
        files.sort_unstable();
        files.dedup();
        for number in files {
            let (storage, store) = (&*self.storage, self.header.store);
            let opened = match reason {
                Some(_) => None,
                None => FilterSet::open(storage, store, number, columns, true).ok(),
            };
            let Some(file) = opened else {
                self.storage.remove(&names::numbered(names::Kind::Filter, number))?;
                continue;
            };
            for entry in entries.iter().filter(|entry| entry.file == number) {
                if let Some(place) = filters.get_mut(entry.shard as usize) {
                    *place = file.filter(entry.shard as usize);
                    self.manifest.filters.push(entry.clone());
                }
            }
        }
        self.report.filters_rebuilt = filters.iter().filter(|f| f.is_none()).count() as u64;
        if self.report.filters_rebuilt > 0 {
            let absent = if entries.is_empty() {
                "too large for a mapped file, they were kept in memory, or never came to be finished"
            } else {
                "a filter was missing or damaged"
            };
            let reason = reason.unwrap_or(absent);
            self.report.rebuild_reason = Some(reason.to_owned());
        }
        Ok(filters)
    }

    fn create_filters(&mut self, shards: usize, columns: Columns) -> Result<Vec<Option<Filter>>> {
        // The manifest comes before the first numbered file: should this open not get further, the
        // next one finds a store and no leftovers of an unknown one.
        self.manifest.link(false);
        self.storage.replace(names::MANIFEST, &|stamp| self.manifest.encode(stamp))?;
        let blocks = shard_blocks(&self.config, self.config.expected_keys);
        let number = self.manifest.next_file;
        self.manifest.next_file += 1;
        let (storage, store) = (&*self.storage, self.header.store);
        let set = FilterSet::create(storage, store, number, shards, blocks, columns)?;
        if let Some(file) = set.file {
            self.manifest.filters =
                (0..shards as u32).map(|shard| FilterEntry { file, shard }).collect();
        }
        Ok((0..shards).map(|shard| set.filter(shard)).collect())
    }
}

/// Errors after which a sealed file counts as lost, while others end the open.
pub(super) fn is_lost(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Keys that the smallest of the filters is sized for, times the shards.
pub(super) fn sized_keys(config: &Config, filters: &[Option<Filter>]) -> u64 {
    let least = filters.iter().flatten().map(Filter::blocks).min().unwrap_or(0);
    let per_block = sizing::keys_per_block(config.slices, config.false_positive_rate);
    // What `shard_blocks` adds for uneven shards is taken off again.
    let keys = f64::from(least) * per_block;
    let keys = if filters.len() == 1 { keys } else { keys - 4.0 * keys.sqrt() };
    (keys.max(0.0) as u64).saturating_mul(filters.len() as u64)
}
