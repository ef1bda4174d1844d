//! `onceonly dedup`: blocks of records → batches → verdicts → output.

use std::io::Write as _;
use std::ops::Range;

use anyhow::{Result, bail, ensure};
use onceonly::Verdict;

use crate::args::{DedupArgs, Late, MissingKey};
use crate::count::Counts;
use crate::decide::{Decider, Keys};
use crate::input;
use crate::output::Output;
use crate::progress::Progress;
use crate::reader::{Block, Reader};
use crate::recent::{Digester, Recent};
use crate::record::{KeyAt, Splitter};
use crate::setup;

/// Records that are decided at once: enough to hide memory latency, few enough to stay in the
/// first-level cache.
const BATCH_LEN: usize = 512;

pub(crate) fn run(args: &DedupArgs) -> Result<()> {
    let format = setup::format(args)?;
    let line_end = if args.null { 0 } else { b'\n' };
    let paths = setup::paths(args);
    let total_bytes = input::total_bytes(&paths)?;
    let store = setup::open_store(args)?;
    if args.state.is_some() && !args.quiet {
        warn_of_damage(&store);
    }
    let scope = args.scope.as_ref().map(setup::bytes_of);
    let mut run = Run {
        rules: Rules::new(args),
        decider: Decider::new(store, scope, args.state.is_some()),
        recent: (args.state.is_none() && args.window.is_none()).then(Recent::new),
        output: Output::stdout(line_end)?,
        counts: Counts::start(),
        progress: Progress::new(!args.quiet, total_bytes),
    };
    let splitter = Splitter::new(format, setup::wanted(args), !args.no_header, line_end);
    let digester = run.recent.as_ref().map(|_| Digester::new());
    let read = run.read(Reader::start(paths, splitter, digester, line_end)?);
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
    decider: Decider,
    /// In a run that forgets nothing.
    recent: Option<Recent>,
    output: Output,
    counts: Counts,
    progress: Progress,
}

impl Run {
    /// Deduplicates everything that is read.
    fn read(&mut self, mut reader: Reader) -> Result<()> {
        // While the input is slow, the output gets what there is.
        while let Some(mut block) = reader.next(|| self.output.flush())? {
            self.counts.bytes_read += block.read;
            self.block(&mut block)?;
            if let Some(error) = block.failure.take() {
                return Err(error);
            }
            if block.ends_source {
                self.output.end_of_source();
            }
            self.progress.tick(&self.counts);
            reader.give_back(block);
        }
        Ok(())
    }

    /// Decides, writes and marks the records of a block.
    fn block(&mut self, block: &mut Block) -> Result<()> {
        let mut next = 0;
        while next < block.batch.records.len() {
            let batch = next..block.batch.records.len().min(next + BATCH_LEN);
            next = batch.end;
            if let Some(recent) = &mut self.recent {
                block.batch.mark_seen(batch.clone(), recent);
            }
            self.batch(block, batch)?;
        }
        Ok(())
    }

    fn batch(&mut self, block: &Block, batch: Range<usize>) -> Result<()> {
        let keys = block.batch.keys(batch.clone(), block.bytes(), self.rules.event_time);
        let mut at = Position { record: batch.start, key: 0 };
        while at.record < batch.end {
            let printed = self.print(block, batch.end, &keys, &mut at)?;
            if self.rules.durable {
                // Only lines that have left this process may be marked.
                self.output.flush()?;
                self.decider.commit(printed.new)?;
            }
            if printed.refused {
                let place = block.line_of(block.batch.records[at.record].bytes().start);
                bail!("{place}: the record is older than the window (--late error)");
            }
        }
        Ok(())
    }

    /// Decides as many records of a batch as the store answers at once, and prints what is to be
    /// printed, runs of neighbours together.
    fn print(
        &mut self,
        block: &Block,
        end: usize,
        keys: &Keys<'_>,
        at: &mut Position,
    ) -> Result<Printed> {
        let verdicts = self.decider.decide(keys, at.key)?;
        let (first_record, first_key) = (at.record, at.key);
        let mut printed = Printed::default();
        let mut run = 0..0;
        for record in &block.batch.records[at.record..end] {
            let fate = match record.key {
                KeyAt::Header => self.rules.fate(true),
                KeyAt::Seen => {
                    self.counts.add(Verdict::Duplicate);
                    self.rules.verdict(Verdict::Duplicate)
                }
                KeyAt::Missing => {
                    self.counts.missing += 1;
                    self.rules.missing()
                }
                KeyAt::Front { .. } | KeyAt::Arena { .. } => {
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
            let bytes = record.bytes();
            if run.end == bytes.start {
                run.end = bytes.end;
            } else {
                self.output.put(&block.bytes()[run])?;
                run = bytes;
            }
        }
        self.output.put(&block.bytes()[run])?;
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
