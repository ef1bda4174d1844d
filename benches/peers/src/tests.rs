//! The benchmarks' own answers are checked, too: a wrong oracle would pass a wrong engine.

use std::collections::HashMap;

use crate::args::Args;
use crate::contestants::{Contestant, HashSets, Mode, run};
use crate::keys::{Chunk, Key, Repeat, Stream};
use crate::machine::Timing;
use crate::report::{median, quantile, ratio};

/// Every key marked as repeated was new before, at most a window ago by the clock's ticks; every
/// other key is new.
#[test]
fn the_stream_knows_its_answers() {
    let live = 1 << 16;
    for repeat in [Repeat::Window, Repeat::EarlierChunks] {
        let mut stream = Stream::new(1, live, 100, repeat);
        let mut first: HashMap<Key, u64> = HashMap::new();
        let mut chunk = Chunk::default();
        let (mut repeated, mut all) = (0, 0);
        for _ in 0..40 {
            stream.fill(stream.part(8), &mut chunk);
            for tick in &chunk.ticks {
                for at in tick.range.clone() {
                    let before = first.get(&chunk.keys[at]);
                    assert_eq!(before.is_some(), chunk.repeated[at]);
                    assert!(before.is_none_or(|&then| tick.now - then <= live));
                    first.entry(chunk.keys[at]).or_insert(tick.now);
                }
            }
            repeated += chunk.repeated.iter().filter(|&&r| r).count();
            all += chunk.keys.len();
        }
        let share = repeated as f64 / all as f64;
        assert!((0.08..0.11).contains(&share), "{share}");
    }
}

#[test]
fn keys_are_the_text_of_uuids() {
    let key = crate::keys::key(1, 2);
    let text = str::from_utf8(&key).unwrap();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12]);
    assert_eq!(&text[14..15], "4");
}

#[test]
fn the_hash_sets_are_exact() {
    let live = 1 << 16;
    for digests_first in [false, true] {
        let sets = HashSets::new(live, digests_first);
        let mut stream = Stream::new(1, live, 100, Repeat::Window);
        let mut chunk = Chunk::default();
        let mut answers = vec![false; stream.part(8)];
        for round in 0..40 {
            stream.fill(answers.len(), &mut chunk);
            let mode = if round % 2 == 0 { Mode::One } else { Mode::Batch(32) };
            run(&sets as &dyn Contestant, &chunk, mode, Timing::Wall, &mut answers);
            assert_eq!(chunk.check(&answers), (0, 0));
        }
    }
}

#[test]
fn medians_quantiles_and_ratios() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0]), 2.5);
    assert_eq!(quantile(&[1.0, 2.0, 3.0], 1.0), 3.0);
    assert_eq!(ratio(&[10.0, 40.0, 9.0], &[5.0, 10.0, 9.0]), 2.0);
    assert!(median(&[]).is_nan());
}

#[test]
fn options_are_taken_once_and_mistakes_refused() {
    let parse = |line: &str| Args::parse(line.split_whitespace().map(str::to_owned));
    let mut args = parse("--live 10M,64k --peer none").unwrap();
    assert_eq!(args.counts("live", "1").unwrap(), [10_000_000, 64_000]);
    assert!(args.words("peer", "x").is_empty());
    args.finish().unwrap();
    assert!(parse("--live").is_err());
    assert!(parse("10M").is_err());
    assert!(parse("--liev 10M").unwrap().finish().is_err());
    assert!(parse("--live ten").unwrap().count("live", 0).is_err());
}
