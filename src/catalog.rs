//! The window: which slices are live, which column of the filter each has, and its sealed parts.

use std::sync::Arc;

use crate::exact::run::Run;
use crate::exact::values::Values;
use crate::filter::Columns;
use crate::format::manifest::Era;

/// A snapshot that shards work with; replaced whole.
pub(crate) struct Catalog {
    pub(crate) version: u64,
    /// Number of the slice that is being written (in event time: the newest).
    pub(crate) current: u64,
    pub(crate) current_column: u32,
    /// Live slices, oldest first; the current one is the last.
    pub(crate) slices: Vec<Slice>,
    /// Columns of live slices.
    pub(crate) live_columns: u64,
    /// The first instant at which this snapshot is out of date.
    pub(crate) valid_until_ns: i64,
}

#[derive(Clone)]
pub(crate) struct Slice {
    pub(crate) sequence: u64,
    pub(crate) start_ns: i64,
    pub(crate) end_ns: i64,
    pub(crate) column: u32,
    pub(crate) runs: Vec<Arc<Run>>,
    /// What is kept with its marks, oldest first: a later file overrides those before.
    pub(crate) values: Vec<Arc<Values>>,
}

impl Slice {
    /// Adds those of the files that are its own.
    pub(crate) fn extend(&mut self, runs: &[Arc<Run>], values: &[Arc<Values>]) {
        let number = self.sequence;
        self.runs.extend(runs.iter().filter(|run| run.slice == number).cloned());
        self.values.extend(values.iter().filter(|values| values.slice == number).cloned());
    }
}

impl Catalog {
    /// Slices whose column is in `mask`, newest first.
    pub(crate) fn suspects(&self, mask: u64) -> impl Iterator<Item = &Slice> {
        self.slices.iter().rev().filter(move |slice| mask >> slice.column & 1 == 1)
    }

    pub(crate) fn slice(&self, sequence: u64) -> Option<&Slice> {
        self.slices.binary_search_by_key(&sequence, |s| s.sequence).ok().map(|at| &self.slices[at])
    }

    /// The live slice of an instant.
    pub(crate) fn slice_at(&self, time_ns: i64) -> Option<&Slice> {
        let after = self.slices.partition_point(|slice| slice.start_ns <= time_ns);
        self.slices[..after].last().filter(|slice| time_ns < slice.end_ns)
    }

    pub(crate) fn is_live(&self, sequence: u64) -> bool {
        self.slice(sequence).is_some()
    }
}

/// How time is cut into slices.
#[derive(Clone)]
pub(crate) struct Timeline {
    pub(crate) window_ns: i64,
    pub(crate) columns: Columns,
    /// Oldest first, never empty; the last one goes on.
    pub(crate) eras: Vec<Era>,
}

fn last_of(era: &Era, time_ns: i64) -> u64 {
    // `time_ns` is inside the era, so the difference is not negative.
    era.first + (time_ns - era.start_ns).max(0).unsigned_abs() / era.slice_ns.unsigned_abs()
}

fn bounds(era: &Era, sequence: u64) -> (i64, i64) {
    let offset = i64::try_from(sequence - era.first).unwrap_or(i64::MAX);
    let start = era.start_ns.saturating_add(offset.saturating_mul(era.slice_ns));
    (start, start.saturating_add(era.slice_ns).min(era.end_ns))
}

impl Timeline {
    fn newest(&self) -> &Era {
        self.eras.last().expect("a timeline has an era")
    }

    /// Number of the slice that holds `now_ns`, which is not before the newest era.
    pub(crate) fn sequence_at(&self, now_ns: i64) -> u64 {
        last_of(self.newest(), now_ns)
    }

    /// The live slices at `now_ns`, without their sealed parts.
    pub(crate) fn live(&self, now_ns: i64) -> Vec<Slice> {
        let mut slices = Vec::new();
        for (at, era) in self.eras.iter().enumerate().rev() {
            let is_newest = at + 1 == self.eras.len();
            if era.end_ns <= era.start_ns {
                continue;
            }
            let newest = last_of(era, if is_newest { now_ns } else { era.end_ns - 1 });
            for sequence in (era.first..=newest).rev() {
                let (start_ns, end_ns) = bounds(era, sequence);
                // "At least W": a key seen in the last instant of the slice lives until then.
                if end_ns.saturating_add(self.window_ns) <= now_ns {
                    slices.reverse();
                    return slices;
                }
                let column = self.column(sequence, end_ns, is_newest);
                let (runs, values) = (Vec::new(), Vec::new());
                slices.push(Slice { sequence, start_ns, end_ns, column, runs, values });
            }
        }
        slices.reverse();
        slices
    }

    /// The column of a slice: its own in the newest era; that of the first slice of the newest era
    /// that begins when it has expired, for slices of older geometries, so that no column is used
    /// again before all its slices have expired.
    fn column(&self, sequence: u64, end_ns: i64, is_newest: bool) -> u32 {
        if is_newest {
            return self.columns.of(sequence);
        }
        let newest = self.newest();
        let expires = end_ns.saturating_add(self.window_ns);
        let left = expires.saturating_sub(newest.start_ns).max(0).unsigned_abs();
        self.columns.of(newest.first + left.div_ceil(newest.slice_ns.unsigned_abs()))
    }

    /// The window at `now_ns`; `fill` gives a slice its sealed parts.
    pub(crate) fn catalog(&self, version: u64, now_ns: i64, fill: impl Fn(&mut Slice)) -> Catalog {
        let mut slices = self.live(now_ns);
        for slice in &mut slices {
            fill(slice);
        }
        let current = slices.last().expect("the current slice is live");
        let first_expiry = slices[0].end_ns.saturating_add(self.window_ns);
        Catalog {
            version,
            current: current.sequence,
            current_column: current.column,
            live_columns: slices.iter().fold(0, |mask, slice| mask | 1 << slice.column),
            valid_until_ns: current.end_ns.min(first_expiry),
            slices,
        }
    }

    /// Begins slices of another length, at `start_ns` or where the era before ends. The slice before
    /// may hold keys of `last_ns`, so it ends after that.
    pub(crate) fn begin_era(&mut self, last_ns: i64, start_ns: i64, slice_ns: i64) {
        let first = self.sequence_at(last_ns) + 1;
        let newest = self.eras.last_mut().expect("a timeline has an era");
        // In event time an era may begin in the future, and end before it began.
        newest.end_ns = last_ns.saturating_add(1).max(newest.start_ns);
        let start_ns = start_ns.max(newest.start_ns);
        self.eras.push(Era { first, start_ns, slice_ns, end_ns: i64::MAX });
    }

    /// The last instant of the slice that holds `now_ns`.
    pub(crate) fn end_of_slice(&self, now_ns: i64) -> i64 {
        bounds(self.newest(), self.sequence_at(now_ns)).1 - 1
    }

    /// Cuts off all slices that have expired at `now_ns`, so that a longer window cannot bring them
    /// back.
    pub(crate) fn cut_expired(&mut self, now_ns: i64) {
        let oldest = self.live(now_ns).into_iter().next();
        let Some(oldest) = oldest else { return };
        // By number, not by time: eras overlap in the instant in which one follows the other.
        let holder = self.eras.iter().rposition(|era| era.first <= oldest.sequence);
        self.eras.drain(..holder.unwrap_or(0));
        let era = &mut self.eras[0];
        if era.first < oldest.sequence {
            era.first = oldest.sequence;
            era.start_ns = oldest.start_ns;
        }
    }

    /// Drops eras of which no slice is live.
    pub(crate) fn forget_expired(&mut self, now_ns: i64) {
        let window = self.window_ns;
        let newest = self.eras.len() - 1;
        let mut at = 0;
        self.eras.retain(|era| {
            at += 1;
            at > newest || era.end_ns.saturating_add(window) > now_ns
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(slices: u32, window_ns: i64) -> Timeline {
        let slice_ns = window_ns / i64::from(slices);
        let eras = vec![Era { first: 100, start_ns: 0, slice_ns, end_ns: i64::MAX }];
        Timeline { window_ns, columns: Columns::for_slices(slices), eras }
    }

    #[test]
    fn a_slice_lives_until_its_last_instant_is_a_window_old() {
        let timeline = timeline(7, 70);
        let live = |now| timeline.live(now).iter().map(|s| s.sequence).collect::<Vec<_>>();
        assert_eq!(live(0), [100]);
        assert_eq!(live(79), (100..=107).collect::<Vec<_>>());
        assert_eq!(live(80), (101..=108).collect::<Vec<_>>());
        let catalog = timeline.catalog(1, 79, |_| {});
        assert_eq!(catalog.valid_until_ns, 80);
        assert_eq!(catalog.slice_at(9).unwrap().sequence, 100);
        assert_eq!(catalog.slice_at(10).unwrap().sequence, 101);
        assert!(catalog.slice_at(80).is_none());
    }

    /// A column may be used again only when all slices that had it have expired.
    #[test]
    fn columns_of_older_geometries_are_free_before_they_are_used_again() {
        for (slices, window) in [(1, 60), (3, 60), (7, 140), (2, 1_000), (20, 40)] {
            let mut timeline = timeline(7, 70);
            timeline.window_ns = window;
            timeline.columns = Columns::for_slices(slices);
            let slice_ns = (window / i64::from(slices)).max(1);
            timeline.begin_era(65, 65, slice_ns);
            let mut last_column = std::collections::HashMap::new();
            for now in 65..65 + 3 * window {
                let live = timeline.live(now);
                let current = live.last().unwrap();
                if current.start_ns == now && now > 65 {
                    for other in &live[..live.len() - 1] {
                        assert_ne!(other.column, current.column, "{slices} slices at {now}");
                    }
                }
                for slice in live {
                    let column = *last_column.entry(slice.sequence).or_insert(slice.column);
                    assert_eq!(column, slice.column, "a slice keeps its column");
                }
            }
        }
    }

    #[test]
    fn what_has_expired_stays_expired_under_a_longer_window() {
        let mut timeline = timeline(7, 70);
        timeline.begin_era(65, 65, 7);
        timeline.window_ns = 70;
        timeline.cut_expired(95);
        timeline.window_ns = 1_000;
        let live = timeline.live(95);
        assert_eq!((live[0].sequence, live[0].start_ns), (102, 20));
        assert_eq!(live.last().unwrap().sequence, 111);
    }

    /// Eras of an instant end when the next one has begun.
    #[test]
    fn what_has_expired_stays_expired_where_eras_overlap() {
        let mut timeline = timeline(1, 63);
        timeline.begin_era(0, 0, 63);
        timeline.begin_era(0, 0, 21);
        timeline.window_ns = 63;
        timeline.cut_expired(64);
        timeline.window_ns = 1_000;
        let live: Vec<_> = timeline.live(64).iter().map(|s| s.sequence).collect();
        assert_eq!(live, [102, 103, 104, 105]);
    }

    /// In event time an era begins where the slice before ends, which may be in the future.
    #[test]
    fn an_era_that_has_not_begun_gives_way_to_the_next() {
        let mut timeline = timeline(7, 70);
        let last_ns = timeline.end_of_slice(4);
        assert_eq!(last_ns, 9);
        timeline.begin_era(last_ns, last_ns + 1, 5);
        assert_eq!((timeline.sequence_at(4), timeline.end_of_slice(4)), (101, 14));
        timeline.begin_era(4, 5, 2);
        let live: Vec<_> =
            timeline.live(4).iter().map(|s| (s.sequence, s.start_ns, s.end_ns)).collect();
        assert_eq!(live, [(100, 0, 10), (102, 10, 12)]);
        assert!(timeline.eras.iter().all(|era| era.start_ns <= era.end_ns));
    }

    #[test]
    fn a_cut_slice_and_expired_eras_go_when_their_time_has_come() {
        let mut timeline = timeline(7, 70);
        timeline.begin_era(65, 65, 10);
        assert_eq!(timeline.sequence_at(65), 107);
        assert_eq!(timeline.live(65).iter().find(|s| s.sequence == 106).unwrap().end_ns, 66);
        timeline.forget_expired(135);
        assert_eq!(timeline.eras.len(), 2);
        timeline.forget_expired(136);
        assert_eq!(timeline.eras.len(), 1);
    }
}
