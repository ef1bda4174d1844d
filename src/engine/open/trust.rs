//! What of a store's directory can be trusted: leftovers, maps and time.

use super::Opening;
use super::files::is_lost;
use super::salvage::Source;
use crate::engine::time::{EngineTime, Floors, NO_WATERMARK};
use crate::error::{Error, Result};
use crate::format::manifest::{Hole, LogEntry};
use crate::format::{clock, names};
use crate::storage::Region;

const NOT_WRITTEN_BACK: &str = "the kernel could not write back a part of the journal";

impl Opening {
    /// Deletes what interrupted work left behind, and sets aside what is not ours.
    pub(super) fn clear_leftovers(&mut self) -> Result<()> {
        use names::Kind;
        for name in self.storage.list()? {
            let listed = match names::parse(&name) {
                Some((Kind::Journal, id)) => self.manifest.journals.contains(&id),
                Some((Kind::Run, id)) => self.manifest.runs.iter().any(|run| run.file == id),
                Some((Kind::Values, id)) => self.manifest.values.iter().any(|v| v.file == id),
                Some((Kind::Log, id)) => self.manifest.logs.iter().any(|log| log.file == id),
                Some((Kind::Filter, id)) => self.manifest.filters.iter().any(|f| f.file == id),
                None if !names::is_ours(&name) => {
                    self.storage.set_aside(&name)?;
                    self.report.set_aside.push(name);
                    continue;
                }
                None => !name.ends_with(".tmp"),
            };
            if !listed {
                self.storage.remove(&name)?;
                self.report.leftovers_removed += 1;
            }
        }
        Ok(())
    }

    pub(super) fn clock_region(&mut self) -> Result<Region> {
        if self.storage.list()?.iter().any(|name| name == names::CLOCK) {
            match self.storage.open(names::CLOCK, true) {
                Ok(region) if region.len() as u64 >= clock::LEN => return Ok(region),
                Err(error @ Error::Io { .. }) => return Err(error),
                _ => self.storage.remove(names::CLOCK)?,
            }
        }
        self.storage.create(names::CLOCK, clock::LEN)
    }

    pub(super) fn judge_trust(&mut self, clock: &Region) -> Result<()> {
        let (boot_id, place) = (self.storage.boot_id(), self.storage.place()?);
        let same_boot = self.manifest.boot_id == boot_id;
        self.report.rebooted = !self.report.created && !same_boot;
        let failed = !self.manifest.close_error.is_empty();
        self.report.clean_close = self.manifest.closed_ns != i64::MIN && !failed;
        // Copied back over the files that were there: they are in their place, and older than they were.
        let stamp = self.manifest.stamp;
        let restored = stamp != 0 && self.storage.stamp(names::MANIFEST)? != stamp;
        self.trusted = same_boot && self.manifest.place == place && !restored;
        if clock::Anchor::load(clock.cells()).is_none() {
            // It is written before anything is acknowledged.
            self.trusted = false;
        }
        if self.trusted {
            // They may have lost pages that a kill alone would have left.
            let journals = self.manifest.journals.iter().map(|id| (names::Kind::Journal, *id));
            let filters = self.manifest.filters.iter().map(|f| (names::Kind::Filter, f.file));
            let journal = self.is_written_back(clock, clock::Maps::Journal, journals)?;
            self.filters_suspect = !self.is_written_back(clock, clock::Maps::Filters, filters)?;
            if !journal {
                self.trusted = false;
                self.report.damage.push(NOT_WRITTEN_BACK.to_owned());
            }
        }
        if let Some((file, end)) = clock::log_end(clock.cells()).filter(|_| same_boot) {
            let mut logs = self.manifest.logs.iter_mut();
            let in_use = |log: &&mut LogEntry| log.file == file && log.end == LogEntry::IN_USE;
            if let Some(log) = logs.find(in_use) {
                log.end = end;
            }
        }
        // The device may have another number after a reboot.
        self.same_place = self.manifest.place[8..] == place[8..] && !restored;
        if !self.manifest.close_error.is_empty() {
            self.report.close_error = Some(std::mem::take(&mut self.manifest.close_error));
        }
        self.manifest.boot_id = boot_id;
        self.manifest.place = place;
        Ok(())
    }

    /// Whether the kernel could write back what the last owner stored into these maps.
    fn is_written_back(
        &self,
        clock: &Region,
        maps: clock::Maps,
        files: impl Iterator<Item = (names::Kind, u64)>,
    ) -> Result<bool> {
        let mut names: Vec<_> = files.map(|(kind, id)| names::numbered(kind, id)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            match self.storage.open(&name, false) {
                Ok(region) if self.storage.written_back(&name, &region).is_err() => {
                    return Ok(false);
                }
                // What is missing or damaged is found when it is read.
                Ok(_) => {}
                Err(error) if is_lost(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!clock::is_suspect(clock.cells(), maps))
    }

    /// Where time stands now: as the newest record of it says, and never before what is on the disk.
    pub(super) fn start_time(&mut self, region: Region) -> Result<EngineTime> {
        let newest_era = self.manifest.eras.last().map_or(i64::MIN, |era| era.start_ns);
        let mut floor = if self.config.event_time { i64::MIN } else { newest_era };
        let mut watermark = NO_WATERMARK;
        let newest_start = self.newest_start();
        if self.config.event_time {
            watermark = newest_start;
        } else {
            floor = floor.max(newest_start);
        }
        floor = floor.max(self.manifest.covered_ns);
        let mut anchors = Vec::new();
        // There is none while no open has come to its end, also where the store is not new any more:
        // then the wall clock decides, or time would stand at the creation and lag for ever.
        anchors.extend(Some(self.manifest.anchor).filter(|anchor| anchor.engine_ns != i64::MIN));
        if let Source::Logs { logged, .. } = &self.source {
            anchors.extend(logged.anchor);
        }
        let anchor = clock::Anchor::load(region.cells());
        let clock_boot = self.config.clock.boot_id();
        self.report.rebooted |= anchor.is_some_and(|anchor| anchor.boot_id != clock_boot);
        let floors = Floors { engine_ns: floor, watermark_ns: watermark, anchors };
        Ok(EngineTime::new(self.config.clock.clone(), region, &floors))
    }

    /// Notes the holes that the losses leave, now that it is known what time it is.
    pub(super) fn note_losses(&mut self, time: &EngineTime) {
        for loss in std::mem::take(&mut self.losses) {
            self.note_hole(time, loss.from_ns, loss.reason);
        }
        if let Source::Nothing(reason) = &self.source {
            let reason = format!("{reason}; all keys of before are set aside");
            self.note_hole(time, i64::MIN, reason);
            self.set_all_aside();
        }
    }

    /// Nothing from an instant of the store's time on, up to and including now, is vouched for.
    fn note_hole(&mut self, time: &EngineTime, from_ns: i64, reason: String) {
        let (from_ns, to_ns) = if self.config.event_time {
            // Late events go anywhere, and what is lost may have been ahead of the clock.
            let lead_ns = crate::time::nanos(self.config.max_event_lead);
            (i64::MIN, time.watermark().max(time.now().saturating_add(lead_ns)))
        } else {
            (from_ns, time.now())
        };
        self.report.damage.push(reason.clone());
        self.manifest.holes.push(Hole { from_ns, to_ns: to_ns.saturating_add(1), reason });
    }
}
