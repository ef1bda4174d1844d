//! What this machine charges for the parts that no such engine can do without: one by one, and in
//! the bare path that strings them together. A core overlaps what the sum of the parts adds up, so
//! the bare path is the floor that the engine is measured against.

pub(crate) mod bare;

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use memmap2::{Advice, MmapMut, MmapOptions};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use xxhash_rust::xxh3::xxh3_128_with_secret;

use crate::args::{Args, Result};
use crate::keys::{key, mix};
use crate::report::{Table, median, ns};

const REPETITIONS: usize = 9;
const MEMORY: usize = 2 << 30;
const LINE: usize = 64;
const WORDS_A_LINE: usize = LINE / 8;
/// Random accesses a repetition.
const ACCESSES: u64 = 1 << 21;
const BATCH: usize = 32;

pub(crate) fn main(mut args: Args) -> Result<()> {
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let mut table = Table::new("floor", &["what", "ns"]);
    let mut add = |what: &str, cost: f64| {
        table.row([what.to_owned(), ns(cost)]);
        cost
    };
    let hash = add("XXH3-128 of 36 bytes", hash_cost());
    let lock = add("uncontended parking_lot lock + unlock", lock_cost());
    let mut memory = Memory::new(MEMORY, Advice::NoHugePage)?;
    add("random access in 2 GiB, dependent, 4 KiB pages", memory.dependent());
    add("32 at once, one line each, 4 KiB pages", memory.batched(1));
    memory = Memory::new(MEMORY, Advice::HugePage)?;
    add("random access in 2 GiB, dependent, huge pages", memory.dependent());
    add("independent, out of order", memory.independent());
    let alone = add("independent, with a locked instruction each", memory.locked());
    let one_line = add("32 at once, prefetched, one line each", memory.batched(1));
    add("32 at once, prefetched, two adjacent lines each", memory.batched(2));
    let append = add("append 16 bytes to a mapped file", append_cost(&dir)?);
    add("Instant::now()", repeat(1 << 20, Instant::now));
    for (what, clock) in [
        ("clock_gettime, boot time", ClockId::Boottime),
        ("clock_gettime, coarse", ClockId::MonotonicCoarse),
    ] {
        add(what, repeat(1 << 20, || clock_gettime(clock)));
    }
    add("sum, one at a time: hash + lock + locked access + append", hash + lock + alone + append);
    add("sum, batched: hash + lock + access + append", hash + lock + one_line + append);
    drop(memory);
    // Four bytes a key: the filters of so many live keys, then one that outgrows the cache's tags.
    for (live, len) in [("1M", 4 << 20), ("10M", 40 << 20), ("100M", 400 << 20), ("512M", 2 << 30)]
    {
        let mut path = bare::Path::new(Memory::new(len, Advice::HugePage)?, &dir)?;
        add(&format!("the bare path, {live} keys, one at a time"), path.one_at_a_time());
        add(&format!("the bare path, {live} keys, 32 at once, one line each"), path.batched(1));
        add(&format!("the bare path, {live} keys, 32 at once, two lines each"), path.batched(2));
    }
    table.show(csv.as_deref())
}

/// Median ns of one call.
fn repeat<T>(calls: u64, mut call: impl FnMut() -> T) -> f64 {
    timed(calls, |calls| {
        for _ in 0..calls {
            black_box(call());
        }
    })
}

/// Median ns of one of the `calls` that `run` makes.
fn timed(calls: u64, mut run: impl FnMut(u64)) -> f64 {
    let sample = |_| once(calls, || run(calls));
    median(&(0..REPETITIONS).map(sample).collect::<Vec<_>>())
}

fn once(calls: u64, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / calls as f64
}

fn hash_cost() -> f64 {
    let secret: [u8; 192] = std::array::from_fn(|at| mix(at as u64) as u8);
    let keys: Vec<_> = (0..1024).map(|index| key(1, index)).collect();
    let mut sum = 0;
    let cost = timed(1 << 20, |calls| {
        for at in 0..calls as usize {
            sum ^= xxh3_128_with_secret(&keys[at % keys.len()], black_box(&secret[..]));
        }
    });
    black_box(sum);
    cost
}

fn lock_cost() -> f64 {
    let value = Mutex::new(0_u64);
    repeat(1 << 20, || *black_box(&value).lock() += 1)
}

/// Words, all of them touched.
pub(crate) struct Memory {
    map: MmapMut,
    /// Goes on from repetition to repetition, so that none runs over lines another has cached.
    counter: u64,
}

impl Memory {
    fn new(len: usize, advice: Advice) -> Result<Self> {
        let mut map = MmapOptions::new().len(len).map_anon()?;
        map.advise(advice)?;
        map.chunks_exact_mut(4096).for_each(|page| page[0] = 1);
        Ok(Memory { map, counter: 0 })
    }

    fn words(&mut self) -> &mut [u64] {
        // SAFETY: every bit pattern is a word, and the map is aligned to pages.
        unsafe { self.map.align_to_mut().1 }
    }

    /// Each address follows from what the one before held.
    fn dependent(&mut self) -> f64 {
        let mut at = std::mem::take(&mut self.counter);
        let words = self.words();
        let cost = timed(ACCESSES / 4, |calls| {
            for _ in 0..calls {
                at = mix(at ^ words[place(at, words, 1)]);
            }
        });
        self.counter = at;
        cost
    }

    fn independent(&mut self) -> f64 {
        self.scattered(|_| ())
    }

    /// What a lock does to the accesses around it: they no longer overlap.
    fn locked(&mut self) -> f64 {
        let lock = AtomicU64::new(0);
        self.scattered(|at| {
            black_box(&lock).fetch_add(at, Ordering::SeqCst);
        })
    }

    fn scattered(&mut self, mut before: impl FnMut(u64)) -> f64 {
        let mut counter = self.counter;
        let words = self.words();
        let cost = timed(ACCESSES, |calls| {
            for _ in 0..calls {
                counter += 1;
                let at = mix(counter);
                before(at);
                words[place(at, words, 1)] |= at;
            }
        });
        self.counter = counter;
        cost
    }

    /// Batches: the addresses and their prefetch first, then the work on `lines` adjacent lines.
    fn batched(&mut self, lines: usize) -> f64 {
        let mut counter = self.counter;
        let words = self.words();
        let mut places = [0; BATCH];
        let cost = timed(ACCESSES, |calls| {
            for _ in 0..calls / BATCH as u64 {
                for at in &mut places {
                    counter += 1;
                    *at = place(mix(counter), words, lines);
                    for next in 0..lines {
                        prefetch(&words[*at + next * WORDS_A_LINE]);
                    }
                }
                for at in places {
                    for next in 0..lines {
                        words[at + next * WORDS_A_LINE] |= counter;
                    }
                }
            }
        });
        self.counter = counter;
        cost
    }
}

/// The first word of the line that the hash names, or of the first line of a pair.
#[inline]
fn place(hash: u64, words: &[u64], lines: usize) -> usize {
    let line = ((u128::from(hash) * (words.len() / WORDS_A_LINE) as u128) >> 64) as usize;
    (line & !(lines - 1)) * WORDS_A_LINE
}

#[inline]
fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; the address is that of a live reference besides.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Into a file that is allocated and mapped anew each time: the page faults are part of the price.
fn append_cost(dir: &Path) -> Result<f64> {
    const LEN: usize = 128 << 20;
    let path: PathBuf = dir.join("floor-append");
    let mut samples = Vec::new();
    for _ in 0..REPETITIONS {
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, LEN as u64)?;
        // SAFETY: the file is this program's own, and is deleted only after the map is gone.
        let mut map = unsafe { MmapMut::map_mut(&file) }?;
        let start = Instant::now();
        for (value, slot) in map.chunks_exact_mut(16).enumerate() {
            slot.copy_from_slice(&(value as u128).to_ne_bytes());
        }
        samples.push(start.elapsed().as_nanos() as f64 / (LEN / 16) as f64);
    }
    std::fs::remove_file(&path)?;
    Ok(median(&samples))
}
