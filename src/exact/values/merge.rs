//! Merging values files of one slice into one.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Entry, Values, ValuesWriter};
use crate::error::{Error, Result};
use crate::format::StoreId;
use crate::format::kept::LOST;
use crate::storage::Storage;
use crate::sync::AtomicBool;

/// Writes one file that says what `files` say, oldest first: of each value the newest. `None` when nothing
/// is left. With `all`, no older files are there, so what ends a value need not be kept. A value that is
/// damaged stays so: what is older does not take its place. Ends early with [`Error::Closed`] when `stop`
/// is set.
pub(crate) fn merge(
    storage: &dyn Storage,
    store: StoreId,
    file: u64,
    files: &[Arc<Values>],
    all: bool,
    stop: &AtomicBool,
) -> Result<Option<Values>> {
    let entries = files.iter().map(|values| values.entries).sum();
    let bytes = files.iter().map(|values| values.value_bytes()).sum();
    let slice = files.first().map_or(0, |values| values.slice);
    let mut writer = ValuesWriter::create(storage, file, slice, entries, bytes)?;
    let mut cursors = Vec::with_capacity(files.len());
    for values in files {
        cursors.push(Cursor::new(values)?);
    }
    while let Some(key) = cursors.iter().filter_map(|c| c.peek()).map(|e| e.key()).min() {
        if stop.load(Relaxed) {
            return Err(Error::Closed);
        }
        let mut newest = None;
        for cursor in &mut cursors {
            if let Some(entry) = cursor.peek().filter(|entry| entry.key() == key) {
                newest = Some((cursor.values, entry));
                cursor.step()?;
            }
        }
        let Some((values, entry)) = newest else { break };
        if entry.is_end() {
            if !all {
                writer.push(entry.digest, entry.tag, &[])?;
            }
            continue;
        }
        match values.read(&entry) {
            Ok(value) => writer.push(entry.digest, entry.tag, &value)?,
            Err(Error::Corrupt { .. }) => writer.push(entry.digest, entry.tag, LOST)?,
            Err(other) => return Err(other),
        }
    }
    if writer.entries() == 0 {
        return Ok(None);
    }
    writer.finish(store).map(Some)
}

/// Reads the entries of a file from front to back.
struct Cursor<'a> {
    values: &'a Values,
    page: usize,
    entries: std::vec::IntoIter<Entry>,
    next: Option<Entry>,
}

impl<'a> Cursor<'a> {
    fn new(values: &'a Values) -> Result<Self> {
        let mut cursor = Cursor { values, page: 0, entries: Vec::new().into_iter(), next: None };
        cursor.step()?;
        Ok(cursor)
    }

    fn peek(&self) -> Option<Entry> {
        self.next
    }

    fn step(&mut self) -> Result<()> {
        self.next = self.entries.next();
        if self.next.is_none() && self.page < self.values.page_count() {
            self.entries = self.values.read_page(self.page)?.into_iter();
            self.page += 1;
            self.next = self.entries.next();
        }
        Ok(())
    }
}
