//! The engine with an authority behind it, beside asking the server for every message, in one run. Both
//! have a server of their own, of one kind and with the same settings, and the same stream.
//!
//! Time is taken until the server has acknowledged the last key, not until the last verdict.

mod moving;
mod shared;
mod sides;
mod stopped;

use std::time::{Duration, Instant};

use crate::args::{Args, Result, shown};
use crate::contestants::stores::{Postgres, Redis, Tables};
use crate::keys::{Chunk, Key, Repeat, Stream};
use crate::report::{Table, median, ns, quantile, ratio, say, times};
use sides::{Hybrid, Kind, Plain};

pub(crate) const SEED: u64 = 0x4b1d;
/// Repetitions of a thousand.
pub(crate) const PER_MILLE: u64 = 10;
/// Of the parts of a window that are measured one after the other.
const PARTS: u64 = 10;

pub(crate) fn main(mut args: Args) -> Result<()> {
    match &*args.text("server", "redis") {
        "redis" => run::<Redis>(args, Kind::Redis),
        "postgres" => run::<Postgres>(args, Kind::Postgres),
        other => Err(format!("--server {other} is neither redis nor postgres").into()),
    }
}

fn run<T: Tables>(mut args: Args, kind: Kind) -> Result<()> {
    match &*args.text("what", "exclusive") {
        "exclusive" => exclusive::<T>(args, kind),
        "shared" => shared::run::<T>(args, kind),
        "move" => moving::run::<T>(args, kind),
        "stop" => stopped::run::<T>(args, kind),
        other => Err(format!("--what {other} is none of exclusive, shared, move, stop").into()),
    }
}

/// Times of one way of asking, ns a key.
struct Way {
    name: String,
    took: Vec<f64>,
}

fn exclusive<T: Tables>(mut args: Args, kind: Kind) -> Result<()> {
    let live = args.count("live", 10_000_000)?;
    let rounds = args.count("rounds", 8)?;
    let batch = args.count("batch", 32)? as usize;
    let single = args.count("single", 20_000)? as usize;
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let sizes: &[usize] = match kind {
        Kind::Redis => &[1, 100],
        Kind::Postgres => &[1000],
    };
    let hybrid = Hybrid::<T>::exclusive(live, kind, &dir)?;
    let plain = Plain::<T>::open(live, &dir)?;
    let mut stream = Stream::new(SEED, live, 0, Repeat::Window);
    let (mut chunk, mut answers) = (Chunk::default(), Vec::new());
    while stream.new_keys() < live {
        stream.fill(stream.part(PARTS), &mut chunk);
        check(&chunk, &hybrid.run(&chunk.keys, 1000)?)?;
        check(&chunk, &plain.run(&chunk.keys, 1000)?)?;
    }
    let bytes = [hybrid.server_bytes()? / live as f64, plain.server_bytes()? / live as f64];
    stream.set_per_mille(PER_MILLE);
    let before = hybrid.asked();
    let mut ways = vec![Way { name: format!("onceonly, batches of {batch}"), took: Vec::new() }];
    ways.extend(sizes.iter().map(|size| Way { name: plain.name(*size), took: Vec::new() }));
    let mut messages = 0;
    for round in 0..rounds {
        stream.fill(stream.part(PARTS), &mut chunk);
        messages += chunk.keys.len() as u64;
        for turn in [round % 2, 1 - round % 2] {
            answers.clear();
            if turn == 0 {
                let begun = Instant::now();
                answers = hybrid.run(&chunk.keys, batch)?;
                hybrid.wait_until_written()?;
                ways[0].took.push(per_key(begun, chunk.keys.len()));
            } else {
                // The same keys, a share in each size.
                let mut rest = &chunk.keys[..];
                for (at, &size) in sizes.iter().enumerate() {
                    let share = if size == 1 { single.min(rest.len()) } else { rest.len() };
                    let (now, later) = rest.split_at(share);
                    let begun = Instant::now();
                    answers.extend(plain.run(now, size)?);
                    ways[1 + at].took.push(per_key(begun, share));
                    rest = later;
                }
            }
            check(&chunk, &answers)?;
        }
    }
    let all: Vec<f64> = (0..ways.len()).map(|at| bytes[at.min(1)]).collect();
    table(&ways, &all, kind, live).show(csv.as_deref())?;
    let asked = hybrid.asked().since(before);
    say(format_args!(
        "    {messages} messages: {} keys looked up at the server, {} of the filter's suspicions \
         false, {} duplicates; {} calls, {} keys written, {:.1} to a chunk",
        asked.looked_up,
        asked.false_positives,
        asked.duplicates,
        asked.calls,
        asked.written,
        asked.written as f64 / asked.chunks.max(1) as f64,
    ))
}

fn table(ways: &[Way], bytes: &[f64], kind: Kind, live: u64) -> Table {
    let title = format!(
        "1 % repetitions, {} live keys, until {} has acknowledged the last key; ns a key, medians",
        shown(live),
        kind.name()
    );
    let head = ["server", "way", "median", "p10", "p90", "times", "server_bytes_a_key"];
    let mut table = Table::new(title, &head);
    for (at, way) in ways.iter().enumerate() {
        table.row([
            kind.name().to_owned(),
            way.name.clone(),
            ns(median(&way.took)),
            ns(quantile(&way.took, 0.1)),
            ns(quantile(&way.took, 0.9)),
            times(ratio(&way.took, &ways[0].took)),
            format!("{:.1}", bytes[at]),
        ]);
    }
    table
}

fn per_key(begun: Instant, keys: usize) -> f64 {
    begun.elapsed().as_nanos() as f64 / keys.max(1) as f64
}

/// Every answer of every run is looked at.
fn check(chunk: &Chunk, answers: &[bool]) -> Result<()> {
    match chunk.check(answers) {
        (0, 0) => Ok(()),
        (missed, invented) => {
            Err(format!("wrong answers: {missed} missed, {invented} invented").into())
        }
    }
}

/// Keys of a stream that is not checked by chunks.
pub(crate) fn keys(range: std::ops::Range<u64>) -> Vec<Key> {
    range.map(|index| crate::keys::key(SEED, index)).collect()
}

/// As long as anything of these servers takes that is to end well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
