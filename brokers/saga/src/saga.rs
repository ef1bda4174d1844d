//! The saga: an order is claimed as a whole, and each of its steps by itself.
//!
//! | claim | committed | abandoned |
//! |---|---|---|
//! | order | paid: it may not be taken again | cancelled: it may |
//! | step of an attempt | done: it is not done again | never |

use std::str;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use onceonly::{Claim, ClaimGuard, ClaimOptions, Dedup, Key, Scope};

use crate::Attempt;
use crate::database::Place;
use crate::machine::{Advance, State};
use crate::provider::{Charge, Provider};
use crate::shop::Shop;

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Paid,
    Cancelled,
}

/// The answer to "take this order".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Driven to its end just now.
    Ended(Ending),
    /// Paid before.
    Paid,
    /// Somebody works on it.
    InWork,
    /// A step failed; the schedule goes on with it.
    Parked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Reserve,
    Pay,
    Release,
}

/// What a claim is about, as its note has it: the store keeps no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Order(Attempt),
    Step(Attempt, Step),
}

/// The claims of all workers of a process. Each worker brings its own connections.
pub struct Saga {
    dedup: Dedup,
    orders: Scope,
    steps: Scope,
    /// Orders whose work failed. Their claims are kept, so that no order is given up half done.
    parked: Mutex<Vec<(ClaimGuard, Attempt)>>,
    /// Called where a worker may be slow; tests make it slower than its lease.
    hesitate: fn(),
}

/// The connections of one worker.
pub struct Desk {
    pub shop: Shop,
    pub provider: Provider,
}

impl Desk {
    pub fn open(place: &Place) -> Result<Self> {
        Ok(Desk { shop: Shop::open(place)?, provider: Provider::open(&place.dir)? })
    }
}

impl Saga {
    pub fn new(dedup: Dedup, hesitate: fn()) -> Self {
        let (orders, steps) = (dedup.scope("orders"), dedup.scope("steps"));
        Saga { dedup, orders, steps, parked: Mutex::default(), hesitate }
    }

    /// Takes an order, and drives it to its end.
    pub fn take(&self, desk: &mut Desk, order: i64) -> Result<Taken> {
        // Before the claim, and into its note: who finds the claim knows which attempt was meant.
        let number = match desk.shop.look(order)? {
            Some((attempt, State::Cancelled)) => attempt.number + 1,
            Some((attempt, _)) => attempt.number,
            None => 1,
        };
        let attempt = Attempt { order, number };
        let options = ClaimOptions::new().note(Subject::Order(attempt).note());
        match self.orders.claim_with(order.to_le_bytes(), options)? {
            Claim::Granted(guard) => Ok(self.drive_to_end(desk, guard, attempt)),
            Claim::Duplicate { .. } => Ok(Taken::Paid),
            _ => Ok(Taken::InWork),
        }
    }

    /// To be called on a schedule: goes on with what dead and stuck workers have left, and with what
    /// failed. True if there was something.
    pub fn recover(&self, desk: &mut Desk) -> Result<bool> {
        let parked = std::mem::take(&mut *self.parked.lock().expect("no panic holds it"));
        let expired = self.dedup.expired_claims()?;
        let found = !parked.is_empty() || !expired.is_empty();
        let mut orders = Vec::new();
        for guard in expired {
            match Subject::parse(&guard.note()?)? {
                Subject::Order(attempt) => orders.push((guard, attempt)),
                // The order waits for its step.
                Subject::Step(attempt, step) => self.finish(desk, guard, attempt, step)?,
            }
        }
        for (guard, attempt) in orders.into_iter().chain(parked) {
            self.drive_to_end(desk, guard, attempt);
        }
        Ok(found)
    }

    fn drive_to_end(&self, desk: &mut Desk, guard: ClaimGuard, attempt: Attempt) -> Taken {
        match self.drive(desk, &guard, attempt) {
            Ok(Ending::Paid) => {
                // Refused if we were too slow: then somebody else has driven it here.
                let _ = guard.commit();
                Taken::Ended(Ending::Paid)
            }
            Ok(Ending::Cancelled) => {
                guard.abandon();
                Taken::Ended(Ending::Cancelled)
            }
            Err(error) => {
                eprintln!("order {}: {error:#}", attempt.order);
                self.parked.lock().expect("no panic holds it").push((guard, attempt));
                Taken::Parked
            }
        }
    }

    fn drive(&self, desk: &mut Desk, guard: &ClaimGuard, attempt: Attempt) -> Result<Ending> {
        desk.shop.take(attempt, guard.token())?;
        loop {
            let (now, state) = desk.shop.look(attempt.order)?.context("the order is taken")?;
            if now != attempt {
                // Ours was cancelled, and the order taken again.
                return Ok(Ending::Cancelled);
            }
            match state {
                State::Taken => self.step(desk, attempt, Step::Reserve)?,
                State::Reserved | State::Paying => self.step(desk, attempt, Step::Pay)?,
                State::Cancelling => self.step(desk, attempt, Step::Release)?,
                State::Paid => return Ok(Ending::Paid),
                State::Cancelled => return Ok(Ending::Cancelled),
            }
        }
    }

    /// Claims a step and carries it out; waits where somebody else is at it.
    fn step(&self, desk: &mut Desk, attempt: Attempt, step: Step) -> Result<()> {
        let fields = [&attempt.order.to_le_bytes()[..], &attempt.number.to_le_bytes(), step.name()];
        let options = ClaimOptions::new().note(Subject::Step(attempt, step).note());
        match self.steps.claim_with(Key::from_fields(&fields), options)? {
            Claim::Granted(guard) => self.finish(desk, guard, attempt, step),
            Claim::InFlight { lease_left, .. } => {
                thread::sleep(lease_left.min(Duration::from_millis(10)));
                Ok(())
            }
            // Done; the state says how it ended.
            _ => Ok(()),
        }
    }

    /// Carries a step out, under a token that refuses everybody who had it before. An error gives
    /// the step back.
    fn finish(
        &self,
        desk: &mut Desk,
        guard: ClaimGuard,
        attempt: Attempt,
        step: Step,
    ) -> Result<()> {
        (self.hesitate)();
        let token = guard.token();
        let answer = match step {
            Step::Reserve => desk.shop.reserve(attempt, token)?,
            Step::Pay => self.pay(desk, attempt, token)?,
            Step::Release => desk.shop.release(attempt, token)?,
        };
        (self.hesitate)();
        match answer {
            // A refused commit: the step is somebody else's by now, who sees that it is done.
            Advance::Applied | Advance::Repeated => drop(guard.commit()),
            Advance::Late { .. } => guard.abandon(),
        }
        Ok(())
    }

    /// The provider is between two transactions: a death in there leaves `Paying`, and the next owner
    /// asks again with the same idempotency key.
    fn pay(&self, desk: &mut Desk, attempt: Attempt, token: u64) -> Result<Advance> {
        if let late @ Advance::Late { .. } = desk.shop.begin_payment(attempt, token)? {
            return Ok(late);
        }
        (self.hesitate)();
        let paid = desk.provider.charge(attempt)? == Charge::Charged;
        (self.hesitate)();
        desk.shop.end_payment(attempt, paid, token)
    }
}

impl Step {
    const ALL: [Step; 3] = [Step::Reserve, Step::Pay, Step::Release];

    fn name(self) -> &'static [u8] {
        match self {
            Step::Reserve => b"reserve",
            Step::Pay => b"pay",
            Step::Release => b"release",
        }
    }
}

impl Subject {
    fn note(self) -> Vec<u8> {
        let (Subject::Order(attempt) | Subject::Step(attempt, _)) = self;
        let mut note = format!("{} {}", attempt.order, attempt.number).into_bytes();
        if let Subject::Step(_, step) = self {
            note.push(b' ');
            note.extend_from_slice(step.name());
        }
        note
    }

    fn parse(note: &[u8]) -> Result<Self> {
        let mut words = str::from_utf8(note)?.split(' ');
        let mut number = || words.next().context("a note has two numbers")?.parse().context("note");
        let attempt = Attempt { order: number()?, number: number()? };
        let Some(name) = words.next() else { return Ok(Subject::Order(attempt)) };
        let step = Step::ALL.into_iter().find(|step| step.name() == name.as_bytes());
        Ok(Subject::Step(attempt, step.with_context(|| format!("step {name}"))?))
    }
}
