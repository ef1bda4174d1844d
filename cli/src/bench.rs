//! `onceonly bench`: what this machine does with a window in its steady state, by batch size, number
//! of shards and threads, and which of them to take.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use onceonly::{Builder, Dedup, ManualClock, Verdict};

use crate::args::BenchArgs;
use crate::output;
use crate::units;

const BATCHES: [usize; 6] = [1, 8, 32, 128, 512, 1024];
/// From one new key to the next, on the store's clock.
const KEY_NS: u64 = 1000;
/// Keys that are made ahead and then timed; a multiple of every batch size.
const CHUNK: usize = 1 << 15;
/// One key in fifty repeats one of the window.
const REPEAT_EVERY: u64 = 50;
/// A setting has to be better than another by this much to be preferred to it.
const MARGIN: f64 = 1.05;

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let default = builder(args.live).plan()?.shards;
    let shards = shard_numbers(default);
    let threads = if cores > 1 { vec![1, cores] } else { vec![1] };
    let cells = shards.len() * threads.len() * BATCHES.len();
    let each = Duration::from_secs(args.seconds).div_f64(cells as f64);
    let place = Place::new(args.dir.as_deref())?;
    let mut columns = Vec::new();
    for &shards in &shards {
        let dir = place.0.join(shards.to_string());
        let mut steady = Steady::open(&dir, shards, args.live)?;
        let mut column = Vec::new();
        for &threads in &threads {
            for batch in BATCHES {
                column.push(steady.measure(batch, threads, each)?);
            }
        }
        columns.push(column);
        steady.store.close()?;
        fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    let machine = Machine { cores, threads: &threads, shards: &shards, default };
    output::print(&report(args.live, &machine, &columns))
}

/// One lock, the library's own choice, and a few around it.
fn shard_numbers(default: usize) -> Vec<usize> {
    let mut numbers = vec![1, 4, default, 64];
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn builder(live: u64) -> Builder {
    Dedup::builder().window(Duration::from_nanos(live * KEY_NS)).expected_keys(live)
}

/// A directory of its own, deleted at the end.
struct Place(PathBuf);

impl Place {
    fn new(dir: Option<&Path>) -> Result<Self> {
        let parent = dir.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("onceonly-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Place(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be deleted is left where its name says what it was.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A store whose oldest slice expires as fast as new keys come.
struct Steady {
    store: Dedup,
    clock: ManualClock,
    live: u64,
    /// Keys that were new so far, and keys in all.
    new: u64,
    position: u64,
}

impl Steady {
    fn open(dir: &Path, shards: usize, live: u64) -> Result<Self> {
        let clock = ManualClock::new(SystemTime::now());
        let store = builder(live).shards(shards).clock(clock.clone());
        let store = store.allow_any_filesystem(true).open(dir)?;
        let mut steady = Steady { store, clock, live, new: 0, position: 0 };
        while steady.new < live + live / 4 {
            steady.chunk(BATCHES[3], 1)?;
        }
        Ok(steady)
    }

    /// ns a key: the median of chunks.
    fn measure(&mut self, batch: usize, threads: usize, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let mut samples = Vec::new();
        while samples.is_empty() || start.elapsed() < time {
            samples.push(self.chunk(batch, threads)?.as_nanos() as f64 / CHUNK as f64);
        }
        samples.sort_by(f64::total_cmp);
        Ok(samples[samples.len() / 2])
    }

    /// Lets the next keys through and returns the time it took.
    fn chunk(&mut self, batch: usize, threads: usize) -> Result<Duration> {
        let base = self.new;
        let mut keys = Vec::with_capacity(CHUNK);
        let mut repeated = 0;
        for _ in 0..CHUNK {
            let draw = mix(self.position);
            self.position += 1;
            // From earlier chunks and well within the window, whatever order threads run in.
            let reach = base.min(self.live - self.live / 4);
            if draw.is_multiple_of(REPEAT_EVERY) && reach > 0 {
                repeated += 1;
                keys.push(key(base - 1 - mix(draw) % reach));
            } else {
                keys.push(key(self.new));
                self.new += 1;
            }
        }
        let share = keys.len().div_ceil(threads).next_multiple_of(batch);
        let store = &self.store;
        let start = Instant::now();
        let duplicates = thread::scope(|scope| {
            let parts: Vec<_> = keys
                .chunks(share)
                .skip(1)
                .map(|keys| scope.spawn(move || observe(store, keys, batch)))
                .collect();
            let own = observe(store, &keys[..share.min(keys.len())], batch);
            let others = parts.into_iter().map(|part| match part.join() {
                Ok(counted) => counted,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            others.fold(own, |sum, counted| Ok(sum? + counted?))
        })?;
        let took = start.elapsed();
        self.clock.advance(Duration::from_nanos((self.new - base) * KEY_NS));
        if duplicates != repeated {
            bail!("{duplicates} of {repeated} duplicates were found: please report this");
        }
        Ok(took)
    }
}

/// The number of duplicates among the keys.
fn observe(store: &Dedup, keys: &[Key], batch: usize) -> Result<usize> {
    let duplicate = |verdict: &Verdict| *verdict == Verdict::Duplicate;
    let mut duplicates = 0;
    if batch == 1 {
        for key in keys {
            duplicates += usize::from(duplicate(&store.observe(key)?));
        }
        return Ok(duplicates);
    }
    let mut verdicts = Vec::with_capacity(batch);
    for batch in keys.chunks(batch) {
        store.observe_batch_into(batch, &mut verdicts)?;
        duplicates += verdicts.iter().filter(|&verdict| duplicate(verdict)).count();
    }
    Ok(duplicates)
}

/// As long as the text of a UUID, and as scattered.
type Key = [u8; 36];

fn key(index: u64) -> Key {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut bits = u128::from(mix(index)) << 64 | u128::from(mix(!index));
    for digit in &mut text[..32] {
        *digit = DIGITS[(bits & 15) as usize];
        bits >>= 4;
    }
    text
}

/// The finalizer of SplitMix64: a bijection that scatters consecutive numbers.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What was measured with.
struct Machine<'a> {
    cores: usize,
    threads: &'a [usize],
    shards: &'a [usize],
    /// The library's own number of shards.
    default: usize,
}

fn report(live: u64, machine: &Machine<'_>, columns: &[Vec<f64>]) -> String {
    let &Machine { cores, threads, shards, default } = machine;
    let mut text = format!(
        "ns a key, {} live keys, ids of 36 bytes, 2 % duplicates, {cores} cores\n\n{:<24}",
        units::grouped(live),
        "",
    );
    // Writing to a string cannot fail.
    for &shards in shards {
        let _ = write!(text, "{:>12}", plural(shards, "shard"));
    }
    let rows = threads.iter().flat_map(|&threads| BATCHES.map(|batch| (threads, batch)));
    for (row, (threads, batch)) in rows.enumerate() {
        let called = if batch == 1 { "one".to_owned() } else { format!("batch {batch}") };
        let _ = write!(text, "\n{:<24}", format!("{}, {called}", plural(threads, "thread")));
        for column in columns {
            let _ = write!(text, "{:>12.0}", column[row]);
        }
    }
    let choice = choose(machine, columns);
    let _ = writeln!(
        text,
        "\n\nrecommended: {}{}, {}{}, {}: {:.0} ns a key, {} a second",
        plural(choice.shards, "shard"),
        if choice.shards == default { " (the default)" } else { "" },
        plural(choice.threads, "thread"),
        if threads.last() == Some(&choice.threads) { "" } else { " (more were no faster)" },
        if choice.batch == 1 {
            "one key at a time".to_owned()
        } else {
            format!("batches of {} or more", choice.batch)
        },
        choice.ns,
        units::grouped((1e9 / choice.ns) as u64),
    );
    text
}

fn plural(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

#[derive(Debug, PartialEq)]
struct Choice {
    shards: usize,
    threads: usize,
    batch: usize,
    ns: f64,
}

/// As few threads as are nearly as fast as any number of them: work in the background needs a core
/// too. Then the library's own number of shards unless another is clearly faster with those threads,
/// then the smallest batch that is nearly as fast as the fastest.
fn choose(machine: &Machine<'_>, columns: &[Vec<f64>]) -> Choice {
    let &Machine { threads, shards, default, .. } = machine;
    let with = |column: usize, row: usize| &columns[column][row * BATCHES.len()..][..BATCHES.len()];
    let least = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    let of_row = |row: usize| {
        (0..shards.len()).map(|column| least(with(column, row))).fold(f64::INFINITY, f64::min)
    };
    let fastest = (0..threads.len()).map(of_row).fold(f64::INFINITY, f64::min);
    let row = (0..threads.len()).find(|&row| of_row(row) <= fastest * MARGIN).unwrap_or_default();
    let is_near = |column: &usize| least(with(*column, row)) <= of_row(row) * MARGIN;
    let own = shards.iter().position(|&number| number == default).filter(is_near);
    let is_best = |column: &usize| least(with(*column, row)) <= of_row(row);
    let taken = own.or_else(|| (0..shards.len()).find(is_best)).unwrap_or_default();
    let times = with(taken, row);
    let at = times.iter().position(|&ns| ns <= least(times) * MARGIN).unwrap_or_default();
    Choice { shards: shards[taken], threads: threads[row], batch: BATCHES[at], ns: times[at] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_kept_unless_another_is_clearly_faster() {
        let slow = vec![100.0, 90.0, 80.0, 70.0, 60.0, 60.0];
        let near = vec![99.0, 50.0, 41.0, 40.0, 42.0, 43.0];
        let fast = vec![99.0, 50.0, 40.0, 39.0, 42.0, 43.0];
        let machine = Machine { cores: 2, threads: &[2], shards: &[1, 16, 64], default: 16 };
        let chosen = |shards, ns| Choice { shards, threads: 2, batch: 32, ns };
        let columns = [slow.clone(), near, fast.clone()];
        assert_eq!(choose(&machine, &columns), chosen(16, 41.0));
        let columns = [slow.clone(), slow, fast];
        assert_eq!(choose(&machine, &columns), chosen(64, 40.0));
    }

    /// Threads that gain nothing are not recommended, and the last line says so.
    #[test]
    fn more_threads_have_to_be_clearly_faster() {
        let machine = Machine { cores: 2, threads: &[1, 2], shards: &[8], default: 8 };
        let column = |one: f64, two: f64| vec![[vec![one; 6], vec![two; 6]].concat()];
        let threads = |one, two| choose(&machine, &column(one, two)).threads;
        assert_eq!((threads(50.0, 30.0), threads(50.0, 49.0), threads(50.0, 60.0)), (2, 1, 1));
        let told = report(7, &machine, &column(50.0, 60.0));
        assert!(
            told.contains(", 1 thread (more were no faster), one key at a time: 50 ns"),
            "{told}"
        );
        let told = report(7, &machine, &column(50.0, 30.0));
        assert!(told.contains(", 2 threads, one key at a time: 30 ns"), "{told}");
    }

    /// The recommendation calls a number of shards the default only if the library takes it.
    #[test]
    fn the_default_is_the_librarys_own() {
        let machine = |default| Machine { cores: 2, threads: &[1], shards: &[1, 8], default };
        let (slow, fast) = (vec![9.0; BATCHES.len()], vec![5.0; BATCHES.len()]);
        let told = |default| report(7, &machine(default), &[slow.clone(), fast.clone()]);
        assert!(told(8).contains("recommended: 8 shards (the default)"), "{}", told(8));
        assert!(told(1).contains("recommended: 8 shards, "), "{}", told(1));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let by_cores = (4 * cores).next_power_of_two();
        assert_eq!(builder(u64::from(u32::MAX)).plan().unwrap().shards, by_cores);
        assert_eq!(builder(1).plan().unwrap().shards, 1);
    }

    #[test]
    fn keys_differ() {
        let keys: std::collections::HashSet<Key> = (0..10_000).map(key).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
