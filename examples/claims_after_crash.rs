//! A consumer dies in the middle of its work; the next one finds what was in flight.
//!
//! `cargo run --example claims_after_crash`
//!
//! The program starts itself a second time as the consumer that dies.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use onceonly::{Claim, ClaimOptions, Dedup};

fn open(dir: &Path) -> onceonly::Result<Dedup> {
    Dedup::builder().window(Duration::from_secs(3600)).lease(Duration::from_secs(30)).open(dir)
}

/// Takes two payments, finishes one, and dies in the middle of the other.
fn consumer_that_dies(dir: &Path) -> Result<(), Box<dyn Error>> {
    let dedup = open(dir)?;
    for id in ["payment-1", "payment-2"] {
        // The store keeps no keys; the note says what a claim is about.
        let options = ClaimOptions::new().note(id);
        let Claim::Granted(guard) = dedup.claim_with(id, options)? else { continue };
        writeln!(io::stdout(), "  working on {id}, token {}", guard.token())?;
        if id == "payment-2" {
            process::abort();
        }
        guard.commit()?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = env::args_os().nth(1) {
        return consumer_that_dies(Path::new(&dir));
    }
    let mut out = io::stdout();
    let temporary = tempfile::tempdir()?;
    let dir = temporary.path().join("payments-0");

    writeln!(out, "the first consumer:")?;
    let status = Command::new(env::current_exe()?).arg(&dir).status()?;
    writeln!(out, "  {status}")?;

    writeln!(out, "the next one:")?;
    let dedup = open(&dir)?;
    writeln!(out, "  payment-1 is a duplicate: {}", dedup.contains("payment-1")?)?;
    for claim in dedup.claims()? {
        let note = String::from_utf8_lossy(&claim.note);
        writeln!(out, "  in flight: {note}, its owner is gone: {}", claim.orphaned)?;
    }
    // Each is taken over with a new token; a late commit of the old one would be refused.
    for guard in dedup.expired_claims()? {
        let note = String::from_utf8_lossy(&guard.note()?).into_owned();
        writeln!(out, "  taken over: {note}, token {}", guard.token())?;
        // Look up whether the payment was made, make it if not, then:
        guard.commit()?;
    }
    writeln!(out, "  payment-2 is a duplicate: {}", dedup.contains("payment-2")?)?;
    dedup.close()?;
    Ok(())
}
