//! Counts the instructions that operations of `onceonly` take a key, by valgrind's callgrind, and
//! holds them to a recorded budget. Unlike times they do not drift with the machine's load: a change
//! that makes the engine do more is seen at once.
//!
//! ```text
//! onceonly-instructions check     fails when an operation takes more than the budget and its slack
//! onceonly-instructions record    makes the budget what is counted now
//! ```
//!
//! What is counted is the calling thread, in a plain release build for baseline x86-64. Vector
//! instructions are chosen at run time by what valgrind says that the processor has (AVX2 at most,
//! and only where the real one has it), so a budget holds for processors with the same answer; and
//! for the compiler that it was recorded with. The file names both.

mod budget;
mod operations;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use budget::Budget;

/// How much more than the budget is let pass, in percent.
const SLACK: f64 = 3.0;
const USAGE: &str = "usage: onceonly-instructions check | record";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["check"] => check(),
        ["record"] => record(),
        // What valgrind runs.
        ["count", name, dir] => operations::run(name, Path::new(dir)),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when this fails.
            let _ = writeln!(std::io::stderr(), "onceonly-instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    let budget = Budget::read()?;
    let mut over = Vec::new();
    say(&format!("{:<32}{:>10}{:>10}{:>9}", "instructions a key", "budget", "now", "more"))?;
    for name in operations::NAMES {
        let allowed = budget.of(name).with_context(|| format!("no budget for {name:?}: record"))?;
        let now = counted(name)?;
        let more = (now / allowed - 1.0) * 100.0;
        say(&format!("{name:<32}{allowed:>10.1}{now:>10.1}{more:>+8.1}%"))?;
        if more > SLACK {
            over.push(name);
        }
    }
    ensure!(
        over.is_empty(),
        "more than {SLACK} % over the budget: {}. If it is meant, record a new budget{}",
        over.join("; "),
        budget.other_surroundings()?
    );
    Ok(())
}

fn record() -> Result<()> {
    let mut budget = Budget::here()?;
    for name in operations::NAMES {
        let now = counted(name)?;
        say(&format!("{name:<32}{now:>10.1}"))?;
        budget.set(name, now);
    }
    budget.write()
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Instructions a key, in a process of its own under valgrind.
fn counted(name: &str) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    command.arg("--toggle-collect=onceonly_instructions::operations::count*");
    command.arg(format!("--callgrind-out-file={}", out.display()));
    command.arg(std::env::current_exe()?).arg("count").arg(name).arg(dir.path().join("store"));
    let output = command.output().context("valgrind is needed (apt-get install valgrind)")?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(&out)?;
    let summary = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let instructions: f64 = summary.context("no summary by callgrind")?.trim().parse()?;
    ensure!(instructions > 0.0, "{name}: nothing was counted");
    Ok(instructions / operations::COUNTED as f64)
}
