//! A store and the model side by side: every operation runs on both, every answer is judged.

use std::time::SystemTime;

use onceonly::{
    BatchError, Claim, ClaimGuard, ClaimOptions, Dedup, Error, KeyState, ManualClock, Scope,
    Timestamp,
};
use tempfile::TempDir;

use super::model::{Expect, Id, Model};
use super::ops::{End, Lead, Op, Shape, Step, duration};
use super::{fast_dir, key_bytes, start};

/// Keys from here on are used once, for growth.
const FIRST_FRESH: u32 = 1_000_000;
const FRESH_BATCH: usize = 97;

struct Guard {
    id: Id,
    guard: ClaimGuard,
}

/// Whether a timestamp is further ahead of the clock than the store accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    No,
    Perhaps,
    Yes,
}

pub(crate) struct Pair {
    store: Option<Dedup>,
    place: Option<TempDir>,
    shape: Shape,
    clock: ManualClock,
    /// What the wall clock shows, in Unix nanoseconds.
    wall: i64,
    model: Model,
    guards: Vec<Guard>,
    next_fresh: u32,
}

/// Opens a store of `shape` and carries `ops` out on it, then checks every key that was ever used.
pub(crate) fn run(shape: Shape, ops: &[Op]) {
    let mut pair = Pair::open(shape);
    for op in ops {
        pair.apply(op);
    }
    pair.check_all();
    if shape.on_disk {
        pair.restart(End::Close, shape);
        pair.check_all();
    }
}

impl Pair {
    pub(crate) fn open(shape: Shape) -> Self {
        let clock = ManualClock::new(start());
        let place = shape.on_disk.then(fast_dir);
        let wall = Timestamp::from(start()).as_unix_nanos();
        let mut pair = Pair {
            store: None,
            place,
            shape,
            clock,
            wall,
            model: Model::new(shape.rules(), 0),
            guards: Vec::new(),
            next_fresh: FIRST_FRESH,
        };
        if shape.event_time {
            // The first timestamp is the clock's; everything else is relative to it.
            pair.model.may_move_watermark(wall);
        }
        pair.open_store();
        pair
    }

    fn open_store(&mut self) {
        let builder = self.shape.builder(&self.clock);
        let opened = match &self.place {
            Some(place) => builder.open(place.path().join("store")),
            None => builder.in_memory(),
        };
        self.store = Some(opened.expect("the store opens"));
    }

    fn store(&self) -> &Dedup {
        self.store.as_ref().expect("open")
    }

    fn scope(&self, scope: Option<u8>) -> Scope {
        match scope {
            // The root is the scope that a store derefs to.
            None => (**self.store()).clone(),
            Some(0) => self.store().scope(""),
            Some(n) => self.store().scope(format!("scope-{n}")),
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        self.model.begin_call();
        match op {
            Op::Observe(id) => self.observe(*id),
            Op::ObserveBatch(scope, keys) => self.observe_batch(*scope, keys),
            Op::Contains(id) => {
                let answer = self.scope(id.0).contains(key_bytes(id.1)).expect("contains");
                self.model.contained(*id, answer);
            }
            Op::ContainsBatch(scope, keys) => self.contains_batch(*scope, keys),
            Op::Fresh(count) => self.fresh(usize::from(*count)),
            Op::Prefetch(id) => self.scope(id.0).prefetch(key_bytes(id.1)),
            Op::Forget(id) => {
                let was_live = self.scope(id.0).forget(key_bytes(id.1)).expect("forget");
                self.model.forgot(*id, was_live);
            }
            Op::Explain(id) => self.explain(*id),
            Op::Advance(step) => self.advance(step.nanos(&self.shape)),
            Op::LeapWall(millis) => {
                self.clock.leap_wall(i64::from(*millis));
                self.wall += i64::from(*millis) * 1_000_000;
            }
            Op::Restart(end) => self.restart(*end, self.shape),
            Op::Reboot(end, step, ahead) => self.reboot(*end, *step, *ahead),
            Op::Reopen(end, shape) => self.restart(*end, *shape),
            Op::Sync => self.store().sync().expect("sync"),
            Op::Settle => self.store().settle(),
            Op::ObserveAt(id, lead) => self.observe_at(*id, *lead),
            Op::ObserveBatchAt(scope, keys) => self.observe_batch_at(*scope, keys),
            Op::ClaimAt(id, lead) => self.claim_at(*id, *lead),
            claims => self.apply_to_claims(claims),
        }
    }

    fn apply_to_claims(&mut self, op: &Op) {
        match op {
            Op::Claim(id) => {
                let answer = self.scope(id.0).claim(key_bytes(id.1)).expect("claim");
                self.follow_claim(*id, answer, self.shape.lease_ns(), &[]);
            }
            Op::ClaimWith(id, lease) => {
                let lease = lease.nanos(&self.shape).max(1);
                let note = format!("{id:?}").into_bytes();
                let options = ClaimOptions::new().lease(duration(lease)).note(note.clone());
                let answer = self.scope(id.0).claim_with(key_bytes(id.1), options).expect("claim");
                self.follow_claim(*id, answer, lease, &note);
            }
            Op::ClaimBatch(scope, keys) => {
                let bytes: Vec<_> = keys.iter().map(|key| key_bytes(*key)).collect();
                let answers = self.scope(*scope).claim_batch(&bytes).expect("claim_batch");
                assert_eq!(answers.len(), keys.len());
                for (key, answer) in keys.iter().zip(answers) {
                    self.follow_claim((*scope, *key), answer, self.shape.lease_ns(), &[]);
                }
            }
            Op::ListClaims => {
                let listed = self.store().claims().expect("claims");
                self.model.listed(&listed);
            }
            Op::TakeOverExpired => self.take_over_expired(),
            Op::CommitBatch(count) => self.commit_batch(*count),
            Op::Commit(n) | Op::Abandon(n) | Op::DropGuard(n) | Op::Renew(n) => {
                if !self.guards.is_empty() {
                    let held = self.guards.swap_remove(n % self.guards.len());
                    self.end_guard(op, held);
                }
            }
            other => unreachable!("{other:?} is handled by `apply`"),
        }
    }

    fn observe(&mut self, id: Id) {
        let answer = self.scope(id.0).observe(key_bytes(id.1));
        self.model.observed(id, answer.as_ref().copied());
    }

    fn observe_batch(&mut self, scope: Option<u8>, keys: &[u32]) {
        let bytes: Vec<_> = keys.iter().map(|key| key_bytes(*key)).collect();
        let ids: Vec<Id> = keys.iter().map(|key| (scope, *key)).collect();
        match self.scope(scope).observe_batch(&bytes) {
            Ok(verdicts) => {
                assert_eq!(verdicts.len(), keys.len());
                for (id, verdict) in ids.iter().zip(verdicts) {
                    self.model.observed(*id, Ok(verdict));
                }
            }
            Err(failed) => self.batch_failed(&ids, failed),
        }
    }

    fn batch_failed(&mut self, ids: &[Id], failed: BatchError) {
        let (decided, error) = failed.into_parts();
        self.model.batch_failed(ids, &decided, &error);
    }

    fn contains_batch(&mut self, scope: Option<u8>, keys: &[u32]) {
        let bytes: Vec<_> = keys.iter().map(|key| key_bytes(*key)).collect();
        let answers = self.scope(scope).contains_batch(&bytes).expect("contains_batch");
        assert_eq!(answers.len(), keys.len());
        for (key, answer) in keys.iter().zip(answers) {
            self.model.contained((scope, *key), answer);
        }
    }

    fn fresh(&mut self, count: usize) {
        let first = self.next_fresh;
        self.next_fresh += u32::try_from(count).expect("a small number");
        let keys: Vec<u32> = (first..self.next_fresh).collect();
        for batch in keys.chunks(FRESH_BATCH) {
            if self.shape.event_time {
                let now: Vec<_> =
                    batch.iter().map(|key| (*key, Lead::Ahead(Step::Nanos(0)))).collect();
                self.observe_batch_at(None, &now);
            } else {
                self.observe_batch(None, batch);
            }
        }
    }

    fn explain(&mut self, id: Id) {
        let told = self.scope(id.0).explain(key_bytes(id.1)).expect("explain");
        let live = matches!(told.state, KeyState::Live { .. });
        self.model.contained(id, live);
        // Every record that is told has its slice among the suspects: the filter never hides a key.
        if let Some(suspects) = &told.suspected_slices {
            assert!(told.sightings.iter().all(|seen| suspects.contains(&seen.slice)), "{told:?}");
        }
        assert!(!live || !told.sightings.is_empty(), "live, yet held nowhere: {told:?}");
    }

    fn follow_claim(&mut self, id: Id, answer: Claim, lease: i64, note: &[u8]) {
        self.model.claimed(id, &answer, lease, note);
        if let Claim::Granted(guard) = answer {
            self.guards.push(Guard { id, guard });
        }
    }

    fn take_over_expired(&mut self) {
        let lapsed = self.model.lapsed_claims();
        let guards = self.store().expired_claims().expect("expired_claims");
        assert_eq!(guards.len(), lapsed.len(), "lapsed claims: {lapsed:?}, got {guards:?}");
        // A guard does not tell its key, but the list of claims has the digest to each token.
        let listed = self.store().claims().expect("claims");
        for guard in guards {
            let info = listed.iter().find(|info| info.token == guard.token()).expect("listed");
            let has_digest = |id: &&Id| {
                let told = self.scope(id.0).explain(key_bytes(id.1)).expect("explain");
                told.digest == info.digest
            };
            let id = *lapsed.iter().find(has_digest).expect("one of the lapsed claims");
            let note = guard.note().expect("note");
            self.model.taken_over(id, guard.token(), self.shape.lease_ns(), &note);
            self.guards.push(Guard { id, guard });
        }
    }

    fn end_guard(&mut self, op: &Op, held: Guard) {
        let Guard { id, guard } = held;
        let token = guard.token();
        match op {
            Op::Commit(_) => {
                let answer = guard.commit();
                self.model.committed(id, token, answer.as_ref().copied());
            }
            Op::Abandon(_) => {
                guard.abandon();
                self.model.abandoned(id, token);
            }
            Op::DropGuard(_) => {
                drop(guard);
                self.model.abandoned(id, token);
            }
            _ => {
                let answer = guard.renew();
                self.model.renewed(id, token, &answer);
                self.guards.push(Guard { id, guard });
            }
        }
    }

    fn commit_batch(&mut self, count: usize) {
        let rest = self.guards.split_off(count.min(self.guards.len()));
        let batch = std::mem::replace(&mut self.guards, rest);
        let told: Vec<_> = batch.iter().map(|g| (g.id, g.guard.token())).collect();
        let answers = self.store().commit_batch(batch.into_iter().map(|g| g.guard));
        assert_eq!(answers.len(), told.len());
        for ((id, token), answer) in told.into_iter().zip(answers) {
            self.model.committed(id, token, answer.as_ref().copied());
        }
    }

    fn advance(&mut self, by: i64) {
        self.clock.advance(duration(by));
        self.wall += by;
        self.model.advance(by);
    }

    pub(crate) fn restart(&mut self, end: End, shape: Shape) {
        if !self.shape.on_disk {
            return;
        }
        self.end_store(end);
        // What is fixed at creation stays; the rest is as the new shape says.
        self.shape = Shape {
            siphash: self.shape.siphash,
            event_time: self.shape.event_time,
            on_disk: true,
            ..shape
        };
        self.open_store();
        self.model.reopened(self.shape.rules(), 0);
    }

    fn end_store(&mut self, end: End) {
        if matches!(end, End::DropGuardsFirst) {
            for held in self.guards.drain(..) {
                self.model.abandoned(held.id, held.guard.token());
            }
        }
        let store = self.store.take().expect("open");
        if matches!(end, End::Close) {
            store.close().expect("close");
        }
        drop(store);
        // Guards outlive their store: they are refused, and dropping them is harmless.
        for held in self.guards.drain(..) {
            let refused = held.guard.commit().expect_err("the store is closed");
            assert!(matches!(refused.error(), Error::Closed), "{refused:?}");
        }
    }

    fn reboot(&mut self, end: End, step: Step, ahead: bool) {
        if !self.shape.on_disk {
            return;
        }
        self.end_store(end);
        let moved = step.nanos(&self.shape) * if ahead { 1 } else { -1 };
        self.wall += moved;
        self.clock = ManualClock::new(SystemTime::from(Timestamp::from_unix_nanos(self.wall)));
        self.open_store();
        self.model.reopened(self.shape.rules(), moved.max(0));
    }

    /// The timestamp that `lead` means, and whether it is too far ahead of the clock.
    fn timestamp(&self, lead: Lead) -> (i64, Ahead) {
        let watermark = self.model.watermark();
        let at = lead.from(watermark, &self.shape);
        let ahead = match at > self.wall + self.shape.lead_ns() {
            false => Ahead::No,
            // It was accepted before, when the limit was larger.
            true if at <= watermark => Ahead::Perhaps,
            true => Ahead::Yes,
        };
        (at, ahead)
    }

    fn observe_at(&mut self, id: Id, lead: Lead) {
        let (at, ahead) = self.timestamp(lead);
        let time = Timestamp::from_unix_nanos(at);
        let answer = self.scope(id.0).observe_at(key_bytes(id.1), time);
        match answer {
            Err(Error::TimestampAhead { timestamp, .. }) => {
                assert!(ahead != Ahead::No && timestamp == time);
            }
            answer => {
                assert!(ahead != Ahead::Yes, "{at} is too far ahead of {}: {answer:?}", self.wall);
                self.model.observed_at(id, at, answer.as_ref().copied());
            }
        }
    }

    fn observe_batch_at(&mut self, scope: Option<u8>, keys: &[(u32, Lead)]) {
        let told: Vec<_> = keys.iter().map(|(key, lead)| (*key, self.timestamp(*lead))).collect();
        let batch: Vec<_> = told
            .iter()
            .map(|(key, (at, _))| (key_bytes(*key), Timestamp::from_unix_nanos(*at)))
            .collect();
        let answer = self.scope(scope).observe_batch_at(&batch);
        let is_any = |wanted| told.iter().any(|(_, (_, ahead))| *ahead == wanted);
        match answer {
            Err(failed) if matches!(failed.error(), Error::TimestampAhead { .. }) => {
                assert!(is_any(Ahead::Yes) || is_any(Ahead::Perhaps), "no timestamp is ahead");
                let (decided, _) = failed.into_parts();
                assert!(decided.iter().all(Option::is_none), "marked by an Err: {decided:?}");
            }
            answer => {
                assert!(
                    !is_any(Ahead::Yes),
                    "a timestamp is too far ahead of {}: {answer:?}",
                    self.wall
                );
                let latest = told.iter().map(|(_, (at, _))| *at).max();
                self.model.may_move_watermark(latest.unwrap_or(i64::MIN));
                match answer {
                    Ok(verdicts) => {
                        assert_eq!(verdicts.len(), told.len());
                        for ((key, (at, _)), verdict) in told.iter().zip(verdicts) {
                            self.model.observed_at((scope, *key), *at, Ok(verdict));
                        }
                    }
                    Err(failed) => {
                        let ids: Vec<Id> = told.iter().map(|(key, _)| (scope, *key)).collect();
                        self.batch_failed(&ids, failed);
                    }
                }
            }
        }
    }

    fn claim_at(&mut self, id: Id, lead: Lead) {
        let (at, ahead) = self.timestamp(lead);
        let time = Timestamp::from_unix_nanos(at);
        let answer = match self.scope(id.0).claim_at(key_bytes(id.1), time) {
            Err(Error::TimestampAhead { .. }) => return assert!(ahead != Ahead::No),
            answer => answer.expect("claim_at"),
        };
        assert!(ahead != Ahead::Yes, "{at} is too far ahead of {}: {answer:?}", self.wall);
        self.model.claimed_at(id, at, &answer, self.shape.lease_ns());
        if let Claim::Granted(guard) = answer {
            self.guards.push(Guard { id, guard });
        }
    }

    /// Asks for every key that was ever used, for one that never was, and for the claims.
    pub(crate) fn check_all(&mut self) {
        for id in self.model.keys() {
            self.apply(&Op::Contains(id));
        }
        let unused = (None, self.next_fresh + 1);
        assert_eq!(self.model.expect(unused), Expect::MustBeNew);
        self.apply(&Op::Contains(unused));
        self.apply(&Op::Explain(unused));
        self.apply(&Op::ListClaims);
        let stats = self.store().stats();
        assert_eq!(stats.recovery.damage, Vec::<String>::new());
        assert_eq!(stats.recovery.set_aside, Vec::<String>::new());
        assert_eq!((stats.background_errors, stats.last_background_error), (0, None));
        assert_eq!(stats.claims_held, self.model.claims_held() as u64);
    }
}
