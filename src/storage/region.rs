//! A range of shared memory, read and written through atomics. All pointer arithmetic on mapped
//! memory is in this file.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A fixed range of zero-initialized or mapped memory. Clones share it; it is released with the
/// last clone.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: `base` points into memory that `owner` (itself Send + Sync) keeps alive, and it is read
// and written only through the atomics that `cells` hands out.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Types that shared memory may be viewed as.
///
/// # Safety
/// The type consists of atomic integers only: no padding, every bit pattern is a value, and shared
/// references to it may be written through.
pub(crate) unsafe trait SharedCell {}
// SAFETY: an atomic integer.
unsafe impl SharedCell for AtomicU8 {}
// SAFETY: an atomic integer.
unsafe impl SharedCell for AtomicU16 {}
// SAFETY: an atomic integer.
unsafe impl SharedCell for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl SharedCell for AtomicU64 {}
// SAFETY: an array of what is allowed has no padding either.
unsafe impl<T: SharedCell, const N: usize> SharedCell for [T; N] {}

/// What the kernel should know about a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Use huge pages: random access all over it.
    HugePages,
    /// Bring it in, ready to be read.
    PopulateRead,
    /// Bring it in, ready to be written.
    PopulateWrite,
}

/// Bytes that are brought in by one call: nothing can be mapped or unmapped before it returns, and a huge
/// page takes up to a millisecond to be cleared.
#[cfg(target_os = "linux")]
const POPULATE_STEP: usize = 4 << 20;

struct HeapBlock {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is only a lump of memory that is freed on drop.
unsafe impl Send for HeapBlock {}
// SAFETY: as above; access goes through `Region`.
unsafe impl Sync for HeapBlock {}

impl Drop for HeapBlock {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `Region::heap`, and freed once, here.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl Region {
    /// `len` zero bytes of heap, page aligned. `None` when memory is refused.
    pub(crate) fn heap(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), 4096).ok()?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let owner = Arc::new(HeapBlock { base, layout });
        Some(Region { base, len, owner })
    }

    /// A page of zeros that a forked child finds zeroed again. Where the kernel does not know how
    /// (before Linux 4.14, macOS) it finds what was written.
    pub(crate) fn wiped_on_fork() -> std::io::Result<Self> {
        let map = memmap2::MmapMut::map_anon(4096)?;
        #[cfg(target_os = "linux")]
        {
            let advice = rustix::mm::Advice::LinuxWipeOnFork;
            let base = map.as_ptr().cast_mut().cast();
            // SAFETY: the range is that of the mapping, which is private and anonymous and has not
            // been handed out; the advice changes nothing in this process.
            let _ = unsafe { rustix::mm::madvise(base, map.len(), advice) };
        }
        Ok(Region::mapped(map.into()))
    }

    /// A mapping of this process.
    pub(crate) fn mapped(map: memmap2::MmapRaw) -> Self {
        let (base, len) = (map.as_mut_ptr(), map.len());
        let base = NonNull::new(base).unwrap_or(NonNull::dangling());
        Region { base, len, owner: Arc::new(map) }
    }

    /// A part of the region, from `offset` on; shares its memory.
    ///
    /// # Panics
    /// When the part is not inside, or `offset` is not a multiple of 64.
    pub(crate) fn part(&self, offset: usize, len: usize) -> Region {
        assert!(offset.is_multiple_of(64) && offset <= self.len && len <= self.len - offset);
        // SAFETY: `offset` is inside the range that `owner` keeps alive.
        let base = unsafe { self.base.add(offset) };
        Region { base, len, owner: Arc::clone(&self.owner) }
    }

    /// Where it lies, for prefetches.
    pub(crate) fn address(&self) -> usize {
        self.base.addr().get()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The region as cells; a rest that is smaller than one cell is left out. Writing to a region
    /// that was opened for reading kills the process, as a wild store should.
    #[inline]
    pub(crate) fn cells<T: SharedCell>(&self) -> &[T] {
        debug_assert!(self.base.addr().get().is_multiple_of(align_of::<T>()));
        // SAFETY: base is aligned to 64 bytes at least, which suits every cell; the length is rounded down, so all
        // cells lie inside; `SharedCell` makes any content valid and shared writes sound; `owner`
        // keeps the memory alive while `self` is borrowed.
        unsafe {
            std::slice::from_raw_parts(self.base.as_ptr().cast::<T>(), self.len / size_of::<T>())
        }
    }

    /// Whether both are of one mapping.
    #[cfg(feature = "test-storage")]
    pub(crate) fn shares_with(&self, other: &Region) -> bool {
        Arc::ptr_eq(&self.owner, &other.owner)
    }

    /// The mapping below, if it is one.
    pub(crate) fn map(&self) -> Option<&memmap2::MmapRaw> {
        (*self.owner).downcast_ref()
    }

    /// Tells the kernel; without effect on the heap. Advice is never needed for correctness, so a
    /// refusal is not an error.
    pub(crate) fn advise(&self, advice: Advice) {
        #[cfg(target_os = "linux")]
        if let Some(map) = self.map() {
            let advice = match advice {
                Advice::HugePages => memmap2::Advice::HugePage,
                Advice::PopulateRead => memmap2::Advice::PopulateRead,
                Advice::PopulateWrite => memmap2::Advice::PopulateWrite,
            };
            // Whole pages: a part may begin or end inside one.
            let offset = self.base.addr().get() - map.as_mut_ptr().addr();
            let from = offset & !4095;
            let to = (offset + self.len).next_multiple_of(4096).min(map.len());
            let step = if advice == memmap2::Advice::HugePage { usize::MAX } else { POPULATE_STEP };
            for at in (from..to).step_by(step) {
                let _ = map.advise_range(advice, at, step.min(to - at));
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = advice;
    }

    /// Copies `out.len()` bytes from `offset` on.
    ///
    /// # Panics
    /// When the range is not inside the region.
    pub(crate) fn read_bytes(&self, offset: usize, out: &mut [u8]) {
        use std::sync::atomic::Ordering::Relaxed;
        let cells = &self.cells::<AtomicU8>()[offset..offset + out.len()];
        for (byte, cell) in out.iter_mut().zip(cells) {
            *byte = cell.load(Relaxed);
        }
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Panics
    /// When the range is not inside the region.
    pub(crate) fn write_bytes(&self, offset: usize, bytes: &[u8]) {
        use std::sync::atomic::Ordering::Relaxed;
        let cells = &self.cells::<AtomicU8>()[offset..offset + bytes.len()];
        for (cell, byte) in cells.iter().zip(bytes) {
            cell.store(*byte, Relaxed);
        }
    }
}

/// Asks the processor to fetch the cache line of `cell`.
#[inline]
pub(crate) fn prefetch<T>(cell: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on memory, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(cell).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = cell;
}

/// Asks the processor to fetch the two cache lines at an address that may be out of date.
#[inline]
pub(crate) fn prefetch_block(address: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch has no effect on memory, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = std::ptr::without_provenance::<i8>(address);
        _mm_prefetch::<_MM_HINT_T0>(line);
        _mm_prefetch::<_MM_HINT_T0>(line.wrapping_add(64));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn heap_regions_are_zero_shared_and_bounded() {
        let region = Region::heap(100).unwrap();
        let clone = region.clone();
        assert_eq!(region.cells::<AtomicU64>().len(), 12);
        region.cells::<AtomicU64>()[11].store(u64::MAX, Relaxed);
        let mut bytes = [0; 12];
        clone.read_bytes(88, &mut bytes);
        assert_eq!(bytes, [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]);
        clone.write_bytes(96, &[1, 2, 3, 4]);
        assert_eq!(region.cells::<AtomicU8>()[99].load(Relaxed), 4);
    }
}
