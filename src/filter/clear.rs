//! Clearing columns of a block, with the widest vectors that this processor has.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::BLOCK;

pub(super) type Words = [AtomicU64; BLOCK / 8];

/// ANDs each word of a block with a mask, all but the epoch in the last byte: a process that dies
/// in the middle must not leave another epoch.
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
    for (at, word) in words.iter().enumerate() {
        let keep = if at == words.len() - 1 { keep | EPOCH.to_le() } else { keep };
        word.store(word.load(Relaxed) & keep, Relaxed);
    }
}

/// The last byte of a block, in its last word.
const EPOCH: u64 = 0xff << 56;

/// # Safety
/// The processor has AVX2, and the caller holds the lock of the shard that owns the block, so no
/// other thread reads or writes it meanwhile.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx2")]
unsafe fn clear_avx2(words: &Words, keep: u64) {
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_loadu_si256, _mm256_set_epi64x, _mm256_set1_epi64x,
        _mm256_storeu_si256,
    };
    let last = _mm256_set_epi64x(
        (keep | EPOCH).cast_signed(),
        keep.cast_signed(),
        keep.cast_signed(),
        keep.cast_signed(),
    );
    let keep = _mm256_set1_epi64x(keep.cast_signed());
    for (part, four) in words.chunks_exact(4).enumerate() {
        let keep = if part == words.len() / 4 - 1 { last } else { keep };
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
        let last = block()[15].load(Relaxed);
        assert_eq!(values(&plain)[15] >> 56, last >> 56, "the epoch stays");
    }
}
