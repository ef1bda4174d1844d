//! One server, and stores that each have a wire to it which can be cut.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onceonly::authority::memory::MemoryAuthority;
use onceonly::authority::{
    Acquire, Acquired, Answers, Append, Appended, Authority, AuthorityError, Bucket, Forgotten,
    Opened, Result as Told, Row, SliceInfo, StoredChunk, Token,
};
use onceonly::{Builder, Claim, ClaimGuard, Dedup, ManualClock, Ownership, Timestamp, Verdict};

use crate::common::start;

pub(crate) const WINDOW: Duration = Duration::from_secs(700);
pub(crate) const SLICE: Duration = Duration::from_secs(100);
/// Longer than any test advances the clock at once, where that is not what it is about.
pub(crate) const LEASE: Duration = Duration::from_secs(10_000);
pub(crate) const SPACE: &str = "orders-0";

pub(crate) struct Site {
    pub(crate) clock: ManualClock,
    pub(crate) server: MemoryAuthority,
}

type Then = Box<dyn FnOnce() + Send>;

/// One store's way to the server.
#[derive(Clone)]
pub(crate) struct Wire {
    server: MemoryAuthority,
    cut: Arc<AtomicBool>,
    after_read: Arc<Mutex<Option<Then>>>,
    before_slices: Arc<Mutex<Option<Then>>>,
    /// Of the largest append and the largest chunk, in bytes of data.
    largest: Arc<Mutex<(usize, usize)>>,
}

impl Wire {
    pub(crate) fn cut(&self) {
        self.cut.store(true, SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, SeqCst);
    }

    /// Done once, before the answer to the next read is told.
    pub(crate) fn after_a_read(&self, then: impl FnOnce() + Send + 'static) {
        *self.after_read.lock().unwrap() = Some(Box::new(then));
    }

    /// Done once, before the slices are asked for.
    pub(crate) fn before_slices(&self, then: impl FnOnce() + Send + 'static) {
        *self.before_slices.lock().unwrap() = Some(Box::new(then));
    }

    /// Bytes of the largest append, and of the largest chunk.
    pub(crate) fn largest(&self) -> (usize, usize) {
        *self.largest.lock().unwrap()
    }

    fn server(&self) -> Told<&MemoryAuthority> {
        match self.cut.load(SeqCst) {
            true => Err(AuthorityError::transient("the wire is cut")),
            false => Ok(&self.server),
        }
    }
}

#[rustfmt::skip]
impl Authority for Wire {
    fn name(&self) -> String { self.server.name() }
    fn open(&self, space: &str, check: u64, deadline: Instant) -> Told<Opened> {
        self.server()?.open(space, check, deadline)
    }
    fn rows(&self, rows: &[Row<'_>], deadline: Instant) -> Told<Answers> {
        self.server()?.rows(rows, deadline)
    }
    fn forgotten(&self, space: &str, after: u64, deadline: Instant) -> Told<Forgotten> {
        self.server()?.forgotten(space, after, deadline)
    }
    fn acquire(&self, space: &str, request: &Acquire, deadline: Instant) -> Told<Acquired> {
        self.server()?.acquire(space, request, deadline)
    }
    fn append(&self, appends: &[Append<'_>], deadline: Instant) -> Told<Vec<Told<Appended>>> {
        let mut largest = self.largest.lock().unwrap();
        for append in appends {
            let sizes = || append.chunks.iter().map(|chunk| chunk.data.len());
            largest.0 = largest.0.max(sizes().sum());
            largest.1 = largest.1.max(sizes().max().unwrap_or(0));
        }
        drop(largest);
        self.server()?.append(appends, deadline)
    }
    fn release(&self, space: &str, epoch: u64, holder: Token, deadline: Instant) -> Told<()> {
        self.server()?.release(space, epoch, holder, deadline)
    }
    fn slices(&self, space: &str, deadline: Instant) -> Told<Vec<SliceInfo>> {
        let then = self.before_slices.lock().unwrap().take();
        if let Some(then) = then { then() }
        self.server()?.slices(space, deadline)
    }
    fn read(&self, space: &str, buckets: &[Bucket], deadline: Instant) -> Told<Vec<Vec<StoredChunk>>> {
        let read = self.server()?.read(space, buckets, deadline);
        let then = self.after_read.lock().unwrap().take();
        if let Some(then) = then { then() }
        read
    }
}

impl Site {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(start());
        let server = MemoryAuthority::with_clock(clock.clone());
        Site { clock, server }
    }

    pub(crate) fn wire(&self) -> Wire {
        Wire {
            server: self.server.clone(),
            cut: Arc::default(),
            after_read: Arc::default(),
            before_slices: Arc::default(),
            largest: Arc::default(),
        }
    }

    pub(crate) fn plain(&self) -> Builder {
        Dedup::builder()
            .window(WINDOW)
            .slices(7)
            .lease(Duration::from_secs(30))
            .expected_keys(1_000)
            .secret([7; 32])
            .clock(self.clock.clone())
    }

    pub(crate) fn builder_with(&self, wire: &Wire) -> Builder {
        self.plain()
            .authority(wire.clone(), Ownership::Exclusive)
            .authority_space(SPACE)
            .authority_deadline(Duration::from_secs(5))
            .owner_lease(LEASE)
    }

    pub(crate) fn builder(&self) -> Builder {
        self.builder_with(&self.wire())
    }

    pub(crate) fn store(&self) -> Dedup {
        self.builder().in_memory().unwrap()
    }

    /// So long after the start.
    pub(crate) fn at(since_start: Duration) -> Timestamp {
        Timestamp::from(start() + since_start)
    }

    /// Another owner, when this one can no longer be heard of and its lease is over.
    pub(crate) fn follow(&self, wire: &Wire) -> Dedup {
        wire.cut();
        self.clock.advance(LEASE);
        self.store()
    }
}

/// Waits until all is written.
pub(crate) fn written(store: &Dedup) {
    eventually("everything is written", || {
        let owner = store.stats().owner.unwrap();
        owner.queued == 0
    });
}

pub(crate) fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) fn is_new(store: &Dedup, key: impl AsRef<[u8]>) -> bool {
    store.observe(key).unwrap() == Verdict::New
}

/// Tries until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
