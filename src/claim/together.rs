//! Many claims at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Claim, ClaimGuard, ClaimOptions, CommitError, Manner, into_claim, lease_ns};
use crate::digest::Digest;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::shadow::is_misuse;

pub(crate) fn claim_batch(
    engine: &Arc<Engine>,
    digests: &[Digest],
    options: &ClaimOptions,
    manner: Manner,
) -> Result<Vec<Claim>> {
    let lease = lease_ns(options)?;
    let mut claims: Vec<Option<Claim>> = Vec::new();
    claims.resize_with(digests.len(), || None);
    let claimed =
        engine.claim_batch(digests.iter().copied(), lease, manner.on_outage, |at, attempt| {
            let claim = into_claim(engine, attempt, manner);
            claims[at] = match manner.shadow {
                false => Some(claim),
                true => manner.shadow_claim(engine, digests[at], Ok(claim)).ok(),
            };
        });
    match claimed {
        // In place, which `flatten` is not.
        Ok(()) => Ok(claims.into_iter().map_while(|claim| claim).collect()),
        Err(error) if manner.shadow && !is_misuse(&error) => {
            Ok(manner.claims(engine, claims, digests, error))
        }
        // The guards made so far are dropped, which abandons them.
        Err(error) => Err(error),
    }
}

/// Commits guards of one store together; those of other stores in turns of their own.
pub(crate) fn commit_batch(
    guards: impl IntoIterator<Item = ClaimGuard>,
) -> Vec<std::result::Result<(), CommitError>> {
    let mut guards: Vec<ClaimGuard> = guards.into_iter().collect();
    // A guard whose commit has failed comes back settled, and may be committed again.
    guards.iter_mut().for_each(|guard| *guard.settled.get_mut() = guard.is_ghost());
    let mut failed: Vec<Option<Error>> = Vec::new();
    for (first, guard) in guards.iter().enumerate() {
        // A guard is settled once its store's turn came.
        if !guard.settled.load(Ordering::Relaxed) {
            commit_of_one_store(&guards, first, &mut failed);
        }
    }
    if failed.is_empty() {
        return guards.iter().map(|_| Ok(())).collect();
    }
    let results = guards.into_iter().zip(failed);
    results
        .map(|(guard, failed)| match failed {
            Some(error) => Err(CommitError::new(guard, error)),
            None => Ok(()),
        })
        .collect()
}

/// Commits the guards from `first` on that are of its store. `failed` gets an entry a guard with the
/// first error.
fn commit_of_one_store(guards: &[ClaimGuard], first: usize, failed: &mut Vec<Option<Error>>) {
    let engine = &guards[first].engine;
    let is_own = |guard: &ClaimGuard| Arc::ptr_eq(&guard.engine, engine) && !guard.is_ghost();
    // Most often all are of one store, and follow each other.
    let places: Option<Vec<usize>> = match guards[first..].iter().all(is_own) {
        true => None,
        false => Some((first..guards.len()).filter(|place| is_own(&guards[*place])).collect()),
    };
    let place_of = |at: usize| places.as_ref().map_or(first + at, |places| places[at]);
    let len = places.as_ref().map_or(guards.len() - first, Vec::len);
    for at in 0..len {
        guards[place_of(at)].settled.store(true, Ordering::Relaxed);
    }
    let claim_of = |at: usize| guards[place_of(at)].held;
    engine.commit_batch(len, claim_of, |at, error| {
        if let Err(error) = guards[place_of(at)].or_let_through(Err(error), ()) {
            failed.resize_with(guards.len(), || None);
            failed[place_of(at)] = Some(error);
        }
    });
}
