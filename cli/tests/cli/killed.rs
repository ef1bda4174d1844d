//! A killed run repeats lines, it never loses one.

use std::collections::HashSet;
use std::io::Read as _;
use std::process::Stdio;

use crate::support::Place;

const LINES: usize = 400_000;

fn input() -> String {
    // Every third line comes twice, the second time far from the first.
    (0..LINES).map(|n| format!("line {}\n", if n % 3 == 2 { n / 2 } else { n })).collect()
}

/// Runs until `limit` bytes of output were read, then kills; the whole lines among them.
fn killed_after(place: &Place, limit: usize) -> Vec<String> {
    let mut command = place.command(&["dedup", "--state", "seen", "--window", "1h", "input"]);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut output = vec![0; limit];
    let mut filled = 0;
    while filled < limit {
        match stdout.read(&mut output[filled..]).unwrap() {
            0 => break,
            count => filled += count,
        }
    }
    // SIGKILL, in the middle of whatever the run is doing.
    child.kill().unwrap();
    output.truncate(filled);
    // What it had written is in the pipe, and counts as delivered.
    stdout.read_to_end(&mut output).unwrap();
    child.wait().unwrap();
    let text = String::from_utf8(output).unwrap();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
}

#[test]
fn no_line_is_lost_however_often_the_run_is_killed() {
    let input = input();
    let place = Place::new().with("input", &input);
    let mut printed = Vec::new();
    for limit in [0, 1, 100_000, 5, 400_000, 65_536, 1_000_000, 300_000] {
        printed.extend(killed_after(&place, limit));
    }
    let rest = place.run(&["dedup", "--state", "seen", "input"]).ok();
    printed.extend(rest.split_inclusive('\n').map(str::to_owned));
    let expected: HashSet<&str> = input.split_inclusive('\n').collect();
    let found: HashSet<&str> = printed.iter().map(String::as_str).collect();
    assert!(found == expected, "{} of {} lines", found.len(), expected.len());
    // Only what was in flight at a kill is repeated: far less than everything each time.
    assert!(printed.len() < expected.len() * 2, "{} lines were printed", printed.len());
    place.run(&["dedup", "--state", "seen", "input"]).prints("");
}

#[test]
fn what_a_closed_pipe_did_not_take_is_printed_by_the_next_run() {
    let input = input();
    let place = Place::new().with("input", &input);
    let args = ["dedup", "--state", "seen", "--window", "1h", "input"];
    let mut child = place.command(&args).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = vec![0; 100_000];
    stdout.read_exact(&mut first).unwrap();
    // What the pipe itself still holds when its reader goes is the reader's loss.
    let mut in_pipe = Vec::new();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let mut piece = vec![0; 65_536];
    let count = stdout.read(&mut piece).unwrap();
    in_pipe.extend_from_slice(&piece[..count]);
    drop(stdout);
    assert!(child.wait().unwrap().success());
    let mut found = String::from_utf8([first, in_pipe].concat()).unwrap();
    let rest = place.run(&["dedup", "--state", "seen", "input"]).ok();
    found.truncate(found.rfind('\n').map_or(0, |at| at + 1));
    let distinct: HashSet<&str> = input.lines().collect();
    let printed: HashSet<&str> = found.lines().chain(rest.lines()).collect();
    let lost = distinct.difference(&printed).count();
    // At most what one pipe holds.
    assert!(lost * 8 <= 65_536 * 2, "{lost} lines were lost");
}
