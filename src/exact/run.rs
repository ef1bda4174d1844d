//! A sealed part: an immutable ordered file of the digests of one slice.
//!
//! Page 0 is the header, then pages of 256 digests in order, then an index of 16 bytes a page: the
//! upper half of its first digest, and its checksum. Digests are uniform, so a look-up interpolates:
//! it reads about one line of the fences, which are in memory, and one or two of one page. A page is
//! verified before its first answer.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::digest::{Digest, checksum};
use crate::error::Error;
use crate::error::Result;
use crate::format::chain::{self, Hash};
use crate::format::header::{FILE_HEADER_LEN, FileHeader, FileKind};
use crate::format::names::{self, Kind};
use crate::format::{PAGE, StoreId};
use crate::storage::{Advice, FileWriter, Region, Storage, prefetch};

/// Digests of a page.
const PER_PAGE: usize = PAGE / 16;

type Slot = [AtomicU64; 2];
type Page = [Slot; PER_PAGE];

pub(crate) struct Run {
    pub(crate) file: u64,
    pub(crate) slice: u64,
    pub(crate) keys: u64,
    /// The hash of the digests, of a run that was just written.
    pub(crate) content: Hash,
    region: Region,
    pages: usize,
    /// The upper quarter of each page's first digest: the index again, small enough to stay in the
    /// cache.
    fences: Box<[u32]>,
    /// One bit a page; empty when all are known to be what was written.
    verified: Box<[AtomicU64]>,
    path: PathBuf,
}

fn pages_for(keys: u64) -> u64 {
    keys.div_ceil(PER_PAGE as u64)
}

/// Bytes of the file of `keys` digests.
pub(crate) fn file_bytes(keys: u64) -> u64 {
    let index = (pages_for(keys) * 16).next_multiple_of(PAGE as u64);
    PAGE as u64 + pages_for(keys) * PAGE as u64 + index
}

/// Writes a run of digests that are ordered and unique. Nothing is published: the caller names it in
/// the manifest.
pub(crate) struct RunWriter {
    out: Box<dyn FileWriter>,
    file: u64,
    slice: u64,
    path: PathBuf,
    /// Pages that there is room for.
    pages: usize,
    written: u64,
    /// Digests that are not in the file yet, and where they go.
    buffer: Vec<u8>,
    /// Written when it is as long as this.
    buffer_bytes: usize,
    offset: u64,
    index: Vec<u8>,
    records: chain::Records,
}

/// Bytes written at a time, from a multiple of it on, so that the kernel can keep the file in large
/// pages; in huge ones, where that memory is small beside the file.
fn buffer_bytes(file_len: u64) -> usize {
    let wanted = if file_len >= 16 << 20 { 2 << 20 } else { 1 << 19 };
    wanted.min(usize::try_from(file_len).unwrap_or(wanted))
}

impl RunWriter {
    /// A file with room for `keys` digests.
    pub(crate) fn create(storage: &dyn Storage, file: u64, slice: u64, keys: u64) -> Result<Self> {
        let name = names::numbered(Kind::Run, file);
        let len = file_bytes(keys);
        let buffer_bytes = buffer_bytes(len);
        let mut buffer = Vec::with_capacity(buffer_bytes);
        // The header, once it is known.
        buffer.resize(PAGE, 0);
        Ok(RunWriter {
            out: storage.create_written(&name, len)?,
            file,
            slice,
            path: storage.path(&name),
            pages: pages_for(keys) as usize,
            written: 0,
            buffer,
            buffer_bytes,
            offset: 0,
            index: Vec::new(),
            records: chain::Records::new(FileKind::Run, slice),
        })
    }

    pub(crate) fn push_all(&mut self, digests: &[Digest]) -> Result<()> {
        for digest in digests {
            self.buffer.extend_from_slice(&slot_bytes(*digest));
            if self.buffer.len() == self.buffer_bytes {
                self.flush()?;
            }
        }
        self.written += digests.len() as u64;
        Ok(())
    }

    /// Writes the buffer.
    fn flush(&mut self) -> Result<()> {
        self.index_buffer();
        self.out.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Adds the pages in the buffer to the index, and what is in them to the hash.
    fn index_buffer(&mut self) {
        let header = if self.offset == 0 { PAGE } else { 0 };
        self.records.bytes(&self.buffer[header..]);
        self.buffer.resize(self.buffer.len().next_multiple_of(PAGE), 0);
        for page in self.buffer[header..].chunks_exact(PAGE) {
            self.index.extend_from_slice(&page[..8]);
            self.index.extend_from_slice(&checksum(page).to_le_bytes());
        }
    }

    /// Adds index and header. The header counts the digests that came, which may be fewer than there
    /// is room for: repetitions vanish in a merge.
    pub(crate) fn finish(mut self, store: StoreId) -> Result<Run> {
        self.index_buffer();
        let fields = [self.slice, self.written, self.pages as u64, checksum(&self.index), 0, 0];
        let header = FileHeader { kind: FileKind::Run, store, id: self.file, fields }.encode();
        let fits = self.offset == 0;
        if fits {
            self.buffer[..header.len()].copy_from_slice(&header);
        }
        self.out.write_at(self.offset, &self.buffer)?;
        self.out.write_at((PAGE * (1 + self.pages)) as u64, &self.index)?;
        if !fits {
            self.out.write_at(0, &header)?;
        }
        // The manifest will name it, and what it was made of goes.
        self.out.sync()?;
        let region = self.out.map()?;
        // Else each page would fault when first looked up, and drop prefetches until then.
        region.advise(Advice::PopulateRead);
        Ok(Run {
            file: self.file,
            slice: self.slice,
            keys: self.written,
            content: self.records.finish(self.written),
            path: self.path,
            region,
            pages: self.pages,
            fences: fences(&self.index),
            verified: Box::new([]),
        })
    }
}

/// The fences of an index, 16 bytes a page.
fn fences(index: &[u8]) -> Box<[u32]> {
    let upper = |entry: &[u8]| u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
    index.chunks_exact(16).map(upper).collect()
}

fn slot_bytes(digest: Digest) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&digest.hi.to_le_bytes());
    bytes[8..].copy_from_slice(&digest.lo.to_le_bytes());
    bytes
}

fn page_checksum(page: &Page) -> u64 {
    let mut bytes = [0; PAGE];
    for (out, slot) in bytes.chunks_exact_mut(16).zip(page) {
        out[..8].copy_from_slice(&slot[0].load(Relaxed).to_ne_bytes());
        out[8..].copy_from_slice(&slot[1].load(Relaxed).to_ne_bytes());
    }
    checksum(&bytes)
}

impl Run {
    /// Maps a run that the manifest names. Header and index are verified here, pages when used.
    pub(crate) fn open(storage: &dyn Storage, store: StoreId, file: u64) -> Result<Self> {
        let name = names::numbered(Kind::Run, file);
        let path = storage.path(&name);
        let region = storage.open(&name, false)?;
        let damaged = |why: &str| Error::corrupt(&path, why);
        if region.len() < 2 * PAGE {
            return Err(damaged("it is shorter than its header"));
        }
        let mut header = [0; FILE_HEADER_LEN];
        region.read_bytes(0, &mut header);
        let [slice, keys, pages, index_sum, ..] =
            FileHeader::decode(&header, FileKind::Run, store, file).map_err(damaged)?;
        let pages = usize::try_from(pages).unwrap_or(usize::MAX);
        let used = pages_for(keys) as usize;
        let index_at = pages.checked_add(1).and_then(|p| p.checked_mul(PAGE));
        let enough = index_at.is_some_and(|at| used <= pages && at + used * 16 <= region.len());
        if keys == 0 || !enough {
            return Err(damaged("it is shorter than its header says"));
        }
        let mut index = vec![0; used * 16];
        region.read_bytes((1 + pages) * PAGE, &mut index);
        if checksum(&index) != index_sum {
            return Err(damaged("its index does not match its checksum"));
        }
        let verified = (0..used.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let fences = fences(&index);
        let content = chain::UNKNOWN;
        Ok(Run { file, slice, keys, content, region, pages, fences, verified, path })
    }

    /// The file, as errors name it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn used_pages(&self) -> usize {
        pages_for(self.keys) as usize
    }

    /// Whether the file is as long as one with room for so many pages.
    pub(crate) fn has_its_length(&self) -> bool {
        let index = (self.pages * 16).next_multiple_of(PAGE);
        self.region.len() == PAGE * (1 + self.pages) + index
    }

    /// Keys in page `page`.
    fn len_of(&self, page: usize) -> usize {
        (self.keys as usize - page * PER_PAGE).min(PER_PAGE)
    }

    fn page(&self, page: usize) -> &Page {
        &self.region.cells::<Page>()[1 + page]
    }

    fn index(&self) -> &[Slot] {
        &self.region.cells::<Slot>()[(1 + self.pages) * PER_PAGE..][..self.used_pages()]
    }

    /// Where the fence of a digest most likely lies.
    #[inline]
    fn guess_page(&self, upper: u32) -> usize {
        ((u64::from(upper) * self.fences.len() as u64) >> 32) as usize
    }

    /// The first page that may hold a digest: the last whose fence is below it, or page 0.
    #[inline]
    fn page_of(&self, hi: u64) -> usize {
        let upper = (hi >> 32) as u32;
        let fences = &self.fences;
        let last = fences.len() - 1;
        let mut page = self.guess_page(upper);
        // A second interpolation, from the fence that was hit, lands within a page or two.
        let missed = i64::from(upper) - i64::from(fences[page]);
        let step = (i128::from(missed) * fences.len() as i128) >> 32;
        page = (page as i128 + step).clamp(0, last as i128) as usize;
        while page < last && fences[page + 1] < upper {
            page += 1;
        }
        while page > 0 && fences[page] >= upper {
            page -= 1;
        }
        page
    }

    /// The slot where a digest most likely lies in its page.
    #[inline]
    fn guess(&self, page: usize, hi: u64) -> usize {
        let low = u64::from(self.fences[page]);
        let high = self.fences.get(page + 1).map_or(1 << 32, |next| u64::from(*next));
        let len = self.len_of(page) as u64;
        let into = (hi >> 32).saturating_sub(low).min(high - low);
        // At most 2^32 times a page's slots.
        ((into * len / (high - low).max(1)) as usize).min(len as usize - 1)
    }

    /// Fetches the fence that a look-up reads first.
    #[inline]
    pub(crate) fn prefetch_fence(&self, digest: Digest) {
        prefetch(&self.fences[self.guess_page((digest.hi >> 32) as u32)]);
    }

    /// Fetches the line where `digest` most likely lies.
    #[inline]
    pub(crate) fn prefetch(&self, digest: Digest) {
        let page = self.page_of(digest.hi);
        prefetch(&self.page(page)[self.guess(page, digest.hi)]);
    }

    /// Whether the run holds `digest`. Touches one page, or two when equal upper halves meet the
    /// border of a page.
    pub(crate) fn contains(&self, digest: Digest) -> Result<bool> {
        let mut page = self.page_of(digest.hi);
        loop {
            self.verify_once(page)?;
            if let Some(found) = self.search(page, digest) {
                return Ok(found);
            }
            page += 1;
            if page >= self.used_pages() {
                return Ok(false);
            }
        }
    }

    /// Whether a page holds the digest; `None` when it ends before the digest's place.
    fn search(&self, page: usize, digest: Digest) -> Option<bool> {
        let len = self.len_of(page);
        let slots = &self.page(page)[..len];
        let at = |slot: usize| Digest {
            hi: u64::from_le(slots[slot][0].load(Relaxed)),
            lo: u64::from_le(slots[slot][1].load(Relaxed)),
        };
        let mut slot = self.guess(page, digest.hi);
        while slot > 0 && at(slot) > digest {
            slot -= 1;
        }
        while slot < len {
            match at(slot).cmp(&digest) {
                std::cmp::Ordering::Less => slot += 1,
                std::cmp::Ordering::Equal => return Some(true),
                std::cmp::Ordering::Greater => return Some(false),
            }
        }
        None
    }

    #[inline]
    fn verify_once(&self, page: usize) -> Result<()> {
        match self.verified.get(page / 64) {
            Some(word) if word.load(Acquire) >> (page % 64) & 1 == 0 => self.verify(page),
            _ => Ok(()),
        }
    }

    /// Checks one page against its checksum.
    #[cold]
    pub(crate) fn verify(&self, page: usize) -> Result<()> {
        let expected = u64::from_le(self.index()[page][1].load(Relaxed));
        if page_checksum(self.page(page)) != expected {
            let why = format!("page {} does not match its checksum", page + 1);
            return Err(Error::corrupt(&self.path, why));
        }
        if let Some(word) = self.verified.get(page / 64) {
            word.fetch_or(1 << (page % 64), Release);
        }
        Ok(())
    }

    /// All digests from page `page` on, in order, each page verified before its first digest.
    pub(crate) fn read_page(&self, page: usize, out: &mut Vec<Digest>) -> Result<()> {
        self.verify_once(page)?;
        out.extend(self.page(page)[..self.len_of(page)].iter().map(|slot| Digest {
            hi: u64::from_le(slot[0].load(Relaxed)),
            lo: u64::from_le(slot[1].load(Relaxed)),
        }));
        Ok(())
    }

    /// The hash of all digests as they are now.
    pub(crate) fn hash_records(&self) -> Hash {
        let mut records = chain::Records::new(FileKind::Run, self.slice);
        let mut bytes = [0; PAGE];
        for page in 0..self.used_pages() {
            let len = 16 * self.len_of(page);
            self.region.read_bytes((1 + page) * PAGE, &mut bytes[..len]);
            records.bytes(&bytes[..len]);
        }
        records.finish(self.keys)
    }

    pub(crate) fn page_count(&self) -> usize {
        self.used_pages()
    }

    /// The pages that may hold digests of shard `shard` of `1 << bits`.
    pub(crate) fn pages_of_shard(&self, shard: usize, bits: u32) -> std::ops::Range<usize> {
        if bits == 0 {
            return 0..self.used_pages();
        }
        let low = (shard as u64) << (64 - bits);
        let high = low | (u64::MAX >> bits);
        let end = self.fences.partition_point(|fence| u64::from(*fence) <= high >> 32);
        self.page_of(low)..end
    }

    pub(crate) fn index_bytes(&self) -> u64 {
        (self.verified.len() * 8 + self.fences.len() * 4) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU8;

    use super::*;
    use crate::storage::HeapStorage;

    fn digest(n: u64) -> Digest {
        Digest::new(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n + 1)
    }

    fn sorted(mut digests: Vec<Digest>) -> Vec<Digest> {
        digests.sort();
        digests.dedup();
        digests
    }

    fn write(storage: &HeapStorage, file: u64, digests: &[Digest]) -> Run {
        let mut writer = RunWriter::create(storage, file, 3, digests.len() as u64).unwrap();
        writer.push_all(digests).unwrap();
        writer.finish([1; 16]).unwrap()
    }

    #[test]
    fn holds_exactly_what_was_written() {
        let storage = HeapStorage::default();
        let most = if cfg!(miri) { 300 } else { 20_000 };
        for (file, len) in [1, 2, 255, 256, 257, most].into_iter().enumerate() {
            let written = write(&storage, file as u64, &sorted((0..len).map(digest).collect()));
            let opened = Run::open(&storage, [1; 16], file as u64).unwrap();
            for run in [&written, &opened] {
                assert_eq!((run.slice, run.keys), (3, len));
                for n in 0..2 * len {
                    assert_eq!(run.contains(digest(n)).unwrap(), n < len, "{n} of {len}");
                    run.prefetch(digest(n));
                }
            }
        }
    }

    #[test]
    fn equal_and_clustered_upper_halves_are_found_across_pages() {
        let storage = HeapStorage::default();
        let clusters: Vec<Digest> = (0..700)
            .map(|n| Digest::new(1 << 40, n + 1))
            .chain((0..10).map(|n| Digest::new(u64::MAX, n + 1)))
            .chain((0..10).map(|n| Digest::new(n + 1, 5)))
            .collect();
        let run = write(&storage, 1, &sorted(clusters.clone()));
        for d in clusters {
            assert!(run.contains(d).unwrap(), "{d:?}");
            assert!(!run.contains(Digest::new(d.hi, d.lo + 1_000_000)).unwrap());
        }
    }

    #[test]
    fn a_damaged_page_is_an_error_and_never_an_answer() {
        let storage = HeapStorage::default();
        let digests = sorted((0..2_000).map(digest).collect());
        write(&storage, 1, &digests);
        let region = storage.open("run-0000000000000001", true).unwrap();
        region.cells::<AtomicU8>()[3 * PAGE + 100].fetch_xor(1, Relaxed);
        let run = Run::open(&storage, [1; 16], 1).unwrap();
        let bad = digests[2 * PER_PAGE..3 * PER_PAGE].iter();
        for d in bad {
            assert!(matches!(run.contains(*d), Err(Error::Corrupt { .. })));
        }
        assert!(run.contains(digests[0]).unwrap());
        region.cells::<AtomicU8>()[20].fetch_xor(1, Relaxed);
        assert!(Run::open(&storage, [1; 16], 1).is_err());
    }
}
