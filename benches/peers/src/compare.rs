//! The same stream through the engine and its peers, side by side in one process: chunk by chunk,
//! in an order that turns, so that what drifts with the machine's load hits all alike.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::args::{Args, Result, shown};
use crate::contestants::{self, Contestant, Mode};
use crate::keys::{Chunk, Repeat, Stream};
use crate::machine::Timing;
use crate::memory::Resident;
use crate::report::{Table, mean, median, ns, quantile, ratio, say, times};

const SEED: u64 = 0x0ce0_0417;
/// Chunks a window: a slice is a seventh, so most chunks hold a rotation.
const CHUNKS: u64 = 8;

struct Options {
    rounds: usize,
    batch: usize,
    peers: Vec<String>,
    dir: PathBuf,
    csv: Option<PathBuf>,
    per_mille: u64,
    /// Windows that fill the contestants before the first timed chunk.
    warm: u64,
    /// Waits for the engine's background work inside the timed part.
    charge_background: bool,
    timing: Timing,
    modes: Vec<Mode>,
}

/// One contestant and what was measured of it.
struct Lane {
    contestant: Box<dyn Contestant>,
    /// By mode: ns per key of each chunk.
    samples: Vec<Vec<f64>>,
    missed: u64,
    invented: u64,
    asked: u64,
    resident: Resident,
}

pub(crate) fn main(mut args: Args) -> Result<()> {
    let lives = args.counts("live", "1M,10M")?;
    let batch = usize::try_from(args.count("batch", 32)?)?;
    let modes = match args.text("mode", "both").as_str() {
        "one" => vec![Mode::One],
        "batch" => vec![Mode::Batch(batch)],
        "both" => vec![Mode::Batch(batch), Mode::One],
        other => return Err(format!("--mode is one, batch or both, not {other:?}").into()),
    };
    let options = Options {
        rounds: usize::try_from(args.count("rounds", 16)?)?,
        batch,
        peers: args.words("peer", "hashbrown,hashbrown-digests-first"),
        dir: args.data_dir()?,
        csv: args.path("csv"),
        per_mille: args.count("duplicates-per-mille", 20)?,
        warm: args.count("warm", 2)?,
        charge_background: args.flag("charge-background")?,
        timing: if args.flag("cpu-time")? { Timing::Cpu } else { Timing::Wall },
        modes,
    };
    args.finish()?;
    for live in lives {
        compare(live, &options)?;
    }
    Ok(())
}

fn compare(live: u64, options: &Options) -> Result<()> {
    let mut stream = Stream::new(SEED, live, options.per_mille, Repeat::Window);
    let len = stream.part(CHUNKS);
    let mut chunk = Chunk::default();
    let mut answers = vec![false; len];
    // Once, so that the buffers are in memory before the first contestant's memory is measured.
    stream.clone().fill(len, &mut chunk);
    let mut lanes = Vec::new();
    let names = std::iter::once("onceonly").chain(options.peers.iter().map(String::as_str));
    let mut warmed = stream.clone();
    for name in names {
        let (lane, end) = warm_up(name, live, options, stream.clone(), &mut chunk, &mut answers)?;
        lanes.push(lane);
        warmed = end;
    }
    stream = warmed;
    let modes = options.modes.len();
    for round in 0..options.rounds * modes {
        stream.fill(len, &mut chunk);
        // Shifted every window, so that no mode has all the rotations.
        let mode = (round + round / CHUNKS as usize) % modes;
        for turn in 0..lanes.len() {
            let at = (round / modes + turn) % lanes.len();
            lanes[at].time(&chunk, mode, options, &mut answers);
        }
    }
    report(live, options, &lanes)?;
    report_memory(live, options, &lanes, options.csv.as_deref())
}

fn warm_up(
    name: &str,
    live: u64,
    options: &Options,
    mut stream: Stream,
    chunk: &mut Chunk,
    answers: &mut [bool],
) -> Result<(Lane, Stream)> {
    let before = Resident::now()?;
    let mut lane = Lane {
        contestant: contestants::build(name, live, &options.dir)?,
        samples: vec![Vec::new(); options.modes.len()],
        missed: 0,
        invented: 0,
        asked: 0,
        resident: Resident::default(),
    };
    while stream.new_keys() < options.warm * live {
        stream.fill(answers.len(), chunk);
        let mode = Mode::Batch(options.batch);
        contestants::run(&*lane.contestant, chunk, mode, Timing::Wall, answers);
        lane.check(chunk, answers);
    }
    lane.contestant.settle();
    lane.resident = Resident::now()?.since(before);
    Ok((lane, stream))
}

impl Lane {
    fn time(&mut self, chunk: &Chunk, mode: usize, options: &Options, answers: &mut [bool]) {
        let start = Instant::now();
        let (contestant, mode_run) = (&*self.contestant, options.modes[mode]);
        let mut took = contestants::run(contestant, chunk, mode_run, options.timing, answers);
        // Never while another contestant is timed: that would charge it with this one's work.
        self.contestant.settle();
        if options.charge_background {
            took = start.elapsed();
        }
        self.samples[mode].push(took.as_nanos() as f64 / answers.len() as f64);
        self.check(chunk, answers);
    }

    fn check(&mut self, chunk: &Chunk, answers: &[bool]) {
        let (missed, invented) = chunk.check(answers);
        self.missed += missed;
        self.invented += invented;
        self.asked += answers.len() as u64;
    }
}

fn report(live: u64, options: &Options, lanes: &[Lane]) -> Result<()> {
    for (index, mode) in options.modes.iter().enumerate() {
        let title = format!(
            "{} live keys, {}, {:.1} % duplicates, ns per key{}",
            shown(live),
            mode.shown(),
            options.per_mille as f64 / 10.0,
            match (options.charge_background, options.timing) {
                (true, _) => ", background work included",
                (false, Timing::Wall) => "",
                (false, Timing::Cpu) => ", time on the core",
            },
        );
        let head = ["contestant", "median", "mean", "p10", "p90", "ratio", "missed", "invented"];
        let mut table = Table::new(title, &head);
        for lane in lanes {
            let samples = &lane.samples[index];
            table.row([
                lane.contestant.name().to_owned(),
                ns(median(samples)),
                ns(mean(samples)),
                ns(quantile(samples, 0.1)),
                ns(quantile(samples, 0.9)),
                times(ratio(samples, &lanes[0].samples[index])),
                lane.missed.to_string(),
                lane.invented.to_string(),
            ]);
        }
        table.show(options.csv.as_deref())?;
    }
    if lanes[0].missed + lanes[0].invented > 0 {
        return Err("the engine gave wrong answers".into());
    }
    Ok(())
}

fn report_memory(live: u64, options: &Options, lanes: &[Lane], csv: Option<&Path>) -> Result<()> {
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
    table.show(csv)?;
    for line in lanes.iter().flat_map(|lane| lane.contestant.details()) {
        say(format_args!("    {line}"))?;
    }
    Ok(())
}
