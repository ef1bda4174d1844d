//! The shop's database: orders, stock and reservations. Each method is one transaction.

use anyhow::{Context as _, Result};

use crate::Attempt;
use crate::database::{Database, Place, Row, Transaction};
use crate::machine::{Advance, State, advance};

/// Different things to sell; an order is about one piece of one of them.
pub(crate) const ITEMS: i64 = 5;

/// The answer to a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// It will be undone, and not paid.
    Accepted,
    /// It is being paid, nobody knows yet: ask again.
    InPayment,
    /// It is cancelled or about to be.
    Repeated,
    /// It is paid.
    Late,
    /// There is no such order.
    Unknown,
}

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS orders (id BIGINT PRIMARY KEY, attempt BIGINT NOT NULL,
        state TEXT NOT NULL, token BIGINT NOT NULL, cancel BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS stock (item BIGINT PRIMARY KEY, free BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS reservation (order_id BIGINT PRIMARY KEY, item BIGINT);
    CREATE TABLE IF NOT EXISTS history (number NUMBERED PRIMARY KEY, order_id BIGINT,
        attempt BIGINT, state TEXT, token BIGINT);
    CREATE TABLE IF NOT EXISTS cancellation (order_id BIGINT, attempt BIGINT);";

/// A connection to it.
pub struct Shop {
    database: Database,
}

impl Shop {
    pub fn open(place: &Place) -> Result<Self> {
        Ok(Shop { database: Database::open(place, TABLES)? })
    }

    /// The rows of one `SELECT` without parameters.
    pub(crate) fn query(&mut self, statement: &str) -> Result<Vec<Row>> {
        self.database.begin()?.query(statement, &[])
    }

    /// Puts `free` pieces of each item into the stock.
    pub fn stock(&mut self, free: i64) -> Result<()> {
        let mut transaction = self.database.begin()?;
        for item in 0..ITEMS {
            let statement = "INSERT INTO stock (item, free) VALUES (?1, ?2)";
            transaction.execute(statement, &[item.into(), free.into()])?;
        }
        transaction.commit()
    }

    /// Attempt and state of an order.
    pub fn look(&mut self, order: i64) -> Result<Option<(Attempt, State)>> {
        look(&mut self.database.begin()?, order)
    }

    /// Writes down that `attempt` is taken, unless it was already: the first of an order, or the next
    /// one of a cancelled order.
    pub fn take(&mut self, attempt: Attempt, token: u64) -> Result<()> {
        let token = i64::try_from(token)?;
        let mut transaction = self.database.begin()?;
        transaction.execute(
            "INSERT INTO orders (id, attempt, state, token, cancel)
             SELECT CAST(?1 AS BIGINT), CAST(?2 AS BIGINT), 'TAKEN', CAST(?3 AS BIGINT), 0
             WHERE CAST(?2 AS BIGINT) = 1 OR EXISTS
                 (SELECT 1 FROM orders WHERE id = ?1 AND attempt = ?2 - 1 AND state = 'CANCELLED')
             ON CONFLICT (id) DO UPDATE
                 SET attempt = excluded.attempt, state = 'TAKEN', token = excluded.token, cancel = 0
                 WHERE orders.attempt = excluded.attempt - 1 AND orders.state = 'CANCELLED'",
            &[attempt.order.into(), attempt.number.into(), token.into()],
        )?;
        transaction.commit()
    }

    /// Asks for a cancellation. Accepted means: whoever drives the order will undo it.
    pub fn cancel(&mut self, order: i64) -> Result<Cancel> {
        let mut transaction = self.database.begin()?;
        let Some((attempt, _)) = look(&mut transaction, order)? else { return Ok(Cancel::Unknown) };
        let key = [order.into(), attempt.number.into()];
        let asked = transaction.execute(
            "UPDATE orders SET cancel = 1
             WHERE id = ?1 AND attempt = ?2 AND cancel = 0 AND state IN ('TAKEN', 'RESERVED')",
            &key,
        )?;
        if asked == 1 {
            let note = "INSERT INTO cancellation (order_id, attempt) VALUES (?1, ?2)";
            transaction.execute(note, &key)?;
            transaction.commit()?;
            return Ok(Cancel::Accepted);
        }
        Ok(match look(&mut transaction, order)? {
            None => Cancel::Unknown,
            Some((_, State::Paying)) => Cancel::InPayment,
            Some((_, State::Paid)) => Cancel::Late,
            Some(_) => Cancel::Repeated,
        })
    }

    /// Takes a piece from the stock; without one, or after a cancellation, the order is undone.
    pub fn reserve(&mut self, attempt: Attempt, token: u64) -> Result<Advance> {
        let mut transaction = self.database.begin()?;
        let item = attempt.order % ITEMS;
        // Rows are locked in one order everywhere: orders, then stock.
        let cancelled = is_cancelled(&mut transaction, attempt)?;
        let look = format!("SELECT free FROM stock WHERE item = ?1 {}", transaction.locking());
        let rows = transaction.query(&look, &[item.into()])?;
        let free = rows.first().with_context(|| format!("no item {item}"))?.number(0)?;
        let to = if free == 0 || cancelled { State::Cancelling } else { State::Reserved };
        let answer = advance(&mut transaction, attempt, (State::Taken, to), token)?;
        if answer == Advance::Applied && to == State::Reserved {
            let one_less = "UPDATE stock SET free = free - 1 WHERE item = ?1";
            transaction.execute(one_less, &[item.into()])?;
            let hold = "INSERT INTO reservation (order_id, item) VALUES (?1, ?2)";
            transaction.execute(hold, &[attempt.order.into(), item.into()])?;
        }
        transaction.commit()?;
        Ok(answer)
    }

    /// The last instant for a cancellation. `Applied` and `Repeated`: the provider may be asked.
    pub fn begin_payment(&mut self, attempt: Attempt, token: u64) -> Result<Advance> {
        let mut transaction = self.database.begin()?;
        let answer = if is_cancelled(&mut transaction, attempt)? {
            let undo = (State::Reserved, State::Cancelling);
            let _ = advance(&mut transaction, attempt, undo, token)?;
            Advance::Late { state: State::Cancelling }
        } else {
            advance(&mut transaction, attempt, (State::Reserved, State::Paying), token)?
        };
        transaction.commit()?;
        Ok(answer)
    }

    /// Advances the order to PAID at most once, or to being undone.
    pub fn end_payment(&mut self, attempt: Attempt, paid: bool, token: u64) -> Result<Advance> {
        let to = if paid { State::Paid } else { State::Cancelling };
        let mut transaction = self.database.begin()?;
        let answer = advance(&mut transaction, attempt, (State::Paying, to), token)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Compensation: gives the piece back, if one was taken.
    pub fn release(&mut self, attempt: Attempt, token: u64) -> Result<Advance> {
        let mut transaction = self.database.begin()?;
        let undone = (State::Cancelling, State::Cancelled);
        let answer = advance(&mut transaction, attempt, undone, token)?;
        if answer == Advance::Applied {
            let give = "DELETE FROM reservation WHERE order_id = ?1";
            let given = transaction.execute(give, &[attempt.order.into()])?.cast_signed();
            transaction.execute(
                "UPDATE stock SET free = free + ?1 WHERE item = ?2",
                &[given.into(), (attempt.order % ITEMS).into()],
            )?;
        }
        transaction.commit()?;
        Ok(answer)
    }
}

fn look(transaction: &mut Transaction<'_>, order: i64) -> Result<Option<(Attempt, State)>> {
    let rows =
        transaction.query("SELECT attempt, state FROM orders WHERE id = ?1", &[order.into()])?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some((Attempt { order, number: row.number(0)? }, State::parse(row.text(1)?)?)))
}

/// Locks the order's row: a cancellation that comes now waits, and finds the next state.
fn is_cancelled(transaction: &mut Transaction<'_>, attempt: Attempt) -> Result<bool> {
    let locking = transaction.locking();
    let look = format!("SELECT cancel FROM orders WHERE id = ?1 AND attempt = ?2 {locking}");
    let rows = transaction.query(&look, &[attempt.order.into(), attempt.number.into()])?;
    rows.first().map_or(Ok(false), |row| Ok(row.number(0)? == 1))
}
