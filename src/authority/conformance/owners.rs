//! The owner record and the chunks.

use std::time::Duration;

use super::Case;
use super::support::{
    Bench, CHECK, LONG, SHORT, Tried, acquire, another_space, ensure, expect, progress, said, soon,
    token,
};
use crate::authority::{
    Acquired, Append, Appended, Authority, AuthorityError, Bucket, Chunk, StoredChunk, Token,
};
use crate::time::Timestamp;

pub(super) const CASES: &[Case] = &[
    ("a space has one owner", spaces_have_one_owner),
    ("a released space is free, and says so", released_spaces_are_free),
    ("who goes on after a release has not released", a_release_is_taken_back),
    ("a dead owner is followed at once", dead_owners_are_followed),
    ("an owner whose lease is over is followed, and refused", late_owners_are_refused),
    ("an append begins the lease anew", appends_renew),
    ("who owns nothing appends nothing", strangers_append_nothing),
    ("owners of one epoch are told by their names", owners_are_told_by_their_names),
    ("an append without a lease gives the space up", spaces_are_given_up),
    ("chunks are found in their bucket, once", chunks_are_found),
    ("chunks are there until they are over", chunks_end),
    ("appends of several spaces are told apart", several_appends),
    ("large chunks come back whole", large_chunks),
];

fn spaces_have_one_owner(bench: &Bench<'_>) -> Tried {
    let (ours, space) = (token(), &bench.space);
    let first = said("acquire", acquire(&*bench.a, space, ours, None, LONG))?;
    expect("first", (first.epoch, first.last, first.released), (1, None, false))?;
    expect("its progress", first.progress, progress(0))?;
    match acquire(&*bench.b, space, token(), Some(token()), LONG) {
        Err(AuthorityError::NotExclusive { lease_left }) => {
            let fits = lease_left <= LONG && lease_left > LONG / 2;
            ensure(fits, || format!("{lease_left:?} of {LONG:?} left"))?;
        }
        other => return Err(format!("a second owner: {other:?}")),
    }
    let again = said("repeated", acquire(&*bench.a, space, ours, None, LONG))?;
    expect("repeated", (again.epoch, again.last), (1, None))
}

fn released_spaces_are_free(bench: &Bench<'_>) -> Tried {
    let (first, second, third, space) = (token(), token(), token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, first, None, LONG))?;
    said("append", append(&*bench.a, space, (one.epoch, first), 9, &[]))?;
    said("release", bench.a.release(space, one.epoch + 1, first, soon()))?;
    let held = acquire(&*bench.b, space, second, None, LONG);
    ensure(held.is_err(), || "another epoch's release counted".to_owned())?;
    said("release", bench.a.release(space, one.epoch, first, soon()))?;
    let two = said("acquire", acquire(&*bench.b, space, second, None, LONG))?;
    expect("second", (two.epoch, two.last, two.released), (2, Some(first), true))?;
    expect("what the first had written", two.progress, progress(9))?;
    let again = said("repeated", acquire(&*bench.b, space, second, None, LONG))?;
    expect("repeated", (again.epoch, again.last, again.released), (2, Some(first), true))?;
    let three = said("acquire", acquire(&*bench.a, space, third, Some(second), LONG))?;
    expect("third", (three.epoch, three.last, three.released), (3, Some(second), false))
}

/// The next owner must not believe that everything was written.
fn a_release_is_taken_back(bench: &Bench<'_>) -> Tried {
    let (first, second, third, space) = (token(), token(), token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, first, None, LONG))?;
    said("release", bench.a.release(space, one.epoch, first, soon()))?;
    let again = said("acquired again", acquire(&*bench.a, space, first, None, LONG))?;
    expect("the epoch stays", again.epoch, one.epoch)?;
    let two = said("second", acquire(&*bench.b, space, second, Some(first), LONG))?;
    expect("acquired after its release", (two.last, two.released), (Some(first), false))?;
    said("release", bench.b.release(space, two.epoch, second, soon()))?;
    said("append", append(&*bench.b, space, (two.epoch, second), 4, &[]))?;
    let three = said("third", acquire(&*bench.a, space, third, Some(second), LONG))?;
    expect("written after its release", (three.last, three.released), (Some(second), false))
}

fn dead_owners_are_followed(bench: &Bench<'_>) -> Tried {
    let (dead, next, space) = (token(), token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, dead, None, LONG))?;
    let two = said("acquire", acquire(&*bench.b, space, next, Some(dead), LONG))?;
    expect("second", (two.epoch, two.last, two.released), (2, Some(dead), false))?;
    stale("the dead's append", append(&*bench.a, space, (one.epoch, dead), 1, &[]))?;
    said("release", bench.a.release(space, one.epoch, dead, soon()))?;
    let held = acquire(&*bench.a, space, token(), None, LONG);
    ensure(held.is_err(), || "a release of an epoch that is over counted".to_owned())
}

fn late_owners_are_refused(bench: &Bench<'_>) -> Tried {
    let (late, space) = (token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, late, None, SHORT))?;
    let (two, next) = follow(&*bench.b, space, SHORT)?;
    expect("second", (two.epoch, two.last, two.released), (2, Some(late), false))?;
    let lost = chunk(7, 3, 1, b"late", later());
    stale("late", append(&*bench.a, space, (one.epoch, late), 1, std::slice::from_ref(&lost)))?;
    expect("not applied", read(bench, &[lost.bucket])?, vec![Vec::new()])?;
    let ok = said("the owner's", append(&*bench.b, space, (two.epoch, next), 1, &[lost]))?;
    expect("position before", ok.before, 0)
}

/// Waits for the lease of the owner, which must not be over too early.
fn follow(client: &dyn Authority, space: &str, lease: Duration) -> Tried<(Acquired, Token)> {
    let began = std::time::Instant::now();
    let next = token();
    loop {
        match acquire(client, space, next, None, LONG) {
            Ok(acquired) => return Ok((acquired, next)),
            Err(AuthorityError::NotExclusive { lease_left }) => {
                ensure(lease_left <= lease, || format!("{lease_left:?} of {lease:?} left"))?;
                ensure(began.elapsed() < lease + LONG, || "its lease never ends".to_owned())?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(other) => return said("acquire", Err(other)),
        }
    }
}

fn appends_renew(bench: &Bench<'_>) -> Tried {
    let (ours, space) = (token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, ours, None, SHORT))?;
    // Nobody has followed, so the owner it still is, even if the lease was over.
    said("append", append(&*bench.a, space, (one.epoch, ours), 0, &[]))?;
    std::thread::sleep(SHORT);
    let held = acquire(&*bench.b, space, token(), None, LONG);
    ensure(matches!(held, Err(AuthorityError::NotExclusive { .. })), || {
        format!("after an append with a lease of {LONG:?}: {held:?}")
    })
}

fn strangers_append_nothing(bench: &Bench<'_>) -> Tried {
    let (ours, space) = (token(), &bench.space);
    stale("no owner yet", append(&*bench.a, space, (1, ours), 0, &[]))?;
    said("release", bench.a.release(space, 1, ours, soon()))?;
    let one = said("acquire", acquire(&*bench.a, space, ours, None, LONG))?;
    stale("a later epoch", append(&*bench.a, space, (one.epoch + 1, ours), 0, &[]))
}

/// A server that was emptied counts epochs anew: then the owner that was forgotten and the next one have the
/// same.
fn owners_are_told_by_their_names(bench: &Bench<'_>) -> Tried {
    let (ours, other, space) = (token(), token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, ours, None, LONG))?;
    let lost = chunk(7, 3, 1, b"lost", later());
    let lost = std::slice::from_ref(&lost);
    stale("another with its epoch", append(&*bench.b, space, (one.epoch, other), 9, lost))?;
    expect("not applied", read(bench, &[lost[0].bucket])?, vec![Vec::new()])?;
    said("release", bench.b.release(space, one.epoch, other, soon()))?;
    let held = acquire(&*bench.b, space, other, None, LONG);
    ensure(held.is_err(), || "the release of another with its epoch counted".to_owned())?;
    let ok = said("the owner's", append(&*bench.a, space, (one.epoch, ours), 1, lost))?;
    expect("position before", ok.before, 0)
}

/// Who has nothing to say, and cannot vouch for the owner before it.
fn spaces_are_given_up(bench: &Bench<'_>) -> Tried {
    let (ours, next, space) = (token(), token(), &bench.space);
    let one = said("acquire", acquire(&*bench.a, space, ours, None, LONG))?;
    let append = Append {
        space,
        epoch: one.epoch,
        holder: ours,
        lease: Duration::ZERO,
        progress: progress(5),
        chunks: &[],
    };
    let mut answers = said("append", bench.a.append(&[append], soon()))?;
    said("append", answers.pop().ok_or("no answer")?)?;
    // Servers count in milliseconds.
    std::thread::sleep(Duration::from_millis(2));
    let two = said("acquire", acquire(&*bench.b, space, next, None, LONG))?;
    expect("second", (two.epoch, two.last, two.released), (2, Some(ours), false))?;
    expect("what the first had written", two.progress, progress(5))
}

fn chunks_are_found(bench: &Bench<'_>) -> Tried {
    let (space, end, ours) = (&bench.space, later(), token());
    let one = said("acquire", acquire(&*bench.a, space, ours, None, LONG))?;
    let owner = (one.epoch, ours);
    expect("no slices yet", slices(bench)?, Vec::new())?;
    let all = [
        chunk(1_000, 0, 1, b"one", end),
        chunk(1_000, 0, 2, b"two", end),
        chunk(1_000, 65_535, 3, b"", end),
        chunk(2_000, 0, 4, &[0; 300], end),
    ];
    let wrote = said("append", append(&*bench.a, space, owner, 4, &all))?;
    expect("position before", wrote.before, 0)?;
    let buckets: Vec<Bucket> =
        [(2_000, 0), (1_000, 0), (1_000, 65_535), (1_000, 1)].map(bucket).to_vec();
    let stored = |chunks: &[&Chunk]| -> Vec<StoredChunk> {
        let stored = |c: &&Chunk| StoredChunk { number: c.number, data: c.data.clone() };
        chunks.iter().map(stored).collect()
    };
    let wanted =
        vec![stored(&[&all[3]]), stored(&[&all[0], &all[1]]), stored(&[&all[2]]), Vec::new()];
    expect("by bucket", read(bench, &buckets)?, wanted.clone())?;
    expect("slices", slices(bench)?, vec![1_000, 2_000])?;
    // The reply was lost, and more was to be written meanwhile.
    let again = [all[0].clone(), chunk(1_000, 0, 5, b"five", end)];
    let wrote = said("append", append(&*bench.a, space, owner, 5, &again))?;
    expect("position before", wrote.before, 4)?;
    let wanted = stored(&[&all[0], &all[1], &again[1]]);
    expect("repeated", read(bench, &[bucket((1_000, 0))])?, vec![wanted])?;
    let other = said("read", bench.b.read(&another_space(), &buckets[..1], soon()))?;
    expect("another space", other, vec![Vec::new()])
}

fn chunks_end(bench: &Bench<'_>) -> Tried {
    let (space, ours) = (&bench.space, token());
    let one = said("acquire", acquire(&*bench.a, space, ours, None, LONG))?;
    let now = one.server.time.as_unix_nanos();
    let at = |millis: i64| Timestamp::from_unix_nanos(now + millis * 1_000_000);
    let chunks = [
        chunk(1_000, 0, 1, b"over", at(-60_000)),
        chunk(2_000, 0, 2, b"soon", at(300)),
        chunk(3_000, 0, 3, b"later", at(3_600_000)),
    ];
    said("append", append(&*bench.a, space, (one.epoch, ours), 3, &chunks))?;
    let buckets = [(1_000, 0), (2_000, 0), (3_000, 0)].map(bucket);
    loop {
        let found = read(bench, &buckets)?;
        let listed = slices(bench)?;
        ensure(found[0].is_empty(), || "a chunk that was over is there".to_owned())?;
        expect("what lives", found[2].len(), 1)?;
        let server = said("open", bench.b.open(space, CHECK, soon()))?.server;
        if found[1].is_empty() {
            ensure(server.time >= at(300), || "a chunk was over too early".to_owned())?;
            ensure(listed.contains(&3_000), || format!("slices: {listed:?}"))?;
            return Ok(());
        }
        ensure(server.time < at(10_000), || "a chunk is never over".to_owned())?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn several_appends(bench: &Bench<'_>) -> Tried {
    let other = another_space();
    said("open", bench.a.open(&other, CHECK, soon()))?;
    let holder = token();
    let one = said("acquire", acquire(&*bench.a, &bench.space, holder, None, LONG))?;
    let two = said("acquire", acquire(&*bench.a, &other, holder, None, LONG))?;
    let chunks = [chunk(1_000, 0, 1, b"here", later())];
    let append = |space, epoch| {
        let progress = progress(1);
        Append { space, epoch, holder, lease: LONG, progress, chunks: &chunks }
    };
    let appends =
        [append(&bench.space, one.epoch), append(&other, two.epoch + 1), append(&other, two.epoch)];
    let mut answers = said("append", bench.a.append(&appends, soon()))?;
    expect("answers", answers.len(), 3)?;
    said("the last", answers.pop().ok_or("no answer")?)?;
    stale("the second", answers.pop().ok_or("no answer")?)?;
    said("the first", answers.pop().ok_or("no answer")?)?;
    expect("here", read(bench, &[chunks[0].bucket])?[0].len(), 1)?;
    let there = said("read", bench.b.read(&other, &[chunks[0].bucket], soon()))?;
    expect("there", there[0].len(), 1)
}

fn large_chunks(bench: &Bench<'_>) -> Tried {
    let ours = token();
    let one = said("acquire", acquire(&*bench.a, &bench.space, ours, None, LONG))?;
    let data = |seed: usize| (0..1 << 20).map(|at| (at * seed % 251) as u8).collect::<Vec<u8>>();
    let chunks: Vec<Chunk> =
        (1..=4).map(|n| chunk(1_000, n as u32, n, &data(n as usize), later())).collect();
    said("append", append(&*bench.a, &bench.space, (one.epoch, ours), 4, &chunks))?;
    let buckets: Vec<Bucket> = chunks.iter().map(|chunk| chunk.bucket).collect();
    let found = read(bench, &buckets)?;
    for (chunk, found) in chunks.iter().zip(found) {
        let whole = matches!(&found[..], [one] if one.data == chunk.data);
        ensure(whole, || format!("chunk {} is another", chunk.number))?;
    }
    Ok(())
}

fn later() -> Timestamp {
    // Nobody waits for it, so the machine's clock is near enough.
    let hour = Duration::from_secs(3_600);
    Timestamp::from(std::time::SystemTime::now() + hour)
}

fn bucket((slice, part): (u64, u32)) -> Bucket {
    Bucket { slice, part }
}

fn chunk(slice: u64, part: u32, number: u64, data: &[u8], expires: Timestamp) -> Chunk {
    Chunk { bucket: Bucket { slice, part }, number, expires, data: data.to_vec() }
}

fn append(
    client: &dyn Authority,
    space: &str,
    (epoch, holder): (u64, Token),
    position: u64,
    chunks: &[Chunk],
) -> Result<Appended, AuthorityError> {
    let progress = progress(position);
    let append = Append { space, epoch, holder, lease: LONG, progress, chunks };
    let mut answers = client.append(&[append], soon())?;
    answers.pop().unwrap_or_else(|| Err(AuthorityError::refused("no answer to an append")))
}

fn stale(what: &str, answer: Result<Appended, AuthorityError>) -> Tried {
    let fits = matches!(answer, Err(AuthorityError::StaleEpoch { .. }));
    ensure(fits, || format!("{what}: {answer:?} instead of a stale epoch"))
}

/// Chunks by the second client, in the order of their numbers.
fn read(bench: &Bench<'_>, buckets: &[Bucket]) -> Tried<Vec<Vec<StoredChunk>>> {
    let mut found = said("read", bench.b.read(&bench.space, buckets, soon()))?;
    expect("buckets that were read", found.len(), buckets.len())?;
    found.iter_mut().for_each(|chunks| chunks.sort_by_key(|chunk| chunk.number));
    Ok(found)
}

fn slices(bench: &Bench<'_>) -> Tried<Vec<u64>> {
    let slices = said("slices", bench.b.slices(&bench.space, soon()))?;
    let mut slices: Vec<u64> = slices.iter().map(|info| info.slice).collect();
    slices.sort_unstable();
    Ok(slices)
}
