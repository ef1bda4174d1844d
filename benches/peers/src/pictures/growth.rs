//! Time, bytes, opening and writing over the number of live keys.

use std::path::Path;

use plotters::prelude::*;

use super::{Labels, Line, OURS, SECOND, TEXT, WARM, amount, chart, left, most, source, words};
use crate::args::Result;
use crate::results::Results;
use crate::tables::grown;

const WIDTH: i32 = 800;
const HEIGHT: i32 = 270;
const FOOT: i32 = 24;

pub(super) fn draw(parts: &[Results], path: &Path) -> Result<()> {
    let rows = grown(parts);
    let line = |column: &str, color: RGBColor| -> Line {
        // The axis is of decimal logarithms: a logarithmic one has too many labels.
        let point = |row: &crate::results::Row<'_>| {
            Some((row.number("live")?.log10(), row.number(column)?))
        };
        Line { points: rows.iter().filter_map(point).collect(), color, dots: true }
    };
    let size = (WIDTH as u32, (2 * HEIGHT + FOOT) as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    let (charts, foot) = root.split_vertically(2 * HEIGHT);
    let panels = [
        ("ns a key: in batches (green), one at a time (blue)", "batch_ns", Some("one_ns"), SECOND),
        (
            "bytes a live key: resident (green), disk (orange)",
            "resident_bytes",
            Some("disk_bytes"),
            WARM,
        ),
        (
            "ms to open: closed (green), killed (orange)",
            "open_clean_ms",
            Some("open_killed_ms"),
            WARM,
        ),
        ("bytes written over bytes of digests", "write_amplification", None, WARM),
    ];
    for (area, (title, first, second, color)) in charts.split_evenly((2, 2)).iter().zip(panels) {
        let mut lines = vec![line(first, OURS)];
        lines.extend(second.map(|column| line(column, color)));
        let end = |at: Option<&(f64, f64)>, or: f64| at.map_or(or, |point| point.0);
        let xs = end(lines[0].points.first(), 6.0) - 0.2..end(lines[0].points.last(), 9.0) + 0.2;
        let labels = Labels { title, x: "live keys", x_value: live, x_labels: 5, y_labels: 6 };
        let top = most(&lines).max(1.0) * 1.2;
        chart(area, &labels, xs, 0.0..top, &lines)?;
    }
    foot.draw(&Text::new(source(&parts[0]), (10, 10), left(words(12, TEXT))))?;
    Ok(root.present()?)
}

/// Whole powers of ten only.
fn live(logarithm: f64) -> String {
    match logarithm.fract().abs() < 0.01 {
        true => amount(10_f64.powf(logarithm.round())),
        false => String::new(),
    }
}
