//! What is asked of the thread of an authority.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::AcqRel;
use std::sync::atomic::Ordering::Acquire;
use std::time::Instant;

use crossbeam_channel::Sender;

use super::Failure;
use super::legacy::LegacyAsk;
use super::own::Owning;
use super::space::Space;
use crate::authority::{Digest, Opened, RowAnswer, RowOp};

/// One step of one digest's row.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) digest: Digest,
    op: RowOp<'static>,
    /// The value that goes with it; that of `op` has to outlive the caller.
    value: Option<Arc<[u8]>>,
}

impl Step {
    pub(crate) fn new(digest: Digest, op: RowOp<'static>) -> Self {
        Step { digest, op, value: None }
    }

    pub(crate) fn with_value(self, value: Option<Arc<[u8]>>) -> Self {
        Step { value, ..self }
    }

    pub(crate) fn op(&self) -> RowOp<'_> {
        let Some(value) = self.value.as_deref() else { return self.op };
        match self.op {
            RowOp::Observe { token, keep, .. } => RowOp::Observe { token, keep, value },
            RowOp::Commit { token, keep, .. } => RowOp::Commit { token, keep, value },
            op => op,
        }
    }
}

/// An answer to each step of a request.
pub(super) type Reply = Vec<Result<RowAnswer, Failure>>;

pub(super) enum Request {
    Rows(Arc<Ask>),
    Open(Arc<Space>, Sender<Result<Opened, Failure>>),
    Poll(Arc<Space>, Sender<Result<(), Failure>>),
    Flush(Sender<Result<(), Failure>>),
    Owning(Owning),
    Legacy(LegacyAsk),
}

/// Steps of one caller, which go in one call.
pub(super) struct Ask {
    pub(super) space: Arc<Space>,
    pub(super) steps: Vec<Step>,
    pub(super) deadline: Instant,
    pub(super) reply: Option<Sender<Reply>>,
    state: AtomicU8,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const CANCELLED: u8 = 2;

impl Ask {
    pub(super) fn new(
        space: Arc<Space>,
        steps: Vec<Step>,
        deadline: Instant,
        reply: Option<Sender<Reply>>,
    ) -> Self {
        Ask { space, steps, deadline, reply, state: AtomicU8::new(WAITING) }
    }

    fn end_waiting(&self, state: u8) -> bool {
        self.state.compare_exchange(WAITING, state, AcqRel, Acquire).is_ok()
    }

    /// The thread begins with it; false when nobody waits for it any more.
    pub(super) fn take(&self) -> bool {
        self.end_waiting(TAKEN)
    }

    /// The caller has given up; false when the thread has begun already.
    pub(super) fn cancel(&self) -> bool {
        self.end_waiting(CANCELLED)
    }

    pub(super) fn answer(&self, answers: Reply) {
        if let Some(reply) = &self.reply {
            // Whoever asked may have gone.
            let _ = reply.try_send(answers);
        }
    }

    pub(super) fn fail(&self, failure: &Failure) {
        self.answer(vec![Err(failure.clone()); self.steps.len()]);
    }
}
