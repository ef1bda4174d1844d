//! What is wanted of the engine beside what was measured: each line from the results of one part.

use std::path::Path;

use crate::report::median;
use crate::results::{Results, Row, gathered};

/// A number, and what it should be.
struct Target {
    what: String,
    measured: f64,
    wanted: Wanted,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}
use Wanted::{AtLeast, AtMost};

const BATCH: &str = "batches";
const ONE: &str = "one at a time";

/// The table; `None` when nothing was measured.
pub(crate) fn table(from: &Path) -> Option<String> {
    let mut targets = Vec::new();
    peers(from, &mut targets);
    ours(from, &mut targets);
    operation(from, &mut targets);
    hybrid(from, &mut targets);
    if targets.is_empty() {
        return None;
    }
    let mut text = "| | measured | wanted | |\n| --- | ---: | ---: | --- |\n".to_owned();
    for target in targets {
        let (word, limit, reached) = match target.wanted {
            AtLeast(limit) => ("at least", limit, target.measured >= limit),
            AtMost(limit) => ("at most", limit, target.measured <= limit),
        };
        let reached = if reached { "reached" } else { "**not reached**" };
        let (measured, unit) = (digits(target.measured), target.unit);
        let line =
            format!("| {} | {measured}{unit} | {word} {limit}{unit} | {reached} |\n", target.what);
        text.push_str(&line);
    }
    Some(text)
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// A cell of the first row with that contestant and a mode that begins so.
fn compared(parts: &[Results], contestant: &str, mode: &str, column: &str) -> Option<f64> {
    let is = |row: &Row<'_>| {
        row.cell("contestant").starts_with(contestant) && row.cell("mode").starts_with(mode)
    };
    parts.iter().flat_map(Results::rows).find(is)?.number(column)
}

fn push(
    targets: &mut Vec<Target>,
    what: impl Into<String>,
    measured: Option<f64>,
    wanted: Wanted,
    unit: &'static str,
) {
    let measured = measured.filter(|value| value.is_finite());
    targets.extend(measured.map(|measured| Target { what: what.into(), measured, wanted, unit }));
}

/// How many times as long the others take.
fn peers(from: &Path, targets: &mut Vec<Target>) {
    let sizes = [("1M", 2.0, 1.0), ("10M", 4.0, 1.3), ("100M", 5.0, 1.6)];
    for (mode, called) in [(BATCH, "batches"), (ONE, ONE)] {
        for (size, batch, one) in sizes {
            let parts = gathered(from, &format!("compare-{size}"));
            let wanted = AtLeast(if mode == BATCH { batch } else { one });
            let what = format!("the hash set takes, {size} live keys, {called}");
            let ratio = compared(&parts, "hashbrown, 64", mode, "times_onceonly");
            push(targets, what, ratio, wanted, " times");
        }
    }
    let stores = [
        ("moka", BATCH, 30.0),
        ("LMDB", BATCH, 20.0),
        ("fjall", BATCH, 100.0),
        ("SQLite", BATCH, 300.0),
        ("Redis", "batches of 1000", 60.0),
    ];
    for size in ["1M", "10M"] {
        let parts = gathered(from, &format!("compare-{size}"));
        for (name, mode, wanted) in stores {
            let what = format!("{name} takes, {size} live keys");
            let ratio = compared(&parts, name, mode, "times_onceonly");
            push(targets, what, ratio, AtLeast(wanted), " times");
        }
    }
}

/// What the engine takes of time and memory.
fn ours(from: &Path, targets: &mut Vec<Target>) {
    for size in ["10M", "100M"] {
        let parts = gathered(from, &format!("compare-{size}"));
        for (mode, limit) in [(BATCH, 1.5), (ONE, 1.3)] {
            let what = format!("time over the floor's, {size} live keys, {mode}");
            let times = compared(&parts, "onceonly", mode, "times_floor");
            push(targets, what, times, AtMost(limit), " times");
        }
        let bytes = compared(&parts, "onceonly", BATCH, "told_memory_bytes");
        let what = format!("resident bytes a live key, {size}");
        push(targets, what, bytes, AtMost(6.0), "");
    }
    let claims = gathered(from, "claims");
    for (mode, limit) in [(ONE, 2.5), (BATCH, 2.0)] {
        let times = compared(&claims, "claim + commit", mode, "times_onceonly");
        push(
            targets,
            format!("claim and commit over observe, {mode}"),
            times,
            AtMost(limit),
            " times",
        );
    }
    let scaling = gathered(from, "scaling");
    let row = scaling.iter().flat_map(Results::rows).find(|r| r.cell("contestant") == "onceonly");
    let ratio = row.and_then(|row| row.number("ratio"));
    push(targets, "two threads on two cores over one on one", ratio, AtLeast(1.8), " times");
    let grown = gathered(from, "growth");
    let time = |live: f64| {
        let row = grown.iter().flat_map(Results::rows).find(|r| r.number("live") == Some(live));
        row.and_then(|row| row.number("batch_ns"))
    };
    let times = time(1e9).zip(time(1e7)).map(|(large, small)| large / small);
    push(targets, "time a key at 1 B live keys over that at 10 M", times, AtMost(2.0), " times");
}

/// Opening, latency, more keys than planned.
fn operation(from: &Path, targets: &mut Vec<Target>) {
    let reopen = gathered(from, "reopen");
    for (after, what) in [("clean close", "a clean close"), ("kill -9", "`kill -9`")] {
        let row =
            reopen.iter().flat_map(Results::rows).find(|r| r.cell("after").starts_with(after));
        let ms = row.and_then(|row| row.number("sum"));
        let what = format!("open and first answer, 100 M keys, after {what}");
        push(targets, what, ms, AtMost(1000.0), " ms");
    }
    let latency = gathered(from, "latency");
    for (percentile, column, limit, what) in [
        ("99.99", "net latency", 1000.0, "p99.99 of observe, net of the hiccup meter"),
        ("max", "latency", 20_000.0, "the longest observe"),
    ] {
        let is = |row: &Row<'_>| row.cell("percentile") == percentile;
        let us = latency.iter().flat_map(Results::rows).find(is);
        push(targets, what, us.and_then(|row| row.number(column)), AtMost(limit), " µs");
    }
    let overload = gathered(from, "overload");
    let Some(overload) = overload.first() else { return };
    let rows = overload.rows();
    let number = |row: &Row<'_>, column| row.number(column).unwrap_or(f64::NAN);
    let worst = rows.iter().map(|row| number(row, "throughput")).fold(f64::INFINITY, f64::min);
    push(targets, "ten times the planned keys: throughput at worst", Some(worst), AtLeast(0.5), "");
    let last = rows.last().map_or(f64::NAN, |row| number(row, "filter_for"));
    let rebuilt = rows.iter().filter(|row| number(row, "filter_for") == last);
    let rebuilt = rebuilt.filter(|row| number(row, "rebuilding") == 0.0);
    let after: Vec<f64> = rebuilt.map(|row| number(row, "throughput")).collect();
    let what = "the same, once the filter has been rebuilt, median";
    push(targets, what, Some(median(&after)), AtLeast(0.7), "");
}

/// With a server behind it.
fn hybrid(from: &Path, targets: &mut Vec<Target>) {
    let first = |name: &str, server: &str, way: &str, column: &str| {
        let parts = gathered(from, name);
        let is = |row: &Row<'_>| row.cell("server") == server && row.cell("way").contains(way);
        parts.iter().flat_map(Results::rows).find(is)?.number(column)
    };
    let name = "hybrid-exclusive";
    for (server, way, wanted) in [
        ("Redis", "100 a pipeline", 20.0),
        ("Redis", "one at a time", 500.0),
        ("PostgreSQL", "1000 a statement", 10.0),
    ] {
        let what = format!("Exclusive with {server}: alone it takes, {way}");
        push(targets, what, first(name, server, way, "times"), AtLeast(wanted), " times");
    }
    let bytes = first(name, "Redis", "onceonly", "server_bytes_a_key");
    push(targets, "Exclusive: bytes a key in Redis", bytes, AtMost(24.0), "");
    for server in ["Redis", "PostgreSQL"] {
        let what = format!("Shared with {server}, 8 threads: alone it takes, one at a time");
        let times = first("hybrid-shared", server, "alone", "times");
        push(targets, what, times, AtLeast(5.0), " times");
        let what = format!("10M keys move by {server}");
        let sum = first("hybrid-move", server, "", "sum");
        push(targets, what, sum, AtMost(10.0), " s");
        let what = format!("{server} stood still for 10 s: throughput is back");
        let back = first("hybrid-stop", server, "", "back_after_ms");
        push(targets, what, back, AtMost(1000.0), " ms");
    }
}
