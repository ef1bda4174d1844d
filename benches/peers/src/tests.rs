//! The benchmarks' own answers are checked, too: a wrong oracle would pass a wrong engine.

use std::collections::HashMap;

use crate::args::Args;
use crate::contestants::stores::{Fjall, Lmdb, Rotating, Sqlite};
use crate::contestants::{Blooms, Contestant, DashSets, HashSets, Lrus, Mode, run};
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

/// (missed, invented) of ten windows.
fn answers(contestant: &dyn Contestant, live: u64) -> (u64, u64) {
    let mut stream = Stream::new(1, live, 100, Repeat::Window);
    let mut chunk = Chunk::default();
    let mut answers = vec![false; stream.part(4)];
    let mut wrong = (0, 0);
    for round in 0..40 {
        stream.fill(answers.len(), &mut chunk);
        let modes = contestant.modes(32);
        let mode = modes[round % modes.len()];
        run(contestant, &chunk, mode, Timing::Wall, &mut answers);
        let (missed, invented) = chunk.check(&answers);
        wrong = (wrong.0 + missed, wrong.1 + invented);
    }
    wrong
}

#[test]
fn exact_peers_are_exact() {
    let (live, dir) = (1 << 14, tempfile::tempdir().unwrap());
    let peers: [Box<dyn Contestant>; 5] = [
        Box::new(DashSets::new(live)),
        Box::new(Lrus::new(live)),
        Box::new(Rotating::<Lmdb>::new(live, dir.path()).unwrap()),
        Box::new(Rotating::<Fjall>::new(live, dir.path()).unwrap()),
        Box::new(Rotating::<Sqlite>::new(live, dir.path()).unwrap()),
    ];
    for peer in peers {
        assert!(peer.exact());
        assert_eq!(answers(&*peer, live), (0, 0), "{}", peer.name());
    }
}

#[test]
fn filters_miss_next_to_nothing_and_invent_a_little() {
    let live = 1 << 16;
    for filter in [
        &Blooms::<sbbf_rs_safe::Filter>::new(live) as &dyn Contestant,
        &Blooms::<fastbloom::BloomFilter>::new(live),
    ] {
        assert!(!filter.exact());
        let (missed, invented) = answers(filter, live);
        // An invented duplicate is not inserted, so it may be missed when it comes again.
        assert!(missed < 100 && (100..5000).contains(&invented), "{missed} {invented}");
    }
}

#[test]
fn only_what_is_between_markers_is_made_anew() {
    let page = "a\n<!-- generated: x -->old<!-- end -->\nb\n<!-- generated: y -->kept<!-- end -->c";
    let table = |name: &str| (name == "x").then(|| "new\n".to_owned());
    let (filled, names) = crate::tables::filled(page, table).unwrap();
    assert_eq!(names, ["x"]);
    let wanted =
        "a\n<!-- generated: x -->\nnew\n<!-- end -->\nb\n<!-- generated: y -->kept<!-- end -->c";
    assert_eq!(filled, wanted);
    assert!(crate::tables::filled("<!-- generated: x -->", table).is_err());
}

#[test]
fn results_are_read_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    let mut table = crate::report::Table::new("a title", &["what", "ns"]);
    table.row(["1, 2".to_owned(), "3.5".to_owned()]);
    table.save(&path).unwrap();
    let results = crate::results::Results::read(&path).unwrap();
    assert_eq!(results.about("title"), "a title");
    assert!(results.about("machine").contains("Linux"));
    let row = results.rows()[0];
    assert_eq!((row.cell("what"), row.number("ns")), ("1, 2", Some(3.5)));
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
    assert!(parse("--quick --only floor").unwrap().flag("quick").unwrap());
    assert!(parse("10M").is_err());
    assert!(parse("--liev 10M").unwrap().finish().is_err());
    assert!(parse("--live ten").unwrap().count("live", 0).is_err());
}

/// Parts of one table: the engine once, ratios from the part that a row was measured in, the slope
/// across files.
#[test]
fn parts_make_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let compared = |file: &str, rows: &[[&str; 3]]| {
        let head = ["contestant", "mode", "median_ns", "times_onceonly", "exact"];
        let mut table = crate::report::Table::new("t", &head);
        for [name, ns, ratio] in rows {
            table.row([*name, "batches of 32", *ns, *ratio, "yes"].map(str::to_owned));
        }
        table.save(&dir.path().join(file)).unwrap();
    };
    compared("compare-10M-lmdb.csv", &[["onceonly", "60.0", "1.00"], ["lmdb", "900.0", "15.00"]]);
    compared("compare-10M-memory.csv", &[["onceonly", "50.0", "1.00"], ["set", "100.0", "2.00"]]);
    compared("compare-100M.csv", &[["other", "1.0", "1.00"]]);
    let parts = crate::results::gathered(dir.path(), "compare-10M");
    let table = crate::tables::table(&parts);
    let lines: Vec<&str> = table.lines().skip(2).take(4).collect();
    assert!(lines[0].starts_with("| **onceonly** | batches of 32 | 50.0 | 1.00 |"), "{table}");
    assert!(lines[1].starts_with("| set | batches of 32 | 100.0 | 2.00 |"), "{table}");
    assert!(lines[2].starts_with("| lmdb | batches of 32 | 900.0 | 15.00 |"), "{table}");
    assert_eq!(lines[3], "");

    for (file, live, ns) in [("growth-1B.csv", "1000", "40.0"), ("growth-1M.csv", "10", "10.0")] {
        let mut table =
            crate::report::Table::new("t", &["live", "batch_ns", "write_amplification"]);
        table.row([live, ns, "2.5"].map(str::to_owned));
        table.save(&dir.path().join(file)).unwrap();
    }
    let table = crate::tables::table(&crate::results::gathered(dir.path(), "growth"));
    let lines: Vec<&str> = table.lines().skip(2).take(2).collect();
    assert!(lines[0].starts_with("| 10 | 10.0 | - |"), "{table}");
    // log 4 / log 100
    assert!(lines[1].starts_with("| 1k | 40.0 | 0.30 |"), "{table}");
}

/// What is wanted is held against the row that it is about.
#[test]
fn targets_are_read_from_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    assert!(crate::targets::table(dir.path()).is_none());
    let head = ["contestant", "mode", "times_onceonly", "times_floor", "told_memory_bytes"];
    let mut table = crate::report::Table::new("t", &head);
    for row in [
        ["onceonly", "batches of 32", "1.00", "1.60", "5.5"],
        ["onceonly", "one at a time", "1.00", "1.20", "5.5"],
        ["hashbrown, 64 locks, 2 generations", "batches of 32", "4.10", "-", "-"],
    ] {
        table.row(row.map(str::to_owned));
    }
    table.save(&dir.path().join("compare-10M-memory.csv")).unwrap();
    let text = crate::targets::table(dir.path()).unwrap();
    let lines: Vec<&str> = text.lines().skip(2).collect();
    let hash_set = "| the hash set takes, 10M live keys, batches | 4.10 times | at least 4 times |";
    assert_eq!(lines[0], format!("{hash_set} reached |"));
    let floor =
        "| time over the floor's, 10M live keys, batches | 1.60 times | at most 1.5 times |";
    assert_eq!(lines[1], format!("{floor} **not reached** |"));
    assert!(lines[2].ends_with("at most 1.3 times | reached |"), "{text}");
    assert_eq!(lines[3], "| resident bytes a live key, 10M | 5.50 | at most 6 | reached |");
    assert_eq!(lines.len(), 4);
}

/// The README says how many times as fast, and over which range of bytes.
#[test]
fn the_first_page_has_the_sizes_that_were_measured() {
    let dir = tempfile::tempdir().unwrap();
    assert!(crate::first_page::table(dir.path()).is_none());
    let head =
        ["contestant", "mode", "median_ns", "times_onceonly", "told_memory_bytes", "disk_bytes"];
    for (file, bytes) in [("compare-1M.csv", "6.0"), ("compare-10M-memory.csv", "5.5")] {
        let mut table = crate::report::Table::new("t", &head);
        for (mode, ns, ratio) in
            [("batches of 32", "50.2", "2.04"), ("one at a time", "90.0", "0.9")]
        {
            table.row(["onceonly", mode, ns, "1.00", bytes, "22.0"].map(str::to_owned));
            let peer = "hashbrown, 64 locks, 2 generations";
            table.row([peer, mode, "100.0", ratio, "-", "0.00"].map(str::to_owned));
        }
        table.save(&dir.path().join(file)).unwrap();
    }
    let text = crate::first_page::table(dir.path()).unwrap();
    let line = "| 10 M | 50 ns, 2.0 times as fast | 90 ns, 0.90 times as fast |";
    assert_eq!(text.lines().nth(3), Some(line));
    assert!(
        text.ends_with("5.5 to 6.0 bytes of memory and 22.0 to 22.0 bytes of disk a live key.\n")
    );
}

#[test]
fn the_hybrid_is_exact_with_both_servers() {
    let dir = tempfile::tempdir().unwrap();
    for server in ["redis", "postgres"] {
        for what in ["exclusive --rounds 1", "shared --rounds 1 --keys 1024", "move --rounds 1"] {
            let words = format!(
                "--live 32k --server {server} --dir {} --what {what}",
                dir.path().display()
            );
            let args = Args::parse(words.split(' ').map(str::to_owned)).unwrap();
            crate::hybrid::main(args).unwrap_or_else(|error| panic!("{words}: {error}"));
        }
    }
}
