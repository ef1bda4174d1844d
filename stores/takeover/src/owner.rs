//! An owner: marks and forgets keys, and writes everything down, until it is killed or told to close.

use std::os::unix::process::parent_id;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use fastrand::Rng;
use onceonly::authority::Authority;
use onceonly::{Dedup, Error, Ownership, Verdict};
use onceonly_redis::RedisAuthority;
use onceonly_sqlite::SqliteAuthority;

use crate::args::Args;
use crate::book::{Book, Call, Line, now};

/// How long the next owner waits for one that is frozen.
pub(crate) const LEASE: Duration = Duration::from_millis(400);
/// How long it takes, at most, to become the owner.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys of a batch.
const BATCH: u64 = 200;

struct Owner {
    store: Dedup,
    book: Book,
    random: Rng,
    /// The first key that nobody has marked.
    fresh: u64,
}

fn authority(at: &str) -> Result<Arc<dyn Authority>> {
    Ok(match at.contains("://") {
        true => Arc::new(RedisAuthority::builder(at).build()?),
        false => Arc::new(SqliteAuthority::open(at)?),
    })
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let parent = parent_id();
    let builder = Dedup::builder()
        .window(Duration::from_secs(24 * 3_600))
        // Few, so that it seals, merges and grows, and the space has several parts all the same.
        .slices(2)
        .expected_keys(20_000)
        .shards(2)
        .secret([7; 32])
        .lock_wait(PATIENCE)
        .authority(authority(args.text("server")?)?, Ownership::Exclusive)
        .authority_space(args.text("space")?)
        .authority_deadline(Duration::from_secs(10))
        .owner_lease(LEASE);
    let store = match builder.open(args.text("dir")?) {
        Ok(store) => store,
        // One that was frozen has the lock of the database.
        Err(error) if error.is_transient() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut book = Book::create(Path::new(args.text("book")?))?;
    let vouches_since = store.guaranteed_since().as_unix_nanos();
    book.write(&Line::Opened { at: now(), vouches_since })?;
    let random = Rng::with_seed(args.number("seed", 1)?);
    let mut owner = Owner { store, book, random, fresh: args.number("fresh", 0)? };
    let calls = args.number("calls", u64::MAX)?;
    let mut made = 0;
    // A campaign that is killed leaves no owners.
    while made < calls && parent_id() == parent {
        made += 1;
        if owner.call()? {
            return Ok(());
        }
        if made % 16 == 0 {
            owner.note_written()?;
        }
    }
    owner.store.close()?;
    owner.book.write(&Line::Closed)
}

impl Owner {
    /// One call; true when another owner has followed.
    fn call(&mut self) -> Result<bool> {
        let is_old = self.fresh > BATCH && self.random.u64(..3) != 0;
        let key = if is_old { self.random.u64(..self.fresh - BATCH) } else { self.fresh };
        let keys = if self.random.u64(..8) == 0 { BATCH } else { 1 };
        let call = match is_old && self.random.u64(..6) == 0 {
            true => Call::Forget,
            false => Call::Observe(keys),
        };
        if !is_old {
            self.fresh += keys;
        }
        self.book.write(&Line::Begun { at: now(), call, key })?;
        let answered = match call {
            Call::Forget => {
                self.store.forget(name(key)).map(|was| if was { "t" } else { "f" }.to_owned())
            }
            Call::Observe(1) => self.store.observe(name(key)).map(|verdict| letters(&[verdict])),
            Call::Observe(keys) => {
                let keys: Vec<String> = (key..key + keys).map(name).collect();
                let verdicts = self.store.observe_batch(&keys);
                verdicts.map(|verdicts| letters(&verdicts)).map_err(|error| error.into_parts().1)
            }
        };
        let (answers, followed) = match answered {
            Ok(answers) => (answers, false),
            Err(Error::OwnershipLost { .. }) => ("e".to_owned(), true),
            Err(error) if error.is_transient() => ("e".to_owned(), false),
            Err(error) => return Err(error.into()),
        };
        self.book.write(&Line::Ended { at: now(), answers })?;
        Ok(followed)
    }

    fn note_written(&mut self) -> Result<()> {
        let Some(owner) = self.store.stats().owner else { bail!("no owner") };
        self.book.write(&Line::Written { through: owner.written_through.as_unix_nanos() })
    }
}

fn name(key: u64) -> String {
    format!("key-{key}")
}

fn letters(verdicts: &[Verdict]) -> String {
    verdicts.iter().map(|verdict| if *verdict == Verdict::New { 'n' } else { 'd' }).collect()
}
