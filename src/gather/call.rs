//! The thread of an authority: gathers what waits, makes the call, hands out the answers.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::legacy::LegacyAsk;
use super::request::{Ask, Reply, Request};
use super::space::Space;
use super::{Failure, State};
use crate::authority::{
    Answers, Authority, AuthorityError, Digest, Opened, Result as Told, Row, Server,
};
use crate::telemetry::{CallMeters, events};

/// Rows of one call; a request with more has a call of its own.
const MOST_ROWS: usize = 4_096;
/// Requests that may wait for the call after the next.
const MOST_DEFERRED: usize = 256;
/// Whoever has waited long for his turn is still given this part of his deadline.
pub(super) const LEAST_SHARE: u32 = 4;
/// Longest sleep, in case a clock does what it should not.
const LONGEST_REST: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    authority: Arc<dyn Authority>,
    received: Receiver<Request>,
    state: Arc<State>,
    incarnation: Option<u64>,
    /// Requests with a digest that an earlier one of the same call had.
    deferred: VecDeque<Arc<Ask>>,
    /// To be done when everything before it is.
    after: Option<Request>,
    /// Keys of before that are asked for next.
    pub(super) legacy: Vec<LegacyAsk>,
    meters: CallMeters,
    /// What messages call the authority.
    name: String,
}

/// What goes into the next call.
#[derive(Default)]
struct Gathered {
    asks: Vec<Arc<Ask>>,
    rows: usize,
    /// Digests of the call, and those that have to wait for the next.
    taken: HashSet<(Arc<str>, Digest)>,
}

impl Gathered {
    /// Takes a request in; gives it back when one of its digests is there already.
    fn add(&mut self, ask: Arc<Ask>) -> Option<Arc<Ask>> {
        let name = &ask.space.terms.space;
        let key = |digest| (Arc::clone(name), digest);
        let clashes = ask.steps.iter().any(|step| self.taken.contains(&key(step.digest)));
        let full = self.rows > 0 && self.rows + ask.steps.len() > MOST_ROWS;
        // Also those of a request that waits: what came later with the same digest stays behind it.
        self.taken.extend(ask.steps.iter().map(|step| key(step.digest)));
        if clashes || full {
            return Some(ask);
        }
        self.rows += ask.steps.len();
        self.asks.push(ask);
        None
    }
}

impl Worker {
    pub(super) fn new(
        authority: Arc<dyn Authority>,
        received: Receiver<Request>,
        state: Arc<State>,
    ) -> Self {
        let (deferred, after, legacy) = (VecDeque::new(), None, Vec::new());
        let (meters, name) = (CallMeters::default(), authority.name());
        Worker {
            authority,
            received,
            state,
            incarnation: None,
            deferred,
            after,
            legacy,
            meters,
            name,
        }
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self) {
        loop {
            let mut gathered = Gathered::default();
            let waiting: Vec<_> = self.deferred.drain(..).collect();
            self.deferred.extend(waiting.into_iter().filter_map(|ask| gathered.add(ask)));
            if gathered.asks.is_empty() && self.after.is_none() {
                match self.received.recv_timeout(self.rest()) {
                    Ok(request) => self.sort_in(request, &mut gathered),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            while gathered.rows < MOST_ROWS
                && self.deferred.len() < MOST_DEFERRED
                && self.after.is_none()
            {
                let Ok(request) = self.received.try_recv() else { break };
                self.sort_in(request, &mut gathered);
            }
            self.ask_legacy();
            self.make_call(gathered.asks);
            if self.deferred.is_empty()
                && let Some(request) = self.after.take()
            {
                self.serve(request);
            }
            self.read_due();
            self.write_due();
        }
    }

    fn sort_in(&mut self, request: Request, gathered: &mut Gathered) {
        match request {
            Request::Rows(ask) => self.deferred.extend(gathered.add(ask)),
            Request::Legacy(ask) => self.legacy.push(ask),
            other => self.after = Some(other),
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Rows(ask) => self.deferred.push_back(ask),
            Request::Legacy(ask) => self.legacy.push(ask),
            Request::Open(space, reply) => {
                let _ = reply.try_send(self.open_space(&space));
            }
            Request::Poll(space, reply) => {
                let _ = reply.try_send(self.read_forgotten(&space));
            }
            Request::Flush(reply) => {
                let _ = reply.try_send(Ok(()));
            }
            Request::Owning(request) => self.serve_owner(request),
        }
    }

    pub(super) fn spaces(&self) -> Vec<Arc<Space>> {
        let mut spaces = self.state.spaces.lock();
        spaces.retain(|space| space.strong_count() > 0);
        spaces.iter().filter_map(std::sync::Weak::upgrade).collect()
    }

    /// How long nothing is due but what somebody asks for.
    fn rest(&self) -> Duration {
        let rest = self.spaces().iter().filter_map(|space| space.rest()).min();
        let rest = rest.unwrap_or(LONGEST_REST).min(LONGEST_REST);
        match self.state.breaker.admits() {
            Ok(()) => rest,
            Err(left) => rest.max(left),
        }
    }

    /// Reads the forget logs whose turn has come; opens spaces again of which the server knows nothing.
    fn read_due(&mut self) {
        for space in self.spaces() {
            if self.state.breaker.admits().is_ok() && space.reading_is_due() {
                // What failed is counted, and tried again.
                let _ = self.read_forgotten(&space);
            }
        }
    }

    pub(super) fn admit(&self) -> Result<(), Failure> {
        self.state.breaker.admits().map_err(|left| {
            let why = self.state.last_error.lock().clone().unwrap_or_default();
            Failure::not_sent(format!("it failed before ({why}): asked again in {left:?}"))
        })
    }

    /// One call of the client, whatever it does.
    pub(super) fn call<T>(&self, call: impl FnOnce(&dyn Authority) -> Told<T>) -> Told<T> {
        let called = catch_unwind(AssertUnwindSafe(|| call(&*self.authority)));
        let told =
            called.unwrap_or_else(|_| Err(AuthorityError::undecided("its client has panicked")));
        match &told {
            // It has answered.
            Ok(_) | Err(AuthorityError::NotExclusive { .. }) => {
                if self.state.breaker.succeeded() {
                    events::authority_up(&self.name);
                }
            }
            Err(error) => self.note_failure(error),
        }
        told
    }

    fn note_failure(&self, error: &AuthorityError) {
        let cause = std::error::Error::source(error);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        let text = format!("{error}{cause}");
        // A server that refuses is there: one space without rights keeps no other from it.
        if error.is_transient()
            && let Some(pause) = self.state.breaker.failed()
        {
            events::authority_down(&self.name, &text, pause);
        }
        *self.state.last_error.lock() = Some(text);
    }

    /// The server, as it was seen last.
    pub(super) fn incarnation(&self) -> Option<u64> {
        self.incarnation
    }

    /// Notices a server that may have lost something, before anybody hears of its answer.
    pub(super) fn saw(&mut self, server: &Server) -> bool {
        let before = self.incarnation.replace(server.incarnation);
        let lost = before.is_some_and(|before| before != server.incarnation);
        if lost {
            for space in self.spaces() {
                space.set_lost();
                if let Some(watcher) = space.watcher() {
                    watcher.lost(server.incarnation);
                }
            }
        }
        lost
    }

    pub(super) fn open_space(&mut self, space: &Space) -> Result<Opened, Failure> {
        self.admit()?;
        let terms = &space.terms;
        let deadline = Instant::now() + terms.deadline;
        let opened = self.call(|a| a.open(&terms.space, terms.check, deadline));
        let opened = opened.map_err(|error| {
            space.counters.count_failed();
            Failure::new(error)
        })?;
        self.saw(&opened.server);
        if opened.check == terms.check {
            space.set_open();
            if let Some(watcher) = space.watcher() {
                watcher.opened(&opened);
            }
        }
        Ok(opened)
    }

    /// Opens the space where that is to be done still.
    pub(super) fn ensure_open(&mut self, space: &Space) -> Result<(), Failure> {
        if space.is_open() {
            return Ok(());
        }
        let opened = self.open_space(space)?;
        if opened.check == space.terms.check {
            return Ok(());
        }
        let why = "its space was made by stores with another secret or digest";
        Err(Failure::new(AuthorityError::refused(why)))
    }

    /// Reads a forget log up to its end.
    fn read_forgotten(&mut self, space: &Space) -> Result<(), Failure> {
        let asked = Instant::now();
        let mut after = space.begin_reading();
        self.ensure_open(space)?;
        loop {
            self.admit()?;
            let deadline = Instant::now() + space.terms.deadline;
            let answer = self.call(|a| a.forgotten(&space.terms.space, after, deadline));
            let answer = answer.map_err(|error| {
                space.counters.count_failed();
                Failure::new(error)
            })?;
            if self.saw(&answer.server) {
                return Err(Failure::not_sent("the server was restarted"));
            }
            if answer.through < after {
                // The log was lost, and counts anew.
                after = 0;
                continue;
            }
            if !answer.digests.is_empty() {
                space.counters.count_forgotten(answer.digests.len());
                let watcher = space.watcher();
                if watcher.is_some_and(|watcher| !watcher.forgotten(&answer.digests)) {
                    space.set_stale();
                    return Err(Failure::not_sent(
                        "what it says was forgotten cannot be kept here",
                    ));
                }
            }
            after = answer.through;
            space.read_to(after);
            if answer.digests.is_empty() {
                space.read_through(after, asked);
                return Ok(());
            }
        }
    }

    /// Makes one call of what was gathered, and answers.
    fn make_call(&mut self, asks: Vec<Arc<Ask>>) {
        let asks: Vec<_> = asks.into_iter().filter(|ask| ask.take()).collect();
        if asks.is_empty() {
            return;
        }
        let mut open = Vec::with_capacity(asks.len());
        for ask in asks {
            match self.ensure_open(&ask.space).and_then(|()| self.admit()) {
                Ok(()) => open.push(ask),
                Err(failure) => ask.fail(&failure),
            }
        }
        if open.is_empty() {
            return;
        }
        // In the order that servers lock rows in.
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (at, ask) in open.iter().enumerate() {
            order.extend((0..ask.steps.len()).map(|step| (at, step)));
        }
        order.sort_unstable_by_key(|(at, step)| {
            (&open[*at].space.terms.space, open[*at].steps[*step].digest)
        });
        let rows: Vec<Row<'_>> = order
            .iter()
            .map(|(at, step)| {
                let (ask, step) = (&open[*at], &open[*at].steps[*step]);
                Row { space: &ask.space.terms.space, digest: step.digest, op: step.op() }
            })
            .collect();
        match self.ask_twice(&open, &rows) {
            Ok((answers, undecided)) => hand_out(&open, &order, answers, undecided),
            Err(failure) => open.iter().for_each(|ask| ask.fail(&failure)),
        }
    }

    /// Makes the call, and once more where no reply came: the tokens tell the server that it is the
    /// same. Says besides whether the first may have been applied.
    fn ask_twice(
        &mut self,
        asks: &[Arc<Ask>],
        rows: &[Row<'_>],
    ) -> Result<(Answers, bool), Failure> {
        let begun = Instant::now();
        let left = asks.iter().map(|ask| {
            let least = ask.space.terms.deadline / LEAST_SHARE;
            ask.deadline.saturating_duration_since(begun).max(least)
        });
        let left = left.min().unwrap_or_default();
        let first = match self.ask(asks, rows, begun + left / 2) {
            Ok(answers) => return Ok((answers, false)),
            Err(failure) => failure,
        };
        if !first.error.is_transient() || self.admit().is_err() {
            return Err(first);
        }
        match self.ask(asks, rows, begun + left) {
            Ok(answers) => Ok((answers, first.undecided)),
            Err(second) => Err(if first.undecided { first } else { second }),
        }
    }

    fn ask(
        &mut self,
        asks: &[Arc<Ask>],
        rows: &[Row<'_>],
        deadline: Instant,
    ) -> Result<Answers, Failure> {
        let begun = Instant::now();
        let told = self.call(|a| {
            let answers = a.rows(rows, deadline)?;
            match answers.rows.len() == rows.len() {
                true => Ok(answers),
                false => Err(AuthorityError::undecided("its client answered too few rows")),
            }
        });
        self.meters.count(&self.name, rows.len(), begun.elapsed());
        let told = told.map_err(Failure::new);
        let undecided = told.as_ref().is_err_and(|failure| failure.undecided);
        let mut spaces: Vec<(&Arc<Space>, usize)> = Vec::new();
        for ask in asks {
            match spaces.iter_mut().find(|(space, _)| Arc::ptr_eq(space, &ask.space)) {
                Some((_, rows)) => *rows += ask.steps.len(),
                None => spaces.push((&ask.space, ask.steps.len())),
            }
        }
        for (space, rows) in spaces {
            space.counters.count_call(rows, undecided, told.is_err());
        }
        if let Ok(answers) = &told {
            self.saw(&answers.server);
        }
        told
    }
}

/// Gives each request its answers, in the order of its steps.
fn hand_out(asks: &[Arc<Ask>], order: &[(usize, usize)], answers: Answers, undecided: bool) {
    let mut told: Vec<Vec<Option<_>>> =
        asks.iter().map(|ask| vec![None; ask.steps.len()]).collect();
    for ((at, step), answer) in order.iter().zip(answers.rows) {
        let answer = answer.map_err(|error| {
            let mut failure = Failure::new(error);
            failure.undecided |= undecided;
            failure
        });
        told[*at][*step] = Some(answer);
    }
    for (ask, told) in asks.iter().zip(told) {
        // Each step has its answer: as many came as were asked for.
        let told: Reply = told.into_iter().flatten().collect();
        ask.answer(told);
    }
}
