//! Makes the stores under `tests/fixtures/` that the newest format version does not have yet. Stores of
//! released versions are never made anew: they are what was written then.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use onceonly::{Dedup, offline};

use crate::args::Args;
use crate::common::fixture::{ALL, Fixture};

pub(crate) fn run(args: &Args) -> Result<()> {
    let new = tempfile::tempdir()?;
    Dedup::builder().window(Duration::from_secs(1)).open(new.path())?.close()?;
    let version = offline::inspect(new.path())?.format_version;
    let directory = Fixture::directory(version);
    if args.number("replace", 0)? == 1 && directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    let missing = ALL.iter().filter(|fixture| !directory.join(fixture.name).exists());
    let missing: Vec<_> = missing.collect();
    ensure!(
        !missing.is_empty(),
        "{} has all: stores of a released version stay (--replace 1 before the release)",
        directory.display()
    );
    for fixture in missing {
        let target = directory.join(fixture.name);
        fixture.make(&target);
        println!("fixtures: {}", target.display());
    }
    Ok(())
}
