//! Cores.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::args::Result;

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
