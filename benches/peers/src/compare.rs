//! The same stream through the engine and its peers, side by side in one process: chunk by chunk,
//! in an order that turns, so that what drifts with the machine's load hits all alike.
//!
//! Each contestant has its own place in the stream. Slow ones take fewer keys a chunk, so that a
//! chunk is over in a bounded time; every answer is checked all the same.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::args::{Args, Result, shown};
use crate::contestants::{self, Contestant, Mode};
use crate::keys::{Chunk, Repeat, Stream};
use crate::machine::Timing;
use crate::memory::Resident;
use crate::report::{Table, mean, median, ns, quantile, ratio, say, times};

const SEED: u64 = 0x0ce0_0417;
/// Chunks a window: a slice is a seventh, so most chunks hold a rotation.
const CHUNKS: u64 = 8;
/// The most that a slow contestant takes for a chunk.
const SLOW_CHUNK: Duration = Duration::from_millis(1500);

struct Options {
    rounds: usize,
    batch: usize,
    peers: Vec<String>,
    dir: PathBuf,
    per_mille: u64,
    /// Windows that fill the contestants before the first timed chunk.
    warm: u64,
    /// Longest time to fill one contestant; one that takes longer is left out.
    warm_limit: Duration,
    /// Waits for the engine's background work inside the timed part.
    charge_background: bool,
    timing: Timing,
    /// Whether the calls for one key and for many are timed.
    each: bool,
    batches: bool,
}

/// One contestant and what was measured of it.
struct Lane {
    contestant: Box<dyn Contestant>,
    stream: Stream,
    /// Keys a chunk, by mode.
    modes: Vec<(Mode, usize)>,
    /// By mode: ns per key of each chunk.
    samples: Vec<Vec<f64>>,
    missed: u64,
    invented: u64,
    asked: u64,
    resident: Resident,
}

pub(crate) fn main(mut args: Args) -> Result<()> {
    let lives = args.counts("live", "1M,10M")?;
    let mode = args.text("mode", "both");
    if !["one", "batch", "both"].contains(&mode.as_str()) {
        return Err(format!("--mode is one, batch or both, not {mode:?}").into());
    }
    let options = Options {
        rounds: usize::try_from(args.count("rounds", 16)?)?,
        batch: usize::try_from(args.count("batch", 32)?)?,
        peers: args.words("peer", "hashbrown,hashbrown-digests-first"),
        dir: args.data_dir()?,
        per_mille: args.count("duplicates-per-mille", 20)?,
        warm: args.count("warm", 2)?,
        warm_limit: Duration::from_secs(args.count("warm-limit", 600)?),
        charge_background: args.flag("charge-background")?,
        timing: if args.flag("cpu-time")? { Timing::Cpu } else { Timing::Wall },
        each: mode != "batch",
        batches: mode != "one",
    };
    let csv = args.path("csv");
    args.finish()?;
    let mut results = Table::new(
        "the same stream through onceonly and its peers, interleaved; bytes and ns are per key",
        &RESULTS,
    );
    for live in lives {
        let lanes = compare(live, &options)?;
        report(live, &options, &lanes)?;
        report_memory(live, &options, &lanes)?;
        lanes.iter().for_each(|lane| lane.results(live, &lanes, &mut results));
        if let Some(path) = &csv {
            results.save(path)?;
        }
        if lanes[0].missed + lanes[0].invented > 0 {
            return Err("the engine gave wrong answers".into());
        }
    }
    Ok(())
}

fn compare(live: u64, options: &Options) -> Result<Vec<Lane>> {
    let stream = Stream::new(SEED, live, options.per_mille, Repeat::Window);
    let len = stream.part(CHUNKS);
    let mut chunk = Chunk::default();
    let mut answers = vec![false; len];
    // Once, so that the buffers are in memory before the first contestant's memory is measured.
    stream.clone().fill(len, &mut chunk);
    let mut lanes: Vec<Lane> = Vec::new();
    let names = std::iter::once("onceonly").chain(options.peers.iter().map(String::as_str));
    for name in names {
        match Lane::warm_up(name, live, options, stream.clone(), &mut chunk, &mut answers) {
            Ok(lane) => lanes.push(lane),
            // The others are of use without a server that this machine does not have.
            Err(error) if !lanes.is_empty() => say(format_args!("left out: {name}: {error}"))?,
            Err(error) => return Err(error),
        }
    }
    for round in 0..options.rounds {
        // Shifted every window, so that no mode has all the rotations.
        let first = (round / CHUNKS as usize) % 2;
        for one in [first == 1, first == 0] {
            for turn in 0..lanes.len() {
                let at = (round + turn) % lanes.len();
                lanes[at].time_modes(one, &mut chunk, options, &mut answers);
            }
        }
    }
    Ok(lanes)
}

impl Lane {
    fn warm_up(
        name: &str,
        live: u64,
        options: &Options,
        mut stream: Stream,
        chunk: &mut Chunk,
        answers: &mut [bool],
    ) -> Result<Lane> {
        let before = Resident::now()?;
        let contestant = contestants::build(name, live, &options.dir)?;
        let modes: Vec<Mode> = contestant.modes(options.batch);
        let modes = modes.into_iter().filter(|&mode| match mode {
            Mode::One => options.each,
            Mode::Batch(_) => options.batches,
        });
        let modes: Vec<(Mode, usize)> = modes.map(|mode| (mode, answers.len())).collect();
        let fill = contestant.modes(options.batch)[0];
        let mut lane = Lane {
            samples: vec![Vec::new(); modes.len()],
            contestant,
            modes,
            stream: stream.clone(),
            missed: 0,
            invented: 0,
            asked: 0,
            resident: Resident::default(),
        };
        // Slow ones take long for it, and most of them have their final size after one window.
        let windows = if lane.contestant.slow() { 1 } else { options.warm };
        let start = Instant::now();
        while stream.new_keys() < windows * live {
            stream.fill(answers.len(), chunk);
            contestants::run(&*lane.contestant, chunk, fill, Timing::Wall, answers);
            lane.check(chunk, answers);
            if start.elapsed() > options.warm_limit {
                let done = stream.new_keys() as f64 / (windows * live) as f64;
                return Err(format!("{:.0} % filled in the time allowed", done * 100.0).into());
            }
        }
        lane.contestant.settle();
        lane.resident = Resident::now()?.since(before);
        lane.stream = stream;
        lane.limit(live, chunk, options, answers);
        Ok(lane)
    }

    /// Finds how many keys of each mode a slow contestant gets through in the time for a chunk.
    fn limit(&mut self, live: u64, chunk: &mut Chunk, options: &Options, answers: &mut [bool]) {
        if !self.contestant.slow() {
            return;
        }
        // The stream's smallest part.
        let tick = self.stream.part(live);
        for index in 0..self.modes.len() {
            self.stream.fill(tick, chunk);
            let answers = &mut answers[..tick];
            let mode = self.modes[index].0;
            let took = contestants::run(&*self.contestant, chunk, mode, options.timing, answers);
            self.check(chunk, answers);
            let ticks = SLOW_CHUNK.as_nanos() / took.as_nanos().max(1);
            let len = tick * usize::try_from(ticks).unwrap_or(usize::MAX).clamp(1, 1 << 20);
            self.modes[index].1 = len.min(self.modes[index].1);
        }
    }

    fn time_modes(
        &mut self,
        one: bool,
        chunk: &mut Chunk,
        options: &Options,
        answers: &mut [bool],
    ) {
        for index in 0..self.modes.len() {
            let (mode, len) = self.modes[index];
            if (mode == Mode::One) != one {
                continue;
            }
            let answers = &mut answers[..len];
            self.stream.fill(len, chunk);
            let start = Instant::now();
            let contestant = &*self.contestant;
            let mut took = contestants::run(contestant, chunk, mode, options.timing, answers);
            // Never while another contestant is timed: it would pay for this one's work.
            contestant.settle();
            if options.charge_background {
                took = start.elapsed();
            }
            self.samples[index].push(took.as_nanos() as f64 / len as f64);
            self.check(chunk, answers);
        }
    }

    fn check(&mut self, chunk: &Chunk, answers: &[bool]) {
        if !self.contestant.decides() {
            return;
        }
        let (missed, invented) = chunk.check(answers);
        self.missed += missed;
        self.invented += invented;
        self.asked += answers.len() as u64;
    }

    /// What was measured one at a time, or in the contestant's first size of a batch.
    fn like(&self, mode: Mode) -> &[f64] {
        let like = |(own, _): &(Mode, usize)| (*own == Mode::One) == (mode == Mode::One);
        self.modes.iter().position(like).map_or(&[], |index| &self.samples[index])
    }

    fn results(&self, live: u64, lanes: &[Lane], table: &mut Table) {
        let floor = lanes.iter().find(|lane| !lane.contestant.decides());
        let per_key = |bytes: u64| format!("{:.2}", bytes as f64 / live as f64);
        for ((mode, len), samples) in self.modes.iter().zip(&self.samples) {
            let exact = if self.contestant.exact() { "yes" } else { "no" };
            table.row([
                live.to_string(),
                self.contestant.name().to_owned(),
                if self.contestant.decides() { exact.to_owned() } else { "-".to_owned() },
                mode.shown(),
                ns(median(samples)),
                ns(mean(samples)),
                ns(quantile(samples, 0.1)),
                ns(quantile(samples, 0.9)),
                times(ratio(samples, lanes[0].like(*mode))),
                floor.map_or("-".to_owned(), |f| times(ratio(samples, f.like(*mode)))),
                len.to_string(),
                samples.len().to_string(),
                self.asked.to_string(),
                self.missed.to_string(),
                self.invented.to_string(),
                per_key(self.resident.anonymous),
                per_key(self.resident.files),
                self.contestant.told_memory_bytes().map_or("-".to_owned(), per_key),
                per_key(self.contestant.disk_bytes()),
            ]);
        }
    }
}

const RESULTS: [&str; 19] = [
    "live",
    "contestant",
    "exact",
    "mode",
    "median_ns",
    "mean_ns",
    "p10_ns",
    "p90_ns",
    "times_onceonly",
    "times_floor",
    "keys_a_chunk",
    "chunks",
    "answers_checked",
    "missed",
    "invented",
    "anonymous_bytes",
    "mapped_bytes",
    "told_memory_bytes",
    "disk_bytes",
];

fn report(live: u64, options: &Options, lanes: &[Lane]) -> Result<()> {
    for one in [false, true] {
        let title = format!(
            "{} live keys, {}, {:.1} % duplicates, ns per key{}",
            shown(live),
            if one { "one at a time" } else { "in batches" },
            options.per_mille as f64 / 10.0,
            match (options.charge_background, options.timing) {
                (true, _) => ", background work included",
                (false, Timing::Wall) => "",
                (false, Timing::Cpu) => ", time on the core",
            },
        );
        let head = [
            "contestant",
            "batch",
            "median",
            "mean",
            "p10",
            "p90",
            "x onceonly",
            "x floor",
            "missed",
            "invented",
        ];
        let mut table = Table::new(title, &head);
        let floor = lanes.iter().find(|lane| !lane.contestant.decides());
        for lane in lanes {
            for ((mode, _), samples) in lane.modes.iter().zip(&lane.samples) {
                if (*mode == Mode::One) != one {
                    continue;
                }
                table.row([
                    lane.contestant.name().to_owned(),
                    mode.keys().to_string(),
                    ns(median(samples)),
                    ns(mean(samples)),
                    ns(quantile(samples, 0.1)),
                    ns(quantile(samples, 0.9)),
                    times(ratio(samples, lanes[0].like(*mode))),
                    floor.map_or("-".to_owned(), |f| times(ratio(samples, f.like(*mode)))),
                    lane.missed.to_string(),
                    lane.invented.to_string(),
                ]);
            }
        }
        if !table.is_empty() {
            table.show(None)?;
        }
    }
    Ok(())
}

fn report_memory(live: u64, options: &Options, lanes: &[Lane]) -> Result<()> {
    let title =
        format!("{} live keys, bytes per live key after {} windows", shown(live), options.warm);
    let head = ["contestant", "anonymous", "mapped", "told", "disk"];
    let mut table = Table::new(title, &head);
    let per_key = |bytes: u64| format!("{:.2}", bytes as f64 / live as f64);
    for lane in lanes {
        table.row([
            lane.contestant.name().to_owned(),
            per_key(lane.resident.anonymous),
            per_key(lane.resident.files),
            lane.contestant.told_memory_bytes().map_or("-".to_owned(), per_key),
            per_key(lane.contestant.disk_bytes()),
        ]);
    }
    table.show(None)?;
    for line in lanes.iter().flat_map(|lane| lane.contestant.details()) {
        say(format_args!("    {line}"))?;
    }
    Ok(())
}
