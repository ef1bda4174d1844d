//! The command `onceonly dedup` beside `huniq` and `runiq`: whole processes, in turns, on the same
//! files, every answer compared with the others' and with what the file was made to contain.

mod files;
mod programs;

use std::path::{Path, PathBuf};

use crate::args::{Args, Result};
use crate::report::{Table, median, ratio, say, times};
use files::Sample;
use programs::{Program, Spent};

/// Runs of one program on one file.
struct Lane<'a> {
    program: &'a Program,
    spent: Vec<Spent>,
}

impl Lane<'_> {
    fn samples(&self, what: impl Fn(&Spent) -> f64) -> Vec<f64> {
        self.spent.iter().map(what).collect()
    }

    fn wall(&self) -> f64 {
        median(&self.samples(|spent| spent.wall))
    }

    fn cpu(&self) -> f64 {
        median(&self.samples(|spent| spent.cpu))
    }
}

pub(crate) fn main(mut args: Args) -> Result<()> {
    let rounds = usize::try_from(args.count("rounds", 9)?)?;
    let wanted = args.words("files", "uuids-1M,uuids-10M,few-10M,flights,ndjson-1M,ndjson-id-1M");
    let (onceonly, install) = (args.path("onceonly"), args.path("peers"));
    let dir = args.data_dir()?;
    let csv = args.path("csv");
    args.finish()?;
    let programs = programs::all(onceonly, install)?;
    let dir = tempfile::Builder::new().prefix("cli-").tempdir_in(dir)?;
    let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
    let title = format!("whole processes, seconds, medians of {rounds} rounds in turns");
    let columns: Vec<String> = std::iter::once("file".to_owned())
        .chain(names.iter().map(|name| (*name).to_owned()))
        .chain(["the faster / onceonly".to_owned()])
        .chain(names.iter().map(|name| format!("{name}, processor")))
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new(title, &columns);
    for name in &wanted {
        let sample = Sample::make(name, dir.path())?;
        table.row(measure(&sample, &programs, rounds)?);
        std::fs::remove_file(&sample.path)?;
    }
    table.show(csv.as_deref())
}

/// One row: wall time of the three programs, the ratio, their processor time.
fn measure(sample: &Sample, programs: &[Program; 3], rounds: usize) -> Result<[String; 8]> {
    same_answers(sample, programs)?;
    let mut lanes = programs.each_ref().map(|program| Lane { program, spent: Vec::new() });
    for round in 0..rounds {
        for turn in 0..lanes.len() {
            let lane = &mut lanes[(round + turn) % programs.len()];
            lane.spent.push(lane.program.time(sample)?);
        }
    }
    let [ours, peers @ ..] = &lanes;
    let faster = if peers[0].wall() <= peers[1].wall() { &peers[0] } else { &peers[1] };
    let against = ratio(&faster.samples(|s| s.wall), &ours.samples(|s| s.wall));
    let [a, b, c] = lanes.each_ref().map(|lane| format!("{:.3}", lane.wall()));
    let [d, e, f] = lanes.each_ref().map(|lane| format!("{:.2}", lane.cpu()));
    Ok([sample.title.clone(), a, b, c, times(against), d, e, f])
}

/// Also brings the file and the programs into the page cache.
fn same_answers(sample: &Sample, programs: &[Program]) -> Result<()> {
    let mut first = None;
    for program in programs {
        let answer = program.answer(sample)?;
        if answer.lines != sample.distinct {
            let (name, lines, right) = (program.name, answer.lines, sample.distinct);
            return Err(format!("{}: {name} left {lines} lines of {right}", sample.title).into());
        }
        if *first.get_or_insert(answer.checksum) != answer.checksum {
            let name = program.name;
            return Err(format!("{}: {name} wrote other lines", sample.title).into());
        }
    }
    say(format_args!("{}: the same {} lines from all", sample.title, sample.distinct))
}

/// The root of the repository, where the command is built.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
