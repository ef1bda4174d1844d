//! `verify` and `repair` of what is kept with sealed keys.

use std::collections::BTreeSet;

use super::chain::EDITED;
use super::{Repair, Verification, View};
use crate::catalog::Slice;
use crate::error::{Error, Result};
use crate::exact::values::{Entry, Values, ValuesWriter};
use crate::format::chain::{Records, UNKNOWN};
use crate::format::header::FileKind;
use crate::format::manifest::{Manifest, ValuesEntry};
use crate::format::names::{self, Kind};
use crate::storage::Storage;

impl View {
    pub(super) fn open_values(&self, file: u64) -> Result<Values> {
        Values::open(&self.storage, self.header.store, file)
    }

    pub(super) fn verify_values(
        &self,
        entry: &ValuesEntry,
        found: &mut Verification,
    ) -> Result<()> {
        found.files_checked += 1;
        let values = self.open_values(entry.file)?;
        let damaged = |why: &str| Err(Error::corrupt(values.path(), why));
        if (values.slice, values.entries) != (entry.slice, entry.entries) {
            return damaged("it is not what the manifest says");
        }
        let problems = found.problems.len();
        let mut records = Records::new(FileKind::Values, entry.slice);
        let mut last = None;
        for page in 0..values.page_count() {
            found.blocks_checked += 1;
            let entries = match values.read_page(page) {
                Ok(entries) => entries,
                Err(error) => {
                    self.note(found, Err(error))?;
                    continue;
                }
            };
            for entry in entries {
                if last.is_some_and(|last| last >= entry.key()) {
                    let order = damaged("its entries are out of order");
                    self.note(found, order)?;
                }
                last = Some(entry.key());
                let read = if entry.is_end() { Ok(Vec::new()) } else { values.read(&entry) };
                found.blocks_checked += 1;
                if let Ok(value) = &read {
                    records.value(entry.digest, entry.tag, value);
                }
                self.note(found, read.map(drop))?;
            }
        }
        let is_sound = found.problems.len() == problems;
        if is_sound && entry.content != UNKNOWN && records.finish(entry.entries) != entry.content {
            return damaged(EDITED);
        }
        if values.has_its_length() { Ok(()) } else { damaged("its length is another one") }
    }

    /// Writes values files anew of which some values are damaged, so that these are known to be lost. A
    /// file of which more is damaged is left out, and with it the older ones of its slice: it may have said
    /// that what they hold is not kept any more. The keys stay.
    pub(super) fn mend_values(
        &self,
        manifest: &mut Manifest,
        (live, lost_slices): (&[Slice], &BTreeSet<u64>),
        repair: &mut Repair,
        damaged: &mut Vec<String>,
    ) -> Result<()> {
        let mut distrusted = lost_slices.clone();
        let mut kept = Vec::new();
        for entry in std::mem::take(&mut manifest.values).into_iter().rev() {
            if live.iter().all(|slice| slice.sequence != entry.slice) {
                // Removed by the next open.
                kept.push(entry);
                continue;
            }
            let name = names::numbered(Kind::Values, entry.file);
            let sound = match distrusted.contains(&entry.slice) {
                true => None,
                false => self.sound_values(&entry)?,
            };
            match sound {
                Some(Sound::All) => kept.push(entry),
                Some(Sound::Some(entries)) => {
                    let file = manifest.next_file;
                    manifest.next_file += 1;
                    kept.push(self.copy_values(&entry, &entries, file)?);
                    damaged.push(name);
                    repair.values_lost += entries.iter().filter(|(_, sound)| !sound).count() as u64;
                }
                None => {
                    distrusted.insert(entry.slice);
                    repair.values_lost += entry.entries;
                    damaged.push(name);
                }
            }
        }
        kept.reverse();
        manifest.values = kept;
        Ok(())
    }

    /// `None` where it is not known what the file says.
    fn sound_values(&self, entry: &ValuesEntry) -> Result<Option<Sound>> {
        let values = match self.open_values(entry.file) {
            Ok(values) if (values.slice, values.entries) == (entry.slice, entry.entries) => values,
            Err(other) if !is_damage(&other) => return Err(other),
            _ => return Ok(None),
        };
        let mut entries = Vec::new();
        for page in 0..values.page_count() {
            match values.read_page(page) {
                Ok(of_page) => entries.extend(of_page),
                Err(Error::Corrupt { .. }) => return Ok(None),
                Err(other) => return Err(other),
            }
        }
        if !entries.is_sorted_by(|a, b| a.key() < b.key()) {
            return Ok(None);
        }
        let mut checked = Vec::with_capacity(entries.len());
        for entry in entries {
            let sound = entry.is_end() || values.read(&entry).is_ok();
            checked.push((entry, sound));
        }
        let is_whole = checked.iter().all(|(_, sound)| *sound) && values.has_its_length();
        Ok(Some(if is_whole { Sound::All } else { Sound::Some(checked) }))
    }

    fn copy_values(
        &self,
        old: &ValuesEntry,
        entries: &[(Entry, bool)],
        file: u64,
    ) -> Result<ValuesEntry> {
        // A repair that was interrupted may have left one.
        self.storage.remove(&names::numbered(Kind::Values, file))?;
        let values = self.open_values(old.file)?;
        let (count, bytes) = (entries.len() as u64, values.value_bytes());
        let mut out = ValuesWriter::create(&self.storage, file, old.slice, count, bytes)?;
        for (entry, sound) in entries {
            let (digest, tag) = entry.key();
            // An entry without bytes: nothing is kept, whatever older files say.
            let value = if *sound && !entry.is_end() { values.read(entry)? } else { Vec::new() };
            out.push(digest, tag, &value)?;
        }
        let content = out.finish(self.header.store)?.content;
        Ok(ValuesEntry { file, slice: old.slice, entries: count, content })
    }
}

/// What of a file is what was written.
enum Sound {
    All,
    /// Each entry, and whether its value is.
    Some(Vec<(Entry, bool)>),
}

fn is_damage(error: &Error) -> bool {
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
