//! Live keys move from one store to another, whatever their shards, slices and windows: compared with a
//! model, interrupted, damaged, and while both sides run.

mod common;

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::Rng;
use onceonly::sim::{Mix, SimDisk};
use onceonly::{
    Builder, Claim, ClaimOptions, Dedup, DigestKind, Durability, EXPORT_HEAD, Error, KeyState,
    ManualClock, Timestamp, Verdict,
};

const SECRET: [u8; 32] = [7; 32];
const HOUR: Duration = Duration::from_secs(3600);

fn clock() -> ManualClock {
    ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

fn builder(clock: &ManualClock) -> Builder {
    Dedup::builder().window(HOUR).slices(6).shards(2).secret(SECRET).clock(clock.clone())
}

fn key(number: u64) -> String {
    format!("key-{number}")
}

fn exported(store: &Dedup) -> Vec<u8> {
    let mut stream = Vec::new();
    let told = store.export(&mut stream).unwrap();
    assert_eq!(told.bytes, stream.len() as u64);
    stream
}

/// A store with some thousand keys over its window, sealed and not, some of them forgotten; what came
/// when, as passed since `begin`.
fn history(
    store: &Dedup,
    clock: &ManualClock,
    window: Duration,
    seed: u64,
) -> HashMap<u64, Duration> {
    let (mut rng, mut seen, mut passed) = (Rng::new(seed), HashMap::new(), Duration::ZERO);
    for _ in 0..40 {
        let keys: Vec<u64> = (0..200).map(|_| rng.below(20_000)).collect();
        let names: Vec<String> = keys.iter().map(|number| key(*number)).collect();
        let verdicts = store.observe_batch(&names).unwrap();
        for (number, verdict) in keys.iter().zip(verdicts) {
            if verdict == Verdict::New {
                seen.insert(*number, passed);
            }
        }
        let forgotten = keys[0];
        assert!(store.forget(key(forgotten)).unwrap());
        seen.remove(&forgotten);
        if rng.below(4) == 0 {
            // Seen again after it was forgotten.
            assert_eq!(store.observe(key(forgotten)).unwrap(), Verdict::New);
            seen.insert(forgotten, passed);
        }
        let step = window * rng.below(60) as u32 / 1000;
        clock.advance(step);
        passed += step;
        store.settle();
    }
    seen.values_mut().for_each(|at| *at = passed.saturating_sub(*at));
    seen
}

/// Ages of keys, and how long `to` has them: never shorter than the model, nor too long.
fn compare(
    to: &Dedup,
    clock: &ManualClock,
    ages: &HashMap<u64, Duration>,
    (window, longest): (Duration, Duration),
    what: &str,
) {
    let mut passed = Duration::ZERO;
    loop {
        for (number, age) in ages {
            let live = to.contains(key(*number)).unwrap();
            let age = *age + passed;
            assert!(live || age >= window, "{what}: {number} of age {age:?} is lost");
            assert!(!live || age <= longest, "{what}: {number} of age {age:?} is still there");
        }
        for number in 0..100 {
            assert!(!to.contains(format!("fresh-{number}")).unwrap(), "{what}");
        }
        if passed > longest {
            return;
        }
        clock.advance(window / 23);
        passed += window / 23;
    }
}

#[test]
fn keys_live_as_long_as_they_would_have_whatever_the_other_store_is_like() {
    for (seed, (slices, shards, minutes)) in
        [(6, 1, 60), (3, 8, 60), (20, 4, 60), (1, 2, 60), (6, 2, 90), (4, 2, 61)]
            .into_iter()
            .enumerate()
    {
        let clock = clock();
        let from = builder(&clock).in_memory().unwrap();
        let ages = history(&from, &clock, HOUR, seed as u64);
        let window = Duration::from_secs(minutes * 60);
        let other = builder(&clock).window(window).slices(slices).shards(shards);
        let to = other.in_memory().unwrap();
        if seed % 2 == 0 {
            // It has lived for a while.
            let _ = to.observe("own").unwrap();
            clock.advance(Duration::from_secs(500));
        }
        let waited = if seed % 2 == 0 { Duration::from_secs(500) } else { Duration::ZERO };
        let ages = ages.into_iter().map(|(number, age)| (number, age + waited)).collect();
        let told = to.import(&*exported(&from)).unwrap();
        assert_eq!((told.known, told.expired), (0, 0), "{told:?}");
        assert!(to.guaranteed_since() <= from.guaranteed_since(), "{told:?}");
        let longest = window + HOUR / 6 + window / slices + Duration::from_secs(1);
        let what = format!("{slices} slices, {shards} shards, {minutes} minutes");
        // Under a longer window what was live in the other store is still there.
        compare(&to, &clock, &ages, (HOUR, longest), &what);
    }
}

#[test]
fn a_store_keeps_what_it_has_and_what_it_has_forgotten() {
    let clock = clock();
    let (from, to) = (builder(&clock).in_memory().unwrap(), builder(&clock).in_memory().unwrap());
    for name in ["both", "forgotten", "only there"] {
        let _ = from.observe(name).unwrap();
    }
    clock.advance(HOUR / 2);
    for name in ["both", "forgotten", "only here"] {
        let _ = to.observe(name).unwrap();
    }
    to.forget("forgotten").unwrap();
    let stream = exported(&from);
    let told = to.import(&*stream).unwrap();
    assert_eq!((told.keys, told.known), (1, 2));
    let again = to.import(&*stream).unwrap();
    assert_eq!((again.keys, again.known), (0, 3));
    let live = |name| to.contains(name).unwrap();
    let all = ["both", "forgotten", "only there", "only here"].map(live);
    assert_eq!(all, [true, false, true, true]);
    // "both" was seen later here, so it lives longer than what came from there.
    clock.advance(HOUR / 2 + HOUR / 6 + Duration::from_secs(1));
    assert_eq!(["both", "only there"].map(live), [true, false]);
}

#[test]
fn results_and_claims_come_too() {
    let clock = clock();
    let (from, to) = (builder(&clock).in_memory().unwrap(), builder(&clock).in_memory().unwrap());
    for number in 0..3_000 {
        let Claim::Granted(guard) = from.claim(key(number)).unwrap() else { panic!() };
        guard.commit_with(format!("result of {number}").as_bytes()).unwrap();
        if number % 1_000 == 0 {
            clock.advance(HOUR / 6);
            from.settle();
        }
    }
    let options = ClaimOptions::new().note(b"half done").lease(Duration::from_secs(20));
    let Claim::Granted(_held) = from.claim_with("in work", options).unwrap() else { panic!() };
    let told = to.import(&*exported(&from)).unwrap();
    assert_eq!((told.keys, told.values, told.claims), (3_000, 3_000, 1));
    for number in 0..3_000 {
        let found = to.result(key(number)).unwrap().unwrap();
        assert_eq!(found, format!("result of {number}").into_bytes());
    }
    assert!(matches!(to.claim("in work").unwrap(), Claim::InFlight { .. }));
    assert!(to.expired_claims().unwrap().is_empty());
    clock.advance(Duration::from_secs(21));
    let expired = to.expired_claims().unwrap();
    assert_eq!(expired.len(), 1);
    assert_eq!(to.claims().unwrap()[0].note, b"half done");
    for guard in expired {
        guard.commit().unwrap();
    }
    assert!(matches!(to.explain("in work").unwrap().state, KeyState::Live { .. }));
    // What is known already is not taken over again.
    let told = to.import(&*exported(&from)).unwrap();
    assert_eq!((told.keys, told.values, told.claims), (0, 0, 0));
}

#[test]
fn event_time_moves_with_its_timestamps() {
    let clock = clock();
    let event = |shards| builder(&clock).event_time(true).shards(shards).in_memory().unwrap();
    let (from, to) = (event(1), event(8));
    let base = 1_800_000_000_000;
    let at = |minute: i64| Timestamp::from_unix_millis(base - minute * 60_000);
    for minute in (0..60).rev() {
        let _ = from.observe_at(format!("minute {minute}"), at(minute)).unwrap();
    }
    to.import(&*exported(&from)).unwrap();
    for minute in 0..60 {
        let verdict = to.observe_at(format!("minute {minute}"), at(minute)).unwrap();
        assert_eq!(verdict, Verdict::Duplicate, "{minute}");
        assert_eq!(to.observe_at(format!("new {minute}"), at(minute)).unwrap(), Verdict::New);
    }
    assert_eq!(to.observe_at("old", at(80)).unwrap(), Verdict::TooOld);
    assert_eq!(to.guaranteed_since(), from.guaranteed_since());
}

#[test]
fn another_secret_digest_mode_or_version_is_refused() {
    let clock = clock();
    let from = builder(&clock).in_memory().unwrap();
    let _ = from.observe("a").unwrap();
    let stream = exported(&from);
    let others = [
        ("secret", builder(&clock).secret([8; 32])),
        ("digest", builder(&clock).digest(DigestKind::SipHash13)),
        ("event_time", builder(&clock).event_time(true)),
    ];
    for (wrong, other) in others {
        let to = other.in_memory().unwrap();
        match to.import(&*stream) {
            Err(Error::Mismatch { field, .. }) => assert_eq!(field, wrong),
            answer => panic!("{wrong}: {answer:?}"),
        }
        assert_eq!(to.stats().keys_live, 0, "{wrong}");
    }
    let mut newer = stream.clone();
    newer[8] = 2;
    let to = builder(&clock).in_memory().unwrap();
    assert!(matches!(to.import(&*newer), Err(Error::Version { found: 2, supported: 1 })));
    // The secret is not in it.
    assert!(!stream.windows(32).any(|bytes| bytes == SECRET));
    let head: [u8; EXPORT_HEAD] = *stream.first_chunk().unwrap();
    let like = Builder::exported(&head).unwrap().secret(SECRET).clock(clock.clone());
    let to = like.in_memory().unwrap();
    to.import(&*stream).unwrap();
    assert!(to.contains("a").unwrap());
}

#[test]
fn a_damaged_stream_is_refused_and_tells_no_lies() {
    let clock = clock();
    let from = builder(&clock).in_memory().unwrap();
    for number in 0..40 {
        let Claim::Granted(guard) = from.claim(key(number)).unwrap() else { panic!() };
        guard.commit_with(b"kept").unwrap();
    }
    let Claim::Granted(_held) = from.claim("claimed").unwrap() else { panic!() };
    let stream = exported(&from);
    let since = |to: &Dedup| to.guaranteed_since();
    for at in 0..stream.len() {
        let to = builder(&clock).in_memory().unwrap();
        let before = since(&to);
        let mut flipped = stream.clone();
        flipped[at] ^= 1 << (at % 8);
        let refused = to.import(&*flipped).expect_err("a flipped bit");
        let known = match &refused {
            Error::Corrupt { detail, .. } => at < EXPORT_HEAD || detail.contains("block "),
            Error::Version { .. } => (8..12).contains(&at),
            _ => false,
        };
        assert!(known, "byte {at}: {refused}");
        assert_eq!(since(&to), before, "byte {at}");
        assert!((0..50).all(|n| !to.contains(format!("fresh-{n}")).unwrap()), "byte {at}");
        let cut = to.import(&stream[..at]).expect_err("it is cut short");
        assert!(matches!(cut, Error::Corrupt { .. }), "{at} bytes: {cut}");
    }
    // The blocks of another stream, in their places, are not of this one.
    clock.advance(Duration::from_secs(1));
    let mut mixed = exported(&from);
    mixed.splice(EXPORT_HEAD.., stream[EXPORT_HEAD..].iter().copied());
    let to = builder(&clock).in_memory().unwrap();
    assert!(matches!(to.import(&*mixed), Err(Error::Corrupt { .. })));
}

/// Fails behind some bytes.
struct Breaks<'a>(&'a [u8], usize);

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let len = buffer.len().min(self.1).min(self.0.len());
        let (now, later) = self.0.split_at(len);
        buffer[..len].copy_from_slice(now);
        (self.0, self.1) = (later, self.1 - len);
        Ok(len)
    }
}

#[test]
fn an_import_that_broke_off_is_made_up_for_by_the_next() {
    let clock = clock();
    let from = builder(&clock).in_memory().unwrap();
    let ages = history(&from, &clock, HOUR, 9);
    let stream = exported(&from);
    let dir = common::fast_dir();
    for part in [0, 1, 5, 9] {
        let to = builder(&clock).open(dir.path()).unwrap();
        let created = to.guaranteed_since();
        let broken = Breaks(&stream, EXPORT_HEAD + (stream.len() - EXPORT_HEAD) * part / 10);
        assert!(matches!(to.import(broken), Err(Error::Io { .. })));
        assert!(to.guaranteed_since() >= created);
        assert!(to.guaranteed_since() > from.guaranteed_since());
        to.close().unwrap();
    }
    let to = builder(&clock).open(dir.path()).unwrap();
    to.import(&*stream).unwrap();
    to.close().unwrap();
    let to = builder(&clock).shards(4).open(dir.path()).unwrap();
    assert_eq!(to.guaranteed_since(), from.guaranteed_since());
    assert_eq!(to.stats().recovery.damage, Vec::<String>::new());
    compare(&to, &clock, &ages, (HOUR, HOUR + HOUR / 3 + Duration::from_secs(1)), "broke off");
}

/// A kill, and a power loss, at any call of the disk.
#[test]
fn a_crash_within_an_import_loses_nothing_that_the_next_does_not_bring() {
    for run in 0..30 {
        let (clock, mut rng) = (clock(), Rng::new(run));
        let from = builder(&clock).in_memory().unwrap();
        let mut ages = history(&from, &clock, HOUR, run);
        ages.retain(|_, age| *age < HOUR);
        let stream = exported(&from);
        let disk = SimDisk::new();
        let level = [Durability::Process, Durability::Sync][run as usize % 2];
        let to = builder(&clock).durability(level).open_simulated(&disk).unwrap();
        let _ = to.observe("own").unwrap();
        disk.snapshot_at(disk.calls() + 1 + rng.below(60));
        to.import(&*stream).unwrap();
        let image = disk.take_image().unwrap_or_else(|| disk.snapshot());
        drop(to);
        let mix = Mix { seed: rng.next(), unit: 512, survive: rng.below(256) as u8 };
        for (disk, lossy) in [(image.after_kill(), false), (image.after_power_loss(mix), true)] {
            let what = format!("run {run}, lossy: {lossy}");
            let to = builder(&clock).durability(level).open_simulated(&disk).unwrap();
            let all = |to: &Dedup| ages.keys().all(|n| to.contains(key(*n)).unwrap());
            let vouches = to.guaranteed_since() <= from.guaranteed_since();
            assert!(!vouches || all(&to), "{what}: it vouches for keys that it lacks");
            assert!((0..50).all(|n| !to.contains(format!("fresh-{n}")).unwrap()), "{what}");
            to.import(&*stream).unwrap();
            assert!(all(&to), "{what}");
            assert!(to.contains("own").unwrap() || lossy, "{what}");
        }
    }
}

#[test]
fn both_sides_go_on_meanwhile() {
    let clock = clock();
    let from = builder(&clock).expected_keys(1_000_000).in_memory().unwrap();
    let to = builder(&clock).expected_keys(1_000_000).shards(4).in_memory().unwrap();
    let keys: Vec<String> = (0..300_000).map(key).collect();
    from.observe_batch(&keys).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let on = |store: Dedup, side: &'static str| {
            let stop = &stop;
            move || {
                let mut number = 0_u64;
                while !stop.load(Ordering::Relaxed) || number < 1_000 {
                    let fresh = format!("{side}-{number}");
                    assert_eq!(store.observe(&fresh).unwrap(), Verdict::New, "{fresh}");
                    assert_eq!(store.observe(&fresh).unwrap(), Verdict::Duplicate, "{fresh}");
                    number += 1;
                }
            }
        };
        scope.spawn(on(from.clone(), "there"));
        scope.spawn(on(to.clone(), "here"));
        let stream = exported(&from);
        to.import(&*stream).unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    assert!(to.contains_batch(&keys).unwrap().iter().all(|live| *live));
    assert_eq!(to.observe(key(5)).unwrap(), Verdict::Duplicate);
    to.close().unwrap();
    assert!(matches!(to.export(io::sink()), Err(Error::Closed)));
    assert!(matches!(to.import(io::empty()), Err(Error::Closed)));
}
