//! Windows: of the clock, and of times in the input.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use crate::support::Place;

const EVENTS: [&str; 5] = [
    "{\"id\":1,\"t\":\"2026-01-01T00:00:00Z\"}\n",
    "{\"id\":1,\"t\":\"2026-01-01T00:30:00Z\"}\n",
    "{\"id\":2,\"t\":\"2026-01-01T09:00:00+04:00\"}\n",
    "{\"id\":1,\"t\":\"2026-01-01T05:00:01Z\"}\n",
    "{\"id\":3,\"t\":\"2026-01-01T00:00:01Z\"}\n",
];

fn place() -> Place {
    Place::new().with("x.ndjson", EVENTS.concat())
}

const BASE: [&str; 8] = ["dedup", "x.ndjson", "--key", "id", "--time", "t", "--window", "1h"];

#[test]
fn the_window_follows_the_events() {
    let kept = [EVENTS[0], EVENTS[2], EVENTS[3], EVENTS[4]].concat();
    place().run(&BASE).prints(&kept);
    place().run(&[&BASE[..], &["--state", "seen"]].concat()).prints(&kept);
}

#[test]
fn late_records_pass_or_are_dropped_or_end_the_run() {
    for state in [&[][..], &["--state", "seen"]] {
        let with = |more: &[&str]| place().run(&[&BASE[..], state, more].concat());
        let in_time = [EVENTS[0], EVENTS[2], EVENTS[3]].concat();
        with(&["--late", "pass"]).prints(&format!("{in_time}{}", EVENTS[4]));
        with(&["--late", "drop"]).prints(&in_time);
        with(&["--late", "drop", "--count"])
            .prints("lines 5 new 3 duplicate 1 too_old 1 missing 0\n");
        with(&["--duplicates"]).prints(EVENTS[1]);
        let ran = with(&["--late", "error"]);
        ran.fails(1, &["x.ndjson: line 5", "older than the window"]);
        assert_eq!(ran.stdout, in_time);
    }
}

#[test]
fn what_was_written_before_a_late_record_is_remembered() {
    let place = place();
    let state = ["--state", "seen", "--late", "error"];
    place.run(&[&BASE[..], &state].concat()).fails(1, &["line 5"]);
    let again = place.with("x.ndjson", [EVENTS[3], EVENTS[2]].concat());
    again.run(&[&BASE[..], &state].concat()).prints("");
}

#[test]
fn times_are_written_in_three_ways() {
    let place = Place::new();
    let csv = "id,t\n1,1700000000.5\n1,1700003600\n1,1700010000\n";
    let kept = "id,t\n1,1700000000.5\n1,1700010000\n";
    let args = ["dedup", "--format", "csv", "--key", "id", "--time", "t", "--window", "1h"];
    let with = |format: &str, csv: &str| {
        place.pipe(&[&args[..], &["--time-format", format]].concat(), csv)
    };
    with("unix", csv).prints(kept);
    let millis = "id,t\n1,1700000000500\n1,1700003600000\n1,1700010000000\n";
    with("unix-ms", millis).prints("id,t\n1,1700000000500\n1,1700010000000\n");
    let json = "{\"id\":1,\"t\":1700000000}\n{\"id\":1,\"t\":\"1700000001\"}\n";
    let args = ["dedup", "--format", "ndjson", "--key", "id", "--time", "t", "--window", "1h"];
    place
        .pipe(&[&args[..], &["--time-format", "unix"]].concat(), json)
        .prints("{\"id\":1,\"t\":1700000000}\n");
}

#[test]
fn a_time_that_is_none_is_named() {
    let place = Place::new().with("x.csv", "id,t\n1,2026-01-01T00:00:00Z\n2,yesterday\n");
    let args = ["dedup", "x.csv", "--key", "id", "--time", "t", "--window", "1h"];
    place.run(&args).fails(1, &["x.csv: line 3", "`t`", "`yesterday`", "RFC 3339"]);
    let ahead =
        Place::new().with("x.csv", "id,t\n1,2026-01-01T00:00:00Z\n2,2200-01-01T00:00:00Z\n");
    let ran = ahead.run(&args);
    ran.fails(1, &["x.csv: line 3", "ahead of the clock"]);
    assert_eq!(ran.stdout, "id,t\n1,2026-01-01T00:00:00Z\n");
    let missing = Place::new();
    let args = ["dedup", "--format", "ndjson", "--key", "id", "--time", "t", "--window", "1h"];
    missing.pipe(&args, "{\"id\":1}\n").fails(1, &["<stdin>: line 1", "`t` is missing"]);
    missing
        .pipe(&[&args[..], &["--missing-key", "pass"]].concat(), "{\"id\":1}\n")
        .prints("{\"id\":1}\n");
}

#[test]
fn a_line_may_be_the_key_of_an_event() {
    let place = Place::new();
    let line = "{\"t\":1700000000}\n";
    let args =
        ["dedup", "--format", "ndjson", "--time", "t", "--time-format", "unix", "--window", "1h"];
    place.pipe(&args, line.repeat(2)).prints(line);
    let args =
        ["dedup", "--format", "csv", "--time", "t", "--time-format", "unix", "--window", "1h"];
    place.pipe(&args, "t,x\n1,a\n1,b\n1,a\n").prints("t,x\n1,a\n1,b\n");
}

#[test]
fn time_needs_a_window_and_a_field() {
    let place = place();
    place.run(&BASE[..6]).fails(2, &["--time needs --window"]);
    place.run(&["dedup", "x.ndjson", "--late", "drop"]).fails(2, &["--time"]);
    place.run(&["dedup", "x.ndjson", "--time-format", "unix"]).fails(2, &["--time"]);
}

#[test]
fn the_mode_of_a_state_is_fixed() {
    let place = place();
    place.run(&[&BASE[..], &["--state", "seen"]].concat()).ok();
    place
        .run(&["dedup", "x.ndjson", "--key", "id", "--state", "seen"])
        .fails(1, &["seen: ", "event_time"]);
    // The window need not be named again.
    place.run(&[&BASE[..6], &["--state", "seen", "--duplicates"]].concat()).ok();
}

#[test]
fn the_window_follows_the_clock_without_a_time_field() {
    let place = Place::new();
    let mut child = place.command(&["dedup", "--window", "2s"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdin.write_all(b"a\na\nb\n").unwrap();
    stdout.read_line(&mut line).unwrap();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "a\nb\n");
    // At least the window, at most one slice more.
    std::thread::sleep(Duration::from_millis(2_600));
    stdin.write_all(b"a\nc\n").unwrap();
    drop(stdin);
    line.clear();
    while stdout.read_line(&mut line).unwrap() > 0 {}
    assert_eq!(line, "a\nc\n");
    assert!(child.wait().unwrap().success());
}
