//! A consumer: takes messages and books them, until it is killed.

use std::os::unix::process::parent_id;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use fastrand::Rng;
use onceonly::{Claim, ClaimGuard, Dedup, Dialect, Error};

use crate::args::{Args, Mark};
use crate::bank::{ACCOUNTS, Bank, Delivery};
use crate::place::{Place, Places};
use crate::store;

struct Consumer {
    store: Dedup,
    bank: Bank,
    places: Places,
    random: Rng,
    mark: Mark,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let places = Places::open(Path::new(args.text("places")?))?;
    places.set(Place::Starting)?;
    let (server, schema) = (args.server(), args.text("schema")?);
    let store = store::open(server, schema, Path::new(args.text("dir")?))?;
    let bank = Bank::connect(server, schema)?;
    let random = Rng::with_seed(args.number("seed", 1)?);
    let mut consumer = Consumer { store, bank, places, random, mark: args.mark()? };
    let parent = parent_id();
    // A campaign that is killed leaves no consumers.
    while parent_id() == parent {
        consumer.places.set(Place::Idle)?;
        match consumer.bank.take()? {
            Some(delivery) => consumer.handle(delivery)?,
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
    Ok(())
}

impl Consumer {
    /// Notes where it is, and stays there for a moment: a good place to be killed.
    fn at(&mut self, place: Place) -> Result<()> {
        self.places.set(place)?;
        thread::sleep(Duration::from_micros(self.random.u64(..4_000)));
        Ok(())
    }

    fn handle(&mut self, delivery: Delivery) -> Result<()> {
        self.at(Place::Claiming)?;
        let guard = match self.store.claim(store::key(delivery.message)) {
            Ok(Claim::Granted(guard)) => guard,
            Ok(Claim::Duplicate { .. }) => return self.bank.acknowledge(delivery),
            // Another one is at it, or could not be asked about: the queue delivers again.
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.at(Place::Claimed)?;
        let is_done = match self.mark {
            Mark::Inside => self.marks_inside(guard, delivery)?,
            Mark::Outside => self.marks_outside(guard, delivery)?,
        };
        if is_done {
            self.at(Place::Confirmed)?;
            self.bank.acknowledge(delivery)?;
        }
        Ok(())
    }

    fn book(&mut self, delivery: Delivery) -> Result<()> {
        let Delivery { message, amount, .. } = delivery;
        let update = "UPDATE account SET sum = sum + $1 WHERE id = $2";
        ensure!(self.bank.execute(update, &[&amount, &(message % ACCOUNTS)])? == 1, "no account");
        let insert = "INSERT INTO effects (message, amount) VALUES ($1, $2)";
        self.bank.execute(insert, &[&message, &amount])?;
        self.at(Place::Booking)
    }

    /// The mark, in the transaction of the booking, before or after it.
    fn marks_inside(&mut self, guard: ClaimGuard, delivery: Delivery) -> Result<bool> {
        let statement = guard.commit_statement(Dialect::Postgres)?;
        self.bank.batch("BEGIN")?;
        let marks_first = self.random.u64(..2) == 0;
        if !marks_first {
            self.book(delivery)?;
        }
        let rows = self.bank.run(statement.sql(), statement.params())?;
        let marked = match statement.applied(rows) {
            Ok(marked) => marked,
            Err(error) => {
                // Its lease was over, and another one has it.
                self.bank.batch("ROLLBACK")?;
                let is_late = matches!(error.error(), Error::LeaseLost { .. });
                return if is_late { Ok(false) } else { Err(anyhow!("{error}")) };
            }
        };
        if marks_first {
            self.book(delivery)?;
        }
        let count = "SELECT count(*) FROM effects WHERE message = $1";
        let booked: i64 = self.bank.query(count, &[&delivery.message])?[0].get(0);
        ensure!(booked == 1, "message {} is booked {booked} times", delivery.message);
        self.at(Place::Marked)?;
        if self.random.u64(..20) == 0 {
            self.bank.batch("ROLLBACK")?;
            if self.random.u64(..2) == 0 {
                marked.rolled_back().abandon();
            }
            return Ok(false);
        }
        self.places.set(Place::Committing)?;
        self.bank.batch("COMMIT")?;
        self.at(Place::Committed)?;
        // Without it the mark is there as well.
        if self.random.u64(..10) != 0 {
            marked.confirm()?;
        }
        Ok(true)
    }

    /// What every other deduplicator does: a consumer that is killed in between books again.
    fn marks_outside(&mut self, guard: ClaimGuard, delivery: Delivery) -> Result<bool> {
        self.bank.batch("BEGIN")?;
        self.book(delivery)?;
        self.places.set(Place::Committing)?;
        self.bank.batch("COMMIT")?;
        self.at(Place::Committed)?;
        match guard.commit() {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.error(), Error::LeaseLost { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
