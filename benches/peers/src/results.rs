//! The files of results, read again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::args::Result;

/// A file of results: what it says about itself, and its table.
#[derive(Debug, Default)]
pub(crate) struct Results {
    about: Vec<(String, String)>,
    pub(crate) head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// One line of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    head: &'a [String],
    cells: &'a [String],
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?))
    }

    fn parse(text: &str) -> Self {
        let mut results = Results::default();
        for line in text.lines() {
            if let Some(about) = line.strip_prefix("# ") {
                let (name, value) = about.split_once(": ").unwrap_or(("title", about));
                results.about.push((name.to_owned(), value.to_owned()));
            } else {
                let cells = line.split(',').map(|cell| cell.replace(';', ",")).collect();
                if results.head.is_empty() {
                    results.head = cells;
                } else {
                    results.rows.push(cells);
                }
            }
        }
        results
    }

    pub(crate) fn about(&self, name: &str) -> &str {
        self.about.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        self.rows.iter().map(|cells| Row { head: &self.head, cells }).collect()
    }
}

impl<'a> Row<'a> {
    pub(crate) fn cell(&self, column: &str) -> &'a str {
        let at = self.head.iter().position(|name| name == column);
        at.and_then(|at| self.cells.get(at)).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, column: &str) -> Option<f64> {
        self.cell(column).parse().ok()
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = &'a str> {
        self.cells.iter().map(String::as_str)
    }
}

/// The files of one table: `name.csv`, then `name-….csv` in the order of their names, but what is in
/// memory before what is not.
pub(crate) fn gathered(from: &Path, name: &str) -> Vec<Results> {
    let belongs = |file: &String| {
        let rest = file.strip_suffix(".csv").and_then(|stem| stem.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let entries = fs::read_dir(from).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(belongs).collect();
    names.sort_by_key(|file| (!file.contains("-memory"), file.clone()));
    names.iter().filter_map(|file| Results::read(&from.join(file)).ok()).collect()
}

/// The commit that the file was measured at.
pub(crate) fn commit_of(path: &Path) -> Option<String> {
    Results::read(path).ok().map(|results| results.about("commit").to_owned())
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub(crate) fn results_dir() -> PathBuf {
    root().join("benches/results")
}

pub(crate) fn images_dir() -> PathBuf {
    root().join("docs/images")
}

/// The pages with tables that are made from results.
pub(crate) fn pages() -> [PathBuf; 2] {
    ["docs/performance.md", "README.md"].map(|page| root().join(page))
}
