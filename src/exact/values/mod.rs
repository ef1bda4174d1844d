//! A values file: what is kept with sealed marks of one slice, ordered by digest. It never changes.
//!
//! Page 0 is the header, then the bytes of the values, then pages of 128 entries in order, then the
//! fences: the first digest of each page of entries, and its checksum. A look-up reads one page of
//! entries, which is verified each time, and the value, which has its own checksum. Only who asks for a
//! value looks here.

mod merge;
mod write;

use std::path::{Path, PathBuf};

use crate::digest::{Digest, checksum};
use crate::error::{Error, Result};
use crate::format::chain::{Hash, UNKNOWN};
use crate::format::header::{FILE_HEADER_LEN, FileHeader, FileKind};
use crate::format::names::{self, Kind};
use crate::format::{PAGE, StoreId, kept};
use crate::storage::{Region, Storage};

pub(crate) use merge::merge;
pub(crate) use write::ValuesWriter;

const ENTRY: usize = 32;
/// Entries of a page.
const PER_PAGE: usize = PAGE / ENTRY;
const FENCE: usize = 24;

pub(crate) struct Values {
    pub(crate) file: u64,
    pub(crate) slice: u64,
    pub(crate) entries: u64,
    /// The hash of all values, of a file that was just written.
    pub(crate) content: Hash,
    region: Region,
    /// Where the pages of entries begin.
    index_at: usize,
    /// Pages of entries that there is room for.
    room: usize,
    fences: Box<[Fence]>,
    path: PathBuf,
}

/// The first digest of a page of entries, and its checksum.
#[derive(Clone, Copy, Debug)]
struct Fence {
    first: Digest,
    check: u64,
}

/// Where a value is. One without bytes says that nothing is kept any more, whatever older files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) digest: Digest,
    pub(crate) tag: u8,
    at: u64,
    len: u32,
}

fn pages_for(entries: u64) -> u64 {
    entries.div_ceil(PER_PAGE as u64)
}

fn whole_pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE as u64)
}

/// Bytes of a file with room for so many entries and bytes of values.
fn file_bytes(entries: u64, value_bytes: u64) -> u64 {
    let pages = pages_for(entries);
    let fences = whole_pages(pages * FENCE as u64);
    PAGE as u64 + whole_pages(value_bytes) + pages * PAGE as u64 + fences
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        let size = u64::from(self.tag) << 32 | u64::from(self.len);
        let words = [self.digest.hi, self.digest.lo, self.at, size];
        for (out, word) in bytes.chunks_exact_mut(8).zip(words) {
            out.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap());
        let digest = Digest::from_slot(word(0), word(1))?;
        let (tag, len) = (u8::try_from(word(3) >> 32).ok()?, word(3) as u32);
        Some(Entry { digest, tag, at: word(2), len })
    }

    pub(crate) fn key(&self) -> (Digest, u8) {
        (self.digest, self.tag)
    }

    /// Nothing is kept any more.
    pub(crate) fn is_end(&self) -> bool {
        self.len == 0
    }
}

impl Values {
    /// Maps a file that the manifest names. Header and fences are verified here, all else when used.
    pub(crate) fn open(storage: &dyn Storage, store: StoreId, file: u64) -> Result<Self> {
        let name = names::numbered(Kind::Values, file);
        let path = storage.path(&name);
        let region = storage.open(&name, false)?;
        let damaged = |why: &str| Error::corrupt(&path, why);
        if region.len() < PAGE {
            return Err(damaged("it is shorter than its header"));
        }
        let mut header = [0; FILE_HEADER_LEN];
        region.read_bytes(0, &mut header);
        let [slice, entries, value_pages, room, fences_sum, _] =
            FileHeader::decode(&header, FileKind::Values, store, file).map_err(damaged)?;
        let too_short = || damaged("it is shorter than its header says");
        let place = |pages: u64| usize::try_from(pages.checked_mul(PAGE as u64)?).ok();
        let index_at = value_pages.checked_add(1).and_then(place).ok_or_else(too_short)?;
        let fences_at = room.checked_add(value_pages + 1).and_then(place).ok_or_else(too_short)?;
        let used = pages_for(entries);
        let end = usize::try_from(used).ok().and_then(|used| used.checked_mul(FENCE));
        let end = end.and_then(|len| fences_at.checked_add(len)).ok_or_else(too_short)?;
        if used > room || entries == 0 || end > region.len() {
            return Err(too_short());
        }
        let mut bytes = vec![0; end - fences_at];
        region.read_bytes(fences_at, &mut bytes);
        let fences = decode_fences(&bytes).filter(|_| checksum(&bytes) == fences_sum);
        let fences = fences.ok_or_else(|| damaged("its fences do not match their checksum"))?;
        let room = room as usize;
        let content = UNKNOWN;
        Ok(Values { file, slice, entries, content, region, index_at, room, fences, path })
    }

    /// The file, as errors name it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn page_count(&self) -> usize {
        self.fences.len()
    }

    /// Bytes that the values take at most.
    pub(crate) fn value_bytes(&self) -> u64 {
        (self.index_at - PAGE) as u64
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        (self.fences.len() * size_of::<Fence>()) as u64
    }

    /// Whether the file is as long as its header says.
    pub(crate) fn has_its_length(&self) -> bool {
        let fences = whole_pages((self.room * FENCE) as u64);
        self.region.len() as u64 == (self.index_at + self.room * PAGE) as u64 + fences
    }

    /// All entries of a page, in order, verified.
    pub(crate) fn read_page(&self, page: usize) -> Result<Vec<Entry>> {
        let mut bytes = [0; PAGE];
        self.region.read_bytes(self.index_at + page * PAGE, &mut bytes);
        let damaged = || {
            let why = format!("page {page} of its entries does not match its checksum");
            Error::corrupt(&self.path, why)
        };
        if checksum(&bytes) != self.fences[page].check {
            return Err(damaged());
        }
        let here = (self.entries as usize - page * PER_PAGE).min(PER_PAGE);
        let entries = bytes.chunks_exact(ENTRY).take(here).map(Entry::decode);
        entries.collect::<Option<Vec<_>>>().ok_or_else(damaged)
    }

    /// The bytes of a value, verified.
    pub(crate) fn read(&self, entry: &Entry) -> Result<Vec<u8>> {
        let damaged = |why: &str| Err(Error::corrupt(&self.path, why));
        let end = entry.at.checked_add(u64::from(entry.len));
        if entry.at < PAGE as u64 || end.is_none_or(|end| end > self.index_at as u64) {
            return damaged("an entry leads out of the values");
        }
        let mut bytes = vec![0; entry.len as usize];
        self.region.read_bytes(entry.at as usize, &mut bytes);
        match kept::verified(entry.digest, &bytes) {
            Ok(_) => Ok(bytes),
            Err(why) => damaged(why),
        }
    }

    /// What this file says of a digest: the value, empty when nothing is kept any more; `None` when it
    /// says nothing.
    pub(crate) fn find(&self, digest: Digest, tag: u8) -> Result<Option<Vec<u8>>> {
        let first = self.fences.partition_point(|fence| fence.first < digest).saturating_sub(1);
        for page in first..self.fences.len() {
            if self.fences[page].first > digest {
                break;
            }
            let entries = self.read_page(page)?;
            if let Some(entry) = entries.iter().find(|entry| entry.key() == (digest, tag)) {
                return if entry.is_end() {
                    Ok(Some(Vec::new()))
                } else {
                    self.read(entry).map(Some)
                };
            }
        }
        Ok(None)
    }
}

fn decode_fences(bytes: &[u8]) -> Option<Box<[Fence]>> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let fence = |bytes: &[u8]| {
        let first = Digest::from_slot(word(&bytes[..8]), word(&bytes[8..16]))?;
        Some(Fence { first, check: word(&bytes[16..]) })
    };
    bytes.chunks_exact(FENCE).map(fence).collect()
}

#[cfg(test)]
mod tests;
