//! Two threads on two cores against one thread on one core, in batches. Each variant is a process
//! of its own, bound before it starts a thread, so that the single thread shares its core with the
//! background work; the processes take turns, and only one works at a time. The timed part ends
//! when the background work is done.

use std::io::{BufRead, BufReader, Write, stdin};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::{Args, Result, shown};
use crate::contestants::{self, Contestant};
use crate::keys::{Chunk, Repeat, Stream};
use crate::machine;
use crate::report::{Table, median, ns, ratio, say, times};

const SEED: u64 = 0x5ca1_1e00;

pub(crate) fn main(mut args: Args) -> Result<()> {
    let live = args.count("live", 10_000_000)?;
    let rounds = args.count("rounds", 24)?;
    let batch = args.count("batch", 32)?;
    let dir = args.data_dir()?;
    let peers = args.words("peer", "hashbrown,hashbrown-digests-first");
    let csv = args.path("csv");
    args.finish()?;
    let cores = machine::cores()?;
    let last = *cores.last().ok_or("no core")?;
    if cores.len() < 2 {
        return Err("two cores are needed".into());
    }
    let mut variants = Vec::new();
    for name in std::iter::once("onceonly").chain(peers.iter().map(String::as_str)) {
        for threads in [1, 2] {
            variants.push(Variant::start(name, threads, last, live, batch, &dir)?);
        }
    }
    for _ in 0..rounds {
        for variant in &mut variants {
            variant.round()?;
        }
    }
    let title = format!("{} live keys, batches of {batch}, ns per key", shown(live));
    let head = ["contestant", "one thread, one core", "two threads", "ratio", "two, to onceonly"];
    let mut table = Table::new(title, &head);
    for pair in variants.chunks_exact(2) {
        table.row([
            pair[0].name.clone(),
            ns(median(&pair[0].samples)),
            ns(median(&pair[1].samples)),
            times(ratio(&pair[0].samples, &pair[1].samples)),
            times(ratio(&pair[1].samples, &variants[1].samples)),
        ]);
    }
    table.show(csv.as_deref())?;
    variants.into_iter().try_for_each(Variant::stop)
}

/// A process that waits to be told to run the next chunk.
struct Variant {
    name: String,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    samples: Vec<f64>,
}

impl Variant {
    fn start(
        name: &str,
        threads: usize,
        core: usize,
        live: u64,
        batch: u64,
        dir: &Path,
    ) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("scaling-child").args(["--peer", name]).arg("--dir").arg(dir);
        command.args(["--threads", &threads.to_string(), "--live", &live.to_string()]);
        command.args(["--batch", &batch.to_string()]);
        if threads == 1 {
            command.args(["--pin", &core.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().expect("piped");
        let from = BufReader::new(child.stdout.take().expect("piped"));
        let mut variant = Variant { name: name.to_owned(), child, to, from, samples: Vec::new() };
        variant.answer()?;
        Ok(variant)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            return Err(format!("the process of {} has ended", self.name).into());
        }
        Ok(line)
    }

    fn round(&mut self) -> Result<()> {
        self.to.write_all(b"go\n")?;
        let sample = self.answer()?.trim().parse()?;
        self.samples.push(sample);
        Ok(())
    }

    fn stop(mut self) -> Result<()> {
        drop(self.to);
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.name).into()) }
    }
}

/// The process of one variant: a line on stdin is a chunk to run, the answer is ns per key.
pub(crate) fn child(mut args: Args) -> Result<()> {
    let live = args.count("live", 0)?;
    let batch = usize::try_from(args.count("batch", 32)?)?;
    let threads = usize::try_from(args.count("threads", 1)?)?;
    let name = args.text("peer", "onceonly");
    let core = args.count("pin", u64::MAX)?;
    let dir = args.data_dir()?;
    args.finish()?;
    if let Ok(core) = usize::try_from(core)
        && core != usize::MAX
    {
        machine::pin(core)?;
    }
    let contestant = contestants::build(&name, live, &dir)?;
    let mut stream = Stream::new(SEED, live, 20, Repeat::EarlierChunks);
    let (len, mut chunk) = (stream.part(2), Chunk::default());
    let mut run = |stream: &mut Stream| {
        stream.fill(len, &mut chunk);
        let (took, answers) = run_threads(&*contestant, &chunk, batch, threads);
        match chunk.check(&answers) {
            (0, 0) => Ok(took.as_nanos() as f64 / len as f64),
            (missed, invented) => Err(format!("{missed} missed, {invented} invented")),
        }
    };
    while stream.new_keys() < 2 * live {
        run(&mut stream)?;
    }
    say(format_args!("ready"))?;
    for line in stdin().lines() {
        line?;
        say(format_args!("{}", run(&mut stream)?))?;
    }
    Ok(())
}

/// Each thread takes its part of every tick; the first also moves the clock.
fn run_threads(
    contestant: &dyn Contestant,
    chunk: &Chunk,
    batch: usize,
    threads: usize,
) -> (Duration, Vec<bool>) {
    let mut answers = vec![false; chunk.keys.len()];
    let mut parts: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    let mut rest = answers.as_mut_slice();
    for tick in &chunk.ticks {
        let share = tick.range.len().div_ceil(threads).next_multiple_of(batch);
        for (thread, keys) in chunk.keys[tick.range.clone()].chunks(share).enumerate() {
            let answers;
            (answers, rest) = rest.split_at_mut(keys.len());
            parts[thread].push((tick.now, keys, answers));
        }
    }
    let start = Instant::now();
    thread::scope(|scope| {
        for (thread, part) in parts.into_iter().enumerate() {
            scope.spawn(move || {
                for (now, keys, answers) in part {
                    if thread == 0 {
                        contestant.advance(now);
                    }
                    contestant.observe_batches(keys, batch, answers);
                }
            });
        }
    });
    contestant.settle();
    (start.elapsed(), answers)
}
