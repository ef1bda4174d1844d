//! The rotating Bloom filter, generation-interleaved and bit-sliced.
//!
//! A block is 128 bytes, two adjacent cache lines. It is a matrix: one row a hash position, one bit
//! of each row a slice of the window ("column"). A key sets one bit in each of `k` rows; the AND of
//! the same `k` rows *is* the set of slices that may hold the key, so one miss answers for the whole
//! window and no mask is built or compared per slice. Windows of fewer than eight columns put
//! several lanes side by side in a row, windows of more have wider and fewer rows.
//!
//! The last row's first byte is the block's epoch: the slice, modulo 256, up to which its columns
//! are cleared. Rotation touches nothing; a block drops the columns that have expired when it is
//! next written. An epoch that wrapped around (256 slices without a write) leaves bits too many,
//! never too few.
//!
//! Knows neither time nor files: it works on [`Region`]s, and the caller has the lock.
//!
//! Blocked Bloom filters: Putze, Sanders, Singler (2007). Bit-sliced signatures: Faloutsos (1985).

mod clear;
pub(crate) mod sizing;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, compiler_fence};

use crate::digest::Digest;
use crate::storage::{Region, SharedCell, prefetch};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 128;

/// The part of a filter that one shard owns.
#[derive(Clone)]
pub(crate) struct Filter {
    region: Region,
    blocks: u32,
    columns: Columns,
    row: RowWidth,
    /// The number of the last row, in each byte.
    last_row: u64,
    /// Several keys share a row side by side.
    has_lanes: bool,
    /// No file stands behind it: it goes with the process.
    passing: bool,
    clear: clear::ClearFn,
}

/// Which [`Row`] the columns need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowWidth {
    One,
    Two,
    Four,
    Eight,
}

/// Number of columns: a power of two from 2 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Columns(u32);

impl Columns {
    /// Enough for `slices` whole slices and the one being written.
    pub(crate) fn for_slices(slices: u32) -> Self {
        Columns((slices + 1).next_power_of_two())
    }

    pub(crate) fn count(self) -> u32 {
        self.0
    }

    /// The column of the slice with number `sequence`.
    #[inline]
    pub(crate) fn of(self, sequence: u64) -> u32 {
        sequence as u32 & (self.0 - 1)
    }

    /// Keys side by side in a row.
    pub(crate) fn lanes(self) -> u32 {
        (8 / self.0).max(1)
    }

    /// Bytes of a row.
    #[inline]
    fn row_bytes(self) -> usize {
        (self.0 as usize / 8).max(1)
    }

    /// Rows that keys may use; the last row of the block holds the epoch.
    pub(crate) fn usable_rows(self) -> usize {
        BLOCK / self.row_bytes() - 1
    }

    /// Rows that a key uses.
    pub(crate) fn hashes(self) -> usize {
        match self.row_bytes() {
            1 => u8::HASHES,
            2 => u16::HASHES,
            4 => u32::HASHES,
            _ => u64::HASHES,
        }
    }

    #[inline]
    fn all(self) -> u64 {
        u64::MAX >> (64 - self.0)
    }

    /// Columns of the `lag` slices up to and including `sequence`.
    #[inline(never)]
    fn newest(self, sequence: u64, lag: u32) -> u64 {
        if lag == 1 {
            return 1 << self.of(sequence);
        }
        if lag >= self.0 {
            return self.all();
        }
        (0..u64::from(lag)).fold(0, |mask, back| mask | 1 << self.of(sequence.wrapping_sub(back)))
    }
}

/// One row: an integer that has a bit for each column.
trait Row: Copy {
    type Block: SharedCell;
    /// Rows of a block, the epoch's included.
    const ROWS: usize;
    const HASHES: usize;
    fn load(block: &Self::Block, row: u64) -> u64;
    fn or(block: &Self::Block, row: u64, bits: u64);
}

/// `HASHES` follows the number of rows: fewer rows fill faster.
macro_rules! row {
    ($int:ty, $cell:ty, $hashes:literal) => {
        impl Row for $int {
            type Block = [$cell; BLOCK / size_of::<$int>()];
            const ROWS: usize = BLOCK / size_of::<$int>();
            const HASHES: usize = $hashes;

            #[inline(always)]
            fn load(block: &Self::Block, row: u64) -> u64 {
                u64::from(<$int>::from_le(block[row as usize & (Self::ROWS - 1)].load(Relaxed)))
            }

            #[inline(always)]
            fn or(block: &Self::Block, row: u64, bits: u64) {
                let cell = &block[row as usize & (Self::ROWS - 1)];
                // The caller has the lock, so a load and a store are enough.
                cell.store(cell.load(Relaxed) | (bits as $int).to_le(), Relaxed);
            }
        }
    };
}

row!(u8, AtomicU8, 6);
row!(u16, AtomicU16, 5);
row!(u32, AtomicU32, 4);
row!(u64, AtomicU64, 3);

/// A sample of this many filters, and blocks of each, tells the fill to a few parts in a hundred. The
/// blocks of one lie in three pages.
pub(crate) const SAMPLE_FILTERS: usize = 16;
pub(crate) const SAMPLE_BLOCKS: u32 = 64;

/// What some blocks of filters hold.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// Bits that are set, by column.
    set: Vec<u64>,
    /// Bits that each column has.
    bits: u64,
}

impl Sample {
    /// Share of set bits in the fullest of `columns`; 0 of nothing.
    pub(crate) fn fill(&self, columns: u64) -> f64 {
        let set = self.set.iter().enumerate().filter(|(column, _)| columns >> column & 1 == 1);
        set.map(|(_, set)| *set).max().unwrap_or(0) as f64 / self.bits.max(1) as f64
    }

    /// How often a key that is in none of `columns` is suspected, if a key uses `hashes` rows.
    pub(crate) fn false_positive_rate(&self, columns: u64, hashes: usize) -> f64 {
        let set = self.set.iter().enumerate().filter(|(column, _)| columns >> column & 1 == 1);
        let suspected = set.map(|(_, set)| *set as f64 / self.bits.max(1) as f64);
        1.0 - suspected.map(|fill| 1.0 - fill.powi(hashes as i32)).product::<f64>()
    }
}

/// Where a digest lies in a filter: computed once per key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    block: u32,
    /// One row a byte.
    rows: u64,
    /// How far to shift a row of one byte for the lane of the key.
    lane_shift: u32,
}

const fn repeat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Rows of a key, one a byte: eight at once, because the epoch's row has to be avoided in each.
/// `last` is the number of the last row in each byte, one less than a power of two up to 128.
#[inline(always)]
fn row_numbers(rows: u64, last: u64) -> u64 {
    let picked = rows & last;
    // A byte that is the last row reaches the number of rows when one is added; half of that flips
    // it away.
    let is_last = (picked + repeat(1)) & (last + repeat(1));
    picked ^ (is_last >> 1)
}

impl Filter {
    /// Bytes that `blocks` blocks take.
    pub(crate) fn bytes(blocks: u32) -> u64 {
        u64::from(blocks) * BLOCK as u64
    }

    /// A filter over a region that holds at least `blocks` blocks, zeroed or written by a filter of
    /// the same number of columns.
    pub(crate) fn new(region: Region, blocks: u32, columns: Columns) -> Self {
        assert!(blocks > 0 && region.len() as u64 >= Filter::bytes(blocks));
        let row = match columns.row_bytes() {
            1 => RowWidth::One,
            2 => RowWidth::Two,
            4 => RowWidth::Four,
            _ => RowWidth::Eight,
        };
        let last_row = repeat(columns.usable_rows() as u8);
        let has_lanes = columns.lanes() > 1;
        let clear = clear::choose();
        Filter { region, blocks, columns, row, last_row, has_lanes, passing: false, clear }
    }

    /// The filter as one of which no file is left when the process ends.
    pub(crate) fn passing(self) -> Self {
        Filter { passing: true, ..self }
    }

    /// Whether it goes with the process.
    pub(crate) fn is_passing(&self) -> bool {
        self.passing
    }

    #[inline]
    pub(crate) fn place(&self, digest: Digest) -> Place {
        // Lemire's multiply-shift reduction of 32 bits to the number of blocks.
        let block = ((digest.lo >> 32) * u64::from(self.blocks)) >> 32;
        let bits = digest.lo << 32 | (digest.hi & 0xffff_ffff);
        let rows = row_numbers(bits, self.last_row);
        Place { block: block as u32, rows, lane_shift: self.lane_shift(bits) }
    }

    #[inline(always)]
    fn block<R: Row>(&self, block: u32) -> &R::Block {
        &self.region.cells::<R::Block>()[block as usize]
    }

    /// Fetches the block of a digest; needs no lock.
    #[inline]
    pub(crate) fn prefetch(&self, place: Place) {
        let bytes = self.block::<u8>(place.block);
        prefetch(&bytes[0]);
        prefetch(&bytes[BLOCK / 2]);
    }

    /// The columns that may hold the digest, those of slices up to `newest` alone.
    #[inline(always)]
    pub(crate) fn probe(&self, place: Place, newest: u64) -> u64 {
        match self.row {
            RowWidth::One => self.probe_rows::<u8>(place, newest),
            _ => self.probe_wide(place, newest),
        }
    }

    /// Apart, so that the code for the default width stays small.
    #[inline(never)]
    fn probe_wide(&self, place: Place, newest: u64) -> u64 {
        match self.row {
            RowWidth::One => self.probe_rows::<u8>(place, newest),
            RowWidth::Two => self.probe_rows::<u16>(place, newest),
            RowWidth::Four => self.probe_rows::<u32>(place, newest),
            RowWidth::Eight => self.probe_rows::<u64>(place, newest),
        }
    }

    #[inline(always)]
    fn probe_rows<R: Row>(&self, place: Place, newest: u64) -> u64 {
        let block = self.block::<R>(place.block);
        let mut rows = place.rows;
        let mut mask = u64::MAX;
        for _ in 0..R::HASHES {
            mask &= R::load(block, rows);
            rows >>= 8;
        }
        if self.has_lanes {
            mask = mask >> place.lane_shift & self.columns.all();
        }
        if mask == 0 {
            return 0;
        }
        match self.lag(place.block, newest) {
            0 => mask,
            lag => mask & !self.columns.newest(newest, lag),
        }
    }

    /// Marks the digest in `column`, as of slice `newest`.
    #[inline(always)]
    pub(crate) fn insert(&self, place: Place, column: u32, newest: u64) {
        let lag = self.lag(place.block, newest);
        if lag != 0 {
            self.catch_up(place.block, newest, lag);
        }
        match self.row {
            RowWidth::One => self.insert_rows::<u8>(place, column),
            _ => self.insert_wide(place, column),
        }
    }

    #[inline(never)]
    fn insert_wide(&self, place: Place, column: u32) {
        match self.row {
            RowWidth::One => self.insert_rows::<u8>(place, column),
            RowWidth::Two => self.insert_rows::<u16>(place, column),
            RowWidth::Four => self.insert_rows::<u32>(place, column),
            RowWidth::Eight => self.insert_rows::<u64>(place, column),
        }
    }

    #[inline(always)]
    fn insert_rows<R: Row>(&self, place: Place, column: u32) {
        let block = self.block::<R>(place.block);
        let mut rows = place.rows;
        let mut bit = 1 << column;
        if self.has_lanes {
            bit <<= place.lane_shift;
        }
        for _ in 0..R::HASHES {
            R::or(block, rows, bit);
            rows >>= 8;
        }
    }

    #[inline(always)]
    fn lane_shift(&self, bits: u64) -> u32 {
        if self.has_lanes { self.lane_of(bits) } else { 0 }
    }

    #[cold]
    fn lane_of(&self, bits: u64) -> u32 {
        match self.columns.0 {
            2 => 2 * ((bits >> 63) as u32 * 2 + (bits >> 55 & 1) as u32),
            _ => 4 * (bits >> 63) as u32,
        }
    }

    #[inline]
    fn epoch(&self, block: u32) -> &AtomicU8 {
        &self.block::<u8>(block)[BLOCK - 1]
    }

    /// Slices that began since the block was last written, modulo 256. The slice that is written
    /// never falls behind, not even across a crash: time is recorded before a slice begins.
    #[inline(always)]
    fn lag(&self, block: u32, newest: u64) -> u32 {
        u32::from((newest as u8).wrapping_sub(self.epoch(block).load(Relaxed)))
    }

    /// Clears the columns of the slices that began since. The epoch moves after the clearing, so a
    /// process that dies in between clears again.
    #[cold]
    fn catch_up(&self, block: u32, newest: u64, lag: u32) {
        // All lanes and rows at once: `all` divides a word of ones evenly.
        let all = self.columns.all();
        let keep = (all & !self.columns.newest(newest, lag)).wrapping_mul(u64::MAX / all);
        let words = &self.region.cells::<[AtomicU64; BLOCK / 8]>()[block as usize];
        (self.clear)(words, keep.to_le());
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
        self.epoch(block).store(newest as u8, Relaxed);
        compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// Adds the first blocks of the filter, `most` at most, to a sample. Keys are spread evenly over
    /// blocks, so neighbours tell as much as others, and take few pages.
    pub(crate) fn sample(&self, most: u32, sample: &mut Sample) {
        sample.set.resize(self.columns.0 as usize, 0);
        let blocks = self.blocks.min(most);
        (0..blocks).for_each(|block| self.count_bits(block, &mut sample.set));
        let rows = self.columns.usable_rows() as u64 * u64::from(self.columns.lanes());
        sample.bits += rows * u64::from(blocks);
    }

    fn count_bits(&self, block: u32, set: &mut [u64]) {
        let bytes = self.block::<u8>(block);
        let row_bytes = self.columns.row_bytes();
        for (at, cell) in bytes[..self.columns.usable_rows() * row_bytes].iter().enumerate() {
            let byte = cell.load(Relaxed);
            for bit in 0..8 {
                let column = (at % row_bytes * 8 + bit) as u32 % self.columns.0;
                set[column as usize] += u64::from(byte >> bit & 1);
            }
        }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    #[cfg(test)]
    pub(crate) fn columns(&self) -> Columns {
        self.columns
    }
}

#[cfg(test)]
mod tests;
