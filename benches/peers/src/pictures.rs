//! The pictures of the docs, drawn from the files of results. Their background is that of the page,
//! and their colours have enough contrast to white and to black alike.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::args::{Result, shown};
use crate::report::say;
use crate::results::Results;

const TEXT: RGBColor = RGBColor(0x76, 0x7e, 0x88);
const OURS: RGBColor = RGBColor(0x1f, 0x9d, 0x4d);
const THEIRS: RGBColor = RGBColor(0x80, 0x8b, 0x98);
const SECOND: RGBColor = RGBColor(0x38, 0x82, 0xe0);
const WARM: RGBColor = RGBColor(0xd0, 0x7a, 0x2a);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws what there are results for.
pub(crate) fn draw(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let read = |name: &str| Results::read(&from.join(name));
    if let Ok(results) = read("compare-10M.csv").or_else(|_| read("compare-1M.csv")) {
        throughput(&results, &to.join("throughput.svg"))?;
    }
    if let Ok(results) = read("latency-over-time.csv") {
        latency(&results, &to.join("latency.svg"))?;
    }
    let grown: Vec<Results> =
        ["growth.csv", "growth-1B.csv"].iter().filter_map(|name| read(name).ok()).collect();
    if !grown.is_empty() {
        growth(&grown, &to.join("growth.svg"))?;
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

const BAR: i32 = 24;
const NAMES: i32 = 330;
const BARS: i32 = 360;
const TOP: i32 = 40;

/// A bar a peer, as long as the logarithm of its time.
fn throughput(results: &Results, path: &Path) -> Result<()> {
    let mut bars: Vec<(String, f64, bool)> = Vec::new();
    for row in &results.rows {
        let cell = |column| results.cell(row, column);
        if let Some(ns) = results.number(row, "median_ns")
            && cell("mode") != "one at a time"
        {
            let inexact = if cell("exact") == "no" { ", not exact" } else { "" };
            let batch = if cell("contestant").starts_with("Redis") { cell("mode") } else { "" };
            let name = format!("{} {batch}{inexact}", cell("contestant"));
            bars.push((name.replace(" ,", ","), ns, cell("contestant") == "onceonly"));
        }
    }
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    let live = results.rows.first().and_then(|row| results.number(row, "live")).unwrap_or(0.0);
    let height = TOP + BAR * bars.len() as i32 + 34;
    let root = SVGBackend::new(path, (800, height as u32)).into_drawing_area();
    let title = format!(
        "ns a key, {} live keys, in batches, 2 % duplicates; logarithmic, shorter is better",
        shown(live as u64)
    );
    root.draw(&Text::new(title, (10, 16), left(words(15, TEXT))))?;
    let least = bars.iter().map(|bar| bar.1).fold(f64::MAX, f64::min) / 2.0;
    let most = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    for (index, (name, ns, ours)) in bars.iter().enumerate() {
        let y = TOP + BAR * index as i32;
        let len = ((ns / least).ln() / (most / least).ln() * f64::from(BARS)) as i32;
        let color = if *ours { OURS } else { THEIRS };
        let text = if *ours { OURS } else { TEXT };
        let middle = y + BAR / 2 - 2;
        root.draw(&Text::new(name.trim().to_owned(), (NAMES - 8, middle), right(words(13, text))))?;
        let bar = [(NAMES, y + 2), (NAMES + len, y + BAR - 4)];
        root.draw(&Rectangle::new(bar, color.filled()))?;
        let value = if *ns < 1000.0 { format!("{ns:.0}") } else { format!("{:.1} µs", ns / 1e3) };
        root.draw(&Text::new(value, (NAMES + len + 6, middle), left(words(13, text))))?;
    }
    let from = format!("commit {}, {}", results.about("commit"), results.about("machine"));
    root.draw(&Text::new(from, (10, height - 14), left(words(12, TEXT))))?;
    Ok(root.present()?)
}

/// The longest latency of each tenth of a second beside the longest hiccup of the machine.
fn latency(results: &Results, path: &Path) -> Result<()> {
    let series = |column: &str| -> Vec<(f64, f64)> {
        let point = |row: &Vec<String>| {
            Some((results.number(row, "at_s")?, results.number(row, column)?.max(0.1)))
        };
        results.rows.iter().filter_map(point).collect()
    };
    let (late, hiccup) = (series("latency_us"), series("hiccup_us"));
    let most = late.iter().chain(&hiccup).map(|p| p.1).fold(10.0, f64::max) * 1.5;
    let end = late.last().map_or(1.0, |p| p.0).max(0.1);
    let root = SVGBackend::new(path, (800, 340)).into_drawing_area();
    let title = "longest latency of each tenth of a second, µs; grey: the machine's own hiccups";
    let lines = [(late, OURS), (hiccup, THEIRS)];
    chart(&root, title, "seconds", 0.0..end, (0.1..most).log_scale(), &lines)?;
    Ok(root.present()?)
}

fn chart<X, Y>(
    root: &Area<'_>,
    title: &str,
    x: &str,
    xs: X,
    ys: Y,
    lines: &[(Vec<(f64, f64)>, RGBColor)],
) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(root)
        .caption(title, words(15, TEXT))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(xs, ys)?;
    let faint = TEXT.mix(0.3);
    chart
        .configure_mesh()
        .axis_style(TEXT)
        .bold_line_style(faint)
        .light_line_style(TRANSPARENT)
        .label_style(words(13, TEXT))
        .x_desc(x)
        .x_labels(8)
        .x_label_formatter(&|value| match x {
            LIVE if value.fract().abs() > 0.01 => String::new(),
            LIVE => amount(10_f64.powf(value.round())),
            _ => amount(*value),
        })
        .y_label_formatter(&|value| amount(*value))
        .draw()?;
    for (points, color) in lines {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        if points.len() < 16 {
            let dot = |&at: &(f64, f64)| Circle::new(at, 4, color.filled());
            chart.draw_series(points.iter().map(dot))?;
        }
    }
    Ok(())
}

/// What the axis of [`growth`] says; its values are logarithms.
const LIVE: &str = "live keys";

fn amount(value: f64) -> String {
    match value {
        v if v >= 1000.0 => shown(v.round() as u64),
        v => format!("{}", (v * 100.0).round() / 100.0),
    }
}

/// Time per key and bytes per key over the number of live keys.
fn growth(parts: &[Results], path: &Path) -> Result<()> {
    let series = |column: &str| -> Vec<(f64, f64)> {
        let point = |results: &Results, row: &Vec<String>| {
            // The axis is of decimal logarithms: a logarithmic one has too many labels.
            Some((results.number(row, "live")?.log10(), results.number(row, column)?))
        };
        parts.iter().flat_map(|r| r.rows.iter().filter_map(move |row| point(r, row))).collect()
    };
    let root = SVGBackend::new(path, (800, 340)).into_drawing_area();
    let batch = series("batch_ns");
    let (first, last) = (batch.first().map_or(6.0, |p| p.0), batch.last().map_or(9.0, |p| p.0));
    let (left, right) = root.split_horizontally(400);
    let one = series("one_ns");
    let most = batch.iter().chain(&one).map(|p| p.1).fold(1.0, f64::max) * 1.2;
    let xs = || first - 0.2..last + 0.2;
    let title = "ns a key: in batches (green), one at a time (blue)";
    chart(&left, title, LIVE, xs(), 0.0..most, &[(batch, OURS), (one, SECOND)])?;
    let (memory, disk) = (series("resident_bytes"), series("disk_bytes"));
    let most = memory.iter().chain(&disk).map(|p| p.1).fold(1.0, f64::max) * 1.2;
    let title = "bytes a live key: resident (green), disk (orange)";
    chart(&right, title, LIVE, xs(), 0.0..most, &[(memory, OURS), (disk, WARM)])?;
    Ok(root.present()?)
}
