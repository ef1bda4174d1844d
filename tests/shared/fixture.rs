//! Stores on one authority in memory, with one clock.

use std::time::{Duration, Instant};

use onceonly::authority::memory::MemoryAuthority;
use onceonly::{Builder, Claim, ClaimGuard, Dedup, ManualClock, OnOutage, Ownership, Verdict};

use crate::common::start;

pub(crate) const WINDOW: Duration = Duration::from_secs(700);
pub(crate) const SLICE: Duration = Duration::from_secs(100);
pub(crate) const LEASE: Duration = Duration::from_secs(30);
/// A test that takes so long has other troubles.
pub(crate) const LONG: Duration = Duration::from_secs(600);
/// Short, for calls that are meant to run into it.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

pub(crate) struct Site {
    pub(crate) clock: ManualClock,
    pub(crate) server: MemoryAuthority,
}

impl Site {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(start());
        let server = MemoryAuthority::with_clock(clock.clone());
        Site { clock, server }
    }

    /// What is forgotten elsewhere is read so seldom that no test waits for it by chance.
    pub(crate) fn builder(&self) -> Builder {
        Dedup::builder()
            .window(WINDOW)
            .slices(7)
            .lease(LEASE)
            .expected_keys(1_000)
            .secret([7; 32])
            .clock(self.clock.clone())
            .authority(self.server.clone(), Ownership::Shared)
            .authority_space("orders")
            .authority_deadline(Duration::from_secs(20))
            .forget_lag(LONG)
    }

    pub(crate) fn store(&self) -> Dedup {
        self.builder().in_memory().unwrap()
    }

    pub(crate) fn quick_store(&self) -> Dedup {
        self.builder().authority_deadline(SHORT).in_memory().unwrap()
    }

    pub(crate) fn store_that_assumes(&self) -> Dedup {
        let builder = self.builder().authority_deadline(SHORT).on_outage(OnOutage::AssumeNew);
        builder.in_memory().unwrap()
    }

    /// Calls for rows that were made so far.
    pub(crate) fn calls(&self) -> u64 {
        self.server.calls().rows
    }
}

pub(crate) fn granted(claim: Claim) -> ClaimGuard {
    match claim {
        Claim::Granted(guard) => guard,
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) fn is_new(store: &Dedup, key: &str) -> bool {
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
