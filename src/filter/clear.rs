//! Clearing columns of a block, with the widest vectors that this processor has.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::BLOCK;

pub(super) type Words = [AtomicU64; BLOCK / 8];

/// ANDs each word of a block with a mask.
pub(super) type ClearFn = fn(&Words, u64);

/// The fastest way on this processor, chosen at run time.
pub(super) fn choose() -> ClearFn {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if std::arch::is_x86_feature_detected!("avx2") {
        return |words, keep| {
            // SAFETY: AVX2 was detected just above, in this process.
            unsafe { clear_avx2(words, keep) }
        };
    }
    clear_words
}

fn clear_words(words: &Words, keep: u64) {
    for word in words {
        word.store(word.load(Relaxed) & keep, Relaxed);
    }
}

/// # Safety
/// The processor has AVX2, and the caller holds the lock of the shard that owns the block, so no
/// other thread reads or writes it meanwhile.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx2")]
unsafe fn clear_avx2(words: &Words, keep: u64) {
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_loadu_si256, _mm256_set1_epi64x, _mm256_storeu_si256,
    };
    let keep = _mm256_set1_epi64x(keep.cast_signed());
    for four in words.chunks_exact(4) {
        let at = four.as_ptr().cast::<__m256i>().cast_mut();
        // SAFETY: `four` are 32 bytes of atomics, writable through a shared reference; unaligned
        // loads and stores ask for no alignment; the lock excludes other threads.
        unsafe { _mm256_storeu_si256(at, _mm256_and_si256(_mm256_loadu_si256(at), keep)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_way_does_what_the_plain_one_does() {
        let block = || -> Words {
            std::array::from_fn(|i| AtomicU64::new(0x0123_4567_89ab_cdef << (i % 13)))
        };
        let (plain, chosen) = (block(), block());
        clear_words(&plain, 0xf0f0_1234_5678_ffff);
        choose()(&chosen, 0xf0f0_1234_5678_ffff);
        let values = |words: &Words| words.each_ref().map(|w| w.load(Relaxed));
        assert_eq!(values(&plain), values(&chosen));
    }
}
