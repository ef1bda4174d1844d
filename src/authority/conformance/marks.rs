//! Marks, values, the forget log.

use std::time::{Duration, Instant};

use super::Case;
use super::support::{
    Bench, CHECK, LONG, SHORT, Tried, another_space, claim, commit, digest, duplicate, ensure,
    expect, granted, in_flight, in_time, observe, prompt, said, soon, timed, token,
};
use crate::authority::{AuthorityError, Digest, Row, RowAnswer, RowOp};

pub(super) const CASES: &[Case] = &[
    ("the first check of a space stays", the_first_check_stays),
    ("a space is complete since it was first opened", spaces_are_complete_since_then),
    ("the server's time goes on, its incarnation stays", time_goes_on),
    ("a mark is seen by everybody, its own token finds it again", marks_are_seen),
    ("a mark lives for as long as it is kept", marks_end),
    ("a refreshed mark lives on from then", refreshed_marks_live_on),
    ("values stay with the row", values_stay),
    ("a mark is taken back by its own token alone", marks_are_taken_back),
    ("a forgotten row is gone, and in the log", forgotten_rows_are_logged),
    ("a large call is answered in order", many_rows_at_once),
    ("spaces know nothing of each other", spaces_are_apart),
    ("calls end at their deadline", deadlines_are_kept),
];

fn the_first_check_stays(bench: &Bench<'_>) -> Tried {
    let space = another_space();
    expect("when new", said("open", bench.a.open(&space, 7, soon()))?.check, 7)?;
    expect("again", said("open", bench.b.open(&space, 8, soon()))?.check, 7)
}

fn spaces_are_complete_since_then(bench: &Bench<'_>) -> Tried {
    let space = another_space();
    let before = said("open", bench.a.open(&bench.space, CHECK, soon()))?.server.time;
    let first = said("open", bench.a.open(&space, CHECK, soon()))?;
    std::thread::sleep(Duration::from_millis(20));
    let again = said("open", bench.b.open(&space, CHECK, soon()))?;
    expect("again", again.complete_since, first.complete_since)?;
    // Servers that count in milliseconds may round it.
    let least = before.as_unix_millis() - 2;
    let most = first.server.time.as_unix_millis() + 2;
    let since = first.complete_since.as_unix_millis();
    ensure((least..=most).contains(&since), || format!("{since}, opened {least} to {most}"))
}

fn time_goes_on(bench: &Bench<'_>) -> Tried {
    let first = said("open", bench.a.open(&bench.space, CHECK, soon()))?.server;
    std::thread::sleep(Duration::from_millis(20));
    let rows = [Row { space: &bench.space, digest: digest(), op: RowOp::Look }];
    let second = said("rows", bench.b.rows(&rows, soon()))?.server;
    let third = said("forgotten", bench.b.forgotten(&bench.space, 0, soon()))?.server;
    ensure(first.time < second.time && second.time <= third.time, || {
        format!("{}, then {}, then {}", first.time, second.time, third.time)
    })?;
    expect(
        "incarnation",
        (second.incarnation, third.incarnation),
        (first.incarnation, first.incarnation),
    )
}

fn marks_are_seen(bench: &Bench<'_>) -> Tried {
    let (key, ours) = (digest(), token());
    expect("before", bench.row(key, RowOp::Look)?, RowAnswer::Absent)?;
    expect("first", bench.row(key, observe(ours, LONG))?, RowAnswer::Marked)?;
    std::thread::sleep(Duration::from_millis(20));
    let (age, value) = duplicate("look", bench.row_of_b(key, RowOp::Look)?)?;
    ensure(age >= Duration::from_millis(15) && age < LONG, || format!("its age is {age:?}"))?;
    expect("its value", value, Vec::new())?;
    let (older, _) = duplicate("another", bench.row_of_b(key, observe(token(), LONG))?)?;
    ensure(older >= age, || format!("its age was {age:?}, then {older:?}"))?;
    expect("its own token", bench.row_of_b(key, observe(ours, LONG))?, RowAnswer::Marked)?;
    let (oldest, _) = duplicate("look again", bench.row(key, RowOp::Look)?)?;
    ensure(oldest >= older, || "its own token marked it once more".to_owned())
}

fn marks_end(bench: &Bench<'_>) -> Tried {
    let key = digest();
    let (answer, began) = timed(|| bench.row(key, observe(token(), SHORT)))?;
    expect("first", answer, RowAnswer::Marked)?;
    bench.ends(key, began, SHORT)?;
    expect("then", bench.row_of_b(key, observe(token(), LONG))?, RowAnswer::Marked)?;
    duplicate("after that", bench.row(key, RowOp::Look)?).map(drop)
}

fn refreshed_marks_live_on(bench: &Bench<'_>) -> Tried {
    let refresh = RowOp::Refresh { keep: SHORT };
    expect("no row", bench.row(digest(), refresh)?, RowAnswer::Absent)?;
    let mut refreshed = None;
    in_time(|| {
        let key = digest();
        bench.row(key, observe(token(), SHORT))?;
        std::thread::sleep(SHORT / 4);
        let (answer, began) = timed(|| bench.row_of_b(key, refresh))?;
        expect("a live row", answer, RowAnswer::Refreshed)?;
        let (age, _) = duplicate("after that", bench.row(key, RowOp::Look)?)?;
        ensure(age <= began.0.elapsed(), || format!("its age is {age:?}"))?;
        refreshed = Some((key, began));
        Ok(())
    })?;
    let (key, began) = refreshed.ok_or("never in time")?;
    bench.ends(key, began, SHORT)
}

fn values_stay(bench: &Bench<'_>) -> Tried {
    for len in [1, 64, 1_000, 65_536, 65_792] {
        let bytes: Vec<u8> = (0..len).map(|at: usize| (at * 31 % 256) as u8).collect();
        let (key, value) = (digest(), &bytes[..]);
        bench.row(key, RowOp::Observe { token: token(), keep: LONG, value })?;
        let (_, found) = duplicate("marked", bench.row_of_b(key, RowOp::Look)?)?;
        ensure(found == value, || format!("a value of {len} bytes is another"))?;
        let (key, ours) = (digest(), token());
        let op = RowOp::Claim { token: ours, previous: None, lease: LONG, keep: LONG, value };
        granted("with a value", bench.row(key, op)?)?;
        let (_, found) = in_flight("claimed", bench.row_of_b(key, claim(token(), LONG))?)?;
        ensure(found == value, || format!("a claim's value of {len} bytes is another"))?;
        expect("commit", bench.row(key, commit(ours))?, RowAnswer::Committed)?;
        let (_, found) = duplicate("committed", bench.row_of_b(key, RowOp::Look)?)?;
        ensure(found == value, || "a commit without a value changed it".to_owned())?;
    }
    let (key, ours) = (digest(), token());
    granted("claim", bench.row(key, claim(ours, LONG))?)?;
    let op = RowOp::Commit { token: ours, keep: LONG, value: b"paid" };
    expect("commit", bench.row(key, op)?, RowAnswer::Committed)?;
    let (_, found) = duplicate("committed", bench.row_of_b(key, observe(token(), LONG))?)?;
    expect("the commit's value", found, b"paid".to_vec())
}

fn marks_are_taken_back(bench: &Bench<'_>) -> Tried {
    let (key, ours) = (digest(), token());
    bench.row(key, observe(ours, LONG))?;
    expect("another's", bench.row(key, RowOp::Abandon { token: token() })?, RowAnswer::Abandoned)?;
    duplicate("still", bench.row(key, RowOp::Look)?)?;
    expect("its own", bench.row(key, RowOp::Abandon { token: ours })?, RowAnswer::Abandoned)?;
    expect("then", bench.row_of_b(key, RowOp::Look)?, RowAnswer::Absent)
}

fn forgotten_rows_are_logged(bench: &Bench<'_>) -> Tried {
    let forget = RowOp::Forget { keep: LONG };
    let begin = said("open", bench.b.open(&bench.space, CHECK, soon()))?.forgotten;
    let log = |after| said("forgotten", bench.b.forgotten(&bench.space, after, soon()));
    let empty = log(begin)?;
    expect("nothing yet", (empty.digests, empty.through), (Vec::new(), begin))?;
    let (marked, claimed, neither) = (digest(), digest(), digest());
    let owner = token();
    bench.row(marked, observe(token(), LONG))?;
    granted("claim", bench.row(claimed, claim(owner, LONG))?)?;
    let gone = |live| RowAnswer::Forgotten { live };
    expect("a mark", bench.row(marked, forget)?, gone(true))?;
    expect("a claim", bench.row(claimed, forget)?, gone(false))?;
    expect("neither", bench.row(neither, forget)?, gone(false))?;
    expect("gone", bench.row_of_b(marked, RowOp::Look)?, RowAnswer::Absent)?;
    expect("its commit", bench.row(claimed, commit(owner))?, RowAnswer::Lost)?;
    let all = log(begin)?;
    expect("the log", all.digests, vec![marked, claimed, neither])?;
    ensure(all.through > begin, || "its number does not grow".to_owned())?;
    let rest = log(all.through)?;
    expect("nothing more", (rest.digests, rest.through), (Vec::new(), all.through))?;
    let again = said("open", bench.b.open(&bench.space, CHECK, soon()))?.forgotten;
    expect("its end", again, all.through)?;
    expect("marked again", bench.row(marked, observe(token(), LONG))?, RowAnswer::Marked)?;
    bench.row(marked, forget)?;
    expect("once more", log(all.through)?.digests, vec![marked])
}

/// Kinds that a large call mixes.
const KINDS: usize = 4;

fn many_rows_at_once(bench: &Bench<'_>) -> Tried {
    let mut digests: Vec<Digest> = (0..2_000).map(|_| digest()).collect();
    digests.sort_unstable();
    let ops = |at: usize| match at % KINDS {
        0 => observe(token(), LONG),
        1 => claim(token(), LONG),
        2 => RowOp::Look,
        _ => RowOp::Forget { keep: LONG },
    };
    let rows = digests.iter().enumerate();
    let rows: Vec<_> = rows
        .map(|(at, digest)| Row { space: &bench.space, digest: *digest, op: ops(at) })
        .collect();
    let kind = |answer: &RowAnswer| match answer {
        RowAnswer::Marked | RowAnswer::Duplicate { .. } => 0,
        RowAnswer::Granted { .. } | RowAnswer::InFlight { .. } => 1,
        RowAnswer::Absent => 2,
        RowAnswer::Forgotten { .. } => 3,
        _ => KINDS,
    };
    for again in [false, true] {
        let answers = said("rows", bench.a.rows(&rows, soon()))?;
        expect("answers", answers.rows.len(), rows.len())?;
        for (at, answer) in answers.rows.into_iter().enumerate() {
            let answer = said("a row of many", answer)?;
            let fits = kind(&answer) == at % KINDS;
            ensure(fits, || format!("row {at} of a large call: {answer:?}"))?;
        }
        if again {
            break;
        }
        let looks: Vec<_> = rows.iter().map(|row| Row { op: RowOp::Look, ..*row }).collect();
        let looked = said("rows", bench.b.rows(&looks, soon()))?;
        for (at, answer) in looked.rows.into_iter().enumerate() {
            let wanted = if at % KINDS < 2 { at % KINDS } else { 2 };
            let answer = said("a row of many", answer)?;
            ensure(kind(&answer) == wanted, || format!("row {at}, looked at: {answer:?}"))?;
        }
    }
    Ok(())
}

fn spaces_are_apart(bench: &Bench<'_>) -> Tried {
    let mut spaces = [bench.space.clone(), another_space()];
    spaces.sort();
    for space in &spaces {
        said("open", bench.a.open(space, CHECK, soon()))?;
    }
    let key = digest();
    let op = observe(token(), LONG);
    let [first, second] = [&spaces[0], &spaces[1]];
    let rows = [Row { space: first, digest: key, op }, Row { space: second, digest: key, op }];
    for answer in said("rows", bench.a.rows(&rows, soon()))?.rows {
        expect("in each", said("a row", answer)?, RowAnswer::Marked)?;
    }
    let op = RowOp::Forget { keep: LONG };
    let forget = [Row { space: first, digest: key, op }];
    said("rows", bench.a.rows(&forget, soon()))?;
    let log = said("forgotten", bench.a.forgotten(second, 0, soon()))?;
    expect("the other's log", log.digests, Vec::new())?;
    let look = [Row { space: second, digest: key, op: RowOp::Look }];
    let answer = said("rows", bench.a.rows(&look, soon()))?.rows.pop().ok_or("no answer")?;
    duplicate("the other's row", said("a row", answer)?).map(drop)
}

fn deadlines_are_kept(bench: &Bench<'_>) -> Tried {
    let past = Instant::now();
    let rows = [Row { space: &bench.space, digest: digest(), op: RowOp::Look }];
    let answer = prompt(|| bench.a.rows(&rows, past))?;
    if let Err(error) = answer {
        let fits = matches!(error, AuthorityError::Transient(_) | AuthorityError::Undecided(_));
        ensure(fits, || format!("a deadline that has passed is {error}"))?;
    }
    // The client is of use afterwards.
    expect("after that", bench.row(digest(), observe(token(), LONG))?, RowAnswer::Marked)
}
