//! What a file of results says about itself: the command, the commit, the machine.

use std::fs;
use std::process::Command;

/// Lines that begin with `# `.
pub(crate) fn header(title: &str) -> String {
    let mut text = format!("# {title}\n");
    for (name, value) in [("command", command()), ("commit", commit()), ("machine", machine())] {
        text.push_str(&format!("# {name}: {value}\n"));
    }
    text
}

/// How this program was called, as one would do it at the root of the repository.
pub(crate) fn command() -> String {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    // Where the results and stores go is of no interest to whom reads them.
    for name in ["--csv", "--dir"] {
        if let Some(at) = words.iter().position(|word| word == name) {
            words.drain(at..(at + 2).min(words.len()));
        }
    }
    format!("cargo run --release --manifest-path benches/peers/Cargo.toml -- {}", words.join(" "))
}

/// The code that decides the results.
const CODE: [&str; 2] = ["../../src", "../../stores"];

/// The subject of the last commit that changed the engine, and whether it, or this crate, has been
/// changed since. Results and pages may change without making results older; and a subject stays when
/// a branch is put on top of others, which a hash does not.
pub(crate) fn commit() -> String {
    let git = |args: &[&str], paths: &[&str]| {
        let mut command = Command::new("git");
        command.args(args).arg("--").args(paths).current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(subject) = git(&["log", "-1", "--format=%s"], &CODE) else {
        return "unknown".to_owned();
    };
    let mut paths = CODE.to_vec();
    paths.push(".");
    let changed = git(&["status", "--porcelain", "--untracked-files=no"], &paths);
    if changed.is_some_and(|files| !files.is_empty()) {
        return format!("{subject} (with changes)");
    }
    subject
}

pub(crate) fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("?", |(_, value)| value.trim()).to_owned()
    };
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kilobytes = field(&memory, "MemTotal");
    let kilobytes: f64 =
        kilobytes.split(' ').next().unwrap_or_default().parse().unwrap_or_default();
    format!(
        "{} cores of {}, {:.0} GiB, Linux {}",
        // Not those that this thread may run on: it may be bound to one.
        cpu.lines().filter(|line| line.starts_with("processor")).count(),
        field(&cpu, "model name"),
        kilobytes / f64::from(1 << 20),
        read("/proc/sys/kernel/osrelease").trim(),
    )
}
