//! `onceonly dedup`: blocks of input → batches of records → verdicts → output.

use std::io::Write as _;

use anyhow::{Error, Result, ensure};
use onceonly::Verdict;

use crate::args::{DedupArgs, Late, MissingKey};
use crate::count::Counts;
use crate::decide::{Decider, Keys};
use crate::input::{self, Block, Source};
use crate::output::Output;
use crate::progress::Progress;
use crate::recent::Recent;
use crate::record::{Batch, Fault, KeyAt, Splitter};
use crate::setup;

pub(crate) fn run(args: &DedupArgs) -> Result<()> {
    let format = setup::format(args)?;
    let line_end = if args.null { 0 } else { b'\n' };
    let paths = setup::paths(args);
    let estimate = input::estimate(&paths, line_end)?;
    let store = setup::open_store(args, estimate)?;
    if !args.quiet {
        warn_of_damage(&store);
    }
    let scope = args.scope.as_ref().map(setup::bytes_of);
    let mut run = Run {
        rules: Rules::new(args),
        splitter: Splitter::new(format, setup::wanted(args), !args.no_header, line_end),
        decider: Decider::new(store, scope, args.state.is_some()),
        recent: (args.state.is_none() && args.window.is_none()).then(Recent::new),
        output: Output::stdout(line_end)?,
        counts: Counts::start(),
        progress: Progress::new(!args.quiet, estimate.total_bytes),
        line_end,
    };
    let mut block = Block::new();
    let read = paths.iter().try_for_each(|path| run.source(&mut Source::open(path)?, &mut block));
    // What was decided before a failure is written all the same.
    let ended = run.end(args.count && read.is_ok());
    let ended = read.and(ended);
    run.progress.clear();
    if args.stats.is_some() {
        let stats = run.counts.json(run.output.bytes(), &run.decider.store().stats());
        let _ = writeln!(std::io::stderr(), "{stats}");
    }
    let closed = run.decider.close(args.state.as_deref());
    ended.and(closed)
}

fn warn_of_damage(store: &onceonly::Dedup) {
    let recovery = store.stats().recovery;
    let damage = recovery.damage.iter().chain(&recovery.close_error);
    for warning in damage {
        let _ = writeln!(std::io::stderr(), "onceonly: warning: {warning}");
    }
    for file in &recovery.set_aside {
        let _ = writeln!(
            std::io::stderr(),
            "onceonly: warning: moved the foreign file {file} to set-aside/"
        );
    }
}

/// What is printed and what is refused.
#[derive(Clone, Copy, Debug)]
struct Rules {
    durable: bool,
    event_time: bool,
    print_nothing: bool,
    print_duplicates: bool,
    late: Late,
    missing: MissingKey,
}

/// What becomes of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Print,
    Skip,
    /// It ends the run; nothing after it counts.
    Refuse,
}

impl Rules {
    fn new(args: &DedupArgs) -> Self {
        Rules {
            durable: args.state.is_some(),
            event_time: args.time.is_some(),
            print_nothing: args.count,
            print_duplicates: args.duplicates,
            late: args.late,
            missing: args.missing_key,
        }
    }

    fn verdict(&self, verdict: Verdict) -> Fate {
        let print = match verdict {
            Verdict::New => !self.print_duplicates,
            Verdict::Duplicate => self.print_duplicates,
            Verdict::TooOld if self.late == Late::Error => return Fate::Refuse,
            Verdict::TooOld => self.late == Late::Pass && !self.print_duplicates,
        };
        self.fate(print)
    }

    fn missing(&self) -> Fate {
        self.fate(self.missing == MissingKey::Pass && !self.print_duplicates)
    }

    fn fate(&self, print: bool) -> Fate {
        if print && !self.print_nothing { Fate::Print } else { Fate::Skip }
    }
}

struct Run {
    rules: Rules,
    splitter: Splitter,
    decider: Decider,
    /// In a run that forgets nothing.
    recent: Option<Recent>,
    output: Output,
    counts: Counts,
    progress: Progress,
    line_end: u8,
}

impl Run {
    /// Deduplicates one source to its end.
    fn source(&mut self, source: &mut Source, block: &mut Block) -> Result<()> {
        self.splitter.start_source();
        block.reset();
        let mut batch = Batch::default();
        let mut lines = 0;
        while !block.at_end() {
            self.counts.bytes_read += block.fill(source)? as u64;
            loop {
                batch.clear();
                let (unread, at_end) = (block.unread(), block.at_end());
                let split = self.splitter.split(unread, at_end, &mut batch);
                if let Some(recent) = &mut self.recent {
                    batch.mark_seen(unread, recent);
                }
                // The records before one that cannot be used are decided first.
                let refused = self.batch(&batch, unread)?;
                if let Some(fault) = refused.or(split.err()) {
                    let line = lines + 1 + self.lines_in(&unread[..fault.at]);
                    return Err(fault.error.context(format!("{}: line {line}", source.name())));
                }
                if batch.used == 0 {
                    break;
                }
                lines += batch.lines;
                block.consume(batch.used);
            }
            // The reader of a slow input gets what there is.
            self.output.flush()?;
            self.progress.tick(&self.counts);
        }
        self.output.end_of_source();
        Ok(())
    }

    fn lines_in(&self, bytes: &[u8]) -> u64 {
        memchr::memchr_iter(self.line_end, bytes).count() as u64
    }

    /// Decides, writes and marks one batch; the record that ends the run, if there is one.
    fn batch(&mut self, batch: &Batch, block: &[u8]) -> Result<Option<Fault>> {
        let keys = batch.keys(block, self.rules.event_time);
        let mut at = Position::default();
        while at.record < batch.records.len() {
            let printed = self.print(batch, block, &keys, &mut at)?;
            if self.rules.durable {
                // Only lines that have left this process may be marked.
                self.output.flush()?;
                self.decider.commit(printed.new)?;
            }
            if printed.refused {
                return Ok(Some(Fault {
                    at: batch.records[at.record].bytes.start,
                    error: Error::msg("the record is older than the window (--late error)"),
                }));
            }
        }
        Ok(None)
    }

    /// Decides as many records of a batch as the store answers at once, and prints what is to be
    /// printed, runs of neighbours together.
    fn print(
        &mut self,
        batch: &Batch,
        block: &[u8],
        keys: &Keys<'_>,
        at: &mut Position,
    ) -> Result<Printed> {
        let verdicts = self.decider.decide(keys, at.key)?;
        let (first_record, first_key) = (at.record, at.key);
        let mut printed = Printed::default();
        let mut run = 0..0;
        for record in &batch.records[at.record..] {
            let fate = match &record.key {
                KeyAt::Header => self.rules.fate(true),
                KeyAt::Seen => {
                    self.counts.add(Verdict::Duplicate);
                    self.rules.verdict(Verdict::Duplicate)
                }
                KeyAt::Missing => {
                    self.counts.missing += 1;
                    self.rules.missing()
                }
                KeyAt::Block(_) | KeyAt::Arena(_) => {
                    let Some(&verdict) = verdicts.get(at.key - first_key) else { break };
                    let fate = self.rules.verdict(verdict);
                    if fate == Fate::Refuse {
                        printed.refused = true;
                        break;
                    }
                    at.key += 1;
                    self.counts.add(verdict);
                    printed.new += usize::from(verdict == Verdict::New);
                    fate
                }
            };
            at.record += 1;
            if fate != Fate::Print {
                continue;
            }
            if run.end == record.bytes.start {
                run.end = record.bytes.end;
            } else {
                self.output.put(&block[run])?;
                run = record.bytes.clone();
            }
        }
        self.output.put(&block[run])?;
        // The next call would ask the same question again, for ever.
        ensure!(printed.refused || at.record > first_record, "the store gave no answer");
        Ok(printed)
    }

    /// Hands over what is left, with the counts if they were asked for.
    fn end(&mut self, count: bool) -> Result<()> {
        if count {
            self.output.put(self.counts.line().as_bytes())?;
        }
        self.output.flush()
    }
}

/// How far a batch is decided: so many records, so many of them with keys.
#[derive(Debug, Default)]
struct Position {
    record: usize,
    key: usize,
}

/// What became of the records that were decided at once.
#[derive(Debug, Default)]
struct Printed {
    /// New keys, all of whose lines are printed if new ones are.
    new: usize,
    /// The next record ends the run.
    refused: bool,
}
