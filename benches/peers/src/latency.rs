//! Latency of single observes at an offered rate, on the machine's own clock, across rotations and
//! sealing. Every key has a time at which it is due, and its latency counts from then: a stall makes
//! all keys late that were due in it (no coordinated omission).
//!
//! The same thread is the hiccup meter. Between two keys it does nothing but read the clock until
//! the next is due; how late it notices is a stall that the engine has no part in. The meter cannot
//! see stalls within a call, so what it shows is less than what the machine did: the difference
//! charges the engine with the rest.

mod watch;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use onceonly::{Dedup, Timestamp, Verdict};

use crate::args::{Args, Result, shown};
use crate::keys::{Chunk, Repeat, Stream};
use crate::machine;
use crate::report::{Table, say};
use watch::Watch;

const SEED: u64 = 0x1a7e_9c10;
/// Calls as slow as this are listed one by one.
const SLOW_NS: u64 = 200_000;
const LISTED: usize = 12;
/// How often the time off the core is read, between two keys.
const OFF_CORE_EVERY: Duration = Duration::from_millis(10);
/// The part by which the window is longer than the keys in it take.
const ROOM: f64 = 0.05;
const INTERVAL_NS: u64 = 100_000_000;

struct Slow {
    at_ns: u64,
    service_ns: u64,
    late_ns: u64,
    off_core_ns: u64,
}

struct Measured {
    /// From due to done.
    latency: Histogram<u64>,
    /// From called to done.
    service: Histogram<u64>,
    meter: Histogram<u64>,
    slow: Vec<Slow>,
    /// The longest latency and the longest hiccup of each interval.
    over_time: Vec<Interval>,
    wrong: u64,
    /// When the first key was due, by two clocks.
    start: (Instant, SystemTime),
}

/// Zero where nothing was measured: no key was due, or there was no time to wait for one.
#[derive(Clone, Copy, Default)]
struct Interval {
    late_ns: u64,
    hiccup_ns: u64,
}

pub(crate) fn main(mut args: Args) -> Result<()> {
    let live = args.count("live", 10_000_000)?;
    let rate = args.count("rate", 1_000_000)?;
    let seconds = args.count("seconds", 30)?;
    let pinned = args.flag("pin")?;
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let (dir, store) = open(live, rate, &dir)?;
    let watch = Watch::start(dir.path(), Duration::from_nanos(INTERVAL_NS));
    // After the other threads were started: those are free to use the other cores.
    if pinned {
        machine::pin(*machine::cores()?.last().ok_or("no core")?)?;
    }
    let warm = usize::try_from(live + live / 4)?;
    let len = warm + usize::try_from(rate * seconds)?;
    let mut chunk = Chunk::default();
    Stream::new(SEED, live, 20, Repeat::Window).fill(len, &mut chunk);
    let measured = drive(&store, &chunk, warm, rate)?;
    report(&measured, live, rate, &store, csv.as_deref())?;
    let seen = watch.end()?;
    if let Some(path) = &csv {
        over_time(&measured, &store, &seen, path)?;
    }
    store.close()?;
    drop(dir);
    // Keys that come late by more than the room in the window are not repetitions any longer.
    let room = Duration::from_secs_f64(live as f64 / rate as f64 * ROOM);
    if Duration::from_nanos(measured.latency.max()) > room {
        return Err(format!("fell behind by more than {room:.1?}: take a lower --rate").into());
    }
    if measured.wrong == 0 { Ok(()) } else { Err("the engine gave wrong answers".into()) }
}

fn open(live: u64, rate: u64, dir: &Path) -> Result<(tempfile::TempDir, Dedup)> {
    let dir = tempfile::Builder::new().prefix("latency-").tempdir_in(dir)?;
    // A little longer than `live` keys take, so that the oldest repetitions are safely within.
    let window = Duration::from_secs_f64(live as f64 / rate as f64 * (1.0 + ROOM));
    let store = Dedup::builder().window(window).expected_keys(live).open(dir.path())?;
    Ok((dir, store))
}

fn drive(store: &Dedup, chunk: &Chunk, warm: usize, rate: u64) -> Result<Measured> {
    let histogram = || Histogram::new_with_max(60_000_000_000, 3);
    let mut measured = Measured {
        latency: histogram()?,
        service: histogram()?,
        meter: histogram()?,
        slow: Vec::with_capacity(1 << 16),
        over_time: vec![Interval::default(); chunk.keys.len() * 10 / usize::try_from(rate)? + 1024],
        wrong: 0,
        start: (Instant::now(), SystemTime::now()),
    };
    let period_ns = 1_000_000_000 / rate;
    let mut off_core = OffCore::open()?;
    measured.start = (Instant::now(), SystemTime::now());
    let start = measured.start.0;
    let now_ns = || start.elapsed().as_nanos() as u64;
    let mut next_look = 0;
    for (index, (key, &right)) in chunk.keys.iter().zip(&chunk.repeated).enumerate() {
        let due = index as u64 * 1_000_000_000 / rate;
        let mut begin = now_ns();
        let idle = begin < due;
        if idle && begin >= next_look {
            off_core.since_last();
            next_look = begin + OFF_CORE_EVERY.as_nanos() as u64;
            begin = now_ns();
        }
        while begin < due {
            begin = now_ns();
        }
        let verdict = store.observe(key)?;
        let end = now_ns();
        measured.wrong += u64::from((verdict == Verdict::Duplicate) != right);
        if index < warm {
            continue;
        }
        let interval = &mut measured.over_time[(due / INTERVAL_NS) as usize];
        if idle {
            measured.meter.record_correct(begin - due, period_ns)?;
            interval.hiccup_ns = interval.hiccup_ns.max(begin - due);
        }
        let (late, service) = (end - due, end - begin);
        measured.latency.saturating_record(late);
        measured.service.saturating_record(service);
        interval.late_ns = interval.late_ns.max(late);
        if service >= SLOW_NS && measured.slow.len() < measured.slow.capacity() {
            let off_core_ns = off_core.since_last();
            measured.slow.push(Slow {
                at_ns: due,
                service_ns: service,
                late_ns: late,
                off_core_ns,
            });
        }
    }
    Ok(measured)
}

/// How long this thread was ready to run and did not: another had its core.
struct OffCore {
    file: File,
    last_ns: u64,
}

impl OffCore {
    fn open() -> Result<Self> {
        let mut this = OffCore { file: File::open("/proc/thread-self/schedstat")?, last_ns: 0 };
        this.since_last();
        Ok(this)
    }

    fn since_last(&mut self) -> u64 {
        let mut text = [0; 96];
        let len = self.file.read_at(&mut text, 0).unwrap_or(0);
        let text = str::from_utf8(&text[..len]).unwrap_or_default();
        let field = text.split_whitespace().nth(1).and_then(|field| field.parse().ok());
        let now = field.unwrap_or(self.last_ns);
        now - std::mem::replace(&mut self.last_ns, now)
    }
}

fn report(m: &Measured, live: u64, rate: u64, store: &Dedup, csv: Option<&Path>) -> Result<()> {
    let title = format!("{} live keys, {} observes a second, us", shown(live), shown(rate));
    let head = ["percentile", "latency", "service", "hiccup meter", "net latency"];
    let mut table = Table::new(title, &head);
    let us = |ns: u64| format!("{:.2}", ns as f64 / 1000.0);
    for percentile in [50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0] {
        let at = |histogram: &Histogram<u64>| histogram.value_at_percentile(percentile);
        let (latency, meter) = (at(&m.latency), at(&m.meter));
        table.row([
            if percentile < 100.0 { percentile.to_string() } else { "max".to_owned() },
            us(latency),
            us(at(&m.service)),
            us(meter),
            us(latency.saturating_sub(meter)),
        ]);
    }
    table.show(csv)?;
    let mut slow: Vec<&Slow> = m.slow.iter().collect();
    slow.sort_by_key(|call| std::cmp::Reverse(call.service_ns));
    let title = format!("slowest of {} calls above {} us", m.slow.len(), SLOW_NS / 1000);
    let head = ["at, s", "service, us", "of it off the core, us at most", "late, us"];
    let mut table = Table::new(title, &head);
    for call in slow.into_iter().take(LISTED) {
        let at = format!("{:.4}", call.at_ns as f64 / 1e9);
        table.row([at, us(call.service_ns), us(call.off_core_ns), us(call.late_ns)]);
    }
    table.show(None)?;
    let stats = store.stats();
    say(format_args!(
        "    keys live {}, wrong answers {}, false positives {:.2e}, parts {:?}",
        stats.keys_live,
        m.wrong,
        stats.false_positive_rate,
        stats.slices.iter().map(|slice| slice.sealed_parts).collect::<Vec<_>>()
    ))
}

/// The longest latency of each tenth of a second, and what went on in it, for a picture.
fn over_time(m: &Measured, store: &Dedup, seen: &[(Instant, usize)], path: &Path) -> Result<()> {
    let title = "longest latency and longest hiccup of each tenth of a second (0: no time to meter \
                 one), slices begun in it, and sealed files at its end";
    let mut table =
        Table::new(title, &["at_s", "latency_us", "hiccup_us", "slices_begun", "sealed_files"]);
    let us = |ns: u64| format!("{:.2}", ns as f64 / 1000.0);
    let interval_of =
        |ns: u128| usize::try_from(ns / u128::from(INTERVAL_NS)).unwrap_or(usize::MAX);
    let mut begun = vec![0; m.over_time.len()];
    for at in slices_begun(store, m.start.1) {
        if let Some(count) = begun.get_mut(interval_of(at.as_nanos())) {
            *count += 1;
        }
    }
    let mut sealed = vec![None; m.over_time.len()];
    for &(at, files) in seen {
        let at = at.saturating_duration_since(m.start.0);
        if let Some(place) = sealed.get_mut(interval_of(at.as_nanos())) {
            *place = Some(files);
        }
    }
    let first = m.over_time.iter().position(|interval| interval.late_ns > 0).unwrap_or(0);
    let mut files = 0;
    for (index, interval) in m.over_time.iter().enumerate().skip(first) {
        if interval.late_ns == 0 {
            break;
        }
        files = sealed[index].unwrap_or(files);
        table.row([
            format!("{:.1}", (index - first) as f64 * INTERVAL_NS as f64 / 1e9),
            us(interval.late_ns),
            us(interval.hiccup_ns),
            begun[index].to_string(),
            files.to_string(),
        ]);
    }
    table.save(&path.with_file_name("timeline.csv"))
}

/// When slices began since `start`. They are all of one length.
fn slices_begun(store: &Dedup, start: SystemTime) -> Vec<Duration> {
    let slices = store.stats().slices;
    let Some(newest) = slices.last() else { return Vec::new() };
    let start_ns = Timestamp::from(start).as_unix_nanos();
    let (mut at, length) = (newest.start.as_unix_nanos(), newest.end.as_unix_nanos());
    let length = (length - at).max(1);
    let mut begun = Vec::new();
    while at >= start_ns {
        begun.push(Duration::from_nanos((at - start_ns).unsigned_abs()));
        at -= length;
    }
    begun
}
