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
    /// The command and its options, in full and for a trial.
    full: &'static str,
    quick: &'static str,
    /// Minutes that the full one takes on two cores, about.
    minutes: u32,
}

const PARTS: [Part; 13] = [
    Part { name: "floor", full: "floor", quick: "floor", minutes: 1 },
    Part {
        name: "compare-1M",
        full: "compare --live 1M --peer MEMORY,STORES",
        quick: "compare --live 64k --peer MEMORY,STORES --rounds 4",
        minutes: 15,
    },
    Part {
        name: "compare-10M",
        full: "compare --live 10M --peer MEMORY,STORES",
        quick: "compare --live 256k --peer MEMORY,STORES --rounds 2",
        minutes: 40,
    },
    Part {
        name: "compare-100M",
        full: "compare --live 100M --peer floor,hashbrown,hashbrown-digests-first,dashmap,sbbf",
        quick: "compare --live 1M --peer floor,hashbrown,dashmap,sbbf --rounds 2",
        minutes: 25,
    },
    Part {
        name: "claims",
        full: "claims --live 1M --peer floor,claims,process-once",
        quick: "claims --live 64k --peer floor,claims,process-once --rounds 4",
        minutes: 1,
    },
    Part {
        name: "scaling",
        full: "scaling --live 10M",
        quick: "scaling --live 256k --rounds 4",
        minutes: 6,
    },
    Part {
        name: "latency",
        full: "latency --live 10M --seconds 60 --pin yes",
        quick: "latency --live 1M --rate 100k --seconds 3",
        minutes: 2,
    },
    Part {
        name: "reopen",
        full: "reopen --live 100M",
        quick: "reopen --live 1M --more 200k",
        minutes: 2,
    },
    Part { name: "cli", full: "cli", quick: "cli --rounds 1 --files flights", minutes: 6 },
    Part { name: "remembers", full: "remembers", quick: "remembers --keys 20k", minutes: 1 },
    Part {
        name: "overload",
        full: "overload --planned 1M",
        quick: "overload --planned 32k",
        minutes: 2,
    },
    Part {
        name: "growth",
        full: "growth --live 1M,10M,100M",
        quick: "growth --live 64k,1M",
        minutes: 10,
    },
    Part { name: "growth-1B", full: "growth --live 1B", quick: "growth --live 2M", minutes: 45 },
];

const MEMORY: &str =
    "floor,hashbrown,hashbrown-digests-first,dashmap,moka,quick_cache,lru,sbbf,fastbloom";
const STORES: &str = "lmdb,fjall,sqlite,redis,postgres";

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
            say(format_args!("\n== {}: measured already at this commit", part.name))?;
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

    fn run(&self, quick: bool, csv: &Path, dir: &Path) -> Result<()> {
        let words = if quick { self.quick } else { self.full };
        let words = words.replace("MEMORY", MEMORY).replace("STORES", STORES);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words.split(' ')).arg("--dir").arg(dir).arg("--csv").arg(csv);
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(status.to_string().into()) }
    }
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
