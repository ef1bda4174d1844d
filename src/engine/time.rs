//! Time of a store: boot time plus an offset that is fixed when the store is opened.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use crate::format::clock::{self, Anchor, Maps};
use crate::format::log::BlockHead;
use crate::storage::Region;
use crate::sync::{AtomicI64, Mutex};
use crate::time::{ClockSource, CoarseOffset};

pub(super) struct EngineTime {
    clock: ClockSource,
    coarse: CoarseOffset,
    boot_id: [u8; 16],
    /// Time of the store minus boot time.
    offset_ns: i64,
    /// When the newest catalog goes out of date, and the same in boot time.
    due_ns: AtomicI64,
    due_boot_ns: AtomicI64,
    /// Greatest event time accepted.
    watermark_ns: AtomicI64,
    anchors: Mutex<Anchors>,
}

/// What time may not fall behind.
pub(super) struct Floors {
    pub(super) engine_ns: i64,
    pub(super) watermark_ns: i64,
    /// The newest anchors of the manifest and of the logs.
    pub(super) anchors: Vec<Anchor>,
}

struct Anchors {
    region: Region,
    sequence: u64,
    /// The file belongs to the next owner.
    closed: bool,
}

/// Leases from here on may end some milliseconds early.
const LONG_LEASE_NS: i64 = 10_000_000_000;

/// No event time was accepted yet: the year 1823, where slices of event time are counted from.
pub(super) const NO_WATERMARK: i64 = -(1 << 62);

impl EngineTime {
    /// Goes on from the last anchor, of the file or of the logs: on the same boot by boot time,
    /// across a reboot by what the wall clock says, but never back. Without an anchor it begins at
    /// the wall clock. Never before what is on the disk.
    pub(super) fn new(clock: ClockSource, region: Region, floors: &Floors) -> Self {
        let (boot, wall, boot_id) = (clock.boot_nanos(), clock.wall_nanos(), clock.boot_id());
        let anchor = Anchor::load(region.cells());
        let now_from = |a: Anchor| {
            if a.boot_id == boot_id && boot >= a.boot_ns {
                a.engine_ns.saturating_add(boot - a.boot_ns)
            } else {
                a.engine_ns.saturating_add(wall.saturating_sub(a.wall_ns).max(0))
            }
        };
        let anchors = || anchor.iter().chain(&floors.anchors).copied();
        let now = anchors().map(now_from).max().unwrap_or(wall).max(floors.engine_ns);
        let watermark = anchors().map(|a| a.watermark_ns).fold(floors.watermark_ns, i64::max);
        let time = EngineTime {
            clock,
            coarse: CoarseOffset::new(),
            boot_id,
            offset_ns: now - boot,
            due_ns: AtomicI64::new(i64::MIN),
            due_boot_ns: AtomicI64::new(i64::MIN),
            watermark_ns: AtomicI64::new(watermark.max(NO_WATERMARK)),
            anchors: Mutex::new(Anchors {
                region,
                sequence: anchor.map_or(0, |a| a.sequence),
                closed: false,
            }),
        };
        time.record_anchor();
        time
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.boot_nanos().saturating_add(self.offset_ns)
    }

    /// Now, for a lease that begins: to some milliseconds where that is nothing beside the lease.
    #[inline]
    pub(super) fn now_for(&self, lease_ns: i64) -> i64 {
        if lease_ns < LONG_LEASE_NS {
            return self.now();
        }
        self.clock.coarse_boot_nanos(&self.coarse).saturating_add(self.offset_ns)
    }

    /// Whether the newest catalog is out of date. A few nanoseconds.
    #[inline]
    pub(super) fn is_due(&self) -> bool {
        !self.clock.is_before(self.due_boot_ns.load(Acquire), &self.coarse)
    }

    pub(super) fn set_due(&self, engine_ns: i64) {
        self.due_ns.store(engine_ns, Release);
        self.due_boot_ns.store(engine_ns.saturating_sub(self.offset_ns), Release);
    }

    pub(super) fn watermark(&self) -> i64 {
        self.watermark_ns.load(Acquire)
    }

    /// Moves the watermark on; returns the greater of both.
    pub(super) fn raise_watermark(&self, time_ns: i64) -> i64 {
        self.watermark_ns.fetch_max(time_ns, AcqRel).max(time_ns)
    }

    /// Writes down where time stands, for the next open.
    pub(super) fn record_anchor(&self) {
        let mut anchors = self.anchors.lock();
        if anchors.closed {
            return;
        }
        anchors.sequence += 1;
        self.anchor(anchors.sequence).store(anchors.region.cells());
    }

    /// Where time stands.
    pub(super) fn anchor(&self, sequence: u64) -> Anchor {
        let boot_ns = self.clock.boot_nanos();
        Anchor {
            sequence,
            engine_ns: boot_ns.saturating_add(self.offset_ns),
            boot_ns,
            wall_ns: self.clock.wall_nanos(),
            boot_id: self.boot_id,
            watermark_ns: self.watermark(),
        }
    }

    /// Fills in where time stands, as in an anchor.
    pub(super) fn stamp(&self, head: &mut BlockHead) {
        head.boot_ns = self.clock.boot_nanos();
        head.engine_ns = head.boot_ns.saturating_add(self.offset_ns);
        head.wall_ns = self.clock.wall_nanos();
        head.watermark_ns = self.watermark();
    }

    pub(super) fn boot_id(&self) -> [u8; 16] {
        self.boot_id
    }

    /// Nothing is written down from here on.
    pub(super) fn close(&self) {
        self.anchors.lock().closed = true;
    }

    /// Whether event time `time_ns` is past the newest catalog.
    #[inline]
    pub(super) fn is_past(&self, time_ns: i64) -> bool {
        time_ns >= self.due_ns.load(Acquire)
    }

    /// Notes for the next open whether these maps may lack something.
    pub(super) fn set_suspect(&self, maps: Maps, suspect: bool) {
        let anchors = self.anchors.lock();
        if !anchors.closed {
            clock::set_suspect(anchors.region.cells(), maps, suspect);
        }
    }

    /// Notes for the next open that a log ends there, whatever follows.
    pub(super) fn note_log_end(&self, file: u64, end: u64) {
        let anchors = self.anchors.lock();
        if !anchors.closed {
            clock::note_log_end(anchors.region.cells(), file, end);
        }
    }

    pub(super) fn region(&self) -> Region {
        self.anchors.lock().region.clone()
    }
}
