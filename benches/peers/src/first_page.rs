//! The few numbers of the README, from the same results as docs/performance.md.

use std::path::Path;

use crate::results::{Results, Row, gathered};

/// The table; `None` when nothing was measured.
pub(crate) fn table(from: &Path) -> Option<String> {
    let mut text =
        "| live keys | batches of 32 | one at a time |\n| --- | --- | --- |\n".to_owned();
    let (mut memory, mut disk) = (Vec::new(), Vec::new());
    for (size, called) in [("1M", "1 M"), ("10M", "10 M"), ("100M", "100 M")] {
        let parts = gathered(from, &format!("compare-{size}"));
        let find = |contestant: &str, mode: &str| {
            let mut rows = parts.iter().flat_map(Results::rows);
            rows.find(|row| row.cell("contestant") == contestant && row.cell("mode") == mode)
        };
        let cell = |mode: &str| -> Option<(String, Row<'_>)> {
            let ours = find("onceonly", mode)?;
            let theirs = find("hashbrown, 64 locks, 2 generations", mode)?;
            let (ns, ratio) = (ours.number("median_ns")?, theirs.number("times_onceonly")?);
            let ratio = if ratio < 1.0 { format!("{ratio:.2}") } else { format!("{ratio:.1}") };
            Some((format!("{ns:.0} ns, {ratio} times as fast"), ours))
        };
        let Some((batches, row)) = cell("batches of 32") else { continue };
        let Some((one, _)) = cell("one at a time") else { continue };
        text.push_str(&format!("| {called} | {batches} | {one} |\n"));
        memory.extend(row.number("told_memory_bytes"));
        disk.extend(row.number("disk_bytes"));
    }
    let range = |values: &[f64]| {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        format!("{least:.1} to {most:.1}")
    };
    if memory.is_empty() {
        return None;
    }
    let (memory, disk) = (range(&memory), range(&disk));
    text.push_str(&format!(
        "\nIt takes {memory} bytes of memory and {disk} bytes of disk a live key.\n"
    ));
    Some(text)
}
