//! Kills the workers at random, lets the schedule end what is left, and judges.

use std::path::Path;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

use crate::database::{Database, Place};
use crate::judge::{self, Report};
use crate::shop::Shop;

/// Arguments of the command `campaign`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often the workers are killed.
    #[arg(long, default_value_t = 1000)]
    pub kills: u64,
    /// For the instants and the commands.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The longest life of the workers.
    #[arg(long, default_value_t = 150)]
    pub life_ms: u64,
    /// Orders a kill: few, so that each is taken and cancelled often.
    #[arg(long, default_value_t = 5)]
    pub orders_per_kill: u64,
    /// The shop in PostgreSQL instead of SQLite, as `host=… user=… dbname=…`.
    #[arg(long, num_args = 0..=1, default_missing_value = POSTGRES)]
    pub postgres: Option<String>,
}

/// Where PostgreSQL is if nothing else is said.
pub const POSTGRES: &str = "host=127.0.0.1 user=postgres dbname=test";

/// Kills the workers, `exe work`, `options.kills` times.
pub fn campaign(exe: &Path, options: &Options) -> Result<Report> {
    let dir = tempfile::tempdir()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let place = Place {
        postgres: options.postgres.clone(),
        schema: format!("onceonly_saga_{}_{}", process::id(), now.as_nanos()),
        dir: dir.path().to_owned(),
    };
    let report = run(exe, options, &place);
    Database::remove(&place)?;
    report
}

fn run(exe: &Path, options: &Options, place: &Place) -> Result<Report> {
    let orders = (options.kills * options.orders_per_kill).max(1).cast_signed();
    // Too little for all orders: some find none.
    let stock = orders / 8;
    Shop::open(place)?.stock(stock)?;
    let mut rng = fastrand::Rng::with_seed(options.seed);
    for _ in 0..options.kills {
        let mut workers = command(exe, place, orders, rng.u64(..u64::from(u32::MAX))).spawn()?;
        thread::sleep(Duration::from_micros(rng.u64(0..=options.life_ms * 1000)));
        let ended = workers.try_wait()?;
        ensure!(ended.is_none(), "the workers ended by themselves: {ended:?}");
        // `kill -9`
        workers.kill()?;
        workers.wait()?;
    }
    let status = command(exe, place, orders, 0).arg("--drain").status()?;
    ensure!(status.success(), "draining ended with {status}");
    judge::judge(place, options.kills, stock)
}

fn command(exe: &Path, place: &Place, orders: i64, seed: u64) -> Command {
    let mut command = Command::new(exe);
    command.args(["work", "--orders", &orders.to_string(), "--seed", &seed.to_string()]);
    command.args(["--schema", &place.schema, "--dir"]).arg(&place.dir).stdin(Stdio::null());
    if let Some(server) = &place.postgres {
        command.args(["--postgres", server]);
    }
    command
}
