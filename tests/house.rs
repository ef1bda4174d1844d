//! The house itself: data flows one way, files and functions stay small, and unsafe code stands
//! where `docs/design.md` explains it. The sources are read as text, which rustfmt has laid out.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library, ground first. A module imports only what stands before it.
const FLOORS: [&str; 33] = [
    "random",
    "time",
    "key",
    "error",
    "digest",
    "sync",
    "format",
    "storage",
    "filter",
    "exact",
    "ledger",
    "journal",
    "log",
    "replay",
    "catalog",
    "quota",
    "authority",
    "verdict",
    "stats",
    "shadow",
    "explain",
    "telemetry",
    "shard",
    "config",
    "plan",
    "worker",
    "gather",
    "engine",
    "claim",
    "offline",
    "dedup",
    "transfer",
    "adapter",
];
/// Files of the library and the command with unsafe code.
const UNSAFE: [&str; 2] = ["src/filter/clear.rs", "src/storage/region.rs"];
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && name != "corpus" {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The sources below `dirs`, by their paths from the root, without comments.
fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    dirs.iter().for_each(|dir| collect(&root().join(dir), &mut paths));
    assert!(!paths.is_empty(), "nothing in {dirs:?}");
    let code = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| match line.find("//") {
            // What follows the slashes of an address in a string does not matter here.
            Some(at) => line[..at].to_owned() + "\n",
            None => line.to_owned() + "\n",
        });
        lines.collect::<String>()
    };
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), code(path))).collect()
}

/// The module of the library that a file belongs to; `None` for tests and for `lib.rs`.
fn module(file: &str) -> Option<&str> {
    let is_test = file.ends_with("/tests.rs") || file.contains("/models/");
    let name = file.strip_prefix("src/")?.split(['/', '.']).next()?;
    (name != "lib" && !is_test).then_some(name)
}

/// The modules that `code` names after `crate::`, one or several in braces.
fn named(code: &str) -> BTreeSet<&str> {
    let word = |text: &'_ str| text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(0);
    let paths = code.split("crate::").skip(1).flat_map(|path| match path.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
        None => vec![path],
    });
    paths.map(|path| &path[..word(path)]).filter(|name| FLOORS.contains(name)).collect()
}

#[test]
fn a_module_imports_only_what_lies_below_it() {
    let floor = |module: &str| {
        let floor = FLOORS.iter().position(|name| *name == module);
        floor.unwrap_or_else(|| panic!("the module {module} has no floor in this test"))
    };
    let mut upward = Vec::new();
    for (file, code) in sources(&["src"]) {
        let Some(module) = module(&file) else { continue };
        let own = floor(module);
        // Tests may use the whole house.
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for name in named(code) {
            if name != module && floor(name) >= own {
                upward.push(format!("{file}: {name}"));
            }
        }
    }
    assert_eq!(upward, Vec::<String>::new(), "imports that go up");
}

#[test]
fn unsafe_code_stands_where_the_design_explains_it() {
    let has_unsafe = |code: &str| {
        let words = code.split(|c: char| c != '_' && !c.is_alphanumeric());
        words.into_iter().any(|word| word == "unsafe")
    };
    let mut found: Vec<_> = sources(&["src", "cli", "examples"])
        .into_iter()
        .filter(|(_, code)| has_unsafe(code))
        .map(|(file, _)| file)
        .collect();
    found.sort();
    assert_eq!(found, UNSAFE);
    let design = fs::read_to_string(root().join("docs/design.md")).unwrap();
    for file in UNSAFE {
        let file = file.strip_prefix("src/").unwrap();
        assert!(design.contains(file), "docs/design.md does not explain the unsafe code of {file}");
    }
}

/// The first line and the length of every function, from its first line to its closing brace.
fn functions(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let is_function = |line: &str| {
        let mut words = line.split_whitespace().take_while(|word| !word.contains("=")).take(6);
        words.any(|word| word == "fn")
    };
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let rest = &lines[at..];
        // A declaration, or a body on one line.
        let close = format!("{}}}", " ".repeat(indent(line)));
        let opens = rest.iter().position(|line| line.ends_with(['{', ';', '}'])).unwrap_or(0);
        if rest[opens].ends_with('{') {
            let length = rest.iter().position(|line| line.trim_end() == close);
            let length = length.unwrap_or_else(|| panic!("no end of `{line}`"));
            found.push((at + 1, length + 1));
        }
    }
    found
}

#[test]
fn files_and_functions_stay_small() {
    let all = ["src", "cli", "tests", "benches", "examples", "campaigns", "fuzz"];
    let mut large = Vec::new();
    let mut count = 0;
    for (file, code) in sources(&all) {
        let lines = code.lines().count();
        if lines >= FILE_LINES {
            large.push(format!("{file}: {lines} lines"));
        }
        for (line, length) in functions(&code) {
            count += 1;
            if length >= FUNCTION_LINES {
                large.push(format!("{file}:{line}: a function of {length} lines"));
            }
        }
    }
    assert!(count > 1_000, "only {count} functions were found");
    assert_eq!(large, Vec::<String>::new(), "too long");
}
