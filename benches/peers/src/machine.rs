//! Cores and clocks.

use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use rustix::time::{ClockId, clock_gettime};

use crate::args::Result;

/// What a timed part is measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timing {
    /// Time that passes.
    Wall,
    /// Time that this thread has a core: for machines that others use as well.
    Cpu,
}

/// A time that began.
pub(crate) enum Stopwatch {
    Wall(Instant),
    Cpu(Duration),
}

impl Timing {
    pub(crate) fn start(self) -> Stopwatch {
        match self {
            Timing::Wall => Stopwatch::Wall(Instant::now()),
            Timing::Cpu => Stopwatch::Cpu(thread_time()),
        }
    }
}

impl Stopwatch {
    pub(crate) fn elapsed(&self) -> Duration {
        match self {
            Stopwatch::Wall(start) => start.elapsed(),
            Stopwatch::Cpu(start) => thread_time().saturating_sub(*start),
        }
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Binds this thread, and every thread that it starts from now on, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// The cores this process may run on.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}
