//! What a store costs as it grows: time per key, memory, disk and bytes written in the steady
//! state, and the time to open it again. Each size is a process of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::args::{Args, Result, shown};
use crate::contestants::{self, Contestant, Mode, Store};
use crate::keys::{Chunk, Repeat, Stream};
use crate::machine::Timing;
use crate::memory::Resident;
use crate::report::{Table, median, ns, say};
use crate::{memory, reopen};

const SEED: u64 = 0x6709_7411;
const CHUNKS: u64 = 8;
/// No more keys in memory at a time than this.
const CHUNK_KEYS: usize = 4_000_000;
const BATCH: usize = 32;
const DIGEST: f64 = 16.0;

const HEAD: [&str; 10] = [
    "live",
    "batch_ns",
    "one_ns",
    "resident_bytes",
    "mapped_bytes",
    "disk_bytes",
    "written_bytes",
    "write_amplification",
    "open_clean_ms",
    "open_killed_ms",
];

pub(crate) fn main(mut args: Args) -> Result<()> {
    let lives = args.counts("live", "1M,10M,100M")?;
    let more = args.count("more", 200_000)?;
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let title = "growth: bytes are per live key (resident: what cannot be given back; mapped: with \
                 sealed files, which can), written ones per new key; opening is up to the first \
                 answer";
    let mut table = Table::new(title, &HEAD);
    for live in lives {
        say(format_args!("{} live keys", shown(live)))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("growth-child").args(["--live", &live.to_string()]).arg("--dir").arg(&dir);
        let output = command.stderr(Stdio::inherit()).output()?;
        let text = String::from_utf8(output.stdout)?;
        if !output.status.success() {
            return Err(format!("{} live keys: {}", shown(live), output.status).into());
        }
        let fields: Vec<f64> = text.split_whitespace().flat_map(str::parse).collect();
        let [batch, one, resident, mapped, disk, written] = fields[..] else {
            return Err(text.into());
        };
        let opened =
            reopen::measure(live, more.min(live), "all", &dir, &[(false, false), (true, false)])?;
        table.row([
            live.to_string(),
            ns(batch),
            ns(one),
            format!("{resident:.2}"),
            format!("{mapped:.2}"),
            format!("{disk:.2}"),
            format!("{written:.1}"),
            format!("{:.2}", written / DIGEST),
            format!("{:.1}", opened[0].sum_ms()),
            format!("{:.1}", opened[1].sum_ms()),
        ]);
    }
    table.show(csv.as_deref())
}

/// Fills a window and a quarter, then measures another eighth or less by each call.
pub(crate) fn child(mut args: Args) -> Result<()> {
    let live = args.count("live", 0)?;
    let dir = args.data_dir()?;
    args.finish()?;
    let mut stream = Stream::new(SEED, live, 20, Repeat::Window);
    let len = stream.part(CHUNKS).min(CHUNK_KEYS);
    let mut chunk = Chunk::default();
    let mut answers = vec![false; len];
    stream.clone().fill(len, &mut chunk);
    let before = Resident::now()?;
    let store = Store::open(live, &dir)?;
    let mut run = |stream: &mut Stream, mode| -> Result<f64> {
        stream.fill(len, &mut chunk);
        let took = contestants::run(&store, &chunk, mode, Timing::Wall, &mut answers);
        match chunk.check(&answers) {
            (0, 0) => Ok(took.as_nanos() as f64 / len as f64),
            (missed, invented) => Err(format!("{missed} missed, {invented} invented").into()),
        }
    };
    while stream.new_keys() < live + live / 4 {
        run(&mut stream, Mode::Batch(BATCH))?;
    }
    store.settle();
    let (mut batch, mut one) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        batch.push(run(&mut stream, Mode::Batch(BATCH))?);
        store.settle();
        one.push(run(&mut stream, Mode::One)?);
        store.settle();
    }
    // What is dirty is written back in the end, or is deleted before.
    std::thread::sleep(Duration::from_secs(1));
    let held = Resident::now()?.since(before);
    let per_key = |bytes: u64| bytes as f64 / live as f64;
    let written = memory::bytes_written()? as f64 / stream.new_keys() as f64;
    say(format_args!(
        "{} {} {} {} {} {written}",
        median(&batch),
        median(&one),
        per_key(store.told_memory_bytes().unwrap_or(held.anonymous)),
        per_key(held.files),
        per_key(store.disk_bytes())
    ))
}
