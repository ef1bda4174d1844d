//! What of a store's directory can be trusted: leftovers, time, and the journal's segments.

use super::Opening;
use super::files::is_lost;
use crate::engine::time::EngineTime;
use crate::error::{Error, Result};
use crate::format::manifest::Hole;
use crate::format::{clock, names};
use crate::journal::Segment;
use crate::storage::Region;
use crate::time::ClockSource;

impl Opening {
    /// Deletes what interrupted work left behind, and sets aside what is not ours.
    pub(super) fn clear_leftovers(&mut self) -> Result<()> {
        use names::Kind;
        for name in self.storage.list()? {
            let listed = match names::parse(&name) {
                Some((Kind::Journal, id)) => self.manifest.journals.contains(&id),
                Some((Kind::Run, id)) => self.manifest.runs.iter().any(|run| run.file == id),
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

    pub(super) fn judge_trust(&mut self) -> Result<()> {
        let (boot_id, place) = (ClockSource::system().boot_id(), self.storage.place()?);
        let same_boot = self.manifest.boot_id == boot_id;
        self.report.rebooted = !self.report.created && !same_boot;
        let failed = !self.manifest.close_error.is_empty();
        self.report.clean_close = self.manifest.closed_ns != i64::MIN && !failed;
        self.trusted = same_boot && self.manifest.place == place;
        // The device may have another number after a reboot.
        self.same_place = self.manifest.place[8..] == place[8..];
        if !self.manifest.close_error.is_empty() {
            self.report.close_error = Some(std::mem::take(&mut self.manifest.close_error));
        }
        self.manifest.boot_id = boot_id;
        self.manifest.place = place;
        Ok(())
    }

    /// Where time stands now. A hole is noted where the files may lack what was acknowledged.
    pub(super) fn start_time(&mut self, region: Region) -> Result<EngineTime> {
        let newest_era = self.manifest.eras.last().map_or(i64::MIN, |era| era.start_ns);
        let floor = if self.config.event_time { i64::MIN } else { newest_era };
        let anchor = clock::Anchor::load(&region);
        let has_anchor = anchor.is_some();
        let clock_boot = self.config.clock.boot_id();
        self.report.rebooted |= anchor.is_some_and(|anchor| anchor.boot_id != clock_boot);
        let time = EngineTime::new(self.config.clock.clone(), region, floor);
        if self.report.created {
            return Ok(time);
        }
        let reason = if !has_anchor {
            self.trusted = false;
            Some("the record of time is lost")
        } else if !(self.trusted || self.report.clean_close && self.same_place) {
            Some("the files may lack what was not yet written to the disk")
        } else {
            None
        };
        if let Some(reason) = reason {
            self.note_hole(&time, reason);
        }
        Ok(time)
    }

    /// Nothing up to and including this instant is vouched for.
    fn note_hole(&mut self, time: &EngineTime, reason: &str) {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let (to_ns, reason) = (now_ns.saturating_add(1), reason.to_owned());
        self.report.damage.push(reason.clone());
        self.manifest.holes.push(Hole { from_ns: i64::MIN, to_ns, reason });
    }

    /// A damaged segment may have held tombstones, and a lost tombstone would be a false
    /// `Duplicate`: no key that was recorded before is trusted then. Its files are set aside.
    pub(super) fn check_journals(&mut self, time: &EngineTime) -> Result<()> {
        let mut damage = None;
        for id in &self.manifest.journals {
            let name = names::numbered(names::Kind::Journal, *id);
            match Segment::open(&*self.storage, self.header.store, *id) {
                Ok(segment) => match segment.verify() {
                    Ok(()) => {}
                    Err(why) => damage = Some(format!("{name}: {why}")),
                },
                Err(error) if is_lost(&error) => damage = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        let Some(reason) = damage else { return Ok(()) };
        self.note_hole(time, &format!("{reason}; all keys of before are set aside"));
        let journals = std::mem::take(&mut self.manifest.journals).into_iter();
        let journals = journals.map(|id| names::numbered(names::Kind::Journal, id));
        let runs = std::mem::take(&mut self.manifest.runs).into_iter();
        let runs = runs.map(|run| names::numbered(names::Kind::Run, run.file));
        for name in journals.chain(runs) {
            if self.storage.set_aside(&name).is_ok() {
                self.report.set_aside.push(name);
            }
        }
        // What the filter still shows of them only costs look-ups until it rotates away.
        Ok(())
    }
}
