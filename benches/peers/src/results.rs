//! The files of results, read again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::args::Result;

/// A file of results: what it says about itself, and its table.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) about: Vec<(String, String)>,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        Ok(Self::parse(&fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?))
    }

    pub(crate) fn parse(text: &str) -> Self {
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

    pub(crate) fn cell<'a>(&self, row: &'a [String], column: &str) -> &'a str {
        let at = self.head.iter().position(|name| name == column);
        at.and_then(|at| row.get(at)).map_or("", String::as_str)
    }

    pub(crate) fn number(&self, row: &[String], column: &str) -> Option<f64> {
        self.cell(row, column).parse().ok()
    }
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

pub(crate) fn page() -> PathBuf {
    root().join("docs/performance.md")
}
