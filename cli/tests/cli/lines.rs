//! Lines of bytes.

use std::fs::OpenOptions;
use std::process::Stdio;

use crate::support::{Place, as_latin1, ran};

#[test]
fn the_first_of_equal_lines_is_printed() {
    let place = Place::new();
    place.pipe(&["dedup"], "b\na\nb\n\na\n\nc\n").prints("b\na\n\nc\n");
    place.pipe(&["dedup", "-"], "b\nb\n").prints("b\n");
    place.pipe(&["dedup"], "").prints("");
}

#[test]
fn files_are_one_input() {
    let place = Place::new().with("one", "a\nb\n").with("two", "b\nc\n");
    place.pipe(&["dedup", "one", "-", "two"], "c\nd\n").prints("a\nb\nc\nd\n");
    place.run(&["dedup", "two", "one", "one"]).prints("b\nc\na\n");
}

#[test]
fn a_last_line_without_an_end_stays_so() {
    let place = Place::new().with("one", "a\nb").with("two", "c\n").with("three", "b");
    place.run(&["dedup", "one"]).prints("a\nb");
    place.run(&["dedup", "three", "three"]).prints("b");
    // Lines of two files never become one.
    place.run(&["dedup", "one", "two"]).prints("a\nb\nc\n");
    place.run(&["dedup", "two", "one", "three"]).prints("c\na\nb");
}

#[test]
fn the_end_of_a_line_is_no_part_of_its_key() {
    let place = Place::new();
    place.pipe(&["dedup"], "a\r\na\nb\nb\r\n\r\n\n").prints("a\r\nb\n\r\n");
    place.pipe(&["dedup"], "a\ra\n\ra\n").prints("a\ra\n\ra\n");
}

#[test]
fn with_0_lines_end_with_nul() {
    let place = Place::new();
    place.pipe(&["dedup", "-0"], "a\nb\0a\0a\nb\0a\r\0").prints("a\nb\0a\0a\r\0");
    place.pipe(&["dedup", "--null"], "a\0a").prints("a\0");
}

#[test]
fn lines_need_not_be_utf_8() {
    let place = Place::new();
    let ran = place.pipe(&["dedup"], b"\xff\n\xfe\n\xff\n\x00\n");
    ran.prints(&as_latin1(b"\xff\n\xfe\n\x00\n"));
}

#[test]
fn a_line_may_be_longer_than_any_buffer() {
    let long = "x".repeat(3_000_000);
    let input = format!("a\n{long}\nb\n{long}\n{long}y\n");
    Place::new().pipe(&["dedup"], &input).prints(&format!("a\n{long}\nb\n{long}y\n"));
}

#[test]
fn many_lines_equal_a_naive_answer() {
    let mut input = String::new();
    let mut expected = String::new();
    let mut seen = std::collections::HashSet::new();
    let mut state = 1_u64;
    for _ in 0..200_000 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let line = format!("{}\n", (state >> 33) % 60_000);
        input.push_str(&line);
        if seen.insert(line.clone()) {
            expected.push_str(&line);
        }
    }
    Place::new().pipe(&["dedup"], &input).prints(&expected);
    let place = Place::new().with("input", &input);
    place.run(&["dedup", "input", "--window", "1h"]).prints(&expected);
    place.run(&["dedup", "input", "--window", "1h", "--state", "seen"]).prints(&expected);
}

#[test]
fn duplicates_and_counts_on_request() {
    let place = Place::new().with("one", "a\nb\na\na\n");
    place.run(&["dedup", "one", "--duplicates"]).prints("a\na\n");
    place
        .run(&["dedup", "one", "--count"])
        .prints("lines 4 new 2 duplicate 2 too_old 0 missing 0\n");
    place.run(&["dedup", "one", "--count", "--duplicates"]).fails(2, &["--count", "--duplicates"]);
}

#[test]
fn statistics_go_to_stderr_as_json() {
    let place = Place::new().with("one", "a\nb\na\n");
    let ran = place.run(&["dedup", "one", "--stats", "json", "-q"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\nb\n"));
    let stats: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(stats["lines"], 3);
    assert_eq!(stats["new"], 2);
    assert_eq!(stats["duplicate"], 1);
    assert_eq!(stats["bytes_read"], 6);
    assert_eq!(stats["bytes_written"], 4);
    assert_eq!(stats["store"]["keys_live"], 2);
}

#[test]
fn a_reader_that_closes_the_pipe_ends_the_run_quietly() {
    let input = (0..300_000).map(|n| format!("{n}\n")).collect::<String>();
    for args in [&["dedup", "input"][..], &["dedup", "input", "--state", "seen", "--window", "1h"]]
    {
        let place = Place::new().with("input", &input);
        let mut child = place.command(args).spawn().unwrap();
        drop(child.stdout.take());
        let ended = ran(child);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_slow_producer_gets_its_lines_at_once() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut child = Place::new().command(&["dedup"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    for line in ["a\n", "b\n"] {
        stdin.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stdout.read_line(&mut answer).unwrap();
        assert_eq!(answer, line);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_a_failure() {
    let place = Place::new();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = place.command(&["dedup", "--state", "seen", "--window", "1h", "one"]);
    let place = place.with("one", "a\nb\n");
    let child = command.stdout(Stdio::from(full)).spawn().unwrap();
    ran(child).fails(1, &["stdout"]);
    // What could not be written was not marked.
    place.run(&["dedup", "--state", "seen", "one"]).prints("a\nb\n");
}

#[test]
fn what_cannot_be_read_is_named() {
    let place = Place::new().with("one", "a\n");
    place.run(&["dedup", "one", "absent"]).fails(1, &["onceonly: absent: "]);
    std::fs::create_dir(place.path("dir")).unwrap();
    place.run(&["dedup", "dir"]).fails(1, &["dir: ", "directory"]);
    assert_eq!(place.run(&["dedup", "one", "dir"]).stdout, "a\n");
}
