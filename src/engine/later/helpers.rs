//! Threads of a store that wait in place of futures.
//!
//! They make the calls that any thread would make. What waits for them meanwhile goes into the next call
//! together: a round trip serves all futures that came during the one before.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::reply::Promise;
use super::ticket::Ticket;
use crate::config::OnOutage;
use crate::digest::Digest;
use crate::engine::Engine;
use crate::engine::shared::{Held, Said};
use crate::error::Result;

/// One makes a call, one gathers the next, and two are for keys that others hold up.
const MOST_THREADS: usize = 4;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(10);
/// Keys of one call.
const MOST_KEYS: usize = 4_096;

pub(in crate::engine) struct Helpers {
    state: Mutex<State>,
    come: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

pub(super) enum Job {
    Call(Box<dyn FnOnce() + Send>),
    Decide(Decide),
    Commit(Commit),
}

/// Keys that the authority decides, all different.
pub(super) struct Decide {
    pub(super) engine: Arc<Engine>,
    pub(super) digests: Vec<Digest>,
    /// They are claimed; else observed.
    pub(super) claims: bool,
    pub(super) policy: OnOutage,
    pub(super) ticket: Arc<Ticket>,
    pub(super) asked: Instant,
    pub(super) promise: Promise<Vec<Option<Result<Said>>>>,
}

pub(super) struct Commit {
    pub(super) engine: Arc<Engine>,
    pub(super) held: Held,
    pub(super) asked: Instant,
    pub(super) promise: Promise<Result<()>>,
}

impl Helpers {
    pub(in crate::engine) fn new() -> Arc<Self> {
        Arc::new(Helpers { state: Mutex::default(), come: Condvar::new() })
    }

    /// Has a job done when its turn comes.
    ///
    /// # Errors
    /// The system gives no thread for it.
    pub(super) fn submit(self: &Arc<Self>, job: Job) -> std::io::Result<()> {
        let mut state = self.state.lock();
        state.queue.push_back(job);
        if state.queue.len() > state.idle && state.threads < MOST_THREADS {
            let me = Arc::clone(self);
            let thread = std::thread::Builder::new().name("onceonly-async".to_owned());
            match thread.spawn(move || me.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    state.queue.clear();
                    return Err(error);
                }
                // The others do it.
                Err(_) => {}
            }
        }
        drop(state);
        self.come.notify_one();
        Ok(())
    }

    fn work(&self) {
        loop {
            let mut state = self.state.lock();
            while state.queue.is_empty() {
                state.idle += 1;
                let timeout = self.come.wait_for(&mut state, IDLE);
                state.idle -= 1;
                if timeout.timed_out() && state.queue.is_empty() {
                    state.threads -= 1;
                    return;
                }
            }
            let work = Work::take(&mut state.queue);
            drop(state);
            // The futures hear of a panic by the promises that it drops.
            let _ = catch_unwind(AssertUnwindSafe(|| work.run()));
        }
    }
}

/// What one thread does at once.
enum Work {
    Call(Box<dyn FnOnce() + Send>),
    Decide(Vec<Decide>),
    Commit(Vec<Commit>),
}

impl Work {
    /// Takes what is first, and all that goes with it.
    fn take(queue: &mut VecDeque<Job>) -> Self {
        match queue.pop_front() {
            None => Work::Decide(Vec::new()),
            Some(Job::Call(call)) => Work::Call(call),
            Some(Job::Decide(first)) => {
                let mut taken: HashSet<Digest> = first.digests.iter().copied().collect();
                let terms = (first.claims, first.policy);
                let mut all = vec![first];
                for job in std::mem::take(queue) {
                    match job {
                        Job::Decide(next)
                            if (next.claims, next.policy) == terms
                                && taken.len() + next.digests.len() <= MOST_KEYS
                                && next.digests.iter().all(|digest| !taken.contains(digest)) =>
                        {
                            taken.extend(&next.digests);
                            all.push(next);
                        }
                        other => queue.push_back(other),
                    }
                }
                Work::Decide(all)
            }
            Some(Job::Commit(first)) => {
                let mut taken = HashSet::from([first.held.digest]);
                let mut all = vec![first];
                for job in std::mem::take(queue) {
                    match job {
                        Job::Commit(next)
                            if all.len() < MOST_KEYS && taken.insert(next.held.digest) =>
                        {
                            all.push(next);
                        }
                        other => queue.push_back(other),
                    }
                }
                Work::Commit(all)
            }
        }
    }

    fn run(self) {
        match self {
            Work::Call(call) => call(),
            Work::Decide(all) => decide(all),
            Work::Commit(all) => commit(all),
        }
    }
}

fn decide(all: Vec<Decide>) {
    let Some(first) = all.first() else { return };
    let (engine, claims, policy) = (Arc::clone(&first.engine), first.claims, first.policy);
    let deadline = engine.authority_deadline();
    let mut due = Vec::with_capacity(all.len());
    for job in all {
        if job.ticket.is_gone() {
            continue;
        }
        if job.asked.elapsed() > deadline {
            let too_late = |_: &Digest| Some(Err(engine.came_too_late()));
            let said = job.digests.iter().map(too_late).collect();
            job.promise.keep(said);
            continue;
        }
        due.push(job);
    }
    let (mut digests, mut tickets) = (Vec::new(), Vec::new());
    for job in &due {
        digests.extend(&job.digests);
        tickets.extend(job.digests.iter().map(|_| Arc::clone(&job.ticket)));
    }
    let mut said = engine.decide_for(&digests, claims, policy, &tickets).into_iter();
    for job in due {
        let of_job = said.by_ref().take(job.digests.len()).collect();
        job.promise.keep(of_job);
    }
}

fn commit(all: Vec<Commit>) {
    let Some(first) = all.first() else { return };
    let engine = Arc::clone(&first.engine);
    let deadline = engine.authority_deadline();
    let mut due = Vec::with_capacity(all.len());
    for job in all {
        match job.asked.elapsed() > deadline {
            true => job.promise.keep(Err(engine.came_too_late())),
            false => due.push(job),
        }
    }
    let held: Vec<Held> = due.iter().map(|job| job.held).collect();
    let committed = engine.commit_for(&held);
    for (job, committed) in due.into_iter().zip(committed) {
        job.promise.keep(committed);
    }
}
