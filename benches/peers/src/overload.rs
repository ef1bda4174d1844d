//! A stream many times as large as planned, beside the same stream in a store that was planned for
//! it, chunk by chunk from empty: how far the one falls behind the other, and when it is back.

use std::path::Path;
use std::time::Instant;

use crate::args::{Args, Result, shown};
use crate::contestants::{self, Contestant, Mode, Store};
use crate::keys::{Chunk, Repeat, Stream};
use crate::machine::Timing;
use crate::report::{Table, median, ns, say, times};

const SEED: u64 = 0x07e1_10ad;
const CHUNKS: u64 = 40;
const BATCH: usize = 32;
const WINDOWS: u64 = 2;

/// One chunk of one round.
struct Step {
    keys: u64,
    right: f64,
    small: f64,
    filter_for: u64,
    rebuilding: u64,
}

pub(crate) fn main(mut args: Args) -> Result<()> {
    let planned = args.count("planned", 1_000_000)?;
    let live = planned * args.count("times", 10)?;
    let rounds = args.count("rounds", 7)?.max(1);
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let title = format!(
        "{} live keys in a store planned for {}, beside one planned for them; ns per key, medians of \
         {rounds} rounds",
        shown(live),
        shown(planned)
    );
    let head = ["keys", "planned_right", "planned_small", "throughput", "filter_for", "rebuilding"];
    let mut table = Table::new(title, &head);
    let rounds: Vec<Vec<Step>> =
        (0..rounds).map(|_| round(live, planned, &dir)).collect::<Result<_>>()?;
    // Throughput by chunk, with the size of the filter and whether it is being rebuilt in any round.
    let mut all: Vec<(f64, u64, bool)> = Vec::new();
    for at in 0..rounds[0].len() {
        let steps = || rounds.iter().map(|round| &round[at]);
        let middle = |of: fn(&Step) -> f64| median(&steps().map(of).collect::<Vec<_>>());
        let share = middle(|step| step.right / step.small);
        let filter_for = steps().map(|step| step.filter_for).min().unwrap_or_default();
        let rebuilding = steps().map(|step| step.rebuilding).max().unwrap_or_default();
        all.push((share, filter_for, rebuilding > 0));
        table.row([
            rounds[0][at].keys.to_string(),
            ns(middle(|step| step.right)),
            ns(middle(|step| step.small)),
            times(share),
            filter_for.to_string(),
            rebuilding.to_string(),
        ]);
    }
    table.show(csv.as_deref())?;
    conclude(&all)
}

/// Both stores from empty, a new pair each time: a chunk is too short to be trusted to one timing.
fn round(live: u64, planned: u64, dir: &Path) -> Result<Vec<Step>> {
    let right = Store::open(live, dir)?;
    let small = Store::open_planned(live, planned, dir)?;
    let mut stream = Stream::new(SEED, live, 20, Repeat::Window);
    let len = stream.part(CHUNKS);
    let (mut chunk, mut answers) = (Chunk::default(), vec![false; len]);
    let mut steps: Vec<Step> = Vec::new();
    while stream.new_keys() < WINDOWS * live {
        stream.fill(len, &mut chunk);
        let turn = steps.len() % 2;
        let mut took = [0.0; 2];
        for at in [turn, 1 - turn] {
            let store = [&right, &small][at];
            let mode = Mode::Batch(BATCH);
            let time = contestants::run(store, &chunk, mode, Timing::Wall, &mut answers);
            took[at] = time.as_nanos() as f64 / len as f64;
            if chunk.check(&answers) != (0, 0) {
                return Err("wrong answers".into());
            }
        }
        // Neither waits for its background work here: a rebuild is to be seen while it runs.
        let stats = small.dedup().stats();
        steps.push(Step {
            keys: stream.new_keys(),
            right: took[0],
            small: took[1],
            filter_for: stats.filter_capacity,
            rebuilding: stats.filters_rebuilding,
        });
    }
    let settled = Instant::now();
    small.settle();
    say(format_args!("    settled in {:.1?}", settled.elapsed()))?;
    Ok(steps)
}

fn conclude(all: &[(f64, u64, bool)]) -> Result<()> {
    let worst = all.iter().map(|chunk| chunk.0).fold(f64::INFINITY, f64::min);
    // Rebuilt for the last time.
    let last = all.last().map_or(0, |chunk| chunk.1);
    let rebuilt = all.iter().filter(|&&(_, size, rebuilding)| size == last && !rebuilding);
    let after: Vec<f64> = rebuilt.map(|chunk| chunk.0).collect();
    say(format_args!(
        "    throughput, as a part of that of the store planned right: {} at worst (wanted: 0.5), \
         {} once rebuilt (wanted: 0.7; median of {} chunks)",
        times(worst),
        times(median(&after)),
        after.len()
    ))
}
