//! `verify`: every checksum and every order that the format promises.

use std::path::PathBuf;

use super::View;
use crate::engine::FilterFile;
use crate::error::{Error, Result};
use crate::filter::Columns;
use crate::format::chunk::{self, ChunkKind};
use crate::format::names::{self, Kind};
use crate::journal::Segment;
use crate::storage::Storage;

/// What [`verify`](super::verify()) found.
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

/// One finding of [`verify`](super::verify()).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub detail: String,
}

impl View {
    pub(super) fn verify(&self) -> Result<Verification> {
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
