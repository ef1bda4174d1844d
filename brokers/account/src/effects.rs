//! Where effects leave their traces, both of which outlive a killed process: a journal to which each
//! effect is appended (like a mail that was sent), and books in SQLite in which the effect and the id
//! stand in one transaction.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rusqlite::{Connection, params};

use crate::message::Message;

const JOURNAL: &str = "journal.txt";
const BOOKS: &str = "books.sqlite";

/// How often each id was booked, and with which sum.
pub type Tally = HashMap<String, Vec<u32>>;

/// What was done, line by line. Each line is one `write`, so that a kill leaves it whole or not at
/// all.
pub struct Journal {
    file: File,
}

/// What the journal says.
#[derive(Debug, Default)]
pub struct Done {
    /// How often the effect of each id was carried out.
    pub effects: HashMap<String, u64>,
    /// Deliveries that were refused as duplicates.
    pub duplicates: u64,
    /// Those of them that the broker had not flagged as delivered before.
    pub unflagged: u64,
}

impl Journal {
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(JOURNAL);
        let file = File::options().append(true).create(true).open(&path);
        Ok(Journal { file: file.with_context(|| format!("open {}", path.display()))? })
    }

    /// An effect that no transaction protects: once it is done, it is done.
    pub fn effect(&mut self, message: &Message, token: u64) -> Result<()> {
        Ok(self.file.write_all(format!("effect {} {token}\n", message.id).as_bytes())?)
    }

    /// The delivery was a duplicate. `flagged`: the broker said that it delivers it again.
    pub fn duplicate(&mut self, id: &str, flagged: bool) -> Result<()> {
        let flag = if flagged { "flagged" } else { "unflagged" };
        Ok(self.file.write_all(format!("duplicate {id} {flag}\n").as_bytes())?)
    }

    /// Bytes in it: grows with all that is done.
    pub(crate) fn len(dir: &Path) -> Result<u64> {
        let path = dir.join(JOURNAL);
        Ok(if path.exists() { fs::metadata(path)?.len() } else { 0 })
    }

    pub fn read(dir: &Path) -> Result<Done> {
        let mut done = Done::default();
        let path = dir.join(JOURNAL);
        if !path.exists() {
            return Ok(done);
        }
        for line in fs::read_to_string(&path)?.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["effect", id, _] => *done.effects.entry(id.to_owned()).or_default() += 1,
                ["duplicate", _, "flagged"] => done.duplicates += 1,
                ["duplicate", _, "unflagged"] => {
                    done.duplicates += 1;
                    done.unflagged += 1;
                }
                _ => bail!("line `{line}` in {}", path.display()),
            }
        }
        Ok(done)
    }
}

/// A ledger in SQLite: the table `applied` says which ids are in, the table `booking` has one row
/// for each time that an amount was booked, so a second booking would show.
pub struct Books {
    connection: Connection,
}

impl Books {
    pub fn open(dir: &Path) -> Result<Self> {
        let connection = Connection::open(dir.join(BOOKS))?;
        connection.busy_timeout(std::time::Duration::from_secs(30))?;
        // `NORMAL` in WAL mode survives the process; a campaign does not cut the power.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             CREATE TABLE IF NOT EXISTS applied (id TEXT PRIMARY KEY, token INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS booking (id TEXT NOT NULL, amount INTEGER NOT NULL);
             CREATE TABLE IF NOT EXISTS fence (id TEXT PRIMARY KEY, token INTEGER NOT NULL);",
        )?;
        Ok(Books { connection })
    }

    /// Books all of `work` in one transaction, with the ids in it: what a consumer booked that died
    /// before it could commit its claim is not booked again.
    pub fn apply<'a>(&mut self, work: impl Iterator<Item = (&'a Message, u64)>) -> Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut apply = transaction.prepare_cached(
                "INSERT INTO applied (id, token) SELECT ?1, ?2
                 WHERE NOT EXISTS (SELECT 1 FROM fence WHERE id = ?1 AND token > ?2)
                 ON CONFLICT DO NOTHING",
            )?;
            let mut book =
                transaction.prepare_cached("INSERT INTO booking (id, amount) VALUES (?1, ?2)")?;
            for (message, token) in work {
                if apply.execute(params![message.id, i64::try_from(token)?])? == 1 {
                    book.execute(params![message.id, message.amount])?;
                }
            }
        }
        Ok(transaction.commit()?)
    }

    /// From here on nobody with a lower token books the message.
    pub fn fence(&mut self, message: &Message, token: u64) -> Result<()> {
        self.connection.execute(
            "INSERT INTO fence (id, token) VALUES (?1, ?2)
             ON CONFLICT (id) DO UPDATE SET token = max(token, excluded.token)",
            params![message.id, i64::try_from(token)?],
        )?;
        Ok(())
    }

    /// Whether the message is booked.
    pub fn has(&self, message: &Message) -> Result<bool> {
        let mut look = self.connection.prepare_cached("SELECT 1 FROM applied WHERE id = ?1")?;
        Ok(look.exists(params![message.id])?)
    }

    pub fn tally(dir: &Path) -> Result<Tally> {
        let books = Books::open(dir)?;
        let mut statement = books.connection.prepare("SELECT id, amount FROM booking")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut tally = Tally::new();
        for row in rows {
            let (id, amount): (String, u32) = row?;
            tally.entry(id).or_default().push(amount);
        }
        Ok(tally)
    }
}
