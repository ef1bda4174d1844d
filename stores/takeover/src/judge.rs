//! What every key must be, by all that owners have written down.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::book::{Call, Line};

/// How far a time of the store may be from the wall clock.
const APART: i64 = 50_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not live, since then.
    Absent { since: i64 },
    /// Marked then, and last answered for then.
    Live { marked: i64, seen: i64 },
    /// As before, but the owner then may not have written it.
    MayBeMissing { seen: i64 },
    /// A call for it was not answered.
    Unknown,
}

/// How an owner follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// In the same directory, with nobody between.
    InItsDirectory,
    Elsewhere,
}

#[derive(Default)]
pub(crate) struct Judge {
    fates: BTreeMap<u64, Fate>,
    /// The authority has what was acknowledged until then.
    through: i64,
    /// The last owner has closed.
    is_closed: bool,
    /// The next owner may vouch for everything, whatever it says.
    forgets_holes: bool,
    pub(crate) fresh: u64,
    /// Owners that were judged.
    owners: u64,
    pub(crate) counts: Counts,
    pub(crate) wrong: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    pub(crate) keys: u64,
    pub(crate) taken_over: u64,
    /// Keys that were new again, in a hole that the owner had shown.
    pub(crate) in_holes: u64,
    /// Calls of an owner that was frozen, answered when another one had begun.
    pub(crate) held_up: u64,
}

/// A call and its answers; none where the process was killed.
struct Entry<'a> {
    begun: i64,
    call: Call,
    key: u64,
    ended: i64,
    answers: Option<&'a str>,
}

impl Entry<'_> {
    fn keys(&self) -> std::ops::Range<u64> {
        match self.call {
            Call::Observe(keys) => self.key..self.key + keys,
            Call::Forget => self.key..self.key + 1,
        }
    }
}

fn entries(lines: &[Line]) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for line in lines {
        match line {
            Line::Begun { at, call, key } => entries.push(Entry {
                begun: *at,
                call: *call,
                key: *key,
                ended: i64::MAX,
                answers: None,
            }),
            Line::Ended { at, answers } => {
                if let Some(last) = entries.last_mut() {
                    (last.ended, last.answers) = (*at, Some(answers.as_str()));
                }
            }
            _ => {}
        }
    }
    entries
}

impl Judge {
    pub(crate) fn new(forgets_holes: bool) -> Self {
        Judge { forgets_holes, ..Judge::default() }
    }

    fn set_unknown(&mut self, keys: impl IntoIterator<Item = u64>) {
        self.fates.extend(keys.into_iter().map(|key| (key, Fate::Unknown)));
    }

    /// No key of these calls is fresh any more.
    pub(crate) fn saw(&mut self, lines: &[Line]) {
        self.fresh = entries(lines).iter().map(|entry| entry.keys().end).fold(self.fresh, u64::max);
    }

    /// An owner that has ended. `frozen`: when it was stopped, and when the next one was the owner.
    pub(crate) fn judge(
        &mut self,
        lines: &[Line],
        follows: Follows,
        frozen: Option<(i64, i64)>,
    ) -> Result<()> {
        let Some(Line::Opened { vouches_since, .. }) = lines.first() else { return Ok(()) };
        self.owners += 1;
        if follows == Follows::Elsewhere {
            self.counts.taken_over += 1;
            self.take_over();
        }
        let vouches_since = if self.forgets_holes { i64::MIN } else { *vouches_since };
        self.is_closed = lines.last() == Some(&Line::Closed);
        let mut late = BTreeSet::new();
        self.saw(lines);
        for entry in entries(lines) {
            if let Some((frozen_at, next_began)) = frozen
                && entry.ended > frozen_at
            {
                let answered = entry.answers.is_some_and(|answers| answers != "e");
                self.counts.held_up += u64::from(answered);
                if answered && entry.begun > next_began {
                    self.wrong.push(format!("two owners answer for key {}", entry.key));
                }
                late.extend(entry.keys());
                continue;
            }
            self.note(&entry, vouches_since)?;
        }
        self.set_unknown(late);
        let written = lines.iter().filter_map(|line| match line {
            Line::Written { through } => Some(*through),
            _ => None,
        });
        self.through = written.fold(self.through, i64::max);
        Ok(())
    }

    /// The next owner knows what was written.
    fn take_over(&mut self) {
        if self.is_closed {
            return;
        }
        let through = self.through.saturating_sub(APART);
        for fate in self.fates.values_mut() {
            *fate = match *fate {
                Fate::Live { marked, seen } if marked > through => Fate::MayBeMissing { seen },
                Fate::Absent { since } if since > through => Fate::Unknown,
                fate => fate,
            };
        }
    }

    fn note(&mut self, entry: &Entry<'_>, vouches_since: i64) -> Result<()> {
        self.counts.calls += 1;
        let Some(answers) = entry.answers else {
            self.set_unknown(entry.keys());
            return Ok(());
        };
        if answers == "e" {
            // An error marks nothing.
            if entry.call == Call::Forget {
                self.fates.insert(entry.key, Fate::Unknown);
            }
            return Ok(());
        }
        ensure!(answers.len() as u64 == entry.keys().end - entry.key, "too few answers");
        for (key, answer) in entry.keys().zip(answers.chars()) {
            self.counts.keys += 1;
            let before = self.fates.get(&key).copied().unwrap_or(Fate::Absent { since: i64::MIN });
            self.compare(key, before, answer, vouches_since);
            let after = match (answer, before) {
                ('d', Fate::Live { marked, .. }) => Fate::Live { marked, seen: entry.ended },
                ('n' | 'd', _) => Fate::Live { marked: entry.ended, seen: entry.ended },
                _ => Fate::Absent { since: entry.ended },
            };
            self.fates.insert(key, after);
        }
        Ok(())
    }

    fn compare(&mut self, key: u64, before: Fate, answer: char, vouches_since: i64) {
        let is_live = matches!(answer, 'd' | 't');
        match before {
            Fate::Absent { .. } if is_live => {
                self.wrong.push(format!("key {key} is a false duplicate"));
            }
            Fate::Live { marked, .. } if !is_live => {
                let owner = self.owners;
                self.wrong.push(format!("key {key}, marked at {marked}, is lost to owner {owner}"));
            }
            Fate::MayBeMissing { seen } if !is_live => {
                self.counts.in_holes += 1;
                if seen >= vouches_since.saturating_add(APART) {
                    self.wrong.push(format!("key {key} is lost without a word"));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn opened(at: i64, vouches_since: i64) -> Line {
        Line::Opened { at: at * SECOND, vouches_since: vouches_since * SECOND }
    }

    fn observed(at: i64, key: u64, answers: &str) -> [Line; 2] {
        let (at, call) = (at * SECOND, Call::Observe(answers.len() as u64));
        [Line::Begun { at, call, key }, Line::Ended { at, answers: answers.to_owned() }]
    }

    fn written(through: i64) -> Line {
        Line::Written { through: through * SECOND }
    }

    fn wrong(terms: &[(Vec<Line>, Follows)]) -> Vec<String> {
        let mut judge = Judge::default();
        for (lines, follows) in terms {
            judge.judge(lines, *follows, None).unwrap();
        }
        judge.wrong
    }

    fn term(lines: &[&[Line]]) -> Vec<Line> {
        lines.concat()
    }

    #[test]
    fn what_was_written_is_not_lost_and_the_rest_only_in_a_hole() {
        use Follows::{Elsewhere, InItsDirectory};
        let first = || {
            let lines =
                [&[opened(1, 1)][..], &observed(2, 0, "nn"), &[written(3)], &observed(4, 2, "n")];
            (term(&lines), Elsewhere)
        };
        let next =
            |since, key, follows| (term(&[&[opened(9, since)], &observed(10, key, "n")]), follows);
        assert_eq!(wrong(&[first(), next(8, 3, Elsewhere)]), Vec::<String>::new());
        let lost = |key, marked| {
            vec![format!("key {key}, marked at {marked}000000000, is lost to owner 2")]
        };
        assert_eq!(wrong(&[first(), next(8, 0, Elsewhere)]), lost(0, 2));
        assert_eq!(wrong(&[first(), next(8, 2, Elsewhere)]), Vec::<String>::new());
        assert_eq!(wrong(&[first(), next(1, 2, Elsewhere)]), ["key 2 is lost without a word"]);
        assert_eq!(wrong(&[first(), next(8, 2, InItsDirectory)]), lost(2, 4));
        let duplicate = (term(&[&[opened(9, 8)], &observed(10, 7, "d")]), Elsewhere);
        assert_eq!(wrong(&[first(), duplicate]), ["key 7 is a false duplicate"]);
    }

    #[test]
    fn an_owner_that_was_followed_answers_nothing() {
        let lines = term(&[&[opened(1, 1)], &observed(2, 0, "n"), &observed(9, 1, "n")]);
        let mut judge = Judge::default();
        judge.judge(&lines, Follows::Elsewhere, Some((3 * SECOND, 5 * SECOND))).unwrap();
        assert_eq!(judge.wrong, ["two owners answer for key 1"]);
    }
}
