//! The pictures of the docs, drawn from the files of results. Their background is that of the page,
//! and their colours have enough contrast to white and to black alike.

mod growth;
mod latency;
mod throughput;

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::args::{Result, shown};
use crate::report::say;
use crate::results::{Results, gathered};

const TEXT: RGBColor = RGBColor(0x76, 0x7e, 0x88);
const OURS: RGBColor = RGBColor(0x1f, 0x9d, 0x4d);
const THEIRS: RGBColor = RGBColor(0x80, 0x8b, 0x98);
const SECOND: RGBColor = RGBColor(0x38, 0x82, 0xe0);
const WARM: RGBColor = RGBColor(0xd0, 0x7a, 0x2a);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws what there are results for.
pub(crate) fn draw(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let largest = ["compare-10M", "compare-1M"].map(|name| gathered(from, name));
    if let Some(parts) = largest.iter().find(|parts| !parts.is_empty()) {
        throughput::draw(parts, &to.join("throughput.svg"))?;
    }
    if let Ok(results) = Results::read(&from.join("timeline.csv")) {
        latency::draw(&results, &to.join("latency.svg"))?;
    }
    let grown = gathered(from, "growth");
    if !grown.is_empty() {
        growth::draw(&grown, &to.join("growth.svg"))?;
    }
    say(format_args!("pictures in {}", to.display()))
}

fn words(size: i32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

fn right(style: TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Right, VPos::Center))
}

fn left(style: TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Left, VPos::Center))
}

/// The line below a picture.
fn source(results: &Results) -> String {
    format!("at \"{}\", {}", results.about("commit"), results.about("machine"))
}

struct Line {
    points: Vec<(f64, f64)>,
    color: RGBColor,
    /// A dot where something was measured: for a few points.
    dots: bool,
}

/// What stands beside a chart's lines.
struct Labels<'a> {
    title: &'a str,
    x: &'a str,
    /// How a value on the x axis is written.
    x_value: fn(f64) -> String,
    x_labels: usize,
    y_labels: usize,
}

fn chart<X, Y>(area: &Area<'_>, labels: &Labels<'_>, xs: X, ys: Y, lines: &[Line]) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .caption(labels.title, words(15, TEXT))
        .margin(10)
        .margin_right(20)
        .x_label_area_size(if labels.x.is_empty() { 20 } else { 36 })
        .y_label_area_size(56)
        .build_cartesian_2d(xs, ys)?;
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(TEXT)
        .bold_line_style(TEXT.mix(0.3))
        .light_line_style(TRANSPARENT)
        .label_style(words(13, TEXT))
        .x_labels(labels.x_labels)
        .y_labels(labels.y_labels);
    if !labels.x.is_empty() {
        mesh.x_desc(labels.x);
    }
    mesh.x_label_formatter(&|value| (labels.x_value)(*value))
        .y_label_formatter(&|value| amount(*value))
        .draw()?;
    for line in lines {
        // Without a value there is a gap.
        for points in line.points.split(|point| point.1.is_nan()) {
            let series = LineSeries::new(points.iter().copied(), line.color.stroke_width(2));
            chart.draw_series(series)?;
        }
        if line.dots {
            let dot = |&at: &(f64, f64)| Circle::new(at, 4, line.color.filled());
            chart.draw_series(line.points.iter().map(dot))?;
        }
    }
    Ok(())
}

fn amount(value: f64) -> String {
    match value {
        v if v >= 1000.0 => shown(v.round() as u64),
        v => format!("{}", (v * 100.0).round() / 100.0),
    }
}

/// The greatest value of the lines.
fn most<'a>(lines: impl IntoIterator<Item = &'a Line>) -> f64 {
    let values = lines.into_iter().flat_map(|line| &line.points).map(|point| point.1);
    values.fold(0.0, f64::max)
}
