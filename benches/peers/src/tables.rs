//! The tables of docs/performance.md and README.md, made from the files of results: what stands between
//! `<!-- generated: NAME -->` and `<!-- end -->` is made anew from `NAME.csv` and `NAME-….csv`. All
//! else is left.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::args::{Result, shown};
use crate::report::{ns, say, times};
use crate::results::{self, Results, Row};
use crate::{first_page, targets};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

pub(crate) fn fill(from: &Path) -> Result<()> {
    for page in results::pages() {
        let text = fs::read_to_string(&page)?;
        let (filled, names) = filled(&text, |name| match &results::gathered(from, name)[..] {
            [] if name == "targets" => targets::table(from),
            [] if name == "first-page" => first_page::table(from),
            [] => None,
            parts => Some(table(parts)),
        })?;
        fs::write(&page, filled)?;
        say(format_args!("tables of {}: {}", page.display(), names.join(", ")))?;
    }
    Ok(())
}

/// The page with its tables made by `table` from their names; a table without results stays.
pub(crate) fn filled(
    text: &str,
    table: impl Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>)> {
    let (mut page, mut names, mut rest) = (String::new(), Vec::new(), text);
    while let Some(at) = rest.find(BEGIN) {
        let after = &rest[at + BEGIN.len()..];
        let (name, body) = after.split_once(" -->").ok_or("a marker that does not end")?;
        let (old, tail) = body.split_once(END).ok_or_else(|| format!("{name} has no {END}"))?;
        page.push_str(&rest[..at]);
        let _ = write!(page, "{BEGIN}{name} -->");
        match table(name) {
            Some(table) => {
                let _ = write!(page, "\n{table}");
                names.push(name.to_owned());
            }
            None => page.push_str(old),
        }
        page.push_str(END);
        rest = tail;
    }
    page.push_str(rest);
    Ok((page, names))
}

/// The table, then where each part of it is from.
pub(crate) fn table(parts: &[Results]) -> String {
    let has = |column: &str| parts[0].head.iter().any(|name| name == column);
    let mut text = if has("times_onceonly") {
        comparison(parts)
    } else if has("write_amplification") {
        growth(parts)
    } else if has("filter_for") {
        overload(&parts[0])
    } else {
        verbatim(parts)
    };
    text.push('\n');
    // Parts of one commit together.
    for same in parts.chunk_by(|a, b| a.about("commit") == b.about("commit")) {
        for part in same {
            let command = part.about("command");
            let command = command.rsplit_once("-- ").map_or(command, |(_, words)| words);
            let _ = writeln!(text, "`{command}`;");
        }
        let _ = writeln!(text, "at \"{}\";", same[0].about("commit"));
    }
    let _ = writeln!(text, "{}", parts[0].about("machine"));
    text
}

fn row<'a>(text: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    let cells: Vec<&str> = cells.into_iter().collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn head(text: &mut String, names: &[&str]) {
    row(text, names.iter().copied());
    let line = |(column, _)| if column == 0 { "---" } else { "---:" };
    row(text, names.iter().enumerate().map(line));
}

/// As they are; parts of one table have the same columns.
fn verbatim(parts: &[Results]) -> String {
    let mut text = String::new();
    head(&mut text, &parts[0].head.iter().map(String::as_str).collect::<Vec<_>>());
    for line in parts.iter().flat_map(Results::rows) {
        row(&mut text, line.cells());
    }
    text
}

const COMPARISON: [&str; 10] = [
    "",
    "call",
    "ns a key",
    "× onceonly",
    "× floor",
    "heap",
    "mapped",
    "as it tells",
    "disk",
    "missed / invented of answers",
];

/// Batches first, and the fastest first. Of what ran in several parts, the first is shown; ratios are
/// those of the part in which a row was measured.
fn comparison(parts: &[Results]) -> String {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in parts.iter().flat_map(Results::rows) {
        let same = |other: &Row<'_>| {
            ["contestant", "mode"].iter().all(|column| other.cell(column) == line.cell(column))
        };
        if !rows.iter().any(same) {
            rows.push(line);
        }
    }
    let median = |line: &Row<'_>| line.number("median_ns").unwrap_or(f64::MAX);
    let one = |line: &Row<'_>| line.cell("mode") == "one at a time";
    rows.sort_by(|a, b| one(a).cmp(&one(b)).then(median(a).total_cmp(&median(b))));
    let mut text = String::new();
    head(&mut text, &COMPARISON);
    for line in rows {
        let exact = if line.cell("exact") == "no" { " (not exact)" } else { "" };
        let name = format!("{}{exact}", line.cell("contestant"));
        let ours = line.cell("contestant") == "onceonly";
        let name = if ours { format!("**{name}**") } else { name };
        let wrong = match line.cell("exact") {
            "-" => "-".to_owned(),
            _ => {
                let [missed, invented] = ["missed", "invented"].map(|column| line.cell(column));
                format!("{missed} / {invented} of {}", line.cell("answers_checked"))
            }
        };
        let cells = [
            &name,
            line.cell("mode"),
            line.cell("median_ns"),
            line.cell("times_onceonly"),
            line.cell("times_floor"),
            line.cell("anonymous_bytes"),
            line.cell("mapped_bytes"),
            line.cell("told_memory_bytes"),
            line.cell("disk_bytes"),
            &wrong,
        ];
        row(&mut text, cells);
    }
    text
}

const GROWTH: [&str; 10] = [
    "live keys",
    "ns, batches",
    "slope",
    "ns, one",
    "resident",
    "mapped",
    "disk",
    "written / 16 bytes",
    "open, ms",
    "after kill -9, ms",
];

/// With the slope from one size to the next: that of log(ns) over log(live keys), in batches.
fn growth(parts: &[Results]) -> String {
    let mut text = String::new();
    head(&mut text, &GROWTH);
    let mut last: Option<(f64, f64)> = None;
    for line in grown(parts) {
        let number = |column| line.number(column).unwrap_or(f64::NAN);
        let here = (number("live").ln(), number("batch_ns").ln());
        let slope = last.map_or(f64::NAN, |(x, y)| (here.1 - y) / (here.0 - x));
        last = Some(here);
        let cells = [
            &shown(number("live") as u64),
            line.cell("batch_ns"),
            &times(slope),
            line.cell("one_ns"),
            line.cell("resident_bytes"),
            line.cell("mapped_bytes"),
            line.cell("disk_bytes"),
            line.cell("write_amplification"),
            &ns(number("open_clean_ms")),
            &ns(number("open_killed_ms")),
        ];
        row(&mut text, cells);
    }
    text
}

/// All sizes, the smallest first.
pub(crate) fn grown(parts: &[Results]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = parts.iter().flat_map(Results::rows).collect();
    let live = |row: &Row<'_>| row.number("live").unwrap_or_default();
    rows.sort_by(|a, b| live(a).total_cmp(&live(b)));
    rows
}

const OVERLOAD: [&str; 5] =
    ["the filter holds", "keys so far", "planned right, ns", "planned small, ns", "throughput"];

/// Medians of the chunks while the filter had one size.
fn overload(results: &Results) -> String {
    let mut text = String::new();
    head(&mut text, &OVERLOAD);
    for rows in results.rows().chunk_by(|a, b| a.cell("filter_for") == b.cell("filter_for")) {
        let last = rows[rows.len() - 1].number("keys").unwrap_or_default();
        let median = |column: &str| {
            let values: Vec<f64> = rows.iter().filter_map(|row| row.number(column)).collect();
            crate::report::median(&values)
        };
        let millions = |keys: f64| format!("{:.1} M", keys / 1e6);
        let cells = [
            &millions(rows[0].number("filter_for").unwrap_or_default()),
            &millions(last),
            &ns(median("planned_right")),
            &ns(median("planned_small")),
            &times(median("throughput")),
        ];
        row(&mut text, cells.map(String::as_str));
    }
    text
}
