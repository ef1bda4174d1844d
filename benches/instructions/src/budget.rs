//! The recorded budget: a file of lines `operation;instructions a key`, below what it holds for.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

const HEAD: &str = "\
# Instructions a key, counted by `cargo run --release -p onceonly-instructions -- record`.
# More than 3 % over is a failure of `… -- check`.
";

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Budget {
    /// What else decides how many instructions there are: compiler, valgrind, processor.
    surroundings: String,
    lines: Vec<(String, f64)>,
}

impl Budget {
    pub(crate) fn read() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut budget = Budget::default();
        for line in text.lines() {
            if let Some(surroundings) = line.strip_prefix("# With ") {
                budget.surroundings = surroundings.to_owned();
            } else if !line.starts_with('#') {
                let (name, number) = line.split_once(';').context("a line without a number")?;
                budget.lines.push((name.to_owned(), number.parse().context("not a number")?));
            }
        }
        Ok(budget)
    }

    /// An empty one, for what is here.
    pub(crate) fn here() -> Result<Self> {
        Ok(Budget { surroundings: surroundings()?, lines: Vec::new() })
    }

    pub(crate) fn write(&self) -> Result<()> {
        fs::write(path(), self.text()).with_context(|| path().display().to_string())
    }

    fn text(&self) -> String {
        let mut text = format!("{HEAD}# With {}\n", self.surroundings);
        for (name, number) in &self.lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name};{number:.1}");
        }
        text
    }

    pub(crate) fn of(&self, name: &str) -> Option<f64> {
        self.lines.iter().find(|(own, _)| own == name).map(|&(_, number)| number)
    }

    pub(crate) fn set(&mut self, name: &str, number: f64) {
        self.lines.push((name.to_owned(), number));
    }

    /// A remark if the budget was recorded with something else than what is here.
    pub(crate) fn other_surroundings(&self) -> Result<String> {
        let here = surroundings()?;
        if here == self.surroundings {
            return Ok(String::new());
        }
        Ok(format!(" (it was recorded with {}; here is {here})", self.surroundings))
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.txt")
}

fn surroundings() -> Result<String> {
    let version = |program: &str| -> Result<String> {
        let output = Command::new(program).arg("--version").output();
        let output = output.with_context(|| format!("{program} is needed"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let vectors = if avx2() { "AVX2" } else { "no AVX2" };
    Ok(format!("{}, {}, {vectors}", version("rustc")?, version("valgrind")?))
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> bool {
    std::is_x86_feature_detected!("avx2")
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_as_it_was_written() {
        let mut budget = Budget { surroundings: "a; b".to_owned(), lines: Vec::new() };
        budget.set("one, by one", 12.5);
        budget.set("many", 3.0);
        assert_eq!(Budget::parse(&budget.text()).unwrap(), budget);
        assert_eq!(budget.of("many"), Some(3.0));
        assert_eq!(budget.of("none"), None);
        assert!(Budget::parse("many").is_err());
    }

    /// An operation without a budget would never fail.
    #[test]
    fn every_operation_has_a_budget() {
        let budget = Budget::read().unwrap();
        let names: Vec<&str> = budget.lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, crate::operations::NAMES);
    }
}
