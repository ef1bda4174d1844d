//! Everything that docs/performance.md shows, by one command: each part a process of its own, so
//! that none inherits memory or fails for another; then the tables and the pictures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::args::{Args, Result};
use crate::report::say;
use crate::results::{self, results_dir};
use crate::{pictures, provenance, tables};

struct Part {
    name: &'static str,
    /// The command and its options.
    full: &'static str,
    /// Options in the place of those for a trial.
    quick: &'static str,
    /// Minutes that the full one takes on two cores, about.
    minutes: u32,
}

/// None takes much more than five minutes, so that each can be had on a machine that is quiet for so
/// long, and be made anew alone. Parts of one name before the dash make one table.
const PARTS: [Part; 30] = [
    part("floor", "floor", "floor", 1),
    part("compare-1M-memory", "compare --live 1M --peer MEMORY,CACHES", "--live 64k --rounds 4", 2),
    part("compare-1M-stores", "compare --live 1M --peer floor,STORES", "--live 64k --rounds 2", 5),
    part("compare-10M-memory", "compare --live 10M --peer MEMORY", "--live 256k --rounds 4", 3),
    part(
        "compare-10M-caches",
        "compare --live 10M --peer floor,CACHES",
        "--live 128k --rounds 2",
        4,
    ),
    part("compare-10M-lmdb", ONE_STORE, "--live 128k --rounds 2", 1),
    part("compare-10M-fjall", ONE_STORE, "--live 128k --rounds 2", 2),
    part("compare-10M-sqlite", ONE_STORE, "--live 128k --rounds 2", 4),
    part("compare-10M-redis", ONE_STORE, "--live 128k --rounds 2", 2),
    part("compare-10M-postgres", ONE_STORE, "--live 128k --rounds 2", 2),
    part(
        "compare-100M-memory",
        "compare --live 100M --rounds 8 --peer floor,hashbrown",
        "--live 1M --rounds 4",
        5,
    ),
    part(
        "compare-100M-more",
        "compare --live 100M --rounds 4 --peer floor,hashbrown-digests-first,sbbf",
        "--live 1M --rounds 4",
        5,
    ),
    part(
        "compare-100M-dashmap",
        "compare --live 100M --rounds 4 --peer floor,dashmap",
        "--live 1M --rounds 4",
        5,
    ),
    part("claims", "claims --live 1M --peer floor,claims,process-once", "--live 64k --rounds 4", 1),
    part("scaling", "scaling --live 10M", "--live 256k --rounds 4", 4),
    part(
        "latency",
        "latency --live 10M --seconds 60 --pin yes",
        "--live 1M --rate 200k --seconds 9",
        2,
    ),
    part("reopen", "reopen --live 100M", "--live 1M --more 200k", 2),
    part("cli", "cli", "--rounds 1 --files flights", 4),
    part("remembers", "remembers", "--keys 20k", 1),
    part("overload", "overload --planned 1M", "--planned 64k --rounds 2", 1),
    part("growth-1M-to-100M", "growth --live 1M,10M,100M", "--live 64k,256k,1M", 4),
    part(
        "hybrid-exclusive-redis",
        "hybrid --server redis --what exclusive",
        "--live 100k --rounds 2",
        3,
    ),
    part(
        "hybrid-shared-redis",
        "hybrid --server redis --what shared",
        "--live 64k --rounds 2 --keys 2048",
        1,
    ),
    part("hybrid-move-redis", "hybrid --server redis --what move", "--live 100k --rounds 2", 2),
    part("hybrid-stop-redis", "hybrid --server redis --what stop", "--seconds 1", 1),
    part(
        "hybrid-exclusive-postgres",
        "hybrid --server postgres --what exclusive",
        "--live 100k --rounds 2",
        6,
    ),
    part(
        "hybrid-shared-postgres",
        "hybrid --server postgres --what shared",
        "--live 64k --rounds 2 --keys 2048",
        1,
    ),
    part(
        "hybrid-move-postgres",
        "hybrid --server postgres --what move",
        "--live 100k --rounds 2",
        2,
    ),
    part("hybrid-stop-postgres", "hybrid --server postgres --what stop", "--seconds 1", 1),
    part("growth-1B", "growth --live 1B", "--live 2M", 20),
];

/// The store is named by the part.
const ONE_STORE: &str = "compare --live 10M --rounds 8 --peer floor,";
const MEMORY: &str = "floor,hashbrown,hashbrown-digests-first,dashmap,sbbf,fastbloom";
const CACHES: &str = "moka,quick_cache,lru";
const STORES: &str = "lmdb,fjall,sqlite,redis,postgres";

const fn part(name: &'static str, full: &'static str, quick: &'static str, minutes: u32) -> Part {
    Part { name, full, quick, minutes }
}

pub(crate) fn main(mut args: Args) -> Result<()> {
    let quick = args.flag("quick")?;
    let resume = args.flag("resume")?;
    let only = args.words("only", "");
    let dir = args.data_dir()?;
    args.finish()?;
    let parts: Vec<&Part> = PARTS.iter().filter(|part| part.chosen(&only)).collect();
    if parts.is_empty() {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        return Err(format!("--only takes {}", names.join(", ")).into());
    }
    let to = if quick { dir.join("results") } else { results_dir() };
    std::fs::create_dir_all(&to)?;
    if !quick {
        let minutes: u32 = parts.iter().map(|part| part.minutes).sum();
        say(format_args!("{} parts, about {minutes} minutes on two idle cores", parts.len()))?;
    }
    let mut failed = Vec::new();
    for part in parts {
        let csv = to.join(format!("{}.csv", part.name));
        if resume && results::commit_of(&csv).is_some_and(|c| c == provenance::commit()) {
            say(format_args!("\n== {}: measured already with this engine", part.name))?;
            continue;
        }
        let estimate = if quick { "seconds".to_owned() } else { format!("{} min", part.minutes) };
        say(format_args!("\n== {} (about {estimate})", part.name))?;
        let start = Instant::now();
        // A part that fails must not take the others with it; the run fails in the end.
        if let Err(error) = part.run(quick, &csv, &dir) {
            say(format_args!("== {} failed: {error}", part.name))?;
            failed.push(part.name);
        }
        say(format_args!("== {}: {:.0?}", part.name, rounded(start.elapsed())))?;
    }
    pictures::draw(&to, &if quick { to.clone() } else { results::images_dir() })?;
    if !quick {
        tables::fill(&to)?;
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

fn rounded(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

impl Part {
    /// `compare` stands for all parts that begin so.
    fn chosen(&self, only: &[String]) -> bool {
        let names = |word: &String| {
            self.name
                .strip_prefix(word.as_str())
                .is_some_and(|r| r.is_empty() || r.starts_with('-'))
        };
        only.is_empty() || only.iter().any(names)
    }

    fn words(&self, quick: bool) -> String {
        let mut words = self.full.to_owned();
        if words == ONE_STORE {
            words.push_str(self.name.rsplit('-').next().unwrap_or_default());
        }
        for (list, peers) in [("MEMORY", MEMORY), ("CACHES", CACHES), ("STORES", STORES)] {
            words = words.replace(list, peers);
        }
        if quick { with(&words, self.quick) } else { words }
    }

    fn run(&self, quick: bool, csv: &Path, dir: &Path) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(self.words(quick).split(' ')).arg("--dir").arg(dir).arg("--csv").arg(csv);
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(status.to_string().into()) }
    }
}

/// The command with some of its options replaced or added.
fn with(command: &str, options: &str) -> String {
    let mut words: Vec<&str> = command.split(' ').collect();
    let options: Vec<&str> = options.split_whitespace().collect();
    for option in options.chunks_exact(2) {
        match words.iter().position(|word| *word == option[0]) {
            Some(at) => words[at + 1] = option[1],
            None => words.extend(option),
        }
    }
    words.join(" ")
}

/// Draws and fills again what was measured before.
pub(crate) fn redo(mut args: Args, what: &str) -> Result<()> {
    let from: PathBuf = args.path("from").unwrap_or_else(results_dir);
    let to: PathBuf = args.path("to").unwrap_or_else(results::images_dir);
    args.finish()?;
    match what {
        "tables" => tables::fill(&from),
        _ => pictures::draw(&from, &to),
    }
}
