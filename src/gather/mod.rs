//! What all threads and stores ask of one authority, gathered into as few calls as possible.
//!
//! One thread an authority makes the calls. While one is under way, whatever is asked meanwhile waits, and
//! goes into the next one together: no artificial delay, and no call that could have been spared. The
//! thread reads the forget logs too, and has the circuit breaker.

mod breaker;
mod call;
mod legacy;
mod own;
mod request;
mod space;

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::authority::{
    Acquire, Acquired, Appended, Authority, AuthorityError, Bucket, Dialect, Opened, Row,
    RowAnswer, RowOp, SliceInfo, Statement, StoredChunk,
};
use crate::stats::AuthorityStats;
use crate::storage::Origin;
use breaker::Breaker;
use call::{LEAST_SHARE, Worker};
use own::Owning;
pub(crate) use own::{Leaving, Outgoing, Want};
use request::Request;
pub(crate) use request::Step;
use request::{Ask, Reply};
use space::Space;
pub(crate) use space::Terms;

/// Requests that wait for the next call; who comes then waits for room, up to his deadline.
const MOST_WAITING: usize = 8_192;
/// How much longer than its deadline a call is waited for that has begun.
const GRACE: Duration = Duration::from_secs(1);

/// Why the authority did not say.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// It may have been applied.
    pub(crate) undecided: bool,
    pub(crate) error: Arc<AuthorityError>,
}

impl Failure {
    fn new(error: AuthorityError) -> Self {
        let undecided = matches!(error, AuthorityError::Undecided(_));
        Failure { undecided, error: Arc::new(error) }
    }

    fn not_sent(why: impl Into<String>) -> Self {
        Failure::new(AuthorityError::transient(why.into()))
    }
}

impl Failure {
    /// An earlier call for the key was not told what became of it.
    pub(crate) fn never_answered() -> Self {
        let why =
            "an earlier call for the key got no reply: observe or claim it, which settles that";
        Failure::new(AuthorityError::undecided(why))
    }

    /// What was asked for cannot be had, however often.
    pub(crate) fn refused(why: &str) -> Self {
        Failure::new(AuthorityError::refused(why))
    }

    /// The epoch that was asked with is not the owner's.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(&*self.error, AuthorityError::StaleEpoch { .. })
    }

    /// What was asked before may not be so any more.
    pub(crate) fn restarted() -> Self {
        Failure::not_sent("the server was restarted")
    }

    /// It was not sent in time.
    pub(crate) fn no_turn() -> Self {
        Failure::not_sent("it did not come to its turn within the deadline")
    }

    /// Who asked is gone, and was told nothing.
    pub(crate) fn nobody_waits() -> Self {
        Failure::new(AuthorityError::undecided("nobody waits for the answer any more"))
    }

    /// Others were asking for the same key, or it was changed all the time.
    pub(crate) fn waited_too_long() -> Self {
        Failure::not_sent("other calls for the same key took too long")
    }
}

/// Who hears of what the authority tells by itself.
pub(crate) trait Watcher: Send + Sync {
    /// Digests that were forgotten, maybe elsewhere. False when what is known of one of them still counts
    /// here: then they come again.
    fn forgotten(&self, digests: &[crate::authority::Digest]) -> bool;

    /// The server may have lost what it knew: it has another incarnation.
    fn lost(&self, incarnation: u64);

    /// The space was opened, for the first time or after the server may have lost something.
    fn opened(&self, opened: &Opened);

    /// An owner says what it wants. With `heard` at least that it is heard of.
    fn wants(&self, heard: bool) -> Want;

    /// What became of what was to be written; says whether there is more.
    fn wrote(&self, outgoing: &Arc<Outgoing>, answer: Result<Appended, Failure>) -> bool;

    /// What became of the owner that wants to be it again.
    fn acquired(&self, answer: Result<Acquired, Failure>);
}

/// The thread of one authority, and the way to it.
struct Gatherer {
    /// The process that it runs in.
    origin: Origin,
    authority: Arc<dyn Authority>,
    requests: Sender<Request>,
    state: Arc<State>,
}

/// What the thread shares with those who ask.
#[derive(Default)]
struct State {
    breaker: Breaker,
    spaces: Mutex<Vec<Weak<Space>>>,
    last_error: Mutex<Option<String>>,
}

/// One store's end of the way to its authority.
#[derive(Clone)]
pub(crate) struct Link {
    gatherer: Arc<Gatherer>,
    space: Arc<Space>,
}

/// The gatherer of `authority`: one for all stores that were opened with the same one.
fn gatherer(authority: &Arc<dyn Authority>) -> std::io::Result<Arc<Gatherer>> {
    static ALL: OnceLock<Mutex<Vec<Weak<Gatherer>>>> = OnceLock::new();
    let mut all = ALL.get_or_init(Mutex::default).lock();
    all.retain(|gatherer| gatherer.strong_count() > 0);
    let is_it = |gatherer: &Arc<Gatherer>| {
        // A forked child has none of its parent's threads.
        gatherer.authority.identity() == authority.identity() && gatherer.origin.mark() != 0
    };
    if let Some(gatherer) = all.iter().filter_map(Weak::upgrade).find(is_it) {
        return Ok(gatherer);
    }
    let origin = Origin::here(1)?;
    let (requests, received) = bounded(MOST_WAITING);
    let state = Arc::new(State::default());
    let worker = Worker::new(Arc::clone(authority), received, Arc::clone(&state));
    std::thread::Builder::new()
        .name("onceonly-authority".to_owned())
        .spawn(move || worker.run())?;
    let authority = Arc::clone(authority);
    let gatherer = Arc::new(Gatherer { origin, authority, requests, state });
    all.push(Arc::downgrade(&gatherer));
    Ok(gatherer)
}

impl Link {
    pub(crate) fn new(authority: &Arc<dyn Authority>, terms: Terms) -> std::io::Result<Self> {
        let gatherer = gatherer(authority)?;
        let space = Arc::new(Space::new(terms));
        gatherer.state.spaces.lock().push(Arc::downgrade(&space));
        Ok(Link { gatherer, space })
    }

    /// Says who hears of what the authority tells by itself.
    pub(crate) fn watch(&self, watcher: Weak<dyn Watcher>) {
        self.space.watch(watcher);
    }

    /// From here on what the owner has is written.
    pub(crate) fn begin_writing(&self) {
        self.space.begin_writing();
        // Wakes the thread, which has to know how soon.
        let _ = self.gatherer.requests.try_send(Request::Flush(bounded(1).0));
    }

    /// Nothing is written any more.
    pub(crate) fn end_writing(&self) {
        self.space.end_writing();
    }

    pub(crate) fn acquire(&self, request: Acquire) -> Result<Acquired, Failure> {
        let space = Arc::clone(&self.space);
        self.demand(|to| Request::Owning(Owning::Acquire(space, Box::new(request), to)))
    }

    pub(crate) fn leave(&self, leaving: Leaving) -> Result<(), Failure> {
        self.demand(|to| Request::Owning(Owning::Leave(Arc::clone(&self.space), leaving, to)))
    }

    pub(crate) fn slices(&self) -> Result<Vec<SliceInfo>, Failure> {
        self.demand(|to| Request::Owning(Owning::Slices(Arc::clone(&self.space), to)))
    }

    pub(crate) fn read(&self, buckets: Vec<Bucket>) -> Result<Vec<Vec<StoredChunk>>, Failure> {
        self.demand(|to| Request::Owning(Owning::Read(Arc::clone(&self.space), buckets, to)))
    }

    /// Has one call made with what the owner has to write, and at least heard of.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        self.demand(|to| Request::Owning(Owning::Write(Arc::clone(&self.space), to)))
    }

    /// What messages call the authority.
    pub(crate) fn name(&self) -> String {
        self.gatherer.authority.name()
    }

    /// The statement that makes one step of a digest inside a transaction of the user's own.
    pub(crate) fn statement(
        &self,
        digest: crate::digest::Digest,
        op: RowOp<'_>,
        dialect: Dialect,
    ) -> Option<Statement> {
        let row = Row { space: &self.space.terms.space, digest: digest.into(), op };
        self.gatherer.authority.statement(&row, dialect)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.space.terms.deadline
    }

    /// Sends a request, and waits for its reply.
    fn demand<T>(
        &self,
        request: impl FnOnce(Sender<Result<T, Failure>>) -> Request,
    ) -> Result<T, Failure> {
        let (reply, replies) = bounded(1);
        let deadline = self.deadline();
        self.send(request(reply), deadline)?;
        match replies.recv_deadline(deadline + GRACE) {
            Ok(answer) => answer,
            Err(_) => Err(Failure::no_turn()),
        }
    }

    fn send(&self, request: Request, deadline: Instant) -> Result<(), Failure> {
        let sent = self.gatherer.requests.send_deadline(request, deadline);
        sent.map_err(|_| Failure::not_sent("more calls wait for it than can be sent"))
    }

    /// Registers the space.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        self.demand(|reply| Request::Open(Arc::clone(&self.space), reply))
    }

    /// Reads the forget log up to its end.
    pub(crate) fn poll(&self) -> Result<(), Failure> {
        self.demand(|reply| Request::Poll(Arc::clone(&self.space), reply))
    }

    /// Waits until all that was posted before was sent, or could not be.
    pub(crate) fn flush(&self) {
        // A failure says that it was not waited for, which is all that can be done.
        let _ = self.demand(Request::Flush);
    }

    /// Has one step made of each digest, which are all different; one answer each, in their order.
    pub(crate) fn rows(&self, steps: Vec<Step>) -> Vec<Result<RowAnswer, Failure>> {
        let len = steps.len();
        let deadline = self.deadline();
        let (reply, replies) = bounded(1);
        let ask = Arc::new(Ask::new(Arc::clone(&self.space), steps, deadline, Some(reply)));
        let all = |failure: Failure| vec![Err(failure); len];
        if let Err(failure) = self.send(Request::Rows(Arc::clone(&ask)), deadline) {
            return all(failure);
        }
        self.wait(&ask, &replies, deadline).unwrap_or_else(all)
    }

    fn wait(
        &self,
        ask: &Ask,
        replies: &Receiver<Reply>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        if let Ok(reply) = replies.recv_deadline(deadline) {
            return Ok(reply);
        }
        if ask.cancel() {
            return Err(Failure::no_turn());
        }
        // Who waited long for his turn is given some more of it.
        let latest = deadline + self.space.terms.deadline / LEAST_SHARE + GRACE;
        replies.recv_deadline(latest).map_err(|_| {
            Failure::new(AuthorityError::undecided("the call did not end by its deadline"))
        })
    }

    /// Has steps made when their turn comes, and waits for nothing. Where too many wait already, they
    /// are not made.
    pub(crate) fn post(&self, steps: Vec<Step>) {
        let ask = Ask::new(Arc::clone(&self.space), steps, self.deadline(), None);
        if self.gatherer.requests.try_send(Request::Rows(Arc::new(ask))).is_err() {
            self.space.counters.count_failed();
        }
    }

    /// Whether what others forgot until the stated lag ago is known here.
    pub(crate) fn is_fresh(&self) -> bool {
        self.space.is_fresh()
    }

    /// From now on the forget log is read from where the space was opened: there is nothing here that it
    /// could tell of.
    pub(crate) fn knows_forgotten(&self, opened: &Opened, asked: Instant) {
        self.space.read_through(opened.forgotten, asked);
    }

    pub(crate) fn stats(&self) -> AuthorityStats {
        let mut stats = self.space.counters.stats();
        stats.breaker = self.gatherer.state.breaker.state();
        stats.waiting = self.gatherer.requests.len() as u64;
        stats.last_error.clone_from(&self.gatherer.state.last_error.lock());
        stats
    }
}
