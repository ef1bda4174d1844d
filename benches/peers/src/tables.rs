//! The tables of docs/performance.md, made from the files of results: what stands between
//! `<!-- generated: NAME -->` and `<!-- end -->` is made anew from `NAME.csv`. All else is left.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::args::{Result, shown};
use crate::report::say;
use crate::results::{self, Results};

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";

pub(crate) fn fill(from: &Path) -> Result<()> {
    let page = results::page();
    let text = fs::read_to_string(&page)?;
    let (filled, names) = filled(&text, |name| match Results::read(&from.join(name)) {
        Ok(results) => Some(table(&results)),
        Err(_) => None,
    })?;
    fs::write(&page, filled)?;
    say(format_args!("tables: {}", names.join(", ")))
}

/// The page with its tables made by `table` from the file's name; a table without a file stays.
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
        match table(&format!("{name}.csv")) {
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

fn table(results: &Results) -> String {
    let mut text = if results.head.iter().any(|name| name == "times_onceonly") {
        comparison(results)
    } else {
        verbatim(results)
    };
    let (command, commit) = (results.about("command"), results.about("commit"));
    let _ = writeln!(text, "\n`{command}`, commit {commit}, {}", results.about("machine"));
    text
}

fn row<'a>(text: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    let cells: Vec<&str> = cells.into_iter().collect();
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn verbatim(results: &Results) -> String {
    let mut text = String::new();
    row(&mut text, results.head.iter().map(String::as_str));
    row(&mut text, results.head.iter().map(|_| "---"));
    for line in &results.rows {
        row(&mut text, line.iter().map(String::as_str));
    }
    text
}

const HEAD: [&str; 11] = [
    "live keys",
    "contestant",
    "call",
    "ns a key",
    "× onceonly",
    "× floor",
    "bytes of heap",
    "of mapped files",
    "as it tells",
    "on disk",
    "missed / invented of",
];

fn comparison(results: &Results) -> String {
    let mut text = String::new();
    row(&mut text, HEAD);
    row(&mut text, HEAD.map(|_| "---"));
    for line in &results.rows {
        let cell = |column| results.cell(line, column);
        let number = |column| results.number(line, column).unwrap_or_default();
        let live = shown(number("live") as u64);
        let exact = if cell("exact") == "no" { " (not exact)" } else { "" };
        let name = format!("{}{exact}", cell("contestant"));
        let wrong = match cell("exact") {
            "-" => "-".to_owned(),
            _ => {
                format!("{} / {} of {}", cell("missed"), cell("invented"), cell("answers_checked"))
            }
        };
        let cells = [
            &live,
            &name,
            cell("mode"),
            cell("median_ns"),
            cell("times_onceonly"),
            cell("times_floor"),
            cell("anonymous_bytes"),
            cell("mapped_bytes"),
            cell("told_memory_bytes"),
            cell("disk_bytes"),
            &wrong,
        ];
        row(&mut text, cells);
    }
    text
}
