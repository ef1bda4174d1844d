//! System calls that fail at their n-th time, once or for ever, by `strace -e inject`. Needs strace.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use onceonly::{Builder, Claim, Dedup};

use crate::args::Args;
use crate::common::ops::Level;

/// The calls, and at how many of their times they fail.
const CALLS: [(&str, &str, u64); 11] = [
    ("fsync", "EIO", 24),
    ("fdatasync", "EIO", 16),
    ("msync", "EIO", 12),
    ("fallocate", "ENOSPC", 12),
    ("rename", "EIO", 10),
    ("openat", "EMFILE", 40),
    ("mmap", "ENOMEM", 40),
    ("pwrite64", "EIO", 24),
    ("write", "ENOSPC", 12),
    ("unlink", "EIO", 8),
    ("flock", "EINTR", 2),
];
const OPERATIONS: u64 = 60;

pub(crate) fn run(args: &Args) -> Result<()> {
    // A sample of the points, every `step`-th; 1 takes them all.
    let (step, seed) = (args.number::<u64>("step", 1)?, args.number::<u64>("seed", 0)?);
    let work = tempfile::Builder::new().prefix("onceonly-calls").tempdir_in("/dev/shm")?;
    let (mut points, mut failed) = (0, 0);
    for (number, (call, error, times)) in CALLS.into_iter().enumerate() {
        for level in Level::ALL {
            for time in 1..=times {
                for for_ever in [false, true] {
                    points += 1;
                    let point = points + seed + number as u64;
                    if !point.is_multiple_of(step) {
                        continue;
                    }
                    let when = if for_ever { format!("{time}+") } else { time.to_string() };
                    let fault = format!("inject={call}:error={error}:when={when}");
                    failed += run_one(level, work.path(), &fault)
                        .with_context(|| format!("{level:?}, {fault}"))?;
                }
            }
        }
    }
    println!("calls: {} points of {points}, {failed} operations failed, 0 wrong", points / step);
    Ok(())
}

fn builder(level: Level) -> Builder {
    Dedup::builder()
        .window(Duration::from_secs(3600))
        .expected_keys(1_000)
        .shards(2)
        .durability(level.durability())
}

fn key(operation: u64) -> String {
    format!("key-{operation}")
}

fn batch(operation: u64) -> Vec<String> {
    (0..200).map(|n| format!("key-{operation}-{n}")).collect()
}

/// Runs the child under strace, and checks what it left. Returns how many operations failed.
fn run_one(level: Level, work: &Path, fault: &str) -> Result<u64> {
    let directory = tempfile::tempdir_in(work)?;
    let (store, told) = (directory.path().join("store"), directory.path().join("told"));
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", fault])
        .arg(std::env::current_exe()?)
        .arg("calls-child")
        .args(["--store".as_ref(), store.as_os_str(), "--told".as_ref(), told.as_os_str()])
        .args(["--level", &(level as u64).to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    // The runtime panics where it cannot map the signal stack of a thread, before any of our code.
    let ours = ["panicked at src/", "panicked at campaigns/"];
    ensure!(!ours.iter().any(|place| complaint.contains(place)), "{complaint}");
    // The loader or the runtime may have failed before there was anything to judge.
    let Ok(told) = fs::read(&told) else { return Ok(0) };
    let store = builder(level).open(&store)?;
    for (operation, answer) in (0..).zip(&told) {
        let live = match operation % 3 {
            0 => store.contains_batch(&batch(operation))?.into_iter().all(|live| live),
            _ => store.contains(key(operation))?,
        };
        match answer {
            b'+' => ensure!(live, "operation {operation} was acknowledged and is lost"),
            b'-' => ensure!(!live, "operation {operation} got an error, and is marked"),
            _ => {}
        }
    }
    for n in 0..20 {
        ensure!(!store.contains(format!("fresh-{n}"))?, "a fresh key is a duplicate");
    }
    store.close()?;
    Ok(told.iter().filter(|answer| **answer == b'-').count() as u64)
}

/// Carries out operations whatever fails, and leaves what it was told: `+` marked, `-` an error,
/// `?` not known.
pub(crate) fn child(args: &Args) -> Result<()> {
    let level = Level::ALL[args.number::<usize>("level", 0)?];
    let mut told = Vec::new();
    let Ok(store) = builder(level).open(args.text("store")?) else { return Ok(()) };
    for operation in 0..OPERATIONS {
        let answer = |done: bool| if done { b'+' } else { b'-' };
        told.push(match operation % 3 {
            0 => answer(store.observe_batch(&batch(operation)).is_ok()),
            1 => answer(store.observe(key(operation)).is_ok()),
            _ => match store.claim(key(operation)) {
                Ok(Claim::Granted(guard)) => answer(guard.commit().is_ok()),
                _ => b'-',
            },
        });
        if operation % 7 == 6 {
            let back = operation - 2;
            // The first of the batch, or the key.
            let forgotten = if back.is_multiple_of(3) {
                store.forget(&batch(back)[0])
            } else {
                store.forget(key(back))
            };
            told[back as usize] = match forgotten {
                Ok(_) if back.is_multiple_of(3) => b'?',
                Ok(_) => b'-',
                Err(_) => told[back as usize],
            };
        }
    }
    store.settle();
    let _ = store.close();
    // Whatever fails: this file has to be written.
    for _ in 0..3 {
        if fs::write(args.text("told")?, &told).is_ok() {
            break;
        }
    }
    Ok(())
}
