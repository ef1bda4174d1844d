//! Writing a values file.

use std::path::PathBuf;

use super::{ENTRY, Entry, FENCE, Fence, PER_PAGE, Values, file_bytes, pages_for, whole_pages};
use crate::digest::{Digest, checksum};
use crate::error::Result;
use crate::format::chain::Records;
use crate::format::header::{FileHeader, FileKind};
use crate::format::names::{self, Kind};
use crate::format::{PAGE, StoreId};
use crate::storage::{FileWriter, Storage};

/// Bytes of values written at a time.
const BUFFER: usize = 1 << 18;

/// Writes values in the order of digests and tags, each once. Nothing is published: the caller names the
/// file in the manifest.
pub(crate) struct ValuesWriter {
    out: Box<dyn FileWriter>,
    file: u64,
    slice: u64,
    path: PathBuf,
    value_pages: u64,
    room: u64,
    written: u64,
    /// Values that are not in the file yet, and where they go.
    buffer: Vec<u8>,
    offset: u64,
    /// Entries of the page that is being filled.
    page: Vec<u8>,
    fences: Vec<Fence>,
    records: Records,
}

impl ValuesWriter {
    /// A file with room for `entries` entries and `bytes` bytes of values.
    pub(crate) fn create(
        storage: &dyn Storage,
        file: u64,
        slice: u64,
        entries: u64,
        bytes: u64,
    ) -> Result<Self> {
        let name = names::numbered(Kind::Values, file);
        Ok(ValuesWriter {
            out: storage.create_written(&name, file_bytes(entries, bytes))?,
            file,
            slice,
            path: storage.path(&name),
            value_pages: whole_pages(bytes) / PAGE as u64,
            room: pages_for(entries),
            written: 0,
            buffer: Vec::new(),
            offset: PAGE as u64,
            page: Vec::with_capacity(PAGE),
            fences: Vec::new(),
            records: Records::new(FileKind::Values, slice),
        })
    }

    /// Adds a value; one without bytes says that nothing is kept any more.
    pub(crate) fn push(&mut self, digest: Digest, tag: u8, value: &[u8]) -> Result<()> {
        let at = self.offset + self.buffer.len() as u64;
        let entry = Entry { digest, tag, at, len: value.len() as u32 };
        if self.page.is_empty() {
            self.fences.push(Fence { first: digest, check: 0 });
        }
        self.page.extend_from_slice(&entry.encode());
        self.written += 1;
        self.records.value(digest, tag, value);
        if self.page.len() == PER_PAGE * ENTRY {
            self.end_page()?;
        }
        self.buffer.extend_from_slice(value);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.written
    }

    fn flush(&mut self) -> Result<()> {
        self.out.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn end_page(&mut self) -> Result<()> {
        let Some(fence) = self.fences.last_mut().filter(|_| !self.page.is_empty()) else {
            return Ok(());
        };
        self.page.resize(PAGE, 0);
        fence.check = checksum(&self.page);
        let number = 1 + self.value_pages + (self.fences.len() - 1) as u64;
        self.out.write_at(number * PAGE as u64, &self.page)?;
        self.page.clear();
        Ok(())
    }

    /// Adds fences and header, and syncs. There is at least one entry.
    pub(crate) fn finish(mut self, store: StoreId) -> Result<Values> {
        self.flush()?;
        self.end_page()?;
        let mut fences = Vec::with_capacity(self.fences.len() * FENCE);
        for fence in &self.fences {
            for word in [fence.first.hi, fence.first.lo, fence.check] {
                fences.extend_from_slice(&word.to_le_bytes());
            }
        }
        let index_at = (1 + self.value_pages) * PAGE as u64;
        self.out.write_at(index_at + self.room * PAGE as u64, &fences)?;
        let sum = checksum(&fences);
        let fields = [self.slice, self.written, self.value_pages, self.room, sum, 0];
        let header = FileHeader { kind: FileKind::Values, store, id: self.file, fields };
        self.out.write_at(0, &header.encode())?;
        // The manifest will name it, and what it was made of goes.
        self.out.sync()?;
        Ok(Values {
            file: self.file,
            slice: self.slice,
            entries: self.written,
            content: self.records.finish(self.written),
            region: self.out.map()?,
            index_at: index_at as usize,
            room: self.room as usize,
            fences: self.fences.into(),
            path: self.path,
        })
    }
}
