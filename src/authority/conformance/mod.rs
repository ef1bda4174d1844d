//! What every [`Authority`] has to do, as a suite that any implementation runs. With the feature
//! `conformance`.
//!
//! ```no_run
//! # use onceonly::authority::memory::MemoryAuthority;
//! #[test]
//! fn conforms() {
//!     let server = MemoryAuthority::new();
//!     // Each call makes another client of the same server.
//!     onceonly::authority::conformance::run(|| server.clone()).unwrap();
//! }
//! ```
//!
//! It takes some seconds, most of them in waiting for leases to run out. It works in spaces of its own,
//! whose names are new each time, so the server may hold other things; they are left behind. What it
//! expects of time it measures around each call, so that a slow machine does not fail it.

mod claims;
mod marks;
mod owners;
mod races;
mod support;

use std::fmt;

use super::Authority;
use support::Bench;

/// What an implementation gets wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The rule that it breaks.
    pub rule: &'static str,
    /// What it did.
    pub detail: String,
}

/// Everything that an implementation gets wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct Failures(Vec<Failure>);

impl Failures {
    /// One a rule.
    #[must_use]
    pub fn all(&self) -> &[Failure] {
        &self.0
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the authority breaks {} rules", self.0.len())?;
        self.0.iter().try_for_each(|failure| write!(f, "\n- {}: {}", failure.rule, failure.detail))
    }
}

/// As it is displayed, because `unwrap` shows it.
impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failures {}

/// A rule, and how it is tried.
type Case = (&'static str, fn(&Bench<'_>) -> Result<(), String>);

/// Tries every rule. `connect` makes a client of the server; it is called several times.
///
/// # Errors
/// What was found to be wrong, one [`Failure`] a rule.
pub fn run<A: Authority>(connect: impl Fn() -> A + Sync) -> Result<(), Failures> {
    let connect = || -> Box<dyn Authority> { Box::new(connect()) };
    let cases = [marks::CASES, claims::CASES, owners::CASES, races::CASES];
    let mut failures = Vec::new();
    for (rule, case) in cases.into_iter().flatten() {
        let tried = Bench::new(&connect).and_then(|bench| case(&bench));
        if let Err(detail) = tried {
            failures.push(Failure { rule, detail });
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failures(failures)) }
}
