//! Wrong usage, help and plans.

use crate::support::Place;

#[test]
fn wrong_usage_is_exit_code_2() {
    let place = Place::new().with("x", "a\n").with("x.csv", "a\n1\n").with("x.ndjson", "{}\n");
    let wrong: [(&[&str], &str); 22] = [
        (&[], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["dedup", "--no-such-flag"], "--no-such-flag"),
        (&["dedup", "x", "--key", "id"], "--format"),
        (&["dedup", "x", "--time", "t", "--window", "1h"], "--format"),
        (&["dedup", "x", "--no-header"], "--no-header"),
        (&["dedup", "x.csv", "-0"], "-0"),
        (&["dedup", "x.csv", "--no-header", "--key", "name"], "number"),
        (&["dedup", "x.csv", "--no-header", "--key", "0"], "number"),
        (&["dedup", "x.csv", "--key", ""], "field"),
        (&["dedup", "x.csv", "x.ndjson"], "csv and ndjson"),
        (&["dedup", "x", "--window", "0s"], "zero"),
        (&["dedup", "x", "--window", "soon"], "soon"),
        (&["dedup", "x", "--window", "1000y"], "window"),
        (&["dedup", "x", "--format", "xml"], "xml"),
        (&["dedup", "x", "--missing-key", "maybe"], "maybe"),
        (&["dedup", "x", "--state", "seen"], "--window"),
        (&["plan", "--rate", "50k", "--window", "1h"], "50k"),
        (&["plan", "--window", "1h"], "--rate"),
        (&["explain", "seen", "a", "b"], "--fields"),
        (&["bench", "--seconds", "0"], "--seconds"),
        (&["bench", "--live", "7"], "--live"),
    ];
    for (args, word) in wrong {
        let ran = place.run(args);
        ran.fails(2, &[word]);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    assert!(!place.path("seen").exists());
}

#[test]
fn one_format_may_be_named_for_all_files() {
    let place = Place::new().with("x.csv", "a\n").with("x.ndjson", "a\nb\n");
    place.run(&["dedup", "x.csv", "x.ndjson", "--format", "lines"]).prints("a\nb\n");
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::new();
    for args in [&["--help"][..], &["dedup", "--help"], &["dedup", "-h"], &["help", "plan"]] {
        assert!(place.run(args).ok().contains("Usage: onceonly"), "{args:?}");
    }
    assert!(place.run(&["--version"]).ok().starts_with("onceonly "));
    let help = place.run(&["dedup", "--help"]).ok();
    assert!(help.contains("it never loses one"), "{help}");
}

#[test]
fn a_plan_names_memory_and_disk() {
    let place = Place::new();
    let plan = place.run(&["plan", "--rate", "50k/s", "--window", "24h"]).ok();
    assert!(plan.starts_with("4,320,000,000 keys within 1d, one every 20 µs\n"), "{plan}");
    for word in ["memory", "disk", "files", "further million", "time"] {
        assert!(plan.contains(word), "no `{word}` in {plan}");
    }
    place.run(&["plan", "--rate", "1/d", "--window", "1s"]).ok();
    place.run(&["plan", "--rate", "999G/s", "--window", "70y"]).fails(2, &["keys"]);
    assert!(std::fs::read_dir(place.path(".")).unwrap().next().is_none(), "wrote something");
}

#[test]
fn a_bench_measures_recommends_and_leaves_nothing_behind() {
    let place = Place::new();
    let table = place.run(&["bench", "--seconds", "1", "--live", "262144", "--dir", "."]).ok();
    assert!(table.starts_with("ns a key, 262,144 live keys"), "{table}");
    for word in ["1 thread, one", "1 thread, batch 32", "1 shard ", "64 shards", "recommended: "] {
        assert!(table.contains(word), "no `{word}` in {table}");
    }
    assert!(std::fs::read_dir(place.path(".")).unwrap().next().is_none(), "left something");
    place.run(&["bench", "--seconds", "1", "--dir", "nowhere"]).fails(1, &["nowhere"]);
}
