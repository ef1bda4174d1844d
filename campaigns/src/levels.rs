//! What the durability levels cost: the disk's bare sync rate, `Sync` one at a time and in batches,
//! `Interval` beside `Process` at an offered rate.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use onceonly::{Dedup, Durability, Verdict};

use crate::args::Args;

const BATCH: usize = 1_000;
/// About what a batch takes in the log.
const BLOCK: usize = 16 * BATCH + 512;

pub(crate) fn run(args: &Args) -> Result<()> {
    let directory = args.text_or("dir", ".");
    let seconds = Duration::from_secs(args.number("seconds", 4)?);
    // `batches`, `single` or `rate`; all of them by default.
    let part = args.text_or("part", "");
    let work = tempfile::Builder::new().prefix("onceonly-levels").tempdir_in(directory)?;
    for round in 1..=args.number("rounds", 2)? {
        println!("round {round}");
        if ["", "batches"].contains(&part) {
            in_batches(work.path(), seconds)?;
        }
        if ["", "single"].contains(&part) {
            one_at_a_time(work.path(), seconds)?;
        }
        if ["", "rate"].contains(&part) {
            at_one_million(work.path(), seconds)?;
        }
    }
    Ok(())
}

/// The bare rate before and after, because disks of virtual machines change their mind.
fn in_batches(work: &Path, seconds: Duration) -> Result<()> {
    let mut before = bare(work, BLOCK, seconds)?;
    println!("  bare sync of {BLOCK} bytes: {before:.0} a second");
    for threads in [1, 2, 4] {
        let (keys, _) = sync(work, threads, BATCH, seconds)?;
        let after = bare(work, BLOCK, seconds)?;
        let share = keys / BATCH as f64 / ((before + after) / 2.0) * 100.0;
        println!(
            "  Sync, batches of {BATCH}, {threads} threads: {keys:.0} keys a second, {share:.0} % of the bare rate ({after:.0} after)"
        );
        before = after;
    }
    Ok(())
}

fn one_at_a_time(work: &Path, seconds: Duration) -> Result<()> {
    println!("  bare sync of 512 bytes: {:.0} a second", bare(work, 512, seconds)?);
    for threads in [1, 16] {
        let (keys, _) = sync(work, threads, 1, seconds)?;
        println!("  Sync, one at a time, {threads} threads: {keys:.0} keys a second");
    }
    Ok(())
}

fn at_one_million(work: &Path, seconds: Duration) -> Result<()> {
    for (name, level) in [
        ("Process", Durability::Process),
        ("Interval(100 ms)", Durability::Interval(Duration::from_millis(100))),
    ] {
        let (offered, cpu) = at_rate(work, level, 1_000_000.0, seconds)?;
        println!("  {name} at {offered:.0} keys a second: {:.1} % of a core", cpu * 100.0);
    }
    Ok(())
}

/// Syncs a second of a file that was written before.
fn bare(work: &Path, block: usize, most: Duration) -> Result<f64> {
    let path = work.join("bare");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    const LEN: u64 = 32 << 20;
    let zeros = vec![0; 1 << 20];
    for at in (0..LEN).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let (bytes, started, mut syncs, mut at) = (vec![7; block], Instant::now(), 0_u64, 0);
    while started.elapsed() < most {
        file.write_all_at(&bytes, at)?;
        file.sync_data()?;
        syncs += 1;
        at = (at + block as u64) % (LEN - block as u64);
    }
    Ok(syncs as f64 / started.elapsed().as_secs_f64())
}

fn open(work: &Path, level: Durability) -> Result<(tempfile::TempDir, Dedup)> {
    let place = tempfile::tempdir_in(work)?;
    let store = Dedup::builder()
        .window(Duration::from_secs(3600))
        .expected_keys(20_000_000)
        .durability(level)
        .open(place.path().join("store"))?;
    Ok((place, store))
}

fn keys(from: u64, count: usize, keys: &mut Vec<[u8; 16]>) {
    keys.clear();
    keys.extend((from..from + count as u64).map(|n| {
        let mut key = *b"order-0000000000";
        key[8..].copy_from_slice(&n.to_be_bytes());
        key
    }));
}

fn sync(work: &Path, threads: u64, batch: usize, most: Duration) -> Result<(f64, u64)> {
    let (_place, store) = open(work, Durability::Sync)?;
    store.settle();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut names, mut verdicts) = (Vec::new(), Vec::new());
                while started.elapsed() < most {
                    keys(next.fetch_add(batch as u64, Relaxed), batch, &mut names);
                    store.observe_batch_into(&names, &mut verdicts).expect("marked");
                    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::New));
                    done.fetch_add(batch as u64, Relaxed);
                }
            });
        }
    });
    let keys = done.load(Relaxed);
    Ok((keys as f64 / started.elapsed().as_secs_f64(), keys))
}

fn cpu_time() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(usage.tv_sec.unsigned_abs(), u32::try_from(usage.tv_nsec).unwrap_or(0))
}

/// Marks at a rate, in batches; the rate that was reached, and the share of a core that it took.
fn at_rate(work: &Path, level: Durability, rate: f64, most: Duration) -> Result<(f64, f64)> {
    let (_place, store) = open(work, level)?;
    store.settle();
    let (mut names, mut verdicts, mut marked) = (Vec::new(), Vec::new(), 0);
    let (started, cpu) = (Instant::now(), cpu_time());
    while started.elapsed() < most {
        keys(marked, BATCH, &mut names);
        store.observe_batch_into(&names, &mut verdicts).map_err(|e| e.into_parts().1)?;
        marked += BATCH as u64;
        let due = Duration::from_secs_f64(marked as f64 / rate);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    let passed = started.elapsed().as_secs_f64();
    Ok((marked as f64 / passed, (cpu_time() - cpu).as_secs_f64() / passed))
}
