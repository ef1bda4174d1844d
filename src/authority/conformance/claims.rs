//! Claims: leases, fences, late owners.

use super::Case;
use super::support::{
    Bench, LONG, SHORT, Tried, claim, commit, digest, duplicate, ensure, expect, granted,
    in_flight, in_time, observe, timed, token,
};
use crate::authority::{RowAnswer, RowOp};

pub(super) const CASES: &[Case] = &[
    ("a claim keeps others away until it is committed", claims_keep_others_away),
    ("a mark keeps claims away", marks_keep_claims_away),
    ("an abandoned claim is free at once", abandoned_claims_are_free),
    ("a claim whose lease is over is taken by the next", leases_end),
    ("who took over has a higher fence, the late owner is refused", late_owners_are_refused),
    ("a late commit counts while nobody took over", late_commits_count),
    ("a renewed lease begins anew", leases_are_renewed),
    ("a repeated claim is granted as before", repeated_claims_are_granted),
    ("a claim of a dead owner is taken over at once", dead_owners_are_followed),
];

const LOST: RowAnswer = RowAnswer::Lost;

fn claims_keep_others_away(bench: &Bench<'_>) -> Tried {
    let (key, ours) = (digest(), token());
    granted("first", bench.row(key, claim(ours, LONG))?)?;
    for op in [RowOp::Look, claim(token(), LONG), observe(token(), LONG)] {
        let (left, _) = in_flight("others", bench.row_of_b(key, op)?)?;
        ensure(left <= LONG && left > LONG / 2, || format!("{left:?} of {LONG:?} left"))?;
    }
    expect("another's commit", bench.row_of_b(key, commit(token()))?, LOST)?;
    expect("refresh", bench.row_of_b(key, RowOp::Refresh { keep: LONG })?, RowAnswer::Absent)?;
    expect("commit", bench.row(key, commit(ours))?, RowAnswer::Committed)?;
    duplicate("others then", bench.row_of_b(key, claim(token(), LONG))?)?;
    duplicate("its own claim then", bench.row(key, claim(ours, LONG))?)?;
    expect("repeated", bench.row(key, commit(ours))?, RowAnswer::Committed)?;
    expect("another's", bench.row_of_b(key, commit(token()))?, LOST)?;
    let renew = RowOp::Renew { token: ours, lease: LONG, keep: LONG };
    expect("renewed after commit", bench.row(key, renew)?, LOST)
}

fn marks_keep_claims_away(bench: &Bench<'_>) -> Tried {
    let key = digest();
    bench.row(key, observe(token(), LONG))?;
    duplicate("claim", bench.row_of_b(key, claim(token(), LONG))?)?;
    expect("commit", bench.row_of_b(key, commit(token()))?, LOST)?;
    expect("commit of nothing", bench.row_of_b(digest(), commit(token()))?, LOST)
}

fn abandoned_claims_are_free(bench: &Bench<'_>) -> Tried {
    let (key, ours) = (digest(), token());
    let first = granted("first", bench.row(key, claim(ours, LONG))?)?;
    let abandoned = bench.row_of_b(key, RowOp::Abandon { token: token() })?;
    expect("another's", abandoned, RowAnswer::Abandoned)?;
    in_flight("still", bench.row_of_b(key, RowOp::Look)?)?;
    expect("its own", bench.row(key, RowOp::Abandon { token: ours })?, RowAnswer::Abandoned)?;
    expect("free", bench.row_of_b(key, RowOp::Look)?, RowAnswer::Absent)?;
    expect("its commit", bench.row(key, commit(ours))?, LOST)?;
    let second = granted("second", bench.row_of_b(key, claim(token(), LONG))?)?;
    ensure(second > first, || format!("fence {second} after {first}"))
}

fn leases_end(bench: &Bench<'_>) -> Tried {
    let key = digest();
    let (answer, began) = timed(|| bench.row(key, claim(token(), SHORT)))?;
    granted("first", answer)?;
    bench.ends(key, began, SHORT)?;
    expect("observed", bench.row_of_b(key, observe(token(), LONG))?, RowAnswer::Marked)
}

fn late_owners_are_refused(bench: &Bench<'_>) -> Tried {
    let (key, late, next) = (digest(), token(), token());
    let (answer, began) = timed(|| bench.row(key, claim(late, SHORT)))?;
    let first = granted("first", answer)?;
    bench.ends(key, began, SHORT)?;
    let second = granted("second", bench.row_of_b(key, claim(next, LONG))?)?;
    ensure(second > first, || format!("fence {second} after {first}"))?;
    expect("late commit", bench.row(key, commit(late))?, LOST)?;
    let renew = RowOp::Renew { token: late, lease: LONG, keep: LONG };
    expect("late renewal", bench.row(key, renew)?, LOST)?;
    expect("late", bench.row(key, RowOp::Abandon { token: late })?, RowAnswer::Abandoned)?;
    in_flight("unharmed", bench.row(key, RowOp::Look)?)?;
    expect("the owner's", bench.row_of_b(key, commit(next))?, RowAnswer::Committed)?;
    expect("late again", bench.row(key, commit(late))?, LOST)
}

fn late_commits_count(bench: &Bench<'_>) -> Tried {
    let (key, ours) = (digest(), token());
    let (answer, began) = timed(|| bench.row(key, claim(ours, SHORT)))?;
    granted("first", answer)?;
    bench.ends(key, began, SHORT)?;
    expect("late", bench.row(key, commit(ours))?, RowAnswer::Committed)?;
    duplicate("then", bench.row_of_b(key, RowOp::Look)?).map(drop)
}

fn leases_are_renewed(bench: &Bench<'_>) -> Tried {
    let mut renewed = None;
    in_time(|| {
        let (key, ours) = (digest(), token());
        granted("first", bench.row(key, claim(ours, SHORT))?)?;
        std::thread::sleep(SHORT / 4);
        let renew = RowOp::Renew { token: ours, lease: SHORT, keep: LONG };
        let (answer, began) = timed(|| bench.row(key, renew))?;
        expect("renewed", answer, RowAnswer::Renewed)?;
        renewed = Some((key, ours, began));
        Ok(())
    })?;
    let (key, ours, began) = renewed.ok_or("never in time")?;
    bench.ends(key, began, SHORT)?;
    let renew = RowOp::Renew { token: ours, lease: LONG, keep: LONG };
    expect("late", bench.row(key, renew)?, RowAnswer::Renewed)?;
    in_flight("then", bench.row_of_b(key, claim(token(), LONG))?)?;
    expect("of nothing", bench.row(digest(), renew)?, LOST)
}

fn repeated_claims_are_granted(bench: &Bench<'_>) -> Tried {
    let (key, ours) = (digest(), token());
    let first = granted("first", bench.row(key, claim(ours, LONG))?)?;
    let again = granted("repeated", bench.row(key, claim(ours, LONG))?)?;
    expect("its fence", again, first)
}

fn dead_owners_are_followed(bench: &Bench<'_>) -> Tried {
    let (key, dead, next) = (digest(), token(), token());
    let first = granted("first", bench.row(key, claim(dead, LONG))?)?;
    let after = |previous| RowOp::Claim {
        token: next,
        previous: Some(previous),
        lease: LONG,
        keep: LONG,
        value: &[],
    };
    in_flight("after another", bench.row_of_b(key, after(token()))?)?;
    let second = granted("after the dead", bench.row_of_b(key, after(dead))?)?;
    ensure(second > first, || format!("fence {second} after {first}"))?;
    expect("the dead's commit", bench.row(key, commit(dead))?, LOST)?;
    expect("the next's", bench.row_of_b(key, commit(next))?, RowAnswer::Committed)?;
    duplicate("a mark of the dead", bench.row_of_b(key, after(dead))?).map(drop)
}
