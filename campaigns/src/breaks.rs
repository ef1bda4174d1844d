//! Deliberate breaks of the engine, each in a copy of the sources: the test that the list names has
//! to fail. One that passes is not worth its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::args::Args;
use crate::common::breaks::{self, Break};

/// What the copy needs to be built.
const SOURCES: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "benches",
    "campaigns",
    "cli",
    "docs",
    "examples",
    "fuzz/corpus",
    "src",
    "tests",
];
/// A break may make a test wait for ever.
const MOST_SECONDS: &str = "240";

pub(crate) fn run(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no root")?;
    let work = match args.text_or("dir", "") {
        "" => root.join("target").join("breaks"),
        dir => PathBuf::from(dir),
    };
    let (only, list) = (args.text_or("only", ""), args.text_or("list", ""));
    copy_sources(root, &work.join("tree"))?;
    let chosen: Vec<Break> =
        breaks::all().into_iter().filter(|one| is_chosen(one, list, only)).collect();
    let mut unnoticed = Vec::new();
    for (number, one) in chosen.iter().enumerate() {
        let started = Instant::now();
        let verdict = try_one(&work, one).with_context(|| one.name.clone())?;
        println!(
            "{}/{} promise {}: {}: {verdict} by {} ({:.0} s)",
            number + 1,
            chosen.len(),
            one.promise,
            one.name,
            one.test,
            started.elapsed().as_secs_f64()
        );
        if verdict == NOT_NOTICED {
            unnoticed.push(one.name.as_str());
        }
    }
    ensure!(unnoticed.is_empty(), "not noticed: {unnoticed:?}");
    println!("breaks: {} of {} noticed", chosen.len(), chosen.len());
    Ok(())
}

fn is_chosen(one: &Break, list: &str, only: &str) -> bool {
    one.name.contains(only) && (list.is_empty() || one.list == list)
}

const NOT_NOTICED: &str = "NOT NOTICED";

fn copy_sources(root: &Path, tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    for name in SOURCES {
        let to = tree.join(name);
        fs::create_dir_all(to.parent().context("no parent")?)?;
        let status = Command::new("cp").arg("-rp").arg(root.join(name)).arg(&to).status()?;
        ensure!(status.success(), "{name} could not be copied");
        // What was built there is not wanted.
        let _ = fs::remove_dir_all(to.join("target"));
        let _ = fs::remove_dir_all(to.join("peers").join("target"));
    }
    Ok(())
}

/// Breaks the copy, asks the test, and mends the copy again.
fn try_one(work: &Path, one: &Break) -> Result<&'static str> {
    let file = work.join("tree").join(&one.file);
    let whole = fs::read_to_string(&file)?;
    fs::write(&file, one.apply(&whole).map_err(|why| anyhow!(why))?)?;
    let verdict = ask(work, one);
    fs::write(&file, whole)?;
    verdict
}

fn ask(work: &Path, one: &Break) -> Result<&'static str> {
    // Else a break that does not compile would be one that a test noticed.
    let built = cargo(work, one, true)?;
    ensure!(built.status.success(), "does not compile: {}", String::from_utf8_lossy(&built.stderr));
    let tested = cargo(work, one, false)?;
    let told = String::from_utf8_lossy(&tested.stdout);
    if !tested.status.success() {
        let by_test = told.contains("test result: FAILED");
        return Ok(if by_test { "noticed" } else { "noticed (ended or hung)" });
    }
    if !told.contains(" 1 passed") {
        bail!("no test has that name: {}", one.test);
    }
    Ok(NOT_NOTICED)
}

fn cargo(work: &Path, one: &Break, build_only: bool) -> Result<Output> {
    let mut command = Command::new("timeout");
    if build_only {
        command.arg("1800");
    } else {
        command.arg(MOST_SECONDS);
    }
    command.args(["cargo", "test", "--quiet", "--locked", "-p", "onceonly"]);
    command.current_dir(work.join("tree"));
    let mut words: Vec<&str> = one.test.split_whitespace().collect();
    let name = words.pop().context("no test is named")?;
    if words == ["models"] {
        command.args(["--release", "--lib", "--features", "test-storage"]);
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", work.join("loom"));
    } else {
        command.args(words).env("CARGO_TARGET_DIR", work.join("target"));
    }
    if build_only {
        command.arg("--no-run");
    } else {
        command.args(["--", name]);
    }
    Ok(command.output()?)
}
