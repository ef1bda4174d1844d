//! Operations on a store, as data: what proptest and the fuzzer make up, and [`super::pair::Pair`]
//! carries out.

use std::time::Duration;

use onceonly::{Builder, Dedup, DigestKind, Durability, ManualClock};

use super::model::{Id, Rules};

/// The settings of a store under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) window_ns: u32,
    pub(crate) slices: u32,
    pub(crate) expected_keys: u32,
    pub(crate) shards: Option<u8>,
    pub(crate) refresh: bool,
    pub(crate) siphash: bool,
    pub(crate) event_time: bool,
    pub(crate) on_disk: bool,
    pub(crate) level: Level,
}

/// A durability level, without its interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Process,
    Interval,
    Sync,
}

impl Level {
    pub(crate) const ALL: [Level; 3] = [Level::Process, Level::Interval, Level::Sync];

    pub(crate) fn durability(self) -> Durability {
        match self {
            Level::Process => Durability::Process,
            Level::Interval => Durability::Interval(Duration::from_millis(5)),
            Level::Sync => Durability::Sync,
        }
    }
}

impl Shape {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            window: i64::from(self.window_ns),
            slice: i64::from(self.window_ns.div_ceil(self.slices)),
            refresh: self.refresh,
            event_time: self.event_time,
        }
    }

    /// Leases shorter and longer than a window both occur, as steps of time are fractions of it.
    pub(crate) fn lease_ns(&self) -> i64 {
        i64::from(self.window_ns) / 2 + 1
    }

    /// A timestamp this far ahead of the clock is still accepted.
    pub(crate) fn lead_ns(&self) -> i64 {
        i64::from(self.window_ns) * 20
    }

    pub(crate) fn builder(&self, clock: &ManualClock) -> Builder {
        let digest = if self.siphash { DigestKind::SipHash13 } else { DigestKind::Xxh3 };
        let builder = Dedup::builder()
            .window(Duration::from_nanos(u64::from(self.window_ns)))
            .slices(self.slices)
            .expected_keys(u64::from(self.expected_keys))
            .digest(digest)
            .durability(self.level.durability())
            .refresh_on_duplicate(self.refresh)
            .event_time(self.event_time)
            .max_event_lead(duration(self.lead_ns()))
            .lease(duration(self.lease_ns()))
            .clock(clock.clone());
        match self.shards {
            Some(shards) => builder.shards(usize::from(shards)),
            None => builder,
        }
    }
}

pub(crate) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.unsigned_abs())
}

/// A span of time, in the units that matter to the store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Nanos(u8),
    /// Eighths of a slice.
    Eighths(u8),
    Slices(u8),
    /// The window, give or take a few nanoseconds.
    Window(i8),
    /// The window and one slice, give or take a few nanoseconds.
    WindowAndSlice(i8),
    Windows(u8),
    /// The store's lease, give or take a few nanoseconds.
    Lease(i8),
}

impl Step {
    pub(crate) fn nanos(self, shape: &Shape) -> i64 {
        let rules = shape.rules();
        let span = match self {
            Step::Nanos(n) => i64::from(n),
            Step::Eighths(n) => i64::from(n) * rules.slice / 8,
            Step::Slices(n) => i64::from(n) * rules.slice,
            Step::Window(off) => rules.window + i64::from(off),
            Step::WindowAndSlice(off) => rules.window + rules.slice + i64::from(off),
            Step::Windows(n) => i64::from(n) * rules.window,
            Step::Lease(off) => shape.lease_ns() + i64::from(off),
        };
        span.max(0)
    }
}

/// How a store ends before it is opened again.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// `close`, then everything is dropped.
    Close,
    /// The last handle is dropped.
    Drop,
    /// The guards are dropped first, which abandons their claims; then as `Drop`.
    DropGuardsFirst,
}

/// One operation. Guards are named by their place in the list of those held, modulo its length.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Observe(Id),
    ObserveBatch(Option<u8>, Vec<u32>),
    Contains(Id),
    ContainsBatch(Option<u8>, Vec<u32>),
    /// This many keys that were never used before, in batches: the store grows.
    Fresh(u16),
    Prefetch(Id),
    Forget(Id),
    Explain(Id),
    Claim(Id),
    /// With a lease of its own and a note.
    ClaimWith(Id, Step),
    ClaimBatch(Option<u8>, Vec<u32>),
    Commit(usize),
    CommitBatch(usize),
    Abandon(usize),
    DropGuard(usize),
    Renew(usize),
    ListClaims,
    TakeOverExpired,
    Advance(Step),
    /// Milliseconds.
    LeapWall(i32),
    Restart(End),
    /// Restart after the wall clock moved by this, seen by a new boot.
    Reboot(End, Step, bool),
    /// Restart with these other settings (what is fixed at creation stays).
    Reopen(End, Shape),
    Sync,
    Settle,
    /// Event time: the timestamp is the greatest so far, plus or minus a span.
    ObserveAt(Id, Lead),
    ObserveBatchAt(Option<u8>, Vec<(u32, Lead)>),
    ClaimAt(Id, Lead),
}

/// A timestamp relative to the watermark.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lead {
    Ahead(Step),
    Behind(Step),
}

impl Lead {
    pub(crate) fn from(self, watermark: i64, shape: &Shape) -> i64 {
        match self {
            Lead::Ahead(step) => watermark + step.nanos(shape),
            Lead::Behind(step) => watermark - step.nanos(shape),
        }
    }
}
