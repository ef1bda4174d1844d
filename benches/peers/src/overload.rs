//! A stream many times as large as planned, beside the same stream in a store that was planned for
//! it, chunk by chunk from empty: how far the one falls behind the other, and when it is back.

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

pub(crate) fn main(mut args: Args) -> Result<()> {
    let planned = args.count("planned", 1_000_000)?;
    let live = planned * args.count("times", 10)?;
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let right = Store::open(live, &dir)?;
    let small = Store::open_planned(live, planned, &dir)?;
    let mut stream = Stream::new(SEED, live, 20, Repeat::Window);
    let len = stream.part(CHUNKS);
    let (mut chunk, mut answers) = (Chunk::default(), vec![false; len]);
    let title = format!(
        "{} live keys in a store planned for {}, beside one planned for them; ns per key",
        shown(live),
        shown(planned)
    );
    let head = ["keys", "planned_right", "planned_small", "throughput", "filter_for", "rebuilding"];
    let mut table = Table::new(title, &head);
    // Throughput by chunk, with the size of the filter and whether it is being rebuilt.
    let mut all: Vec<(f64, u64, bool)> = Vec::new();
    while stream.new_keys() < WINDOWS * live {
        stream.fill(len, &mut chunk);
        let turn = all.len() % 2;
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
        let share = took[0] / took[1];
        all.push((share, stats.filter_capacity, stats.filters_rebuilding > 0));
        table.row([
            stream.new_keys().to_string(),
            ns(took[0]),
            ns(took[1]),
            times(share),
            stats.filter_capacity.to_string(),
            stats.filters_rebuilding.to_string(),
        ]);
    }
    table.show(csv.as_deref())?;
    let settled = Instant::now();
    small.settle();
    say(format_args!("    settled in {:.1?}", settled.elapsed()))?;
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
