//! The server stands still for ten seconds (`kill -STOP`) amid a stream: what callers see, and when the
//! throughput is back.

use std::time::{Duration, Instant};

use onceonly::{Dedup, Ownership};
use rustix::process::{Pid, Signal, kill_process};

use super::keys;
use super::sides::{Kind, Server, wait_until_written};
use crate::args::{Args, Result};
use crate::contestants::stores::Tables;
use crate::memory;
use crate::report::{Table, median};

const DEADLINE: Duration = Duration::from_millis(250);
const SETTLED: Duration = Duration::from_secs(3);
const BIN: Duration = Duration::from_millis(100);
/// Messages at a time.
const BATCH: u64 = 100;
/// Of all messages, this share repeats one of the last batches.
const REPEATED: u64 = 10;

/// What a call did.
struct Call {
    ended: Instant,
    took: Duration,
    answered: u64,
}

pub(crate) fn run<T: Tables>(mut args: Args, kind: Kind) -> Result<()> {
    let stop = Duration::from_secs(args.count("seconds", 10)?);
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let title = format!(
        "{} stands still for {stop:?}; deadline of a call {} ms",
        kind.name(),
        DEADLINE.as_millis()
    );
    let head = [
        "server",
        "ownership",
        "answered_a_s_before",
        "meanwhile",
        "longest_call_ms",
        "back_after_ms",
        "wrong",
        "errors",
    ];
    let mut table = Table::new(title, &head);
    for ownership in [Ownership::Exclusive, Ownership::Shared] {
        let server = Server::<T>::start(kind, &dir)?;
        let store_dir = tempfile::Builder::new().prefix("store-").tempdir_in(&dir)?;
        let builder = server.stores(4_000_000, ownership)?.authority_deadline(DEADLINE);
        let store = builder.open(store_dir.path())?;
        let pid = server.tables.server_pid().ok_or("no server")?;
        let row = stream(&store, pid, stop)?;
        if ownership == Ownership::Exclusive {
            wait_until_written(&store)?;
        }
        let [before, meanwhile, longest, back, wrong, errors] = row;
        let name = kind.name().to_owned();
        table.row([
            name,
            format!("{ownership:?}"),
            before,
            meanwhile,
            longest,
            back,
            wrong,
            errors,
        ]);
        store.close()?;
    }
    table.show(csv.as_deref())
}

/// A stream at full speed, bounded so that an exclusive store does not outgrow its plan.
fn stream(store: &Dedup, server: u32, stop: Duration) -> Result<[String; 6]> {
    let begun = Instant::now();
    let (stopped, resumed) = (begun + SETTLED, begun + SETTLED + stop);
    let (mut is_stopped, mut is_resumed) = (false, false);
    let (mut calls, mut next, mut wrong, mut errors) = (Vec::new(), 0_u64, 0_u64, 0_u64);
    let mut retry: Option<u64> = None;
    while Instant::now() < resumed + SETTLED {
        let now = Instant::now();
        if !is_stopped && now >= stopped {
            signal(server, Signal::STOP)?;
            is_stopped = true;
        }
        if !is_resumed && now >= resumed {
            signal(server, Signal::CONT)?;
            is_resumed = true;
        }
        // What was answered by an error comes again, as a queue would have it.
        let first = retry.take().unwrap_or(next);
        let repeat = first >= BATCH && (first / BATCH).is_multiple_of(REPEATED);
        let from = if repeat { first - BATCH } else { first };
        let began = Instant::now();
        match store.observe_batch(&keys(from..from + BATCH)) {
            Ok(verdicts) => {
                // An error may have marked some of them, at the server only: told `New` to this store's
                // own token when it asks again.
                let seen = verdicts.iter().filter(|v| **v == onceonly::Verdict::Duplicate).count();
                wrong += if repeat { BATCH - seen as u64 } else { seen as u64 };
                let ended = Instant::now();
                calls.push(Call { ended, took: ended - began, answered: BATCH });
                next = first + BATCH;
            }
            Err(_) => {
                errors += 1;
                let ended = Instant::now();
                calls.push(Call { ended, took: ended - began, answered: 0 });
                retry = Some(first);
            }
        }
        // At most a million messages in each second.
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(summary(&calls, [begun, stopped, resumed], wrong, errors))
}

/// To all processes of the server: each connection may have one.
fn signal(server: u32, signal: Signal) -> Result<()> {
    for pid in memory::processes(server)? {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no process")?;
        kill_process(pid, signal)?;
    }
    Ok(())
}

fn summary(
    calls: &[Call],
    [begun, stopped, resumed]: [Instant; 3],
    wrong: u64,
    errors: u64,
) -> [String; 6] {
    let rates = |from: Instant, to: Instant| -> Vec<f64> {
        let bins = ((to - from).as_nanos() / BIN.as_nanos()) as usize;
        let mut counts = vec![0.0; bins];
        for call in calls.iter().filter(|call| call.ended >= from) {
            let bin = ((call.ended - from).as_nanos() / BIN.as_nanos()) as usize;
            if let Some(count) = counts.get_mut(bin) {
                *count += call.answered as f64 / BIN.as_secs_f64();
            }
        }
        counts
    };
    let before = median(&rates(begun + SETTLED / 3, stopped));
    let meanwhile = median(&rates(stopped + BIN, resumed));
    let after = rates(resumed, resumed + SETTLED);
    let back = after.iter().position(|rate| *rate >= before / 2.0);
    let longest = calls.iter().map(|call| call.took).max().unwrap_or_default();
    [
        format!("{before:.0}"),
        format!("{meanwhile:.0}"),
        format!("{:.0}", longest.as_secs_f64() * 1e3),
        back.map_or("never".to_owned(), |bins| format!("{}", (bins as u128 + 1) * BIN.as_millis())),
        wrong.to_string(),
        errors.to_string(),
    ]
}
