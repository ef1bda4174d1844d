//! `verify`: every checksum and every order that the format promises.

use std::path::PathBuf;

use super::View;
use super::chain::{ChainReport, EDITED};
use crate::error::{Error, Result};
use crate::exact::run::Run;
use crate::format::chain::{Hash, UNKNOWN};
use crate::format::chunk::{self, ChunkKind};
use crate::format::clock::{self, Anchor};
use crate::format::log::Entry;
use crate::format::manifest::{LogEntry, Manifest, RunEntry};
use crate::format::names::{self, Kind};
use crate::journal::Segment;
use crate::log;
use crate::storage::Storage;

/// What [`verify`](super::verify()) found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Files that were checked.
    pub files_checked: u64,
    /// Pages, chunks and blocks that were checked.
    pub blocks_checked: u64,
    /// Digests that were checked.
    pub keys_checked: u64,
    /// What does not hold what it should.
    pub problems: Vec<Problem>,
    /// Files that are not the store's.
    pub unknown_files: Vec<String>,
    /// Files of interrupted work, which the next open removes. Not looked for while a process has
    /// the store open.
    pub leftovers: Vec<String>,
    /// The chain of hashes over what is sealed.
    pub chain: ChainReport,
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
    /// What an owner changes while it is read (the filter, the clock, which files there are) is
    /// checked for what holds at any moment; all of it when there is no owner.
    pub(super) fn verify(&self, head: Option<&Hash>) -> Result<Verification> {
        // Header and manifest were checked when they were read.
        let mut found = Verification { files_checked: 2, ..Verification::default() };
        let path = self.storage.path(names::MANIFEST);
        let manifest = fault(&self.manifest).map_or(Ok(()), |why| Err(Error::corrupt(path, why)));
        self.note(&mut found, manifest)?;
        self.verify_chain(head, &mut found)?;
        let clock = self.verify_clock(&mut found);
        self.note(&mut found, clock)?;
        for entry in &self.manifest.runs {
            let checked = self.verify_run(entry, &mut found);
            self.note(&mut found, checked)?;
        }
        for entry in &self.manifest.values {
            let checked = self.verify_values(entry, &mut found);
            self.note(&mut found, checked)?;
        }
        for id in &self.manifest.journals {
            let checked = self.verify_journal(*id, &mut found);
            self.note(&mut found, checked)?;
        }
        for entry in &self.manifest.logs {
            let checked = self.verify_log(entry, &mut found);
            self.note(&mut found, checked)?;
        }
        self.verify_filters(&mut found)?;
        self.list_others(&mut found)?;
        Ok(found)
    }

    /// Turns damage into a finding; other errors end the look. A file may be missing because its
    /// owner has replaced it meanwhile: then the look begins anew.
    pub(super) fn note(&self, found: &mut Verification, result: Result<()>) -> Result<()> {
        match result {
            Err(Error::Corrupt { file, detail }) => found.problems.push(Problem { file, detail }),
            Err(Error::Io { path, source, .. })
                if self.quiet && source.kind() == std::io::ErrorKind::NotFound =>
            {
                found.problems.push(Problem { file: path, detail: "it is missing".to_owned() });
            }
            other => other?,
        }
        Ok(())
    }

    fn list_others(&self, found: &mut Verification) -> Result<()> {
        for name in self.storage.list()? {
            if !names::is_ours(&name) {
                found.unknown_files.push(name);
            } else if self.quiet && !self.is_named(&name) {
                found.leftovers.push(name);
            }
        }
        Ok(())
    }

    fn is_named(&self, name: &str) -> bool {
        let manifest = &self.manifest;
        match names::parse(name) {
            Some((Kind::Journal, id)) => manifest.journals.contains(&id),
            Some((Kind::Run, id)) => manifest.runs.iter().any(|run| run.file == id),
            Some((Kind::Log, id)) => manifest.logs.iter().any(|log| log.file == id),
            Some((Kind::Values, id)) => manifest.values.iter().any(|v| v.file == id),
            Some((Kind::Filter, id)) => manifest.filters.iter().any(|f| f.file == id),
            None => !name.ends_with(".tmp"),
        }
    }

    /// A process that dies may leave one slot torn; after a clean close both are whole.
    fn verify_clock(&self, found: &mut Verification) -> Result<()> {
        found.files_checked += 1;
        let path = self.storage.path(names::CLOCK);
        let damaged = |why: &str| Err(Error::corrupt(&path, why));
        let region = self.storage.open(names::CLOCK, false)?;
        if region.len() as u64 != clock::LEN {
            return damaged("its length is another one");
        }
        if Anchor::load(region.cells()).is_none() {
            return damaged("neither of its slots matches its checksum");
        }
        if self.quiet && self.is_closed() && !clock::is_whole(region.cells()) {
            return damaged("a slot does not match its checksum, or something follows the slots");
        }
        Ok(())
    }

    fn verify_run(&self, entry: &RunEntry, found: &mut Verification) -> Result<()> {
        found.files_checked += 1;
        let run = self.open_run(entry.file)?;
        let path = self.storage.path(&names::numbered(Kind::Run, entry.file));
        if run.slice != entry.slice || run.keys != entry.keys {
            return Err(Error::corrupt(path, "it is not what the manifest says"));
        }
        let problems = found.problems.len();
        let mut last = None;
        let mut digests = Vec::new();
        for page in 0..run.page_count() {
            digests.clear();
            let read = run.read_page(page, &mut digests);
            let is_good = read.is_ok();
            self.note(found, read)?;
            found.blocks_checked += 1;
            found.keys_checked += digests.len() as u64;
            let ordered =
                last.into_iter().chain(digests.iter().copied()).is_sorted_by(|a, b| a < b);
            if is_good && !ordered {
                let why = format!("page {} is out of order", page + 1);
                self.note(found, Err(Error::corrupt(&path, why)))?;
            }
            last = digests.last().copied().or(last);
        }
        let is_sound = found.problems.len() == problems;
        if is_sound && entry.content != UNKNOWN && run.hash_records() != entry.content {
            return Err(Error::corrupt(path, EDITED));
        }
        if run.has_its_length() {
            Ok(())
        } else {
            Err(Error::corrupt(path, "its length is another one"))
        }
    }

    fn verify_journal(&self, id: u64, found: &mut Verification) -> Result<()> {
        found.files_checked += 1;
        let segment = Segment::open(&self.storage, self.header.store, id)?;
        let path = self.storage.path(&names::numbered(Kind::Journal, id));
        let verified = segment.verify(0).map_err(|why| Error::corrupt(&path, why));
        self.note(found, verified)?;
        for number in 0..segment.chunks() {
            let chunk = segment.chunk(number);
            found.blocks_checked += 1;
            if let Ok(Some(ChunkKind::Digests(_))) = chunk::kind(chunk, id, number as usize) {
                found.keys_checked += chunk::digests(chunk).count() as u64;
            }
        }
        Ok(())
    }

    fn verify_log(&self, entry: &LogEntry, found: &mut Verification) -> Result<()> {
        found.files_checked += 1;
        let logs = std::slice::from_ref(entry);
        let logged = log::read_all(&self.storage, self.header.store, logs)?;
        found.blocks_checked += logged.blocks;
        let digests = logged.entries.iter().map(|entry| match entry {
            Entry::Digests(_, digests) => digests.len() as u64,
            Entry::Record(_) | Entry::Count(..) => 0,
        });
        found.keys_checked += digests.sum::<u64>();
        Ok(())
    }
}

/// What of a manifest contradicts itself.
fn fault(manifest: &Manifest) -> Option<String> {
    let mut filters: Vec<u64> = manifest.filters.iter().map(|filter| filter.file).collect();
    filters.sort_unstable();
    filters.dedup();
    let mut files = filters;
    files.extend(&manifest.journals);
    files.extend(manifest.runs.iter().map(|run| run.file));
    files.extend(manifest.logs.iter().map(|log| log.file));
    files.extend(manifest.values.iter().map(|values| values.file));
    files.sort_unstable();
    if let Some(twice) = files.windows(2).find(|two| two[0] == two[1]) {
        return Some(format!("it names file {} twice", twice[0]));
    }
    if let Some(file) = files.last().filter(|file| **file >= manifest.next_file) {
        return Some(format!("it names file {file}, a number that it has not given yet"));
    }
    let in_order = |two: &[crate::format::manifest::Era]| {
        two[0].first <= two[1].first && two[0].start_ns <= two[1].start_ns
    };
    let eras = &manifest.eras;
    let goes_on = eras.last().is_some_and(|era| era.end_ns == i64::MAX);
    (!goes_on || !eras.windows(2).all(in_order)).then(|| "its eras are out of order".to_owned())
}

/// The pages of a run that match their checksums and are in order, and how many digests they have.
pub(super) fn sound_pages(run: &Run) -> Result<(Vec<usize>, u64)> {
    let (mut pages, mut keys) = (Vec::new(), 0);
    let mut last = None;
    let mut digests = Vec::new();
    for page in 0..run.page_count() {
        digests.clear();
        match run.read_page(page, &mut digests) {
            Ok(()) => {}
            Err(Error::Corrupt { .. }) => continue,
            Err(other) => return Err(other),
        }
        if last.into_iter().chain(digests.iter().copied()).is_sorted_by(|a, b| a < b) {
            pages.push(page);
            keys += digests.len() as u64;
            last = digests.last().copied().or(last);
        }
    }
    Ok((pages, keys))
}
