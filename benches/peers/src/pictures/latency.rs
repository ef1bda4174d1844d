//! The longest latency of each tenth of a second beside the longest hiccup of the machine; below, the
//! sealed files, and when slices began.

use std::path::Path;

use plotters::prelude::*;

use super::{Labels, Line, OURS, TEXT, THEIRS, WARM, amount, chart, left, most, source, words};
use crate::args::Result;
use crate::results::Results;

const UPPER: i32 = 300;
const LOWER: i32 = 170;
const FOOT: i32 = 24;

pub(super) fn draw(results: &Results, path: &Path) -> Result<()> {
    let rows = results.rows();
    let series = |column: &str| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| Some((row.number("at_s")?, row.number(column)?))).collect()
    };
    // Where nothing was metered there is nothing to draw.
    let metered = |(at, us): (f64, f64)| (at, if us > 0.0 { us } else { f64::NAN });
    let line = |points, color| Line { points, color, dots: false };
    let hiccups = series("hiccup_us").into_iter().map(metered).collect();
    let lines = [line(hiccups, THEIRS), line(series("latency_us"), OURS)];
    let end = lines[1].points.last().map_or(1.0, |point| point.0).max(0.1);
    let size = (800, (UPPER + LOWER + FOOT) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    let (upper, rest) = root.split_vertically(UPPER);
    let (lower, foot) = rest.split_vertically(LOWER);
    let labels = Labels {
        title: "longest latency of each tenth of a second, µs (grey: the machine's own hiccups)",
        x: "",
        x_value: amount,
        x_labels: 8,
        y_labels: 6,
    };
    let top = most(&lines).max(10.0) * 1.5;
    chart(&upper, &labels, 0.0..end, (1.0..top).log_scale(), &lines)?;
    let mut below = vec![line(steps(&series("sealed_files")), WARM)];
    let top = most(&below).max(1.0) * 1.15;
    for (at, _) in series("slices_begun").into_iter().filter(|point| point.1 > 0.0) {
        below.push(line(vec![(at, 0.0), (at, top)], TEXT));
    }
    let labels = Labels {
        title: "sealed files (up: sealed, down: merged or expired); upright: a slice begins",
        x: "seconds",
        x_value: amount,
        x_labels: 8,
        y_labels: 4,
    };
    chart(&lower, &labels, 0.0..end, 0.0..top, &below)?;
    foot.draw(&Text::new(source(results), (10, 10), left(words(12, TEXT))))?;
    Ok(root.present()?)
}

/// A number of things stays as it is until it changes.
fn steps(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut steps: Vec<(f64, f64)> = Vec::new();
    for &(at, value) in points {
        if let Some(&(_, before)) = steps.last() {
            steps.push((at, before));
        }
        steps.push((at, value));
    }
    steps
}
