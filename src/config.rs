//! The builder: settings, their defaults and their validation.

mod authority;
#[cfg(feature = "serde")]
mod file;

use std::fmt;
use std::time::Duration;

use crate::digest::{DigestKind, SECRET_LEN};
use crate::error::{Error, Result};
use crate::time::{Clock, ClockSource, nanos};
pub use authority::{OnOutage, Ownership};
pub(crate) use authority::{Owned, Shared};

/// What an acknowledgement survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// The process dying at any instruction (`kill -9`, panic, out of memory): nothing acknowledged
    /// is lost. Power loss may lose what the kernel had not written back, unless
    /// [`crate::Dedup::sync`] was called.
    #[default]
    Process,
    /// That, and power loss except for the last so long: the background syncs what was acknowledged
    /// to a log, twice in that time.
    Interval(Duration),
    /// That, and power loss: nothing acknowledged is lost. A call returns when what it marked is
    /// synced; concurrent calls share a sync, and a batch needs one.
    Sync,
}

/// A secret, which is not shown where settings are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) [u8; SECRET_LEN]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Settings of a store; [`crate::Dedup::builder`] makes one. Setters never fail, [`Builder::open`]
/// reports what is wrong as [`Error::Config`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct Builder {
    pub(crate) settings: Settings,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) window: Option<Duration>,
    pub(crate) slices: u32,
    pub(crate) expected_keys: u64,
    pub(crate) false_positive_rate: f64,
    pub(crate) digest: Option<DigestKind>,
    pub(crate) secret: Option<Secret>,
    pub(crate) max_keys: Option<u64>,
    pub(crate) durability: Durability,
    pub(crate) refresh_on_duplicate: bool,
    pub(crate) trace: bool,
    pub(crate) shadow: bool,
    pub(crate) event_time: bool,
    pub(crate) max_event_lead: Duration,
    pub(crate) lease: Duration,
    pub(crate) lock_wait: Duration,
    pub(crate) any_filesystem: bool,
    pub(crate) shards: Option<usize>,
    pub(crate) clock: ClockSource,
    pub(crate) authority: authority::AuthoritySettings,
}

/// Fills a line: eight columns serve seven slices and the one being written.
const DEFAULT_SLICES: u32 = 7;
/// A store of this size costs less than 1 MiB, and grows by itself.
const DEFAULT_EXPECTED_KEYS: u64 = 100_000;
const DEFAULT_FALSE_POSITIVE_RATE: f64 = 0.001;
/// More columns than one row of the filter has bits.
const MAX_SLICES: u32 = 63;
const MAX_SHARDS: usize = 4096;
/// 2^40 keys are 16 TiB of digests.
const MAX_EXPECTED_KEYS: u64 = 1 << 40;
/// Fewer keys than this do not pay for a shard of their own.
const MIN_KEYS_PER_SHARD: u64 = 64 * 1024;
/// A disk syncs about as fast as the shorter one, and loses the longer one's keys at once.
const MIN_INTERVAL: Duration = Duration::from_millis(1);
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const SHARDS_PER_CORE: usize = 4;

impl Default for Builder {
    fn default() -> Self {
        Builder {
            settings: Settings {
                window: None,
                slices: DEFAULT_SLICES,
                expected_keys: DEFAULT_EXPECTED_KEYS,
                false_positive_rate: DEFAULT_FALSE_POSITIVE_RATE,
                digest: None,
                secret: None,
                max_keys: None,
                durability: Durability::default(),
                refresh_on_duplicate: false,
                trace: false,
                shadow: false,
                event_time: false,
                max_event_lead: Duration::from_secs(60),
                lease: Duration::from_secs(30),
                lock_wait: Duration::ZERO,
                any_filesystem: false,
                shards: None,
                clock: ClockSource::system(),
                authority: authority::AuthoritySettings::default(),
            },
        }
    }
}

impl Builder {
    /// Required: how long a key is remembered, at least; at most `window + window / slices`.
    pub fn window(mut self, window: Duration) -> Self {
        self.settings.window = Some(window);
        self
    }

    /// Expiry happens in steps of `window / slices`; 1 to 63, 7 by default. 1, 3, 7, 15, 31 and 63
    /// fill the filter's rows; more slices than 7 take more memory a key ([`Builder::plan`] tells).
    pub fn slices(mut self, slices: u32) -> Self {
        self.settings.slices = slices;
        self
    }

    /// Keys per window, for sizing; 100,000 by default. More keys are slower until the filter has
    /// been rebuilt larger, never inexact.
    pub fn expected_keys(mut self, keys: u64) -> Self {
        self.settings.expected_keys = keys;
        self
    }

    /// How often the filter may suspect a new key, 0.001 by default. Costs look-ups, never exactness.
    pub fn false_positive_rate(mut self, rate: f64) -> Self {
        self.settings.false_positive_rate = rate;
        self
    }

    /// What an acknowledgement survives; [`Durability::Process`] by default. May change on
    /// reopening. Without effect on a store in memory.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// How keys are digested, [`DigestKind::Xxh3`] by default. Fixed when the store is created.
    pub fn digest(mut self, kind: DigestKind) -> Self {
        self.settings.digest = Some(kind);
        self
    }

    /// The secret of the digest; random by default, and kept in the store. Stores that exchange
    /// state are created with one secret. Fixed when the store is created.
    pub fn secret(mut self, secret: [u8; 32]) -> Self {
        self.settings.secret = Some(Secret(secret));
        self
    }

    /// A hard limit of live keys: [`Error::Full`] past it. None by default.
    pub fn max_keys(mut self, keys: u64) -> Self {
        self.settings.max_keys = Some(keys);
        self
    }

    /// Whether a duplicate extends the key's window (recorded at most once per key and slice).
    pub fn refresh_on_duplicate(mut self, refresh: bool) -> Self {
        self.settings.refresh_on_duplicate = refresh;
        self
    }

    /// Keeps with each key that a claim commits when and by which claim it was first taken, and the first
    /// 128 bytes of the claim's note; and counts how often a duplicate of a key was refused.
    /// [`crate::Scope::explain`] tells. Costs a record of about 80 bytes a commit, and one of 64 for each
    /// refused duplicate; nothing when it is off (the default).
    pub fn trace(mut self, trace: bool) -> Self {
        self.settings.trace = trace;
        self
    }

    /// Shadow mode: the store decides, marks and counts as ever, and lets every message through. For
    /// trying it out beside what decides now; off by default, and chosen anew at each open.
    ///
    /// - [`crate::Scope::observe`] and its kin answer `New`, `claim` and [`crate::Scope::process_once`]
    ///   grant, `contains` is false. `observe_shadow` and [`crate::ClaimGuard::shadowed`] tell what the
    ///   store says, [`crate::Stats::shadow`] counts what was let through, and [`crate::Scope::shadow`]
    ///   turns it off or on for some calls.
    /// - No failure of the store keeps a message back either: it is counted, and what was not marked
    ///   because of it stays unmarked. Errors that say that the call is wrong ([`Error::Config`],
    ///   [`Error::Mode`], [`Error::Closed`], [`Error::Forked`]) are returned.
    /// - What is written is what would be written without it; so the store is warm when it is turned off.
    ///
    /// A `New` in shadow mode is no verdict, and vouches for nothing.
    pub fn shadow(mut self, shadow: bool) -> Self {
        self.settings.shadow = shadow;
        self
    }

    /// Whether the window follows the timestamps given to `observe_at` instead of the clock. Fixed
    /// when the store is created.
    pub fn event_time(mut self, event_time: bool) -> Self {
        self.settings.event_time = event_time;
        self
    }

    /// A timestamp further ahead of the clock is [`Error::TimestampAhead`]; 60 s by default.
    pub fn max_event_lead(mut self, lead: Duration) -> Self {
        self.settings.max_event_lead = lead;
        self
    }

    /// How long a claim is held unless [`crate::ClaimOptions`] say otherwise; 30 s by default.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How long `open` waits for the previous owner to close the store (rolling updates); not at all
    /// by default.
    pub fn lock_wait(mut self, wait: Duration) -> Self {
        self.settings.lock_wait = wait;
        self
    }

    /// Whether a store may lie on a network or copy-on-write file system (or on FUSE, which may be
    /// either); [`Error::Filesystem`] otherwise, and by default. On a network file system two machines
    /// must never have the store open; on a copy-on-write one, a full disk can kill the process.
    pub fn allow_any_filesystem(mut self, allow: bool) -> Self {
        self.settings.any_filesystem = allow;
        self
    }

    /// Number of locks, rounded up to a power of two; by default four a core, fewer for small
    /// stores. May change on reopening (the filter is then rebuilt).
    pub fn shards(mut self, shards: usize) -> Self {
        self.settings.shards = Some(shards);
        self
    }

    /// From where the time comes; [`crate::SystemClock`] by default.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.settings.clock = clock.source();
        self
    }
}

/// Validated settings, in the units that the engine counts in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) window_ns: i64,
    pub(crate) slices: u32,
    /// `ceil(window / slices)`.
    pub(crate) slice_ns: i64,
    pub(crate) expected_keys: u64,
    pub(crate) false_positive_rate: f64,
    pub(crate) digest: Option<DigestKind>,
    pub(crate) secret: Option<Secret>,
    pub(crate) max_keys: Option<u64>,
    pub(crate) durability: Durability,
    pub(crate) refresh_on_duplicate: bool,
    pub(crate) trace: bool,
    pub(crate) shadow: bool,
    pub(crate) event_time: bool,
    pub(crate) max_event_lead: Duration,
    pub(crate) lease_ns: i64,
    pub(crate) lock_wait: Duration,
    pub(crate) any_filesystem: bool,
    /// log2 of the number of shards.
    pub(crate) shard_bits: u32,
    pub(crate) clock: ClockSource,
    /// `Ownership::Shared`.
    pub(crate) shared: Option<Shared>,
    /// `Ownership::Exclusive`.
    pub(crate) owned: Option<Owned>,
    /// Opened to look after the directory, not to answer: whatever space it shares.
    pub(crate) any_space: bool,
}

impl Config {
    /// The space of an authority that the store belongs to.
    pub(crate) fn space(&self) -> Option<&str> {
        let owned = self.owned.as_ref().map(|owned| &owned.terms);
        self.shared.as_ref().or(owned).map(|terms| terms.space.as_str())
    }
}

impl Settings {
    pub(crate) fn validate(&self) -> Result<Config> {
        let window = self
            .window
            .ok_or_else(|| Error::config("window", "is required: how long to remember a key"))?;
        let window_ns = nanos(window);
        if window_ns < i64::from(MAX_SLICES) {
            return Err(Error::config("window", format!("{window:?} is too short to be cut up")));
        }
        if window_ns > i64::MAX / 4 {
            return Err(Error::config(
                "window",
                format!("{window:?} is above the limit, 73 years"),
            ));
        }
        if !(1..=MAX_SLICES).contains(&self.slices) {
            let reason = format!("{} is outside 1 to {MAX_SLICES}", self.slices);
            return Err(Error::config("slices", reason));
        }
        if !(1..=MAX_EXPECTED_KEYS).contains(&self.expected_keys) {
            let reason = format!("{} is outside 1 to {MAX_EXPECTED_KEYS}", self.expected_keys);
            return Err(Error::config("expected_keys", reason));
        }
        if !(1e-6..=0.5).contains(&self.false_positive_rate) {
            let reason = format!("{} is outside 0.000001 to 0.5", self.false_positive_rate);
            return Err(Error::config("false_positive_rate", reason));
        }
        if self.max_keys == Some(0) {
            return Err(Error::config("max_keys", "0 would refuse every key"));
        }
        if let Durability::Interval(interval) = self.durability
            && (interval < MIN_INTERVAL || interval > MAX_INTERVAL)
        {
            let reason = format!("{interval:?} is outside 1 ms to 1 h");
            return Err(Error::config("durability", reason));
        }
        if self.lease.is_zero() || nanos(self.lease) > i64::MAX / 4 {
            return Err(Error::config("lease", format!("{:?} is not a useful lease", self.lease)));
        }
        if self.shards.is_some_and(|s| !(1..=MAX_SHARDS).contains(&s)) {
            return Err(Error::config("shards", format!("is outside 1 to {MAX_SHARDS}")));
        }
        let mut config = self.checked(window_ns);
        (config.shared, config.owned) = self.with_authority(config.slice_ns)?;
        Ok(config)
    }

    fn checked(&self, window_ns: i64) -> Config {
        let slices = i64::from(self.slices);
        Config {
            window_ns,
            slices: self.slices,
            slice_ns: window_ns / slices + i64::from(window_ns % slices != 0),
            expected_keys: self.expected_keys,
            false_positive_rate: self.false_positive_rate,
            digest: self.digest,
            secret: self.secret,
            max_keys: self.max_keys,
            durability: self.durability,
            refresh_on_duplicate: self.refresh_on_duplicate,
            trace: self.trace,
            shadow: self.shadow,
            event_time: self.event_time,
            max_event_lead: self.max_event_lead,
            lease_ns: nanos(self.lease),
            lock_wait: self.lock_wait,
            any_filesystem: self.any_filesystem,
            shard_bits: self.shard_count().ilog2(),
            clock: self.clock.clone(),
            shared: None,
            owned: None,
            any_space: false,
        }
    }

    fn shard_count(&self) -> usize {
        if let Some(shards) = self.shards {
            return shards.next_power_of_two();
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let by_cores = (cores * SHARDS_PER_CORE).next_power_of_two();
        let by_size = (self.expected_keys / MIN_KEYS_PER_SHARD).max(1);
        by_cores.min(1 << by_size.ilog2()).min(MAX_SHARDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(builder: Builder) -> &'static str {
        match builder.plan() {
            Err(Error::Config { field, .. }) => field,
            other => panic!("expected a config error, got {other:?}"),
        }
    }

    #[test]
    fn absurd_settings_name_their_field() {
        let ok = || Builder::default().window(Duration::from_secs(1));
        assert_eq!(field(Builder::default()), "window");
        assert_eq!(field(ok().window(Duration::ZERO)), "window");
        assert_eq!(field(ok().window(Duration::MAX)), "window");
        assert_eq!(field(ok().slices(0)), "slices");
        assert_eq!(field(ok().slices(64)), "slices");
        assert_eq!(field(ok().expected_keys(0)), "expected_keys");
        assert_eq!(field(ok().expected_keys(u64::MAX)), "expected_keys");
        assert_eq!(field(ok().false_positive_rate(f64::NAN)), "false_positive_rate");
        assert_eq!(field(ok().false_positive_rate(0.0)), "false_positive_rate");
        assert_eq!(field(ok().max_keys(0)), "max_keys");
        assert_eq!(field(ok().lease(Duration::ZERO)), "lease");
        let interval = |interval| ok().durability(Durability::Interval(interval));
        assert_eq!(field(interval(Duration::ZERO)), "durability");
        assert_eq!(field(interval(Duration::MAX)), "durability");
        assert_eq!(field(ok().shards(0)), "shards");
        assert!(ok().plan().is_ok());
    }

    #[test]
    fn small_stores_have_one_shard_and_slices_cover_the_window() {
        let settings = Builder::default().window(Duration::from_nanos(100)).settings;
        let config = settings.validate().unwrap();
        assert_eq!(config.shard_bits, 0);
        assert_eq!(config.slice_ns, 15);
        let config = Builder::default().window(Duration::from_secs(1)).shards(5).settings;
        assert_eq!(config.validate().unwrap().shard_bits, 3);
    }
}
