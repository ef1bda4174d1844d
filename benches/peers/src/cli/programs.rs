//! Finding, building and running the programs.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::files::Sample;
use super::repository;
use crate::args::Result;
use crate::report::say;

pub(super) struct Program {
    pub(super) name: &'static str,
    path: PathBuf,
    arguments: &'static [&'static str],
    takes_options: bool,
}

/// Seconds.
pub(super) struct Spent {
    pub(super) wall: f64,
    pub(super) cpu: f64,
}

pub(super) struct Answer {
    pub(super) lines: u64,
    pub(super) checksum: u128,
}

/// `onceonly`, built now unless a path is given, and its peers, which are installed below `root` if
/// they are not there.
pub(super) fn all(onceonly: Option<PathBuf>, root: Option<PathBuf>) -> Result<[Program; 3]> {
    let root = root.unwrap_or_else(|| repository().join("target/peers"));
    let onceonly = onceonly.map_or_else(build, Ok)?;
    let huniq = installed(&root, "huniq", "2.7.0")?;
    let runiq = installed(&root, "runiq", "2.1.0")?;
    Ok([
        Program { name: "onceonly", path: onceonly, arguments: &["dedup"], takes_options: true },
        Program { name: "huniq", path: huniq, arguments: &[], takes_options: false },
        Program { name: "runiq", path: runiq, arguments: RUNIQ, takes_options: false },
    ])
}

/// Its filter of 64-bit hashes, the fastest of those that are exact but for collisions.
const RUNIQ: &[&str] = &["-f", "quick", "-"];

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.stdout(Stdio::inherit());
    cargo
}

fn build() -> Result<PathBuf> {
    let root = repository();
    let target = root.join("target");
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--package", "onceonly-cli", "--target-dir"]);
    finish(cargo.arg(&target).current_dir(&root))?;
    Ok(target.join("release/onceonly"))
}

fn installed(root: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let path = root.join("bin").join(name);
    if !path.exists() {
        say(format_args!("installing {name} {version} below {}", root.display()))?;
        let mut cargo = cargo();
        cargo.args(["install", "--locked", "--version", version, "--root"]);
        finish(cargo.arg(root).arg(name))?;
    }
    let shown = Command::new(&path).arg("--version").output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    match shown.split_whitespace().last() == Some(version) {
        true => Ok(path),
        false => Err(format!("{} is {:?}, not {version}", path.display(), shown.trim()).into()),
    }
}

fn finish(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

impl Program {
    fn start(&self, sample: &Sample, output: Stdio) -> Result<Child> {
        let mut command = Command::new(&self.path);
        command.args(self.arguments);
        if self.takes_options {
            command.args(sample.options);
        }
        command.stdin(File::open(&sample.path)?).stdout(output);
        command.spawn().map_err(|error| format!("{}: {error}", self.path.display()).into())
    }

    fn wait(&self, mut child: Child) -> Result<()> {
        let status = child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.name).into()) }
    }

    /// Runs it and looks at what it writes.
    pub(super) fn answer(&self, sample: &Sample) -> Result<Answer> {
        let mut child = self.start(sample, Stdio::piped())?;
        let mut output = child.stdout.take().ok_or("no output")?;
        let mut buffer = vec![0; 1 << 16];
        let (mut lines, mut checksum) = (0, Xxh3::new());
        loop {
            let len = output.read(&mut buffer)?;
            if len == 0 {
                break;
            }
            lines += buffer[..len].iter().filter(|&&byte| byte == b'\n').count() as u64;
            checksum.update(&buffer[..len]);
        }
        self.wait(child)?;
        Ok(Answer { lines, checksum: checksum.digest128() })
    }

    /// Runs it and throws away what it writes.
    pub(super) fn time(&self, sample: &Sample) -> Result<Spent> {
        let (cpu, start) = (children_cpu()?, Instant::now());
        let child = self.start(sample, Stdio::null())?;
        self.wait(child)?;
        Ok(Spent { wall: start.elapsed().as_secs_f64(), cpu: children_cpu()? - cpu })
    }
}

/// Processor time of the processes that this one started and waited for. The kernel counts it in
/// ticks of 10 ms.
fn children_cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name, in brackets, may contain anything; the children's times are the 14th and 15th field
    // after it.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(13).take(2).flat_map(str::parse).collect();
    let [user, system] = ticks[..] else { return Err("no times in /proc/self/stat".into()) };
    Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
}
