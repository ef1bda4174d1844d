//! Medians, tables and CSV.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use crate::args::Result;
use crate::provenance;

/// The median; the mean of the middle two of an even number. NaN of none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Linear between the two nearest samples.
pub(crate) fn quantile(samples: &[f64], at: f64) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = at * (sorted.len() - 1) as f64;
    let (below, part) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] * (1.0 - part) + sorted[above] * part
}

pub(crate) fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// The median of the quotients of samples taken side by side: what drifts with the machine's load
/// is in both and cancels out.
pub(crate) fn ratio(above: &[f64], below: &[f64]) -> f64 {
    let quotients: Vec<f64> = above.iter().zip(below).map(|(a, b)| a / b).collect();
    median(&quotients)
}

/// A table whose cells are text; the first column is left-aligned.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|&h| h.to_owned()).collect();
        Table { title: title.into(), head, rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.head.len());
        self.rows.push(cells.into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints the table, and writes it to the file if there is one.
    pub(crate) fn show(&self, csv: Option<&Path>) -> Result<()> {
        say(format_args!("\n{}\n{}", self.title, self.text().trim_end()))?;
        match csv {
            None => Ok(()),
            Some(path) => self.save(path),
        }
    }

    fn text(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            lines().map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let width = *width;
                // Writing to a string cannot fail.
                let _ = match column {
                    0 => write!(text, "  {cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.push('\n');
        }
        text
    }

    /// Writes the table as CSV below a few lines that say where it is from. In the place of an
    /// older file at once, so that no reader sees half of it.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let mut text = provenance::header(&self.title);
        for line in std::iter::once(&self.head).chain(&self.rows) {
            let cells: Vec<String> = line.iter().map(|cell| cell.replace(',', ";")).collect();
            text.push_str(&cells.join(","));
            text.push('\n');
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let unfinished = path.with_extension("csv.part");
        std::fs::write(&unfinished, text)?;
        Ok(std::fs::rename(&unfinished, path)?)
    }
}

/// A line on standard output; a closed pipe is an error, not a panic.
pub(crate) fn say(line: std::fmt::Arguments<'_>) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// One decimal, or a dash.
pub(crate) fn ns(value: f64) -> String {
    if value.is_finite() { format!("{value:.1}") } else { "-".to_owned() }
}

/// Two decimals, or a dash.
pub(crate) fn times(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}") } else { "-".to_owned() }
}
