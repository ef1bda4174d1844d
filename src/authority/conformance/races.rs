//! One winner, whoever comes at the same time.

use std::sync::Barrier;

use super::Case;
use super::support::{
    Bench, LONG, SHORT, Tried, acquire, claim, digest, ensure, expect, observe, said, soon, token,
};
use crate::authority::{Authority, AuthorityError, Digest, Row, RowAnswer, RowOp};

pub(super) const CASES: &[Case] = &[
    ("of many who mark, one does", one_marks),
    ("of many who claim, one may", one_claims),
    ("of many who take over, one does", one_takes_over),
    ("of many who want a space, one gets it", one_owns),
];

const CLIENTS: usize = 6;
const DIGESTS: usize = 200;

/// What `CLIENTS` clients get who all do the same at once.
fn at_once<T: Send>(
    bench: &Bench<'_>,
    work: impl Fn(&dyn Authority) -> Tried<T> + Sync,
) -> Tried<Vec<T>> {
    let barrier = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let client = (bench.connect)();
                    barrier.wait();
                    work(&*client)
                })
            })
            .collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".to_owned())));
        joined.collect()
    })
}

/// Which of the digests a client won, in calls of many.
fn won(
    bench: &Bench<'_>,
    client: &dyn Authority,
    digests: &[Digest],
    op: impl Fn() -> RowOp<'static>,
) -> Tried<Vec<bool>> {
    let mut won = Vec::new();
    for digests in digests.chunks(50) {
        let row = |digest: &Digest| Row { space: &bench.space, digest: *digest, op: op() };
        let rows: Vec<_> = digests.iter().map(row).collect();
        for answer in said("rows", client.rows(&rows, soon()))?.rows {
            won.push(match said("a row", answer)? {
                RowAnswer::Marked | RowAnswer::Granted { .. } => true,
                RowAnswer::Duplicate { .. } | RowAnswer::InFlight { .. } => false,
                other => return Err(format!("among many: {other:?}")),
            });
        }
    }
    Ok(won)
}

fn one_winner_each(bench: &Bench<'_>, digests: &[Digest], op: fn() -> RowOp<'static>) -> Tried {
    let all = at_once(bench, |client| won(bench, client, digests, op))?;
    for at in 0..digests.len() {
        let winners = all.iter().filter(|won| won[at]).count();
        ensure(winners == 1, || format!("{winners} winners of one digest"))?;
    }
    Ok(())
}

fn fresh() -> Vec<Digest> {
    let mut digests: Vec<_> = (0..DIGESTS).map(|_| digest()).collect();
    digests.sort_unstable();
    digests
}

fn one_marks(bench: &Bench<'_>) -> Tried {
    one_winner_each(bench, &fresh(), || observe(token(), LONG))
}

fn one_claims(bench: &Bench<'_>) -> Tried {
    one_winner_each(bench, &fresh(), || claim(token(), LONG))
}

fn one_takes_over(bench: &Bench<'_>) -> Tried {
    let digests = fresh();
    won(bench, &*bench.a, &digests, || claim(token(), SHORT))?;
    std::thread::sleep(SHORT * 2);
    one_winner_each(bench, &digests, || claim(token(), LONG))?;
    let digests = fresh();
    won(bench, &*bench.a, &digests, || observe(token(), SHORT))?;
    std::thread::sleep(SHORT * 2);
    one_winner_each(bench, &digests, || observe(token(), LONG))
}

fn one_owns(bench: &Bench<'_>) -> Tried {
    let owners = at_once(bench, |client| {
        match acquire(client, &bench.space, token(), None, LONG) {
            Ok(acquired) => expect("its epoch", acquired.epoch, 1).map(|()| 1),
            Err(AuthorityError::NotExclusive { .. }) => Ok(0),
            // A server may give up one of two transactions; who lost tries again.
            Err(AuthorityError::Transient(_)) => Ok(0),
            Err(other) => said("acquire", Err(other)),
        }
    })?;
    expect("owners", owners.iter().sum::<u32>(), 1)
}
