//! Files of what is kept with sealed marks: written when segments are sealed, merged, and dropped with
//! their slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::merging::MERGE_CLOSED_AT;
use crate::catalog::Catalog;
use crate::digest::Digest;
use crate::error::Result;
use crate::exact::values::{self, Values, ValuesWriter};
use crate::format::manifest::ValuesEntry;
use crate::format::names::Kind;
use crate::plan::MERGE_AT;
use crate::shard::active::Active;

/// Values of one slice, each the newest of its digest and tag.
pub(super) type OfSlice = BTreeMap<(Digest, u8), Arc<[u8]>>;

impl Engine {
    /// Writes what is kept with frozen marks, one file a slice.
    pub(super) fn write_values(&self, frozen: &[Arc<Active>]) -> Result<Vec<Arc<Values>>> {
        let mut by_slice = BTreeMap::<u64, OfSlice>::new();
        // Several frozen sets of one shard follow each other in the order of their age.
        for (digest, item) in frozen.iter().filter_map(|set| set.kept()).flat_map(|k| k.iter()) {
            let of_slice = by_slice.entry(item.slice).or_default();
            of_slice.insert((digest, item.tag), Arc::clone(&item.bytes));
        }
        let catalog = self.catalog();
        let mut files = Vec::new();
        for (slice, mut values) in by_slice {
            let Some(live) = catalog.slice(slice) else { continue };
            // What ends a value is needed where an older file may have it.
            values.retain(|_, bytes| !bytes.is_empty() || !live.values.is_empty());
            if values.is_empty() {
                continue;
            }
            match self.write_values_of(slice, &values) {
                Ok(written) => files.push(Arc::new(written)),
                Err(error) => {
                    self.remove_values(&files);
                    return Err(error);
                }
            }
        }
        Ok(files)
    }

    pub(super) fn write_values_of(&self, slice: u64, values: &OfSlice) -> Result<Values> {
        let file = self.ledger.next_file();
        let (storage, entries) = (self.ledger.storage(), values.len() as u64);
        let bytes = values.values().map(|bytes| bytes.len() as u64).sum();
        let write = || {
            let mut writer = ValuesWriter::create(storage, file, slice, entries, bytes)?;
            for ((digest, tag), bytes) in values {
                writer.push(*digest, *tag, bytes)?;
            }
            writer.finish(self.header.store)
        };
        write().inspect_err(|_| self.remove_file(Kind::Values, file))
    }

    /// Removes files that the manifest does not name.
    pub(super) fn remove_values(&self, files: &[Arc<Values>]) {
        files.iter().for_each(|values| self.remove_file(Kind::Values, values.file));
    }

    /// Removes the files of slices that have expired. The manifest names them until it is written next;
    /// an open does not miss them.
    pub(super) fn remove_expired_values(&self, catalog: &Catalog) {
        let expired = self.ledger.read(|manifest| {
            let expired = manifest.values.iter().filter(|values| !catalog.is_live(values.slice));
            expired.map(|values| values.file).collect::<Vec<_>>()
        });
        expired.into_iter().for_each(|file| self.remove_file(Kind::Values, file));
    }

    /// Merges values files until no slice has too many.
    pub(super) fn merge_values_due(&self) -> Result<()> {
        while let Some((files, all)) = self.next_values_merge() {
            self.stopping()?;
            let file = self.ledger.next_file();
            let (storage, stop) = (self.ledger.storage(), &self.maintenance.stop);
            let merged = values::merge(storage, self.header.store, file, &files, all, stop);
            let merged = merged.inspect_err(|_| self.remove_file(Kind::Values, file))?;
            if merged.is_none() {
                self.remove_file(Kind::Values, file);
            }
            self.publish_merged_values(merged.map(Arc::new), &files)?;
        }
        Ok(())
    }

    /// The newest files of a slice, enough of them that are no larger than the rest, and whether they are
    /// all. Only neighbours are merged: a later one overrides those before.
    fn next_values_merge(&self) -> Option<(Vec<Arc<Values>>, bool)> {
        let catalog = self.catalog();
        catalog.slices.iter().find_map(|slice| {
            let over = slice.sequence != catalog.current;
            let count = match over && slice.values.len() >= MERGE_CLOSED_AT {
                true => slice.values.len(),
                false => small_enough(&slice.values)?,
            };
            let first = slice.values.len() - count;
            Some((slice.values[first..].to_vec(), first == 0))
        })
    }

    /// Puts a file where those stood that it was made of.
    fn publish_merged_values(
        &self,
        merged: Option<Arc<Values>>,
        files: &[Arc<Values>],
    ) -> Result<()> {
        let was_merged = |file: u64| files.iter().any(|values| values.file == file);
        let mut expired = false;
        self.ledger.storage().sync_names()?;
        self.ledger.update(|manifest| {
            let named = &mut manifest.values;
            let first = named.iter().position(|values| was_merged(values.file));
            let before = named.len();
            named.retain(|values| !was_merged(values.file));
            expired = before - named.len() < files.len();
            if let (Some(first), Some(merged), false) = (first, &merged, expired) {
                named.insert(first, values_entry(merged));
            }
        })?;
        self.change_slices(|slice| {
            let first = slice.values.iter().position(|values| was_merged(values.file));
            slice.values.retain(|values| !was_merged(values.file));
            if let (Some(first), Some(merged), false) = (first, &merged, expired) {
                slice.values.insert(first, Arc::clone(merged));
            }
        });
        self.remove_values(files);
        if expired {
            self.remove_values(merged.as_slice());
        }
        self.drop_replaced();
        Ok(())
    }
}

/// How many of the last files, each no larger than some size, are enough to be merged.
fn small_enough(files: &[Arc<Values>]) -> Option<usize> {
    let tier = |values: &Values| values.value_bytes().max(1).ilog2() / 3;
    let mut tiers: Vec<u32> = files.iter().map(|values| tier(values)).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let smaller = |most: u32| files.iter().rev().take_while(|v| tier(v) <= most).count();
    tiers.into_iter().map(smaller).find(|count| *count >= MERGE_AT)
}

pub(super) fn values_entry(values: &Values) -> ValuesEntry {
    let (file, slice, entries) = (values.file, values.slice, values.entries);
    ValuesEntry { file, slice, entries, content: values.content }
}
