//! A partition moves: its owner writes what is left and gives the space up, the next one takes it and
//! reads the window, and answers meanwhile.

use std::thread::JoinHandle;
use std::time::Instant;

use onceonly::{Dedup, Ownership};

use super::keys;
use super::sides::{Kind, Server, observe, wait_until_written};
use crate::args::{Args, Result, shown};
use crate::contestants::stores::Tables;
use crate::report::{Table, say};

/// Keys asked for at a time while the window is read.
const STEP: u64 = 1024;

pub(crate) fn run<T: Tables>(mut args: Args, kind: Kind) -> Result<()> {
    let live = args.count("live", 10_000_000)?;
    let rounds = args.count("rounds", 3)?;
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let server = Server::<T>::start(kind, &dir)?;
    let title = format!("a store of {} live keys moves by {}, s", shown(live), kind.name());
    let head =
        ["server", "move", "given_up", "taken", "window_read", "sum", "asked_meanwhile", "wrong"];
    let mut table = Table::new(title, &head);
    let open = || -> Result<_> {
        let dir = tempfile::Builder::new().prefix("store-").tempdir_in(&dir)?;
        Ok((server.stores(live, Ownership::Exclusive)?.open(dir.path())?, dir))
    };
    let (mut here, mut here_dir) = open()?;
    for first in (0..live).step_by(1 << 20) {
        observe(&here, &keys(first..live.min(first + (1 << 20))), 1000)?;
    }
    wait_until_written(&here)?;
    let mut next_new = live;
    for round in 0..rounds {
        // The last moments of the old owner.
        let end = next_new + STEP;
        let wrong = observe(&here, &keys(next_new..end), 32)?.iter().filter(|seen| **seen).count();
        next_new = end;
        let begun = Instant::now();
        here.close()?;
        let given_up = begun.elapsed();
        let (there, there_dir) = open()?;
        let taken = begun.elapsed();
        let reading = std::thread::spawn({
            let there = there.clone();
            move || there.warm_up(|_| ()).map(|()| Instant::now())
        });
        let (asked, not_right) = answer_meanwhile(&there, &reading, live, &mut next_new)?;
        let wrong = wrong + not_right;
        let done = reading.join().map_err(|_| "the reading thread panicked")??;
        let sum = done - begun;
        let seconds = |time: std::time::Duration| format!("{:.2}", time.as_secs_f64());
        table.row([
            kind.name().to_owned(),
            (round + 1).to_string(),
            seconds(given_up),
            seconds(taken - given_up),
            seconds(sum - taken),
            seconds(sum),
            asked.to_string(),
            wrong.to_string(),
        ]);
        let read = there.stats().owner.map_or(0, |owner| owner.keys_read);
        say(format_args!("    {} keys read from the server", shown(read)))?;
        // Everything is known now, without the server.
        let sample: Vec<_> = keys(0..live.min(1 << 20));
        let missed = observe(&there, &sample, 1000)?.iter().filter(|seen| !**seen).count();
        if missed + wrong > 0 {
            return Err(format!("{missed} keys are missed after the move, {wrong} wrong").into());
        }
        (here, here_dir) = (there, there_dir);
    }
    here.close()?;
    drop(here_dir);
    table.show(csv.as_deref())
}

/// Old keys from all over the window, and new ones, while the window is read: how many, and how many
/// answers were wrong.
fn answer_meanwhile<R>(
    store: &Dedup,
    reading: &JoinHandle<R>,
    live: u64,
    next_new: &mut u64,
) -> Result<(u64, usize)> {
    let (mut asked, mut wrong) = (0, 0);
    while !reading.is_finished() {
        let from = (asked * 7919 * STEP) % (live - STEP);
        let old = observe(store, &keys(from..from + STEP), 32)?;
        let new = observe(store, &keys(*next_new..*next_new + STEP), 32)?;
        wrong += old.iter().filter(|seen| !**seen).count();
        wrong += new.iter().filter(|seen| **seen).count();
        *next_new += STEP;
        asked += 2 * STEP;
    }
    Ok((asked, wrong))
}
