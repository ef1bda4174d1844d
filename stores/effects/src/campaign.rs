//! Starts consumers, kills them, and judges what they have booked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, id};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use tempfile::TempDir;

use crate::args::{Args, Mark};
use crate::bank::Bank;
use crate::judge::{Found, amount, judge, unmarked};
use crate::place::{Place, Places};

/// Deliveries that wait, about.
const BACKLOG: i64 = 60;
/// Messages that are added at once.
const FED: u32 = 40;
/// What is left of the queue is done in this time, or something hangs.
const DRAINING: Duration = Duration::from_secs(120);

struct Campaign<'a> {
    args: &'a Args,
    seed: u64,
    mark: Mark,
    schema: String,
    dir: TempDir,
    bank: Bank,
    random: Rng,
    consumers: Vec<Consumer>,
    /// Messages so far, and how often they were delivered.
    messages: i64,
    deliveries: usize,
    places: BTreeMap<Place, u64>,
}

struct Consumer {
    child: Child,
    dir: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (kills, seed) = (args.number("kills", 500_u64)?, args.number("seed", 1_u64)?);
    let (count, mark) = (args.number("consumers", 8_usize)?, args.mark()?);
    let schema = format!("onceonly_effects_{}", id());
    let bank = Bank::connect(args.server(), &schema)?;
    bank.create(&schema)?;
    let mut campaign = Campaign {
        args,
        seed,
        mark,
        schema,
        dir: tempfile::tempdir()?,
        bank,
        random: Rng::with_seed(seed),
        consumers: Vec::new(),
        messages: 0,
        deliveries: 0,
        places: BTreeMap::new(),
    };
    let began = Instant::now();
    let judged = campaign.run(kills, count);
    campaign.end();
    campaign.report(kills, &judged?, began.elapsed())
}

impl Campaign<'_> {
    fn run(&mut self, kills: u64, count: usize) -> Result<Found> {
        for number in 0..count {
            let dir = self.dir.path().join(format!("consumer-{number}-0"));
            let consumer = self.spawn(number, dir)?;
            self.consumers.push(consumer);
        }
        for kill in 1..=kills {
            self.feed()?;
            thread::sleep(Duration::from_millis(20 + self.random.u64(..180)));
            self.kill(kill)?;
            if kill % 100 == 0 {
                println!("kills {kill} messages {}", self.messages);
            }
        }
        self.drain()?;
        self.stop()?;
        let mut found = judge(&self.bank, self.seed, self.messages)?;
        let dir = self.dir.path().join("judge");
        found.unmarked = unmarked(self.args.server(), &self.schema, &dir, self.messages)?;
        Ok(found)
    }

    fn spawn(&mut self, number: usize, dir: PathBuf) -> Result<Consumer> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["consumer", "--server", self.args.server(), "--schema", &self.schema]);
        command.args(["--mark", self.mark.name(), "--seed", &self.random.u64(..).to_string()]);
        command.arg("--dir").arg(&dir).arg("--places").arg(self.places_of(number));
        Ok(Consumer { child: command.spawn().context("a consumer does not start")?, dir })
    }

    fn places_of(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("places-{number}"))
    }

    /// New messages if few wait, one to three times each, and now and then an old one.
    fn feed(&mut self) -> Result<()> {
        if self.bank.waiting()? >= BACKLOG {
            return Ok(());
        }
        let (mut messages, mut amounts) = (Vec::new(), Vec::new());
        for _ in 0..FED {
            let is_old = self.messages > 0 && self.random.u64(..5) == 0;
            let message = if is_old {
                self.random.u64(..self.messages.unsigned_abs()).cast_signed()
            } else {
                self.messages += 1;
                self.messages - 1
            };
            for _ in 0..=self.random.u64(..3) {
                messages.push(message);
                amounts.push(amount(self.seed, message));
            }
        }
        self.deliveries += messages.len();
        self.bank.deliver(&messages, &amounts)
    }

    /// One of them, wherever it is; the next one goes on in its directory, or has lost it.
    fn kill(&mut self, kill: u64) -> Result<()> {
        let number = self.random.u64(..self.consumers.len() as u64) as usize;
        let consumer = &mut self.consumers[number];
        alive(consumer)?;
        consumer.child.kill()?;
        consumer.child.wait()?;
        let place = Places::open(&self.places_of(number))?.get().unwrap_or(Place::Starting);
        *self.places.entry(place).or_default() += 1;
        let mut dir = self.consumers[number].dir.clone();
        if self.random.u64(..8) == 0 {
            let _ = fs::remove_dir_all(&dir);
            dir = self.dir.path().join(format!("consumer-{number}-{kill}"));
        }
        self.consumers[number] = self.spawn(number, dir)?;
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let until = Instant::now() + DRAINING;
        while self.bank.waiting()? > 0 {
            ensure!(Instant::now() < until, "{} deliveries are left", self.bank.waiting()?);
            self.consumers.iter_mut().try_for_each(alive)?;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        for consumer in &mut self.consumers {
            alive(consumer)?;
        }
        self.end_consumers();
        Ok(())
    }

    fn end_consumers(&mut self) {
        for consumer in &mut self.consumers {
            let _ = consumer.child.kill();
            let _ = consumer.child.wait();
        }
        self.consumers.clear();
    }

    fn end(&mut self) {
        self.end_consumers();
        let drop = format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.schema);
        let _ = self.bank.batch(&drop);
    }

    fn report(&self, kills: u64, found: &Found, took: Duration) -> Result<()> {
        let Found { doubled, missing, wrong_sums, unmarked } = found;
        println!(
            "seed {} kills {kills} messages {} deliveries {} in {} s",
            self.seed,
            self.messages,
            self.deliveries,
            took.as_secs()
        );
        for (place, kills) in &self.places {
            println!("killed {}: {kills}", place.name());
        }
        println!(
            "booked twice {} never {} wrong sums {} unmarked {}",
            doubled.len(),
            missing.len(),
            wrong_sums.len(),
            unmarked.len()
        );
        if !found.is_right() {
            bail!("not exactly once: {found:?}");
        }
        Ok(())
    }
}

/// Nobody ends a consumer but the campaign.
fn alive(consumer: &mut Consumer) -> Result<()> {
    match consumer.child.try_wait()? {
        None => Ok(()),
        Some(status) => bail!("a consumer ended by itself: {status}, {}", shown(&consumer.dir)),
    }
}

fn shown(dir: &Path) -> String {
    dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
