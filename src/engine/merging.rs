//! Merging sealed parts, in the background.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::seal::entry;
use crate::error::Result;
use crate::exact::merge;
use crate::exact::run::Run;
use crate::format::names::Kind;
use crate::plan::MERGE_AT;

/// Sealed parts of a slice that is over, from which on they are merged into one.
pub(super) const MERGE_CLOSED_AT: usize = 4;

impl Engine {
    /// Merges sealed parts until no slice has too many.
    pub(super) fn merge_due(&self) -> Result<()> {
        while let Some((slice, runs)) = self.next_merge() {
            self.stopping()?;
            let file = self.ledger.next_file();
            let storage = self.ledger.storage();
            let stop = &self.maintenance.stop;
            let merged = merge::merge(storage, self.header.store, file, slice, &runs, stop);
            let merged = match merged {
                Ok(run) => Arc::new(run),
                Err(error) => {
                    self.remove_file(Kind::Run, file);
                    return Err(error);
                }
            };
            self.publish_merged(&merged, &runs)?;
        }
        self.merge_values_due()
    }

    fn publish_merged(&self, merged: &Arc<Run>, runs: &[Arc<Run>]) -> Result<()> {
        let was_merged = |file: u64| runs.iter().any(|run| run.file == file);
        let mut expired = false;
        self.ledger.storage().sync_names()?;
        self.ledger.update(|manifest| {
            let before = manifest.runs.len();
            manifest.runs.retain(|run| !was_merged(run.file));
            expired = before - manifest.runs.len() < runs.len();
            if !expired {
                manifest.runs.push(entry(merged));
            }
            // All may have to be written again since the merge began.
            if let Some(owner) = &mut manifest.owner
                && owner.unsent.iter().any(|file| was_merged(*file))
            {
                owner.unsent.retain(|file| !was_merged(*file));
                owner.unsent.push(merged.file);
            }
        })?;
        self.change_slices(|slice| {
            slice.runs.retain(|run| !was_merged(run.file));
            if slice.sequence == merged.slice && !expired {
                slice.runs.push(Arc::clone(merged));
            }
        });
        runs.iter().for_each(|run| self.remove_file(Kind::Run, run.file));
        if expired {
            self.remove_file(Kind::Run, merged.file);
        }
        self.drop_replaced();
        Ok(())
    }

    /// The sealed parts that are to be merged next: those of a slice that is over, or enough of
    /// about one size.
    fn next_merge(&self) -> Option<(u64, Vec<Arc<Run>>)> {
        let catalog = self.catalog();
        // What is to be written to an authority keeps its name until it is.
        let unsent = self.ledger.read(|manifest| {
            manifest.owner.as_ref().map_or_else(Vec::new, |owner| owner.unsent.clone())
        });
        catalog.slices.iter().find_map(|slice| {
            let over = slice.sequence != catalog.current;
            let mut runs = slice.runs.clone();
            runs.retain(|run| !unsent.contains(&run.file));
            if over && runs.len() >= MERGE_CLOSED_AT {
                return Some((slice.sequence, runs));
            }
            same_size(&runs).map(|runs| (slice.sequence, runs))
        })
    }
}

/// [`MERGE_AT`] or more runs of about one size: merging them writes each key once more for a tier
/// that is eight times as large.
fn same_size(runs: &[Arc<Run>]) -> Option<Vec<Arc<Run>>> {
    let mut by_tier = BTreeMap::<u32, Vec<Arc<Run>>>::new();
    for run in runs {
        by_tier.entry(run.keys.max(1).ilog2() / 3).or_default().push(Arc::clone(run));
    }
    by_tier.into_values().find(|tier| tier.len() >= MERGE_AT)
}
