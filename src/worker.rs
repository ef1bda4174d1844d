//! Background threads, shared by all stores of the process: one for what callers may soon wait for
//! (the next segments), one for sealing, one for long work (merging, rebuilding).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;

use crate::storage::Origin;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Space,
    Seal,
    Bulk,
}

/// What wants to be reminded now and then.
pub(crate) trait Heartbeat: Send + Sync {
    /// Called about once a second; must be quick.
    fn heartbeat(&self);
}

/// What is to be done at an interval of its own.
pub(crate) trait Ticker: Send + Sync {
    /// May take as long as a sync.
    fn tick(&self);
}

const BEAT: Duration = Duration::from_secs(1);

struct Pool {
    /// The process whose threads these are, if the system tells.
    origin: Option<Origin>,
    space: Sender<Job>,
    seal: Sender<Job>,
    bulk: Sender<Job>,
    watched: Mutex<Vec<Weak<dyn Heartbeat>>>,
    tickers: Mutex<Option<Sender<Timed>>>,
    /// That of a child that was forked.
    of_child: OnceLock<Box<Pool>>,
}

impl Pool {
    fn start() -> Self {
        let (space, space_jobs) = unbounded();
        let (seal, seal_jobs) = unbounded();
        let (bulk, bulk_jobs) = unbounded();
        spawn("onceonly-space", space_jobs, false);
        spawn("onceonly-seal", seal_jobs, true);
        spawn("onceonly-merge", bulk_jobs, false);
        Pool {
            origin: Origin::here(1).ok(),
            space,
            seal,
            bulk,
            watched: Mutex::default(),
            tickers: Mutex::default(),
            of_child: OnceLock::new(),
        }
    }
}

/// The threads of this process. A forked child has none of its parent's, so stores that it opens get
/// others.
fn pool() -> &'static Pool {
    static FIRST: OnceLock<Pool> = OnceLock::new();
    let mut pool = FIRST.get_or_init(Pool::start);
    while pool.origin.as_ref().is_some_and(|origin| origin.mark() == 0) {
        pool = pool.of_child.get_or_init(|| Box::new(Pool::start()));
    }
    pool
}

/// Where the system refuses a thread, the receiver is dropped and jobs run in their sender.
fn spawn(name: &str, jobs: Receiver<Job>, beats: bool) {
    let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&jobs, beats));
}

fn work(jobs: &Receiver<Job>, beats: bool) {
    let mut next_beat = Instant::now() + BEAT;
    loop {
        let left = next_beat.saturating_duration_since(Instant::now());
        match jobs.recv_timeout(left) {
            // A job that panics must not take the thread from all other stores.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Instant::now() >= next_beat {
            next_beat = Instant::now() + BEAT;
            if beats {
                beat();
            }
        }
    }
}

fn beat() {
    let watched: Vec<_> = {
        let mut watched = pool().watched.lock();
        watched.retain(|weak| weak.strong_count() > 0);
        watched.iter().filter_map(Weak::upgrade).collect()
    };
    for one in watched {
        let _ = catch_unwind(AssertUnwindSafe(|| one.heartbeat()));
    }
}

/// Runs a job in the background.
pub(crate) fn submit(lane: Lane, job: Job) {
    let sender = match lane {
        Lane::Space => &pool().space,
        Lane::Seal => &pool().seal,
        Lane::Bulk => &pool().bulk,
    };
    if let Err(refused) = sender.send(job) {
        (refused.0)();
    }
}

/// Reminds `one` until it is dropped.
pub(crate) fn watch(one: Weak<dyn Heartbeat>) {
    pool().watched.lock().push(one);
}

struct Timed {
    ticker: Weak<dyn Ticker>,
    interval: Duration,
    due: Instant,
}

/// Has `ticker` called every `interval` until it is dropped, on a thread for all such.
pub(crate) fn tick_every(ticker: Weak<dyn Ticker>, interval: Duration) -> std::io::Result<()> {
    let timed = Timed { ticker, interval, due: Instant::now() + interval };
    let mut tickers = pool().tickers.lock();
    let sender = match &*tickers {
        Some(sender) => sender.clone(),
        None => {
            let (sender, added) = unbounded();
            std::thread::Builder::new()
                .name("onceonly-sync".to_owned())
                .spawn(move || tick_all(&added))?;
            *tickers = Some(sender.clone());
            sender
        }
    };
    sender.send(timed).map_err(|_| std::io::Error::other("the thread that syncs has ended"))
}

fn tick_all(added: &Receiver<Timed>) {
    let mut all: Vec<Timed> = Vec::new();
    loop {
        let next = all.iter().map(|timed| timed.due).min();
        let next = next.unwrap_or_else(|| Instant::now() + BEAT);
        match added.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(timed) => all.push(timed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        all.retain_mut(|timed| {
            let now = Instant::now();
            if timed.due > now {
                return true;
            }
            timed.due = now + timed.interval;
            let Some(ticker) = timed.ticker.upgrade() else { return false };
            let _ = catch_unwind(AssertUnwindSafe(|| ticker.tick()));
            true
        });
    }
}
