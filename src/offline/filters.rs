//! `verify` of the filters: a key whose bits are missing would be answered `New`.

use super::Verification;
use super::View;
use crate::catalog::Slice;
use crate::digest::Digest;
use crate::engine::FilterSet;
use crate::error::{Error, Result};
use crate::filter::{Columns, Filter};
use crate::format::names::{self, Kind};
use crate::storage::Storage;

/// The filter of each shard, in which file it is, and how many keys were not found in that file.
struct Filters {
    of_shard: Vec<Option<(u64, Filter)>>,
    missing: std::collections::BTreeMap<u64, u64>,
    bits: u32,
    current: u64,
}

impl Filters {
    fn look_for(&mut self, slice: &Slice, digest: Digest) {
        let shard = self.of_shard.get(digest.shard(self.bits));
        let Some(Some((file, filter))) = shard else { return };
        if filter.probe(filter.place(digest), self.current) >> slice.column & 1 == 0 {
            *self.missing.entry(*file).or_default() += 1;
        }
    }
}

impl View {
    /// Geometry always; the bits of all live keys where the filter would be used as it is: on the
    /// boot and in the place of the last open. A process that died may have been between journal
    /// and filter, so unsealed keys count only after a clean close.
    pub(super) fn verify_filters(&self, found: &mut Verification) -> Result<()> {
        let Some(mut filters) = self.open_filters(found)? else { return Ok(()) };
        let slices = self.live(self.now_ns()?);
        for entry in &self.manifest.runs {
            let Some(slice) = slices.iter().find(|slice| slice.sequence == entry.slice) else {
                continue;
            };
            // What is wrong with the run itself was noted before.
            let Ok(run) = self.open_run(entry.file) else { continue };
            let mut digests = Vec::new();
            for page in 0..run.page_count() {
                digests.clear();
                if run.read_page(page, &mut digests).is_ok() {
                    digests.iter().for_each(|digest| filters.look_for(slice, *digest));
                }
            }
        }
        if self.is_closed() {
            self.read_sound_journals(|sequence, digest| {
                if let Some(slice) = slices.iter().find(|slice| slice.sequence == sequence) {
                    filters.look_for(slice, digest);
                }
            });
        }
        for (file, keys) in filters.missing {
            let path = self.storage.path(&names::numbered(Kind::Filter, file));
            let why = format!("it lacks {keys} keys, or a journal has as many that were changed");
            self.note(found, Err(Error::corrupt(path, why)))?;
        }
        Ok(())
    }

    /// The filters, if their bits are to be checked.
    fn open_filters(&self, found: &mut Verification) -> Result<Option<Filters>> {
        let columns = Columns::for_slices(self.manifest.geometry.slices);
        let bits = self.manifest.geometry.shard_bits;
        let mut of_shard: Vec<Option<(u64, Filter)>> = (0..1 << bits).map(|_| None).collect();
        let mut files: Vec<u64> = self.manifest.filters.iter().map(|f| f.file).collect();
        files.sort_unstable();
        files.dedup();
        for number in files {
            found.files_checked += 1;
            let (storage, store) = (&self.storage, self.header.store);
            let file = match FilterSet::open(storage, store, number, columns, false) {
                Ok(file) => file,
                Err(error) => {
                    self.note(found, Err(error))?;
                    continue;
                }
            };
            for entry in self.manifest.filters.iter().filter(|entry| entry.file == number) {
                if let Some(place) = of_shard.get_mut(entry.shard as usize) {
                    *place = file.filter(entry.shard as usize).map(|filter| (number, filter));
                }
            }
        }
        let slices = self.live(self.now_ns()?);
        let Some(newest) = slices.last().filter(|_| self.quiet && self.is_trusted()) else {
            return Ok(None);
        };
        let (missing, current) = (std::collections::BTreeMap::new(), newest.sequence);
        Ok(Some(Filters { of_shard, missing, bits, current }))
    }
}
