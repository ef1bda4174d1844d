//! The process that is killed: workers that take and cancel orders, and the schedule that finds what
//! was left half done.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use onceonly::Dedup;

use crate::database::Place;
use crate::machine::State;
use crate::saga::{Desk, Saga, Taken};

/// Short, so that stuck workers are found while others live.
const LEASE: Duration = Duration::from_millis(200);
const WORKERS: u64 = 2;

/// Arguments of the command `work`.
#[derive(Clone, Debug, clap::Args)]
pub struct Work {
    #[command(flatten)]
    pub place: Place,
    /// Orders are numbered from zero.
    #[arg(long)]
    pub orders: i64,
    #[arg(long)]
    pub seed: u64,
    /// No new commands: only bring to an end what was begun.
    #[arg(long)]
    pub drain: bool,
}

pub(crate) fn open_store(dir: &Path) -> onceonly::Result<Dedup> {
    let builder = Dedup::builder().window(Duration::from_secs(3600)).lease(LEASE);
    builder.lock_wait(Duration::from_secs(10)).open(dir.join("store"))
}

/// Now and then slower than the lease.
fn hesitate() {
    if fastrand::u32(..400) == 0 {
        thread::sleep(2 * LEASE);
    }
}

/// Runs until it is killed; with `drain` until nothing is in flight.
pub fn work(work: &Work) -> Result<()> {
    let dedup = open_store(&work.place.dir)?;
    if work.drain {
        let (saga, mut desk) = (Saga::new(dedup.clone(), || {}), Desk::open(&work.place)?);
        while !dedup.claims()?.is_empty() {
            saga.recover(&mut desk)?;
            thread::sleep(Duration::from_millis(10));
        }
        return Ok(dedup.close()?);
    }
    let saga = &Saga::new(dedup, hesitate);
    thread::scope(|scope| {
        let mut threads = vec![scope.spawn(|| schedule(saga, &work.place))];
        for worker in 0..WORKERS {
            threads.push(scope.spawn(move || command(saga, work, worker)));
        }
        for thread in threads {
            thread.join().expect("no thread panics")?;
        }
        Ok(())
    })
}

fn schedule(saga: &Saga, place: &Place) -> Result<()> {
    let mut desk = Desk::open(place)?;
    loop {
        saga.recover(&mut desk)?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// Commands come repeated and in any order.
fn command(saga: &Saga, work: &Work, worker: u64) -> Result<()> {
    let mut desk = Desk::open(&work.place)?;
    let mut rng = fastrand::Rng::with_seed(work.seed * WORKERS + worker);
    loop {
        let order = rng.i64(0..work.orders);
        if rng.u8(0..3) == 0 {
            desk.shop.cancel(order)?;
        } else if saga.take(&mut desk, order)? == Taken::Paid {
            let state = desk.shop.look(order)?.map(|(_, state)| state);
            ensure!(state == Some(State::Paid), "order {order} is refused as paid: {state:?}");
        }
    }
}
