//! PostgreSQL as a queue: rows locked with `SKIP LOCKED`, the effect and the end of the row in one
//! transaction, and the store for what a transaction cannot cover.

use std::path::Path;
use std::thread;
use std::time::Duration;

use account::{BATCH, Broker, Consume, Journal, Message, Meter, Tally, open_store};
use anyhow::{Context as _, Result};
use onceonly::{Claim, ClaimGuard, Dedup};
use postgres::{Client, NoTls, Transaction};

/// A table that is a queue, and the tables of what was booked.
pub struct PostgresQueue {
    client: Client,
    tables: Tables,
}

/// The names of one campaign's tables.
struct Tables {
    queue: String,
    applied: String,
    booking: String,
}

impl Tables {
    fn new(queue: &str) -> Self {
        let name = |part: &str| format!("\"{queue}-{part}\"");
        Tables { queue: name("queue"), applied: name("applied"), booking: name("booking") }
    }
}

impl Broker for PostgresQueue {
    const SERVER: &'static str = "host=127.0.0.1 user=postgres dbname=test";
    const START: &'static str = "`docker run -p 5432:5432 -e POSTGRES_HOST_AUTH_METHOD=trust -e \
                                 POSTGRES_DB=test postgres`, or `apt-get install postgresql` and a \
                                 database `test` that the user `postgres` may use";

    fn create(server: &str, queue: &str) -> Result<Self> {
        let mut client = Client::connect(server, NoTls)?;
        let tables = Tables::new(queue);
        let Tables { queue, applied, booking } = &tables;
        client.batch_execute(&format!(
            "CREATE TABLE {queue} (number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                                   body TEXT NOT NULL);
             CREATE TABLE {applied} (id TEXT PRIMARY KEY, token BIGINT NOT NULL);
             CREATE TABLE {booking} (id TEXT NOT NULL, amount BIGINT NOT NULL);"
        ))?;
        Ok(PostgresQueue { client, tables })
    }

    fn publish(&mut self, messages: &[Message]) -> Result<()> {
        let bodies: Vec<String> = messages.iter().map(Message::body).collect();
        let statement =
            format!("INSERT INTO {} (body) SELECT unnest($1::text[])", self.tables.queue);
        self.client.execute(&statement, &[&bodies])?;
        Ok(())
    }

    fn backlog(&mut self) -> Result<u64> {
        let statement = format!("SELECT count(*) FROM {}", self.tables.queue);
        let rows: i64 = self.client.query_one(&statement, &[])?.get(0);
        Ok(rows.cast_unsigned())
    }

    fn tally(&mut self, _dir: &Path) -> Result<Tally> {
        let statement = format!("SELECT id, amount FROM {}", self.tables.booking);
        let mut tally = Tally::new();
        for row in self.client.query(&statement, &[])? {
            let amount: i64 = row.get(1);
            tally.entry(row.get(0)).or_default().push(u32::try_from(amount)?);
        }
        Ok(tally)
    }

    fn remove(mut self) -> Result<()> {
        let Tables { queue, applied, booking } = &self.tables;
        Ok(self.client.batch_execute(&format!("DROP TABLE {queue}, {applied}, {booking}"))?)
    }

    fn consume(consume: &Consume) -> Result<()> {
        let mut worker = Worker {
            dedup: open_store(&consume.dir)?,
            journal: Journal::open(&consume.dir)?,
            tables: Tables::new(&consume.queue),
            meter: Meter::start(),
        };
        let mut client = Client::connect(&consume.server, NoTls)?;
        while !consume.is_over(worker.meter.handled()) {
            if !worker.batch(&mut client)? {
                thread::sleep(Duration::from_millis(20));
            }
        }
        println!("{}", worker.meter.report());
        Ok(())
    }
}

struct Worker {
    dedup: Dedup,
    journal: Journal,
    tables: Tables,
    meter: Meter,
}

impl Worker {
    /// Handles the oldest rows that nobody holds; false if there are none.
    fn batch(&mut self, client: &mut Client) -> Result<bool> {
        let mut transaction = client.transaction()?;
        let rows = self.take(&mut transaction)?;
        if rows.is_empty() {
            return Ok(false);
        }
        let ids: Vec<&str> = rows.iter().map(|(_, message)| message.id.as_str()).collect();
        let claims = self.meter.engine(|| self.dedup.claim_batch(&ids))?;

        let mut ended: Vec<i64> = Vec::new();
        let mut work: Vec<(&Message, ClaimGuard)> = Vec::new();
        for ((number, message), claim) in rows.iter().zip(claims) {
            match claim {
                Claim::Granted(guard) => work.push((message, guard)),
                // A queue of rows does not flag what it hands out again.
                Claim::Duplicate { .. } => self.journal.duplicate(&message.id, false)?,
                // An earlier row of this batch has the same id: this one stays for the next.
                _ => continue,
            }
            ended.push(*number);
        }
        for (message, guard) in &work {
            self.journal.effect(message, guard.token())?;
        }
        self.book(&mut transaction, &work)?;
        let statement = format!("DELETE FROM {} WHERE number = ANY($1)", self.tables.queue);
        transaction.execute(&statement, &[&ended])?;
        transaction.commit()?;

        // The row is gone and the id is not marked if the process dies here. What was booked is not
        // booked again, because the id stands in the transaction.
        let guards: Vec<ClaimGuard> = work.into_iter().map(|(_, guard)| guard).collect();
        for committed in self.meter.engine(|| self.dedup.commit_batch(guards)) {
            committed.context("commit")?;
        }
        self.meter.messages(ended.len());
        Ok(true)
    }

    fn take(&self, transaction: &mut Transaction<'_>) -> Result<Vec<(i64, Message)>> {
        let statement = format!(
            "SELECT number, body FROM {} ORDER BY number LIMIT $1 FOR UPDATE SKIP LOCKED",
            self.tables.queue,
        );
        let rows = transaction.query(&statement, &[&(BATCH as i64)])?;
        let message = |row: &postgres::Row| {
            Ok((row.get(0), Message::parse(row.get::<_, String>(1).as_bytes())?))
        };
        rows.iter().map(message).collect()
    }

    /// Books what is not booked, the ids in the same transaction.
    fn book(
        &self,
        transaction: &mut Transaction<'_>,
        work: &[(&Message, ClaimGuard)],
    ) -> Result<()> {
        let ids: Vec<&str> = work.iter().map(|(message, _)| message.id.as_str()).collect();
        let amounts: Vec<i64> = work.iter().map(|(message, _)| message.amount.into()).collect();
        let tokens: Vec<i64> = work.iter().map(|(_, guard)| guard.token().cast_signed()).collect();
        let Tables { applied, booking, .. } = &self.tables;
        let statement = format!(
            "WITH work AS (SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
                           AS work (id, amount, token)),
                  fresh AS (INSERT INTO {applied} (id, token) SELECT id, token FROM work
                            ON CONFLICT DO NOTHING RETURNING id)
             INSERT INTO {booking} (id, amount) SELECT id, amount FROM work JOIN fresh USING (id)"
        );
        transaction.execute(&statement, &[&ids, &amounts, &tokens])?;
        Ok(())
    }
}
