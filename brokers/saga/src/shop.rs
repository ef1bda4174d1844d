//! The shop's database: orders, stock and reservations. Each method is one transaction.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::Attempt;
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

pub struct Shop {
    connection: Connection,
}

impl Shop {
    pub fn open(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join("shop.sqlite"))?;
        connection.busy_timeout(Duration::from_secs(30))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, attempt INTEGER NOT NULL,
                 state TEXT NOT NULL, token INTEGER NOT NULL, cancel INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS stock (item INTEGER PRIMARY KEY, free INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS reservation (order_id INTEGER PRIMARY KEY, item INTEGER);
             CREATE TABLE IF NOT EXISTS history (order_id INTEGER, attempt INTEGER, state TEXT,
                 token INTEGER);
             CREATE TABLE IF NOT EXISTS cancellation (order_id INTEGER, attempt INTEGER);",
        )?;
        Ok(Shop { connection })
    }

    fn begin(&mut self) -> Result<Transaction<'_>> {
        Ok(self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Puts `free` pieces of each item into the stock.
    pub fn stock(&mut self, free: i64) -> Result<()> {
        for item in 0..ITEMS {
            let statement = "INSERT INTO stock (item, free) VALUES (?1, ?2)";
            self.connection.execute(statement, params![item, free])?;
        }
        Ok(())
    }

    /// Attempt and state of an order.
    pub fn look(&self, order: i64) -> Result<Option<(Attempt, State)>> {
        let row: Option<(i64, String)> = self
            .connection
            .query_row("SELECT attempt, state FROM orders WHERE id = ?1", [order], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        row.map(|(number, state)| Ok((Attempt { order, number }, State::parse(&state)?)))
            .transpose()
    }

    /// Writes down that `attempt` is taken, unless it was already: the first of an order, or the next
    /// one of a cancelled order.
    pub fn take(&mut self, attempt: Attempt, token: u64) -> Result<()> {
        let token = i64::try_from(token)?;
        self.connection.execute(
            "INSERT INTO orders (id, attempt, state, token, cancel)
             SELECT ?1, ?2, 'TAKEN', ?3, 0 WHERE ?2 = 1 OR EXISTS
                 (SELECT 1 FROM orders WHERE id = ?1 AND attempt = ?2 - 1 AND state = 'CANCELLED')
             ON CONFLICT (id) DO UPDATE
                 SET attempt = excluded.attempt, state = 'TAKEN', token = excluded.token, cancel = 0
                 WHERE attempt = excluded.attempt - 1 AND state = 'CANCELLED'",
            params![attempt.order, attempt.number, token],
        )?;
        Ok(())
    }

    /// Asks for a cancellation. Accepted means: whoever drives the order will undo it.
    pub fn cancel(&mut self, order: i64) -> Result<Cancel> {
        let Some((attempt, _)) = self.look(order)? else { return Ok(Cancel::Unknown) };
        let transaction = self.begin()?;
        let asked = transaction.execute(
            "UPDATE orders SET cancel = 1
             WHERE id = ?1 AND attempt = ?2 AND cancel = 0 AND state IN ('TAKEN', 'RESERVED')",
            params![order, attempt.number],
        )?;
        if asked == 1 {
            transaction.execute(
                "INSERT INTO cancellation (order_id, attempt) VALUES (?1, ?2)",
                params![order, attempt.number],
            )?;
        }
        transaction.commit()?;
        if asked == 1 {
            return Ok(Cancel::Accepted);
        }
        Ok(match self.look(order)? {
            None => Cancel::Unknown,
            Some((_, State::Paying)) => Cancel::InPayment,
            Some((_, State::Paid)) => Cancel::Late,
            Some(_) => Cancel::Repeated,
        })
    }

    /// Takes a piece from the stock; without one, or after a cancellation, the order is undone.
    pub fn reserve(&mut self, attempt: Attempt, token: u64) -> Result<Advance> {
        let transaction = self.begin()?;
        let item = attempt.order % ITEMS;
        let free: i64 =
            transaction
                .query_row("SELECT free FROM stock WHERE item = ?1", [item], |row| row.get(0))?;
        let to = if free == 0 || is_cancelled(&transaction, attempt)? {
            State::Cancelling
        } else {
            State::Reserved
        };
        let answer = advance(&transaction, attempt, (State::Taken, to), token)?;
        if answer == Advance::Applied && to == State::Reserved {
            transaction.execute("UPDATE stock SET free = free - 1 WHERE item = ?1", [item])?;
            let statement = "INSERT INTO reservation (order_id, item) VALUES (?1, ?2)";
            transaction.execute(statement, params![attempt.order, item])?;
        }
        transaction.commit()?;
        Ok(answer)
    }

    /// The last instant for a cancellation. `Applied` and `Repeated`: the provider may be asked.
    pub fn begin_payment(&mut self, attempt: Attempt, token: u64) -> Result<Advance> {
        let transaction = self.begin()?;
        let answer = if is_cancelled(&transaction, attempt)? {
            let undo = (State::Reserved, State::Cancelling);
            let _ = advance(&transaction, attempt, undo, token)?;
            Advance::Late { state: State::Cancelling }
        } else {
            advance(&transaction, attempt, (State::Reserved, State::Paying), token)?
        };
        transaction.commit()?;
        Ok(answer)
    }

    /// Advances the order to PAID at most once, or to being undone.
    pub fn end_payment(&mut self, attempt: Attempt, paid: bool, token: u64) -> Result<Advance> {
        let to = if paid { State::Paid } else { State::Cancelling };
        let transaction = self.begin()?;
        let answer = advance(&transaction, attempt, (State::Paying, to), token)?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Compensation: gives the piece back, if one was taken.
    pub fn release(&mut self, attempt: Attempt, token: u64) -> Result<Advance> {
        let transaction = self.begin()?;
        let undone = (State::Cancelling, State::Cancelled);
        let answer = advance(&transaction, attempt, undone, token)?;
        if answer == Advance::Applied {
            let given = transaction
                .execute("DELETE FROM reservation WHERE order_id = ?1", [attempt.order])?;
            transaction.execute(
                "UPDATE stock SET free = free + ?1 WHERE item = ?2",
                params![given as i64, attempt.order % ITEMS],
            )?;
        }
        transaction.commit()?;
        Ok(answer)
    }
}

fn is_cancelled(transaction: &Transaction<'_>, attempt: Attempt) -> Result<bool> {
    Ok(transaction.query_row(
        "SELECT count(*) FROM orders WHERE id = ?1 AND attempt = ?2 AND cancel = 1",
        params![attempt.order, attempt.number],
        |row| row.get::<_, i64>(0),
    )? > 0)
}
