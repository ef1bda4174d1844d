//! `Ownership::Exclusive`: this store is the only writer of its space, and decides alone.
//!
//! What is not known here is new, and follows to the authority in batches ([`outgoing`]). What another
//! owner has written before is read when it is asked for ([`foreign`]), or all at once ([`warm`]). A call
//! that may not be answered from here alone finds that out by the mark of the engine's origin, which it
//! looks at anyway.

mod foreign;
mod outgoing;
mod provisional;
mod standing;
#[cfg(all(test, feature = "conformance"))]
mod tests;
mod warm;
mod writing;

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Acquire as Acq, Relaxed, Release};
use std::time::{Duration, Instant};

use super::later::deferral;
use super::shared::error_of;
use super::{CLOCK_TIME, EVENT_TIME, Engine, OWNED_TIME, SHARED_TIME, shared};
use crate::authority::{Acquired, Progress, Server, Token};
use crate::config::{OnOutage, Owned as Settings};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::gather::{Failure, Leaving, Link};
use crate::stats::{AuthorityStats, OwnerStats};
use crate::storage::Seat;
use crate::sync::{AtomicI64, AtomicU64, Mutex};
use crate::time::{Timestamp, nanos};
use foreign::Foreign;
pub(super) use provisional::Provisional;
use writing::Writing;

/// How often new keys are written.
pub(super) const WRITE_EVERY: Duration = Duration::from_millis(100);
/// How often a store that is being closed tries to be heard of.
const RETRY_EVERY: Duration = Duration::from_millis(10);
/// Attempts to gather what is to be written that fail in a row before a store is closed without.
const MOST_FAILURES: u32 = 5;
/// Digests of one bucket, about: what is read for the first key of it that is not known.
const KEYS_PER_BUCKET: u64 = 4_096;
const MOST_PART_BITS: u32 = 12;
/// Above the bits of a part in the layout, so that another one can be told.
const LAYOUT_VERSION: u32 = 1 << 8;
/// Where the length of the window begins in it: bits, and a length is rounded to so many.
const WINDOW_AT: u32 = 10;
const WINDOW_BITS: u32 = 17;

/// What opening has agreed on with the authority.
pub(super) struct Taken {
    pub(super) seat: Seat,
    pub(super) link: Link,
    /// Until the store has it.
    pub(super) provisional: Provisional,
    pub(super) holder: Token,
    pub(super) acquired: Acquired,
    /// Between the question and its answer, in boot time.
    pub(super) asked_boot_ns: i64,
    pub(super) answered_boot_ns: i64,
    /// Starts of slices, in the server's time, that may hold keys which are not known here.
    pub(super) foreign: Vec<Slice>,
    /// The server lacks what this store had written.
    pub(super) lost: bool,
    /// What the journal says of records that are written is true.
    pub(super) trusted: bool,
}

/// A slice at the authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// Its name.
    pub(super) slice: u64,
    /// When all of its keys are over, in time of the store.
    pub(super) over_ns: i64,
}

/// A store's side of a space that it alone writes.
pub(super) struct Owner {
    link: Link,
    seat: Seat,
    holder: Token,
    lease_ns: i64,
    part_bits: u32,
    window_ns: i64,
    /// As [`Initial`] has it.
    kept_since_ns: i64,
    /// Time of the store less the server's, when the space was acquired: not more than it is, and not
    /// less. Slices are named by it.
    grid: (i64, i64),
    /// The same as of the last answer.
    offset: [AtomicI64; 2],
    standing: AtomicU64,
    /// The lease runs until then, in time of the store.
    lease_until_ns: AtomicI64,
    writing: Mutex<Writing>,
    /// Forgotten, and not written yet.
    forgotten: Mutex<Vec<Digest>>,
    /// Read from the authority and kept here, with their slices: they are not written again.
    learned: Mutex<HashSet<(u64, Digest)>>,
    /// How often all that is live was named to be written again; counted under the lock of the manifest.
    begun_again: AtomicU64,
    /// Pages of a sealed file that are written: the file, and how many.
    run_pages: Mutex<(u64, usize)>,
    foreign: Foreign,
    /// Since when a full segment waits to be written.
    sealing_waits: Mutex<Option<Instant>>,
    /// One call asks for the lease at a time.
    renewing: Mutex<()>,
    hole_until_ns: Mutex<i64>,
    assumed_new: AtomicU64,
    keys_written: AtomicU64,
    chunks_written: AtomicU64,
    keys_read: AtomicU64,
}

/// How a call that waits for nobody gets its answer.
pub(super) enum Way {
    /// From here.
    Here,
    /// From here, when the authority has been asked for what is not known.
    Asks,
    /// From the authority.
    Shared,
}

/// Refused appends in a row after which it is not asked again who the owner is.
const MOST_DOUBTS: u32 = 3;

/// The owner, as far as is known.
const OWNER: u64 = 0;
/// The server may have lost that it is.
const IN_DOUBT: u64 = 1;
/// Another owner has followed.
const FOLLOWED: u64 = 2;

/// Bits of a digest that choose its part of a slice.
pub(super) fn part_bits(config: &crate::config::Config) -> u32 {
    let of_slice = config.expected_keys / u64::from(config.slices);
    let parts = (of_slice / KEYS_PER_BUCKET).max(1).next_power_of_two();
    parts.ilog2().min(MOST_PART_BITS)
}

/// How digests are put into buckets, and for how long, as the owner record has it.
pub(super) fn layout(part_bits: u32, window_ns: i64) -> u32 {
    window_code(window_ns) << WINDOW_AT | LAYOUT_VERSION | part_bits
}

/// A window's length, rounded down; a longer one has no lower code.
fn window_code(window_ns: i64) -> u32 {
    let ms = window_ns.max(0).unsigned_abs() / 1_000_000;
    let shift = (u64::BITS - ms.leading_zeros()).saturating_sub(WINDOW_BITS);
    shift << WINDOW_BITS | (ms >> shift) as u32
}

/// Whether what is there may be gone before such a window is over.
pub(super) fn is_kept_shorter(layout: u32, window_ns: i64) -> bool {
    layout >> WINDOW_AT < window_code(window_ns)
}

/// The other way round; `None` for that of another release.
pub(super) fn part_bits_of(layout: u32) -> Option<u32> {
    let bits = (layout & ((1 << WINDOW_AT) - 1)).checked_sub(LAYOUT_VERSION)?;
    (bits <= MOST_PART_BITS).then_some(bits)
}

impl Owner {
    fn new(
        settings: &Settings,
        taken: Taken,
        initial: &Initial,
        window_ns: i64,
    ) -> (Self, Provisional) {
        let Initial { part_bits, offset, kept_since_ns, .. } = *initial;
        let writing = Writing::new(&taken.acquired, taken.lost);
        let owner = Owner {
            link: taken.link,
            seat: taken.seat,
            holder: taken.holder,
            lease_ns: nanos(settings.lease),
            part_bits,
            window_ns,
            kept_since_ns,
            grid: offset,
            offset: [AtomicI64::new(offset.0), AtomicI64::new(offset.1)],
            standing: AtomicU64::new(OWNER),
            lease_until_ns: AtomicI64::new(i64::MIN),
            writing: Mutex::new(writing),
            forgotten: Mutex::default(),
            learned: Mutex::default(),
            begun_again: AtomicU64::new(0),
            run_pages: Mutex::default(),
            foreign: Foreign::new(part_bits, taken.foreign),
            sealing_waits: Mutex::default(),
            renewing: Mutex::default(),
            hole_until_ns: Mutex::new(i64::MIN),
            assumed_new: AtomicU64::new(0),
            keys_written: AtomicU64::new(0),
            chunks_written: AtomicU64::new(0),
            keys_read: AtomicU64::new(0),
        };
        (owner, taken.provisional)
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn hole_until(&self) -> &Mutex<i64> {
        &self.hole_until_ns
    }

    fn part_of(&self, digest: Digest) -> u32 {
        digest.shard(self.part_bits) as u32
    }

    /// The server's clock was `server` between two instants of the store.
    fn saw_clock(&self, server: &Server, asked_ns: i64, answered_ns: i64) {
        let server_ns = server.time.as_unix_nanos();
        self.offset[0].store(asked_ns.saturating_sub(server_ns), Release);
        self.offset[1].store(answered_ns.saturating_sub(server_ns), Release);
    }

    /// An instant of the store in the server's time, or a little later.
    fn server_time_after(&self, ns: i64) -> Timestamp {
        Timestamp::from_unix_nanos(ns.saturating_sub(self.offset[0].load(Acq)))
    }

    /// The same, or a little earlier.
    fn server_time_before(&self, ns: i64) -> Timestamp {
        Timestamp::from_unix_nanos(ns.saturating_sub(self.offset[1].load(Acq)))
    }

    /// An instant of the server in time of the store, or a little later.
    fn store_time_after(&self, server_ns: i64) -> i64 {
        server_ns.saturating_add(self.grid.1)
    }

    /// What a caller is told of a failure.
    fn error(&self, failure: &Failure) -> Error {
        if failure.is_stale() {
            return self.followed();
        }
        error_of(&self.link, failure, false)
    }

    fn followed(&self) -> Error {
        Error::OwnershipLost { name: self.link.name() }
    }

    pub(super) fn stats(&self) -> AuthorityStats {
        let mut stats = self.link.stats();
        stats.assumed_new = self.assumed_new.load(Relaxed);
        stats
    }
}

/// What is set up for the owner before it answers.
pub(super) struct Initial {
    pub(super) part_bits: u32,
    /// Time of the store less the server's, as [`Owner::grid`] has it.
    pub(super) offset: (i64, i64),
    pub(super) progress: Progress,
    /// The authority may lack keys of before, in its time; `i64::MIN` if it lacks none, or gets all again.
    pub(super) kept_since_ns: i64,
}

impl Engine {
    /// Begins to own the space: from here on it is written, and calls are answered.
    pub(super) fn own(&self, mut taken: Taken, initial: &Initial) -> Result<()> {
        let Some(settings) = &self.config.owned else { return Ok(()) };
        let asked_ns = self.time.now() - (self.config.clock.boot_nanos() - taken.asked_boot_ns);
        let recorded = std::mem::replace(&mut taken.acquired.progress, initial.progress);
        let (owner, mut provisional) = Owner::new(settings, taken, initial, self.config.window_ns);
        owner.lease_until_ns.store(asked_ns.saturating_add(owner.lease_ns), Release);
        let owner = self.owned.get_or_init(|| Box::new(owner));
        // What is given back from here on is so when the store is closed.
        provisional.keep();
        let vouched = owner.server_time_after(self.guaranteed_since().as_unix_nanos());
        owner.writing.lock().tell_since(recorded.complete_since, vouched);
        // What was forgotten may not have been written before the process ended.
        self.forget_at_authority_again(owner);
        let me: std::sync::Weak<Engine> = self.me.clone();
        owner.link.watch(me);
        // What the server lost before that nobody heard of.
        let opened = owner.link.open().map_err(|failure| owner.error(&failure))?;
        let incarnation = opened.server.incarnation;
        if owner.writing.lock().has_not_seen(incarnation) {
            self.server_lost(owner, incarnation);
        }
        self.turn_mark(owner);
        owner.link.begin_writing();
        Ok(())
    }

    /// Whether this store alone answers, as of now. What every call asks first.
    #[inline(always)]
    pub(super) fn is_alone(&self) -> bool {
        self.origin.mark() == CLOCK_TIME && !self.time.is_due()
    }

    /// What stands in the way of answering from here alone is done; then the authority that decides
    /// instead, if one does.
    #[cold]
    #[inline(never)]
    pub(super) fn admit(
        &self,
        digests: &[Digest],
        policy: OnOutage,
    ) -> Result<Option<&shared::Shared>> {
        if self.origin.mark() == CLOCK_TIME {
            self.tick_clock();
        }
        match self.origin.mark() {
            CLOCK_TIME | EVENT_TIME => Ok(None),
            SHARED_TIME => Ok(self.shared()),
            // It was admitted before, by `way`.
            OWNED_TIME if deferral::waits_for_nobody() => Ok(None),
            OWNED_TIME => self.admit_owned(digests, policy).map(|()| None),
            _ => Err(Error::Forked),
        }
    }

    /// How a call that waits for nobody gets its answer. With `assumes` the policy for outages has let it go
    /// on.
    pub(super) fn way(&self, digests: &[Digest], assumes: bool) -> Result<Way> {
        if self.origin.mark() == CLOCK_TIME {
            self.tick_clock();
        }
        match self.origin.mark() {
            CLOCK_TIME | EVENT_TIME => Ok(Way::Here),
            SHARED_TIME if self.shared().is_some() => Ok(Way::Shared),
            SHARED_TIME => Ok(Way::Here),
            OWNED_TIME => {
                self.tick_clock();
                let owner = self.owned.get().filter(|_| !self.is_closed()).ok_or(Error::Closed)?;
                let here = assumes || self.needs_nobody(owner, digests)?;
                Ok(if here { Way::Here } else { Way::Asks })
            }
            _ => Err(Error::Forked),
        }
    }

    fn admit_owned(&self, digests: &[Digest], policy: OnOutage) -> Result<()> {
        self.tick_clock();
        // While it is opened, and when it has been closed.
        let Some(owner) = self.owned.get().filter(|_| !self.is_closed()) else {
            return Err(Error::Closed);
        };
        let known = self.hold(owner).and_then(|()| self.know(owner, digests));
        // What is read takes its time: the lease may be over by now.
        let known = known.and_then(|()| self.hold(owner));
        match known {
            Err(Error::Authority { .. } | Error::Undecided { .. })
                if policy == OnOutage::AssumeNew =>
            {
                self.note_assumption(&owner.hole_until_ns)?;
                let mut assumed = 0;
                for digest in digests {
                    assumed += u64::from(!self.is_known(*digest)?);
                }
                owner.assumed_new.fetch_add(assumed, Relaxed);
                Ok(())
            }
            known => known,
        }
    }

    /// What a call had to wait for may have taken longer than the lease.
    pub(super) fn still_owns(&self) -> Result<()> {
        let Some(owner) = self.owned.get() else { return Ok(()) };
        match self.hold(owner) {
            // Marks are made already: an `Err` would have them answered with `Duplicate` when they are
            // asked for again. So they are assumptions.
            Err(Error::Authority { .. } | Error::Undecided { .. }) => {
                self.note_assumption(&owner.hole_until_ns)
            }
            held => held,
        }
    }

    /// Whether the digest is live here.
    pub(super) fn is_known(&self, digest: Digest) -> Result<bool> {
        let shard = self.enter(self.shard_of(digest))?;
        let mask = shard.suspects(digest);
        Ok(shard.find(digest, mask)?.is_some() || shard.claims.contains_key(&digest))
    }

    pub(super) fn owner_stats(&self, owner: &Owner) -> OwnerStats {
        let now_ns = self.time.now();
        let writing = owner.writing.lock();
        let (loaded, parts) = owner.foreign.parts();
        let until_ns = owner.lease_until_ns.load(Acq);
        let left_ns = until_ns.saturating_sub(now_ns).max(0).unsigned_abs();
        OwnerStats {
            epoch: writing.epoch(),
            is_owner: owner.standing.load(Acq) == OWNER && now_ns < until_ns,
            lease_left: Duration::from_nanos(left_ns),
            queued: self.keys_to_write(owner),
            position: writing.position(),
            written_through: Timestamp::from_unix_nanos(writing.through_ns()),
            keys_written: owner.keys_written.load(Relaxed),
            chunks_written: owner.chunks_written.load(Relaxed),
            keys_read: owner.keys_read.load(Relaxed),
            parts,
            parts_loaded: loaded,
        }
    }

    /// A key was forgotten here: the authority has to hear of it.
    pub(super) fn forget_at_authority(&self, digest: Digest) {
        if let Some(owner) = self.owned.get() {
            owner.forgotten.lock().push(digest);
        }
    }

    fn forget_at_authority_again(&self, owner: &Owner) {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().tombstones.keys().copied());
        }
        owner.forgotten.lock().extend(all);
    }

    /// Writes what is not written yet, and gives the space back. The store has to be closed to calls.
    pub(super) fn hand_over(&self) -> Result<()> {
        let Some(owner) = self.owned.get() else { return Ok(()) };
        let handed = self.write_all(owner).and_then(|()| {
            let epoch = owner.writing.lock().epoch();
            let leaving = Leaving { epoch, holder: owner.holder, unwritten: None };
            owner.link.leave(leaving).map_err(|failure| owner.error(&failure))
        });
        owner.link.end_writing();
        match handed {
            // There is nothing to give back.
            Err(Error::OwnershipLost { .. }) => Ok(()),
            handed => handed,
        }
    }

    fn write_all(&self, owner: &Owner) -> Result<()> {
        let (mut doubts, mut heard) = (0, false);
        let deadline = self.config.owned.as_ref().map(|owned| owned.terms.deadline);
        let deadline = deadline.unwrap_or_default();
        let left = || (self.keys_to_write(owner), owner.writing.lock().position());
        let (mut before, mut until) = (left(), Instant::now() + deadline);
        loop {
            if owner.standing.load(Acq) == FOLLOWED {
                return Err(owner.followed());
            }
            // It is heard of in any case: a server that came up empty is noticed by that.
            if heard && self.is_all_written(owner) {
                return Ok(());
            }
            // That says what was known when it was gathered.
            let under_way = owner.writing.lock().is_under_way();
            match owner.link.write() {
                // Whether it still is the owner is asked next.
                Err(failure) if failure.is_stale() && doubts < MOST_DOUBTS => doubts += 1,
                Err(failure) if failure.error.is_transient() && Instant::now() < until => {
                    std::thread::sleep(RETRY_EVERY);
                }
                Err(failure) => return Err(owner.error(&failure)),
                Ok(()) => heard |= !under_way,
            }
            if let Some(error) = owner.writing.lock().take_failure(MOST_FAILURES) {
                return Err(error);
            }
            let (left, now) = (left(), Instant::now());
            if left != before {
                (before, until) = (left, now + deadline);
            } else if heard && !self.is_all_written(owner) {
                if now >= until {
                    return Err(owner.error(&Failure::waited_too_long()));
                }
                std::thread::sleep(RETRY_EVERY);
            }
        }
    }
}
