//! Faults on demand.

use std::time::{Duration, Instant};

use super::MemoryAuthority;
use crate::authority::{AuthorityError, Result};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The server cannot be reached: nothing is applied, and the client knows.
    Refuse,
    /// The request is lost on its way: nothing is applied, and the client does not know.
    LoseRequest,
    /// It is applied, and the reply is lost.
    LoseReply,
}

/// Calls that were made, whatever became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each counts the calls of the method with its name")]
pub struct Calls {
    pub open: u64,
    pub rows: u64,
    /// Rows of all calls of `rows`.
    pub rows_sent: u64,
    pub forgotten: u64,
    pub acquire: u64,
    pub append: u64,
    /// Chunks of all calls of `append`.
    pub chunks_sent: u64,
    pub release: u64,
    pub slices: u64,
    pub read: u64,
    /// Buckets of all calls of `read`.
    pub buckets_read: u64,
    pub legacy: u64,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    delay: Duration,
    outage: Option<Fault>,
    /// Faults of the next calls, in turn.
    next: Vec<(usize, Fault)>,
    calls: Calls,
}

impl MemoryAuthority {
    /// Every call takes this long from now on; one that would take longer than its deadline is applied
    /// when nobody waits for it any more.
    pub fn delay(&self, delay: Duration) {
        self.shared.faults.lock().delay = delay;
    }

    /// Every call fails like this from now on; `None` ends it.
    pub fn outage(&self, fault: Option<Fault>) {
        self.shared.faults.lock().outage = fault;
    }

    /// The next `calls` calls fail like this, after those of earlier calls of this function.
    pub fn fail_next(&self, calls: usize, fault: Fault) {
        self.shared.faults.lock().next.push((calls, fault));
    }

    /// Takes back all faults that are still to come.
    pub fn heal(&self) {
        let mut faults = self.shared.faults.lock();
        (faults.delay, faults.outage) = (Duration::ZERO, None);
        faults.next.clear();
    }

    /// How many calls were made so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.shared.faults.lock().calls
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Calls)) {
        count(&mut self.shared.faults.lock().calls);
    }

    /// Waits as long as a call takes, and says what goes wrong after it was applied.
    pub(super) fn meet_fault(&self, deadline: Instant) -> Result<Option<Fault>> {
        let (delay, fault) = {
            let mut faults = self.shared.faults.lock();
            let fault = faults.outage.or_else(|| faults.take_next());
            (faults.delay, fault)
        };
        match fault {
            Some(Fault::Refuse) => return Err(AuthorityError::transient("the connection is down")),
            Some(Fault::LoseRequest) => {
                sleep_until(deadline);
                return Err(AuthorityError::undecided("no reply within the deadline"));
            }
            Some(Fault::LoseReply) | None => {}
        }
        if !delay.is_zero() {
            std::thread::sleep(delay.min(deadline.saturating_duration_since(Instant::now())));
        }
        Ok(fault)
    }

    /// The answer, unless its reply is lost or comes too late.
    pub(super) fn answer_with<T>(
        &self,
        fault: Option<Fault>,
        deadline: Instant,
        answer: Result<T>,
    ) -> Result<T> {
        let too_late = Instant::now() >= deadline && !self.shared.faults.lock().delay.is_zero();
        if fault == Some(Fault::LoseReply) || too_late {
            return Err(AuthorityError::undecided("no reply within the deadline"));
        }
        answer
    }
}

impl Faults {
    fn take_next(&mut self) -> Option<Fault> {
        self.next.retain(|(calls, _)| *calls > 0);
        let (calls, fault) = self.next.first_mut()?;
        *calls -= 1;
        Some(*fault)
    }
}

/// Long enough to be a time-out, short enough for tests with many of them.
const MOST_SILENCE: Duration = Duration::from_millis(20);

fn sleep_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    std::thread::sleep(left.min(MOST_SILENCE));
}
