//! What is kept with sealed marks, of a store that is being opened.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Opening;
use super::files::is_lost;
use crate::catalog::Timeline;
use crate::engine::time::EngineTime;
use crate::error::Result;
use crate::exact::run::Run;
use crate::exact::values::Values;
use crate::format::manifest::RunEntry;
use crate::format::names::{self, Kind};

impl Opening {
    /// Maps the values files of live slices. One that is damaged is set aside, and with it the older ones
    /// of its slice: it may have said that what they hold is not kept any more. So are all of a slice that
    /// lost a part of `named`: its keys are new again, and what was kept with them is of before.
    pub(super) fn open_values(
        &mut self,
        timeline: &Timeline,
        time: &EngineTime,
        named: &[RunEntry],
        runs: &[Arc<Run>],
    ) -> Result<Vec<Arc<Values>>> {
        let now_ns = if self.config.event_time { time.watermark() } else { time.now() };
        let live: BTreeSet<u64> = timeline.live(now_ns).iter().map(|s| s.sequence).collect();
        let is_lost_run = |entry: &&RunEntry| runs.iter().all(|run| run.file != entry.file);
        let mut distrusted: BTreeSet<u64> =
            named.iter().filter(is_lost_run).map(|entry| entry.slice).collect();
        let mut opened = Vec::new();
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut self.manifest.values).into_iter().rev() {
            let name = names::numbered(Kind::Values, entry.file);
            if !live.contains(&entry.slice) {
                self.storage.remove(&name)?;
                continue;
            }
            let mut reason = format!("{name} may hold what is not kept any more");
            if !distrusted.contains(&entry.slice) {
                match Values::open(&*self.storage, self.header.store, entry.file) {
                    Ok(values) if values.slice == entry.slice => {
                        opened.push(Arc::new(values));
                        kept.push(entry);
                        continue;
                    }
                    Ok(_) => reason = format!("{name} belongs to another slice"),
                    Err(error) if is_lost(&error) => reason = error.to_string(),
                    Err(error) => return Err(error),
                }
            }
            distrusted.insert(entry.slice);
            self.lose_values(&name, entry.slice, &reason);
        }
        opened.reverse();
        kept.reverse();
        self.manifest.values = kept;
        Ok(opened)
    }

    fn lose_values(&mut self, name: &str, slice: u64, reason: &str) {
        if self.storage.set_aside(name).is_ok() {
            self.report.set_aside.push(name.to_owned());
        }
        self.report.damage.push(format!(
            "{reason}; results and fingerprints of slice {slice} are lost, its keys are not by this"
        ));
    }
}
