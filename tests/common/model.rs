//! The contract as a `HashMap<(scope, key), time>`: slow, obvious, and the judge of the engine.
//!
//! Between "at least `W`" and "at most `W + W / slices`" both answers are right. The model then
//! follows the one that the engine gave, so that the next answer must agree with it.

use std::collections::BTreeMap;
use std::time::Duration;

use onceonly::{Claim, ClaimInfo, CommitError, Error, Timestamp, Verdict};

/// A key of a scope; `None` is the root, `Some(0)` the scope with the empty name.
pub(crate) type Id = (Option<u8>, u32);

/// What the contract allows as the answer to "is the key live?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    MustBeNew,
    MustBeDuplicate,
    Either,
}

/// The settings that decide answers, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) window: i64,
    pub(crate) slice: i64,
    pub(crate) refresh: bool,
    pub(crate) event_time: bool,
}

/// A mark: live for sure through `must_until`, gone for sure from `may_until` on.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// It counts from this instant.
    at: i64,
    slice: i64,
    must_until: i64,
    may_until: i64,
}

impl Record {
    fn new(at: i64, slice: i64, window: i64) -> Self {
        let (must_until, may_until) = (at + window, at + window + slice);
        Record { at, slice, must_until, may_until }
    }
}

#[derive(Clone, Debug)]
struct Held {
    token: u64,
    until: i64,
    lease: i64,
    /// Its owner ended with a former process.
    orphaned: bool,
    note: Vec<u8>,
    /// Timestamp of the claim, in event time.
    at: Option<i64>,
}

impl Held {
    fn left(&self, clock: i64) -> Duration {
        let left = if self.orphaned { 0 } else { (self.until - clock).max(0) };
        Duration::from_nanos(left.unsigned_abs())
    }

    fn lapsed(&self, clock: i64) -> bool {
        self.left(clock).is_zero()
    }
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rules: Rules,
    /// The time of the store, which leases follow.
    clock: i64,
    /// The time that the window follows. It is a range where the contract leaves open whether a
    /// call moves the watermark (event time only); else both ends are `clock`.
    earliest: i64,
    latest: i64,
    /// The widest slice so far: an old one stays as wide as it was when slices change.
    widest_slice: i64,
    /// What is older had expired before the window was made larger: it may be too old for ever.
    known_since: i64,
    records: BTreeMap<Id, Record>,
    claims: BTreeMap<Id, Held>,
    last_token: u64,
    /// The highest token before the call that is judged: those of one batch come in any order.
    token_before_call: u64,
}

impl Model {
    pub(crate) fn new(rules: Rules, clock: i64) -> Self {
        let window_time = if rules.event_time { i64::MIN / 4 } else { clock };
        Model {
            rules,
            clock,
            earliest: window_time,
            latest: window_time,
            widest_slice: rules.slice,
            known_since: i64::MIN,
            records: BTreeMap::new(),
            claims: BTreeMap::new(),
            last_token: 0,
            token_before_call: 0,
        }
    }

    pub(crate) fn clock(&self) -> i64 {
        self.clock
    }

    /// Every key that was ever marked and not forgotten.
    pub(crate) fn keys(&self) -> Vec<Id> {
        self.records.keys().copied().collect()
    }

    /// The greatest timestamp seen, in event time.
    pub(crate) fn watermark(&self) -> i64 {
        self.latest
    }

    pub(crate) fn advance(&mut self, by: i64) {
        self.clock += by;
        if !self.rules.event_time {
            self.earliest = self.clock;
            self.latest = self.clock;
        }
    }

    pub(crate) fn expect(&self, id: Id) -> Expect {
        match self.records.get(&id) {
            Some(record) if self.latest <= record.must_until => Expect::MustBeDuplicate,
            Some(record) if self.earliest < record.may_until => Expect::Either,
            _ => Expect::MustBeNew,
        }
    }

    fn must_be_allowed(&self, id: Id, live: bool, call: &str) {
        let expect = self.expect(id);
        let wrong = if live { Expect::MustBeNew } else { Expect::MustBeDuplicate };
        assert!(
            expect != wrong,
            "{call} of {id:?}: live = {live}, contract: {expect:?} (record {:?}, now {} to {})",
            self.records.get(&id),
            self.earliest,
            self.latest,
        );
    }

    /// The engine has said that the key is gone, so it may not come back by itself.
    fn gone(&mut self, id: Id) {
        if let Some(record) = self.records.get_mut(&id) {
            record.may_until = record.may_until.min(self.earliest);
            record.must_until = record.must_until.min(self.earliest.saturating_sub(1));
        }
    }

    /// A new mark at `at`.
    fn mark(&mut self, id: Id, at: i64) {
        // A late event may go to a slice that still is as wide as before a reopening.
        let slice = if self.rules.event_time { self.widest_slice } else { self.rules.slice };
        let mut record = Record::new(at, slice, self.rules.window);
        if at < self.known_since {
            // It was too old before the window was made longer, and nobody vouches for it.
            record.must_until = record.must_until.min(self.earliest.saturating_sub(1));
        }
        self.records.insert(id, record);
    }

    /// A duplicate was met at `at`: in a refreshing store that extends its window.
    fn refreshed(&mut self, id: Id, at: i64) {
        let Rules { window, slice, refresh, event_time } = self.rules;
        let record = self.records.get_mut(&id).expect("a duplicate has a record");
        if refresh {
            // The older record may be in a slice that still is as wide as before a reopening, and a
            // late event goes to one.
            let widest = if event_time { self.widest_slice } else { record.slice };
            let slice = slice.max(widest);
            *record = Record::new(at.max(record.at), slice, window);
        }
    }

    /// Judges the answer of `observe`, and follows it.
    pub(crate) fn observed(&mut self, id: Id, answer: Result<Verdict, &Error>) {
        self.observed_at(id, self.clock, answer);
    }

    /// The same at timestamp `at`; without event time this is the clock.
    pub(crate) fn observed_at(&mut self, id: Id, at: i64, answer: Result<Verdict, &Error>) {
        match answer {
            Ok(Verdict::TooOld) => self.must_be_too_old(at, true),
            Ok(verdict) => {
                self.must_be_too_old(at, false);
                self.move_watermark(at);
                if verdict == Verdict::New {
                    self.marked(id, at);
                } else {
                    self.must_be_allowed(id, true, "observe");
                    self.refreshed(id, at);
                }
            }
            Err(Error::InFlight { lease_left }) => {
                self.may_move_watermark(at);
                self.must_be_claimed(id, *lease_left);
            }
            Err(error) => panic!("observe of {id:?}: {error}"),
        }
    }

    fn marked(&mut self, id: Id, at: i64) {
        self.must_be_allowed(id, false, "observe");
        // A lease that ran out does not hide the key; the mark then ends the claim.
        if let Some(held) = self.claims.remove(&id) {
            assert!(held.lapsed(self.clock), "{id:?} is claimed ({held:?}), yet observe is New");
        }
        self.mark(id, at);
    }

    fn must_be_claimed(&self, id: Id, lease_left: Duration) {
        let held = self.claims.get(&id);
        let held = held.unwrap_or_else(|| panic!("{id:?} is not claimed, yet it is InFlight"));
        assert_eq!(lease_left, held.left(self.clock), "lease of {id:?}");
        assert_ne!(self.expect(id), Expect::MustBeDuplicate, "{id:?} is live and claimed");
    }

    fn move_watermark(&mut self, at: i64) {
        if self.rules.event_time {
            self.earliest = self.earliest.max(at);
            self.latest = self.latest.max(at);
        }
    }

    /// A batch, an error or a claim: moving the watermark to `at` is allowed, not demanded.
    pub(crate) fn may_move_watermark(&mut self, at: i64) {
        if self.rules.event_time {
            self.latest = self.latest.max(at);
        }
    }

    fn must_be_too_old(&self, at: i64, answer: bool) {
        let must = self.earliest >= at + self.rules.window + self.widest_slice;
        let must_not = self.latest <= at + self.rules.window && at >= self.known_since;
        assert!(
            if answer { !must_not } else { !must },
            "TooOld = {answer} for {at}, watermark {} to {}, {:?}",
            self.earliest,
            self.latest,
            self.rules,
        );
    }

    /// Judges a batch that failed: `decided` is what [`onceonly::BatchError::into_parts`] told.
    pub(crate) fn batch_failed(&mut self, ids: &[Id], decided: &[Option<Verdict>], error: &Error) {
        assert_eq!(decided.len(), ids.len());
        assert!(matches!(error, Error::InFlight { .. }), "batch: {error}");
        assert!(ids.iter().any(|id| self.claims.contains_key(id)), "no key of {ids:?} is claimed");
        // Nobody claims during a call of this one thread, so nothing of the batch may be marked.
        assert!(!decided.contains(&Some(Verdict::New)), "a failed batch marked: {decided:?}");
        for (id, verdict) in ids.iter().zip(decided) {
            if let Some(verdict) = verdict {
                self.observed(*id, Ok(*verdict));
            }
        }
    }

    /// Judges the answer of `contains`.
    pub(crate) fn contained(&mut self, id: Id, answer: bool) {
        self.must_be_allowed(id, answer, "contains");
        if !answer {
            self.gone(id);
        }
    }

    /// Judges the answer of `forget`.
    pub(crate) fn forgot(&mut self, id: Id, was_live: bool) {
        self.must_be_allowed(id, was_live, "forget");
        self.records.remove(&id);
        self.claims.remove(&id);
    }

    /// Judges the answer of a claim, with the lease and note that it asked for.
    pub(crate) fn claimed(&mut self, id: Id, answer: &Claim, lease: i64, note: &[u8]) {
        match answer {
            Claim::Granted(guard) => {
                self.must_be_allowed(id, false, "claim");
                self.gone(id);
                if let Some(held) = self.claims.get(&id) {
                    assert!(held.lapsed(self.clock), "{id:?} granted twice ({held:?})");
                }
                self.take(id, guard.token(), lease, note.to_vec(), None);
            }
            Claim::InFlight { lease_left, .. } => {
                self.must_be_claimed(id, *lease_left);
                assert!(!lease_left.is_zero(), "{id:?}: a lapsed lease must be granted");
            }
            Claim::Duplicate { .. } => {
                self.must_be_allowed(id, true, "claim");
                self.refreshed(id, self.clock);
            }
            other => panic!("claim of {id:?}: {other:?}"),
        }
    }

    /// Judges the answer of a claim at timestamp `at`.
    pub(crate) fn claimed_at(&mut self, id: Id, at: i64, answer: &Claim, lease: i64) {
        if matches!(answer, Claim::TooOld) {
            return self.must_be_too_old(at, true);
        }
        self.must_be_too_old(at, false);
        self.may_move_watermark(at);
        match answer {
            Claim::Duplicate { .. } => {
                self.must_be_allowed(id, true, "claim_at");
                self.refreshed(id, at);
            }
            answer => self.claimed(id, answer, lease, &[]),
        }
        if matches!(answer, Claim::Granted(_)) {
            self.claims.get_mut(&id).expect("just granted").at = Some(at);
        }
    }

    fn take(&mut self, id: Id, token: u64, lease: i64, note: Vec<u8>, at: Option<i64>) {
        let before = self.token_before_call;
        assert!(token > before, "token {token} after {before}");
        let taken = self.claims.values().any(|held| held.token == token);
        assert!(!taken, "token {token} was given twice");
        self.last_token = self.last_token.max(token);
        let until = self.clock.saturating_add(lease);
        let held = Held { token, until, lease, orphaned: false, note, at };
        self.claims.insert(id, held);
    }

    fn owns(&self, id: Id, token: u64) -> bool {
        self.claims.get(&id).is_some_and(|held| held.token == token && !held.orphaned)
    }

    /// Judges the answer of a commit.
    pub(crate) fn committed(&mut self, id: Id, token: u64, answer: Result<(), &CommitError>) {
        match answer.map_err(CommitError::error) {
            Ok(()) => {
                assert!(self.owns(id, token), "{id:?}: commit of a lost claim {token}");
                let held = self.claims.remove(&id).expect("owned");
                let at = held.at.unwrap_or(self.clock);
                self.move_watermark(at);
                self.mark(id, at);
            }
            Err(Error::LeaseLost { token: lost }) => {
                assert_eq!(*lost, token);
                assert!(!self.owns(id, token), "{id:?}: {token} is ours, yet LeaseLost");
            }
            Err(error) => panic!("commit of {id:?}: {error}"),
        }
    }

    /// A guard was abandoned or dropped.
    pub(crate) fn abandoned(&mut self, id: Id, token: u64) {
        if self.owns(id, token) {
            self.claims.remove(&id);
        }
    }

    /// Judges the answer of a renewal.
    pub(crate) fn renewed(&mut self, id: Id, token: u64, answer: &Result<(), Error>) {
        let owned = self.owns(id, token);
        match answer {
            Ok(()) => {
                assert!(owned, "{id:?}: renewal of a lost claim {token}");
                let held = self.claims.get_mut(&id).expect("owned");
                held.until = self.clock.saturating_add(held.lease);
            }
            Err(Error::LeaseLost { .. }) => assert!(!owned, "{id:?}: {token} is ours"),
            Err(error) => panic!("renewal of {id:?}: {error}"),
        }
    }

    /// Judges the list of claims in flight.
    pub(crate) fn listed(&self, answer: &[ClaimInfo]) {
        type Told<'a> = (Duration, bool, Option<i64>, &'a [u8]);
        let told: BTreeMap<u64, Told<'_>> = answer
            .iter()
            .map(|info| {
                let at = info.event_time.map(Timestamp::as_unix_nanos);
                (info.token, (info.lease_left, info.orphaned, at, &info.note[..]))
            })
            .collect();
        assert_eq!(told.len(), answer.len(), "a claim is listed twice: {answer:?}");
        let known: BTreeMap<u64, Told<'_>> = self
            .claims
            .values()
            .map(|held| {
                let left = held.left(self.clock);
                (held.token, (left, held.orphaned, held.at, &held.note[..]))
            })
            .collect();
        assert_eq!(told, known, "claims in flight");
    }

    pub(crate) fn claims_held(&self) -> usize {
        self.claims.len()
    }

    /// The claims that `expired_claims` has to take over.
    pub(crate) fn lapsed_claims(&self) -> Vec<Id> {
        let lapsed = self.claims.iter().filter(|(_, held)| held.lapsed(self.clock));
        lapsed.map(|(id, _)| *id).collect()
    }

    /// `expired_claims` handed out the claim on `id`, with the store's lease and the old note.
    pub(crate) fn taken_over(&mut self, id: Id, token: u64, lease: i64, note: &[u8]) {
        let held = self.claims.get(&id).expect("listed as lapsed").clone();
        assert_eq!(held.note, note, "the note of {id:?} outlives a take-over");
        self.take(id, token, lease, held.note, held.at);
    }

    /// The next call begins: its tokens are higher than all so far.
    pub(crate) fn begin_call(&mut self) {
        self.token_before_call = self.last_token;
    }

    /// The store was closed and opened again, `elapsed` later, with the settings `rules`.
    pub(crate) fn reopened(&mut self, rules: Rules, elapsed: i64) {
        self.advance(elapsed);
        for held in self.claims.values_mut() {
            held.orphaned = true;
        }
        let changed = self.rules.window != rules.window || self.rules.slice != rules.slice;
        self.known_since = self.known_since.max(self.latest.saturating_sub(self.rules.window));
        self.rules = rules;
        self.widest_slice = self.widest_slice.max(rules.slice);
        if !changed {
            return;
        }
        let (earliest, latest) = (self.earliest, self.latest);
        for record in self.records.values_mut() {
            let live = latest <= record.must_until;
            *record = Record::new(record.at, record.slice, rules.window);
            // What is surely live stays. What had perhaps expired under the old window may count
            // under the new one, as it was seen within it; nobody may rely on that.
            if !live {
                record.must_until = record.must_until.min(earliest.saturating_sub(1));
            }
        }
    }
}
