//! Time from `open` to the first answer, after a clean close and after `kill -9`. Each step is a
//! process of its own. The store runs in event time, so that a few seconds of filling spread the
//! keys over all slices of a window of hours; with `--slices one` it runs on the machine's clock
//! and all keys fall into one slice.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use memmap2::MmapMut;
use onceonly::{Dedup, Timestamp, Verdict};
use rustix::fs::{Advice, fadvise};

use crate::args::{Args, Result, shown};
use crate::keys::{self, Key, mix};
use crate::report::{Table, say};

const SEED: u64 = 0x2e0_9e11;
const WINDOW: Duration = Duration::from_secs(7 * 3600);
/// The part of the window that the keys are spread over; the rest is time to run in.
const SPREAD: Duration = Duration::from_secs(6 * 3600);
const BATCH: usize = 1024;
const ASKED: u64 = 200_000;

pub(crate) fn main(mut args: Args) -> Result<()> {
    let live = args.count("live", 100_000_000)?;
    let more = args.count("more", 2_000_000)?;
    let slices = args.text("slices", "all");
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let title = format!("{} live keys, {slices} slices, ms", shown(live));
    let head = ["after", "open", "first answer", "sum", "then 400k answers, ns each"];
    let mut table = Table::new(title, &head);
    let cases = [(false, false), (false, true), (true, false), (true, true)];
    for opened in measure(live, more, &slices, &dir, &cases)? {
        table.row([
            opened.after.clone(),
            format!("{:.2}", opened.open_ms),
            format!("{:.3}", opened.first_ms),
            format!("{:.2}", opened.sum_ms()),
            format!("{:.0}", opened.each_ns),
        ]);
    }
    table.show(csv.as_deref())
}

/// One opening.
pub(crate) struct Opened {
    after: String,
    open_ms: f64,
    first_ms: f64,
    each_ns: f64,
}

impl Opened {
    pub(crate) fn sum_ms(&self) -> f64 {
        self.open_ms + self.first_ms
    }
}

/// Fills a store and opens it for each of the cases: after a kill or not, with a cold page cache or
/// a warm one. Those after a kill come last.
pub(crate) fn measure(
    live: u64,
    more: u64,
    slices: &str,
    dir: &Path,
    cases: &[(bool, bool)],
) -> Result<Vec<Opened>> {
    let dir = tempfile::Builder::new().prefix("reopen-").tempdir_in(dir)?;
    let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    let steps = Steps { dir: dir.path(), live, begun, slices };
    say(format_args!("{}", steps.run("build", live)?.trim_end()))?;
    let mut total = live;
    let mut all = Vec::new();
    for &(killed, cold) in cases {
        if killed {
            total = steps.kill(total, more)?;
        }
        if cold {
            drop_cache(dir.path())?;
        }
        let cache = if cold { "nothing in the page cache" } else { "page cache warm" };
        let after = if killed { "kill -9" } else { "clean close" };
        let answer = steps.run("ask", total)?;
        let mut lines = answer.lines();
        let fields: Vec<f64> =
            lines.next().unwrap_or_default().split(' ').flat_map(str::parse).collect();
        let [open_ms, first_ms, each_ns] = fields[..] else { return Err(answer.into()) };
        all.push(Opened { after: format!("{after}, {cache}"), open_ms, first_ms, each_ns });
        for line in lines {
            say(format_args!("    {after}: {line}"))?;
        }
    }
    Ok(all)
}

struct Steps<'a> {
    dir: &'a Path,
    live: u64,
    /// When the run began, in milliseconds: the newest key of the first filling.
    begun: u64,
    slices: &'a str,
}

impl Steps<'_> {
    fn command(&self, phase: &str, total: u64) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("reopen-child").args(["--phase", phase, "--slices", self.slices]);
        command.args(["--live", &self.live.to_string(), "--total", &total.to_string()]);
        command.args(["--begun", &self.begun.to_string()]).arg("--dir").arg(self.dir);
        Ok(command)
    }

    fn run(&self, phase: &str, total: u64) -> Result<String> {
        let output = self.command(phase, total)?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{phase}: {}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Lets a process insert on top of `total` keys and kills it in the middle. Returns how many
    /// keys were acknowledged by then.
    fn kill(&self, total: u64, more: u64) -> Result<u64> {
        fs::write(self.dir.join("acknowledged"), total.to_ne_bytes())?;
        let mut child = self.command("insert", total)?.spawn()?;
        let acknowledged = || -> Result<u64> {
            let bytes = fs::read(self.dir.join("acknowledged"))?;
            Ok(u64::from_ne_bytes(bytes[..8].try_into()?))
        };
        while acknowledged()? < total + more {
            if let Some(status) = child.try_wait()? {
                return Err(format!("insert: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill()?;
        child.wait()?;
        acknowledged()
    }
}

/// Takes the store's files out of the page cache.
fn drop_cache(dir: &Path) -> Result<()> {
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                let file = File::open(entry.path())?;
                file.sync_all()?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}

struct Phase {
    live: u64,
    total: u64,
    begun: u64,
    event_time: bool,
}

pub(crate) fn child(mut args: Args) -> Result<()> {
    let phase = args.text("phase", "");
    let event_time = args.text("slices", "all") == "all";
    let (live, total) = (args.count("live", 0)?, args.count("total", 0)?);
    let this = Phase { live, total, begun: args.count("begun", 0)?, event_time };
    let dir = args.data_dir()?;
    args.finish()?;
    match phase.as_str() {
        "build" => this.build(&dir),
        "insert" => this.insert(&dir),
        "ask" => this.ask(&dir),
        other => Err(format!("no phase is named {other:?}").into()),
    }
}

impl Phase {
    fn open(&self, dir: &Path) -> Result<Dedup> {
        let builder = Dedup::builder().window(WINDOW).expected_keys(self.live);
        Ok(builder.event_time(self.event_time).open(dir.join("store"))?)
    }

    /// When the key was: evenly over the hours before the run began, then at its beginning.
    fn time(&self, index: u64) -> Timestamp {
        let to_go = self.live.saturating_sub(index) as f64 / self.live as f64;
        let before_ms = (to_go * SPREAD.as_millis() as f64) as i64;
        Timestamp::from_unix_millis(self.begun as i64 - before_ms)
    }

    /// Whether all the keys were new.
    fn insert_batch(&self, store: &Dedup, from: u64, len: u64) -> Result<bool> {
        let timed = |index| (keys::key(SEED, index), self.time(index));
        let batch: Vec<(Key, Timestamp)> = (from..from + len).map(timed).collect();
        let verdicts = if self.event_time {
            store.observe_batch_at(&batch)
        } else {
            store.observe_batch(&batch.iter().map(|(key, _)| *key).collect::<Vec<_>>())
        };
        let verdicts = verdicts.map_err(|e| e.into_parts().1)?;
        Ok(verdicts.iter().all(|&verdict| verdict == Verdict::New))
    }

    fn build(&self, dir: &Path) -> Result<()> {
        let store = self.open(dir)?;
        let start = Instant::now();
        for from in (0..self.live).step_by(BATCH) {
            if !self.insert_batch(&store, from, (BATCH as u64).min(self.live - from))? {
                return Err(format!("a key from {from} on was known before it came").into());
            }
        }
        let filled = start.elapsed();
        store.close()?;
        let closed = start.elapsed() - filled;
        let per_key = filled.as_nanos() as f64 / self.live as f64;
        say(format_args!(
            "filled: {per_key:.1} ns per key with key generation, closed in {closed:.1?}"
        ))
    }

    /// Inserts until it is killed, and notes after each batch how far it has come.
    fn insert(&self, dir: &Path) -> Result<()> {
        let file = File::options().read(true).write(true).open(dir.join("acknowledged"))?;
        // SAFETY: the file is a few bytes long, never truncated, and only ever read by others.
        let mut acknowledged = unsafe { MmapMut::map_mut(&file) }?;
        let store = self.open(dir)?;
        for from in (self.total..).step_by(BATCH) {
            // The process killed before may have been in the middle of the first batch.
            if !self.insert_batch(&store, from, BATCH as u64)? && from != self.total {
                return Err(format!("a key from {from} on was known before it came").into());
            }
            acknowledged[..8].copy_from_slice(&(from + BATCH as u64).to_ne_bytes());
        }
        Ok(())
    }

    fn ask(&self, dir: &Path) -> Result<()> {
        let start = Instant::now();
        let store = self.open(dir)?;
        let opened = start.elapsed();
        // The oldest key: it lies in a slice sealed long ago.
        let first = store.contains(keys::key(SEED, 0))?;
        let answered = start.elapsed() - opened;
        let recovery = store.stats().recovery;
        let asked = Instant::now();
        let mut wrong = u64::from(!first);
        for draw in 0..ASKED {
            // The newest ones, which only the journal may hold, as often as all others.
            let index = match draw % 2 {
                0 => mix(draw) % self.total,
                _ => self.total - 1 - mix(draw) % self.total.min(1_000_000),
            };
            wrong += u64::from(!store.contains(keys::key(SEED, index))?);
            wrong += u64::from(store.contains(keys::key(!SEED, draw))?);
        }
        let each = asked.elapsed().as_nanos() as f64 / (2 * ASKED) as f64;
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        say(format_args!("{} {} {each}", ms(opened), ms(answered)))?;
        say(format_args!("wrong answers {wrong}; {recovery:?}"))?;
        store.close()?;
        if wrong == 0 { Ok(()) } else { Err(format!("{wrong} wrong answers").into()) }
    }
}
