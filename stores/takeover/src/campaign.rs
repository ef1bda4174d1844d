//! Starts owners, ends them in one way or another, and has what they wrote down judged.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, id};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use tempfile::TempDir;

use crate::args::Args;
use crate::book::{self, Line, now};
use crate::judge::{Follows, Judge};

/// Longer than anything takes that is to end well.
const PATIENCE: Duration = Duration::from_secs(60);

struct Campaign {
    server: String,
    space: String,
    dir: TempDir,
    random: Rng,
    judge: Judge,
    /// Owners so far.
    owners: u64,
    /// Directories so far; the one of the last owner, and of the last that wanted to be it.
    dirs: u64,
    last: (Option<u64>, Option<u64>),
    ends: Ends,
}

#[derive(Debug, Default)]
struct Ends {
    killed: u64,
    killed_early: u64,
    frozen: u64,
    closed: u64,
}

struct Owner {
    child: Child,
    book: PathBuf,
    dir: u64,
    follows: Follows,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let (kills, seed) = (args.number("kills", 500)?, args.number("seed", 1)?);
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("authority.db").display().to_string();
    let mut campaign = Campaign {
        server: args.text("server").map_or(file, str::to_owned),
        space: format!("takeover-{}-{seed}", id()),
        dir,
        random: Rng::with_seed(seed),
        judge: Judge::new(args.is("lie", "forgets-holes")),
        owners: 0,
        dirs: 0,
        last: (None, None),
        ends: Ends::default(),
    };
    let began = Instant::now();
    for kill in 1..=kills {
        campaign.step()?;
        if kill % 100 == 0 {
            println!("owners {kill} keys {}", campaign.judge.counts.keys);
        }
    }
    let judged = campaign.report(seed, began.elapsed());
    if judged.is_err() {
        campaign.dir.disable_cleanup(true);
        println!("it is left in {}", campaign.dir.path().display());
    }
    judged
}

impl Campaign {
    /// One owner after another, and its end.
    fn step(&mut self) -> Result<()> {
        match self.random.u64(..8) {
            0 => self.close(),
            1 => self.freeze(),
            2 => self.kill_early(),
            _ => self.kill(),
        }
    }

    fn spawn(&mut self, calls: u64) -> Result<Owner> {
        let dir = match self.last.1 {
            Some(last) if self.random.u64(..2) == 0 => last,
            Some(_) if self.random.u64(..2) == 0 => self.random.u64(..self.dirs),
            _ => self.another_dir(),
        };
        self.spawn_in(dir, calls)
    }

    fn another_dir(&mut self) -> u64 {
        self.dirs += 1;
        self.dirs - 1
    }

    fn spawn_in(&mut self, dir: u64, calls: u64) -> Result<Owner> {
        self.owners += 1;
        let is_same = self.last == (Some(dir), Some(dir));
        let follows = if is_same { Follows::InItsDirectory } else { Follows::Elsewhere };
        self.last.1 = Some(dir);
        let book = self.dir.path().join(format!("book-{}", self.owners));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["owner", "--server", &self.server, "--space", &self.space]);
        command.args(["--seed", &self.random.u64(..).to_string()]);
        command.args(["--fresh", &self.judge.fresh.to_string(), "--calls", &calls.to_string()]);
        command.arg("--book").arg(&book);
        command.arg("--dir").arg(self.dir.path().join(format!("store-{dir}")));
        let child = command.spawn().context("an owner does not start")?;
        Ok(Owner { child, book, dir, follows })
    }

    fn judge(&mut self, owner: &Owner, frozen: Option<(i64, i64)>) -> Result<()> {
        let lines = book::read(&owner.book)?;
        if opened(&lines).is_some() {
            self.last.0 = Some(owner.dir);
        }
        println!(
            "book {} dir {} {:?} frozen {frozen:?}",
            shown(&owner.book),
            owner.dir,
            owner.follows
        );
        self.judge.judge(&lines, owner.follows, frozen)
    }

    fn kill(&mut self) -> Result<()> {
        let mut owner = self.spawn(u64::MAX)?;
        wait_until_open(&mut owner)?;
        thread::sleep(Duration::from_micros(self.random.u64(..300_000)));
        end(&mut owner)?;
        self.ends.killed += 1;
        self.judge(&owner, None)
    }

    /// While it is opened, most likely.
    fn kill_early(&mut self) -> Result<()> {
        let mut owner = self.spawn(u64::MAX)?;
        thread::sleep(Duration::from_micros(self.random.u64(..60_000)));
        end(&mut owner)?;
        self.ends.killed_early += 1;
        self.judge(&owner, None)
    }

    fn close(&mut self) -> Result<()> {
        let calls = self.random.u64(..2_000);
        let mut owner = self.spawn(calls)?;
        let status = wait(&mut owner.child)?;
        ensure!(status.is_some_and(|status| status.success()), "not closed: {status:?}");
        self.ends.closed += 1;
        self.judge(&owner, None)
    }

    /// It is stopped for longer than its lease, and goes on when another one is the owner.
    fn freeze(&mut self) -> Result<()> {
        let mut frozen = self.spawn(u64::MAX)?;
        wait_until_open(&mut frozen)?;
        thread::sleep(Duration::from_micros(self.random.u64(..300_000)));
        signal(&frozen.child, "-STOP")?;
        let frozen_at = now();
        self.judge.saw(&book::read(&frozen.book)?);
        // Its own directory is locked.
        let dir = self.another_dir();
        let mut next = self.spawn_in(dir, u64::MAX)?;
        let Some(next_began) = until_open(&mut next)? else {
            // It was stopped with the lock of the database.
            end(&mut frozen)?;
            end(&mut next)?;
            return self.judge(&frozen, None).and_then(|()| self.judge(&next, None));
        };
        self.ends.frozen += 1;
        signal(&frozen.child, "-CONT")?;
        let status = wait(&mut frozen.child)?;
        ensure!(status.is_some_and(|status| status.success()), "it goes on: {status:?}");
        self.judge(&frozen, Some((frozen_at, next_began)))?;
        thread::sleep(Duration::from_micros(self.random.u64(..300_000)));
        end(&mut next)?;
        self.judge(&next, None)
    }

    fn report(&self, seed: u64, took: Duration) -> Result<()> {
        let Ends { killed, killed_early, frozen, closed } = self.ends;
        let (judge, counts) = (&self.judge, &self.judge.counts);
        println!(
            "seed {seed} owners {} (killed {killed}, while they were opened {killed_early}, frozen {frozen}, \
             closed {closed}) in {} s",
            self.owners,
            took.as_secs()
        );
        println!(
            "calls {} answers {} taken over {} new again in a hole {} held up {} wrong {}",
            counts.calls,
            counts.keys,
            counts.taken_over,
            counts.in_holes,
            counts.held_up,
            judge.wrong.len()
        );
        if !judge.wrong.is_empty() {
            bail!("wrong: {:?}", &judge.wrong[..judge.wrong.len().min(10)]);
        }
        Ok(())
    }
}

fn opened(lines: &[Line]) -> Option<i64> {
    lines.iter().find_map(|line| match line {
        Line::Opened { at, .. } => Some(*at),
        _ => None,
    })
}

/// When it was, unless it ends before.
fn until_open(owner: &mut Owner) -> Result<Option<i64>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(at) = opened(&book::read(&owner.book)?) {
            return Ok(Some(at));
        }
        if owner.child.try_wait()?.is_some() {
            return Ok(None);
        }
        ensure!(Instant::now() < until, "an owner is never open");
        thread::sleep(Duration::from_millis(1));
    }
}

fn wait_until_open(owner: &mut Owner) -> Result<()> {
    let is_open = until_open(owner)?.is_some();
    ensure!(is_open, "an owner ended by itself: {}", shown(&owner.book));
    Ok(())
}

fn shown(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn signal(child: &Child, signal: &str) -> Result<()> {
    let status = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
    ensure!(status.success(), "{signal} cannot be sent");
    Ok(())
}

fn end(owner: &mut Owner) -> Result<()> {
    owner.child.kill()?;
    owner.child.wait()?;
    Ok(())
}

fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    Ok(None)
}
