//! The state machine of an order: "advance this order to PAID at most once". A repeated or late
//! transition is answered as such, not applied.

use anyhow::{Context as _, Result};

use crate::Attempt;
use crate::database::Transaction;

/// Where an order stands.
///
/// ```text
/// Taken ──► Reserved ──► Paying ──► Paid
///   │          │            │
///   └──────────┴────────────┴─────► Cancelling ──► Cancelled ──► Taken (the next attempt)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Taken,
    Reserved,
    /// The provider is asked: from here on a cancellation is too late, until it has answered.
    Paying,
    Paid,
    Cancelling,
    Cancelled,
}

impl State {
    const ALL: [(State, &'static str); 6] = [
        (State::Taken, "TAKEN"),
        (State::Reserved, "RESERVED"),
        (State::Paying, "PAYING"),
        (State::Paid, "PAID"),
        (State::Cancelling, "CANCELLING"),
        (State::Cancelled, "CANCELLED"),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        State::ALL[self as usize].1
    }

    pub(crate) fn parse(name: &str) -> Result<State> {
        let found = State::ALL.iter().find(|(_, other)| *other == name);
        Ok(found.with_context(|| format!("state {name}"))?.0)
    }
}

/// The answer to a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what belongs to the transition may be done only when it was applied"]
pub enum Advance {
    /// The order was in the state before, and is in the next one now.
    Applied,
    /// It was there already.
    Repeated,
    /// It went elsewhere, is in a later attempt, or somebody with a higher fencing token has it.
    Late { state: State },
}

/// Moves `attempt` from one state to the next, if it stands there and nobody with a higher token has
/// touched it. What belongs to the transition goes into the same transaction.
pub(crate) fn advance(
    transaction: &mut Transaction<'_>,
    attempt: Attempt,
    (from, to): (State, State),
    token: u64,
) -> Result<Advance> {
    let token = i64::try_from(token)?;
    let (order, number) = (attempt.order.into(), attempt.number.into());
    let moved = transaction.execute(
        "UPDATE orders SET state = ?1, token = ?2
         WHERE id = ?3 AND attempt = ?4 AND state = ?5 AND token <= ?2",
        &[to.name().into(), token.into(), order, number, from.name().into()],
    )?;
    let (order, number) = (attempt.order.into(), attempt.number.into());
    if moved == 1 {
        transaction.execute(
            "INSERT INTO history (order_id, attempt, state, token) VALUES (?1, ?2, ?3, ?4)",
            &[order, number, to.name().into(), token.into()],
        )?;
        return Ok(Advance::Applied);
    }
    let look = "SELECT attempt, state, token FROM orders WHERE id = ?1";
    let rows = transaction.query(look, &[order])?;
    let row = rows.first().with_context(|| format!("no order {}", attempt.order))?;
    let state = State::parse(row.text(1)?)?;
    if row.number(0)? == attempt.number && state == to && row.number(2)? <= token {
        Ok(Advance::Repeated)
    } else {
        Ok(Advance::Late { state })
    }
}
