//! Time: Unix-nanosecond timestamps, and the two clocks.
//!
//! The window follows *boot time* (it counts while the machine sleeps, and nobody can set it); the
//! wall clock is read only to bridge a reboot. See `docs/design.md`, "Time".

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: nanoseconds since the Unix epoch, from 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Timestamp(nanos)
    }

    /// From milliseconds since the Unix epoch; saturates at the ends of the range.
    #[must_use]
    pub const fn from_unix_millis(millis: i64) -> Self {
        Timestamp(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_unix_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub const fn as_unix_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Timestamp(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => nanos(after),
            Err(before) => -nanos(before.duration()),
        })
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        if time.0 >= 0 {
            UNIX_EPOCH + Duration::from_nanos(time.0.unsigned_abs())
        } else {
            UNIX_EPOCH - Duration::from_nanos(time.0.unsigned_abs())
        }
    }
}

/// Seconds since the Unix epoch with nine decimals, the form that `date -d @…` reads.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:09}", abs / 1_000_000_000, abs % 1_000_000_000)
    }
}

/// A duration in nanoseconds, saturating (292 years).
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// From where a store takes its time. Sealed: [`SystemClock`] and [`ManualClock`] implement it.
pub trait Clock: sealed::Sealed + Send + Sync + 'static {
    #[doc(hidden)]
    fn source(&self) -> ClockSource;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::SystemClock {}
    impl Sealed for super::ManualClock {}
}

/// The machine's clocks (the default).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn source(&self) -> ClockSource {
        ClockSource(Source::System)
    }
}

/// A clock for tests, moved by hand. Clones share one time.
///
/// ```
/// use onceonly::{Dedup, ManualClock, Verdict};
/// use std::time::{Duration, SystemTime};
///
/// let clock = ManualClock::new(SystemTime::now());
/// let dedup = Dedup::builder().window(Duration::from_secs(60)).clock(clock.clone()).in_memory()?;
/// assert_eq!(dedup.observe("a")?, Verdict::New);
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(dedup.observe("a")?, Verdict::Duplicate);
/// clock.advance(Duration::from_secs(30));
/// assert_eq!(dedup.observe("a")?, Verdict::New);
/// # Ok::<(), onceonly::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<ManualTime>);

#[derive(Debug)]
struct ManualTime {
    boot: AtomicI64,
    wall: AtomicI64,
    boot_id: [u8; 16],
}

impl ManualClock {
    /// A clock that stands at `start`. Each new clock counts as a new boot of the machine; reopening
    /// a store with a clone of the clock is a restart on the same boot.
    #[must_use]
    pub fn new(start: SystemTime) -> Self {
        let mut boot_id = [0; 16];
        crate::random::fill_or_counter(&mut boot_id);
        ManualClock(Arc::new(ManualTime {
            boot: AtomicI64::new(1_000_000_000),
            wall: AtomicI64::new(Timestamp::from(start).as_unix_nanos()),
            boot_id,
        }))
    }

    /// Lets time pass: boot time and wall clock move forward together.
    pub fn advance(&self, by: Duration) {
        self.0.boot.fetch_add(nanos(by), Ordering::SeqCst);
        self.0.wall.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Sets the wall clock forward or back by `millis` without time passing.
    pub fn leap_wall(&self, millis: i64) {
        self.0.wall.fetch_add(millis.saturating_mul(1_000_000), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn source(&self) -> ClockSource {
        ClockSource(Source::Manual(self.clone()))
    }
}

/// The clock behind the sealed trait.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct ClockSource(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(ManualClock),
}

/// How far the coarse clock may lag behind the precise one before a boundary is decided precisely.
/// Its tick is 1 to 10 ms; the rest is room for a descheduled timekeeper.
const COARSE_GUARD_NS: i64 = 250_000_000;

impl ClockSource {
    pub(crate) fn system() -> Self {
        ClockSource(Source::System)
    }

    /// Nanoseconds since boot, counting suspension.
    pub(crate) fn boot_nanos(&self) -> i64 {
        match &self.0 {
            Source::System => sys::boot_nanos(),
            Source::Manual(clock) => clock.0.boot.load(Ordering::SeqCst),
        }
    }

    /// Boot time as of the last tick of a coarse clock: some milliseconds behind, at a tenth of the
    /// cost.
    #[inline]
    pub(crate) fn coarse_boot_nanos(&self, coarse: &CoarseOffset) -> i64 {
        match &self.0 {
            Source::System => coarse.boot_nanos(),
            Source::Manual(clock) => clock.0.boot.load(Ordering::SeqCst),
        }
    }

    /// Whether boot time is certainly before `boundary`, at the least cost: a coarse clock answers
    /// in 3 ns where the precise one takes 23 (`docs/performance.md`), and the precise one decides
    /// when the boundary is near. `resync` holds the last coarse tick at which the offset between
    /// the two clocks (which moves only in suspension) was measured.
    #[inline]
    pub(crate) fn is_before(&self, boundary: i64, coarse: &CoarseOffset) -> bool {
        match &self.0 {
            Source::System => {
                coarse.boot_nanos() < boundary.saturating_sub(COARSE_GUARD_NS)
                    || sys::boot_nanos() < boundary
            }
            Source::Manual(clock) => clock.0.boot.load(Ordering::SeqCst) < boundary,
        }
    }

    pub(crate) fn wall_nanos(&self) -> i64 {
        match &self.0 {
            Source::System => Timestamp::from(SystemTime::now()).as_unix_nanos(),
            Source::Manual(clock) => clock.0.wall.load(Ordering::SeqCst),
        }
    }

    /// Identifies this boot of the machine.
    pub(crate) fn boot_id(&self) -> [u8; 16] {
        match &self.0 {
            Source::System => sys::boot_id(),
            Source::Manual(clock) => clock.0.boot_id,
        }
    }
}

/// The offset from the coarse monotonic clock to boot time, measured anew at every coarse tick, so
/// that a suspension is seen at most one tick late.
#[derive(Debug)]
pub(crate) struct CoarseOffset {
    tick: AtomicI64,
    offset: AtomicI64,
}

impl CoarseOffset {
    pub(crate) fn new() -> Self {
        CoarseOffset { tick: AtomicI64::new(i64::MIN), offset: AtomicI64::new(0) }
    }

    #[inline]
    fn boot_nanos(&self) -> i64 {
        let tick = sys::coarse_nanos();
        if self.tick.load(Ordering::Acquire) != tick {
            // Both values may be written by racing threads; each pair was true within one tick.
            self.offset.store(sys::boot_nanos() - tick, Ordering::Relaxed);
            self.tick.store(tick, Ordering::Release);
        }
        tick + self.offset.load(Ordering::Relaxed)
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod sys {
    use std::sync::OnceLock;

    use rustix::time::{ClockId, clock_gettime};

    fn read(id: ClockId) -> i64 {
        let t = clock_gettime(id);
        t.tv_sec * 1_000_000_000 + t.tv_nsec
    }

    #[cfg(target_os = "linux")]
    pub(super) fn boot_nanos() -> i64 {
        read(ClockId::Boottime)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn coarse_nanos() -> i64 {
        read(ClockId::MonotonicCoarse)
    }

    // macOS: CLOCK_MONOTONIC counts while the machine sleeps, and there is no coarse clock.
    #[cfg(target_os = "macos")]
    pub(super) fn boot_nanos() -> i64 {
        read(ClockId::Monotonic)
    }

    #[cfg(target_os = "macos")]
    pub(super) fn coarse_nanos() -> i64 {
        read(ClockId::Monotonic)
    }

    /// The kernel's boot id. Where it cannot be learned, one of this process: what another process
    /// left behind is then not trusted, as after a reboot.
    pub(super) fn boot_id() -> [u8; 16] {
        static ID: OnceLock<[u8; 16]> = OnceLock::new();
        *ID.get_or_init(|| {
            super::parse_boot_id(&boot_text()).unwrap_or_else(|| {
                let mut id = [0; 16];
                crate::random::fill_or_counter(&mut id);
                id
            })
        })
    }

    #[cfg(target_os = "linux")]
    fn boot_text() -> String {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
    }

    // There is no file of it, and the call that reads it would be unsafe code.
    #[cfg(target_os = "macos")]
    fn boot_text() -> String {
        let mut command = std::process::Command::new("/usr/sbin/sysctl");
        let output = command.args(["-n", "kern.bootsessionuuid"]).output();
        output.map_or_else(|_| String::new(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    }
}

/// The 32 hexadecimal digits of a UUID.
fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_convert_both_ways_around_the_epoch() {
        for millis in [-1_500, -1, 0, 1, 1_700_000_000_123] {
            let ts = Timestamp::from_unix_millis(millis);
            assert_eq!(ts.as_unix_millis(), millis);
            assert_eq!(Timestamp::from(SystemTime::from(ts)), ts);
        }
        assert_eq!(Timestamp::from_unix_millis(-1_500).to_string(), "-1.500000000");
    }

    /// An id that is not known must not look like that of another boot.
    #[test]
    fn a_boot_id_is_a_uuid_or_not_known() {
        let uuid = "7b0f2a4e-0c1d-4e5f-8a9b-0123456789AB\n";
        let id = parse_boot_id(uuid).unwrap();
        assert_eq!((id[0], id[15]), (0x7b, 0xab));
        for wrong in ["", "0", "7b0f2a4e-0c1d-4e5f-8a9b-0123456789", "second level name `kern`"] {
            assert_eq!(parse_boot_id(wrong), None, "{wrong}");
        }
        assert_ne!(ClockSource::system().boot_id(), [0; 16]);
        assert_eq!(ClockSource::system().boot_id(), ClockSource::system().boot_id());
    }

    #[test]
    fn a_leap_of_the_wall_clock_leaves_boot_time_alone() {
        let clock = ManualClock::new(UNIX_EPOCH);
        let source = clock.source();
        let before = source.boot_nanos();
        clock.leap_wall(-3_600_000);
        assert_eq!(source.boot_nanos(), before);
        assert_eq!(source.wall_nanos(), -3_600_000_000_000);
        clock.advance(Duration::from_nanos(5));
        assert_eq!(source.boot_nanos(), before + 5);
    }

    #[test]
    #[cfg(not(miri))]
    fn the_coarse_clock_decides_only_what_is_far_away() {
        let source = ClockSource::system();
        let coarse = CoarseOffset::new();
        let now = source.boot_nanos();
        assert!(source.is_before(now + 3_600_000_000_000, &coarse));
        assert!(!source.is_before(now, &coarse));
        assert!(source.is_before(now + 50_000_000, &coarse));
    }
}
