//! `docs/reliability.md` names tests for each promise, and breaks of the engine that a test notices:
//! both are there.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::breaks;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The test binary or the module that a file belongs to.
fn place(file: &Path) -> String {
    let file = file.strip_prefix(root()).unwrap().to_str().unwrap();
    let file = file.trim_end_matches(".rs");
    match file.strip_prefix("tests/") {
        Some(test) => test.trim_end_matches("/main").to_owned(),
        None => file.trim_end_matches("/mod").trim_end_matches("/tests").to_owned(),
    }
}

/// Every test as `place::name`.
fn tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources(&root().join("tests"), &mut files);
    sources(&root().join("src"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line != "#[test]" {
                continue;
            }
            let declared = lines.find_map(|line| line.strip_prefix("fn ")).unwrap();
            let name = declared.split('(').next().unwrap();
            names.insert(format!("{}::{name}", place(&file)));
        }
    }
    assert!(names.len() > 250, "only {} tests were found", names.len());
    names
}

/// What stands in backquotes in a text and looks like a test.
fn named(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| name.contains("::") && !name.contains([' ', '(']))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect()
}

#[test]
fn every_test_that_the_table_of_promises_names_is_there() {
    let text = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let table = text.split("\n## ").find(|part| part.starts_with("The promises")).unwrap();
    let (tests, named) = (tests(), named(table));
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !tests.contains(*name)).collect();
    assert_eq!(missing, Vec::<&str>::new(), "named, and not there");
}

/// The breaks do not rot: their lines stand in the sources, and their tests are there.
#[test]
fn every_break_fits_the_sources_and_names_a_test() {
    let (breaks, tests) = (breaks::all(), tests());
    assert!(breaks.len() > 60, "only {} breaks", breaks.len());
    let mut names = BTreeSet::new();
    for one in &breaks {
        assert!(names.insert(&one.name), "{} is there twice", one.name);
        assert!(!one.promise.is_empty(), "{} breaks no promise", one.name);
        let text = fs::read_to_string(root().join(&one.file)).unwrap();
        let broken = one.apply(&text).unwrap();
        assert_ne!(broken, text, "{} changes nothing", one.name);
        let (_, test) = one.test.rsplit_once(' ').unwrap();
        let of_binary = one.test.strip_prefix("--test ").map(|rest| rest.replace(' ', "::"));
        let known = match of_binary {
            Some(name) => tests.iter().any(|test| test.replace('/', "::") == name),
            None => tests
                .iter()
                .any(|name| name.starts_with("src/") && name.ends_with(&format!("::{test}"))),
        };
        assert!(known, "{}: there is no test {}", one.name, one.test);
    }
}
