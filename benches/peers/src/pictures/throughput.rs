//! A bar a peer, as long as the logarithm of its time.

use std::path::Path;

use plotters::prelude::*;

use super::{OURS, TEXT, THEIRS, left, right, source, words};
use crate::args::{Result, shown};
use crate::results::{Results, Row};

const BAR: i32 = 24;
const NAMES: i32 = 330;
const BARS: i32 = 360;
const TOP: i32 = 40;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Ours,
    Exact,
    NotExact,
    Floor,
}

struct Bar {
    name: String,
    ns: f64,
    kind: Kind,
}

pub(super) fn draw(parts: &[Results], path: &Path) -> Result<()> {
    let rows: Vec<Row<'_>> = parts.iter().flat_map(Results::rows).collect();
    let mut bars: Vec<Bar> = Vec::new();
    for bar in rows.iter().filter_map(bar) {
        // What runs in every part is drawn as it was in the first.
        if !bars.iter().any(|other| other.name == bar.name) {
            bars.push(bar);
        }
    }
    bars.sort_by(|a, b| a.ns.total_cmp(&b.ns));
    let live = rows.first().and_then(|row| row.number("live")).unwrap_or(0.0);
    let height = TOP + BAR * bars.len() as i32 + 34;
    let root = SVGBackend::new(path, (800, height as u32)).into_drawing_area();
    let title = format!(
        "ns a key, {} live keys, in batches, 2 % duplicates; logarithmic, shorter is better",
        shown(live as u64)
    );
    root.draw(&Text::new(title, (10, 16), left(words(15, TEXT))))?;
    let least = bars.iter().map(|bar| bar.ns).fold(f64::MAX, f64::min) / 2.0;
    let most = bars.iter().map(|bar| bar.ns).fold(0.0, f64::max);
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + BAR * index as i32;
        let len = ((bar.ns / least).ln() / (most / least).ln() * f64::from(BARS)) as i32;
        let text = if bar.kind == Kind::Ours { OURS } else { TEXT };
        let style = match bar.kind {
            Kind::Ours => OURS.filled(),
            Kind::Exact => THEIRS.filled(),
            Kind::NotExact => THEIRS.mix(0.45).filled(),
            Kind::Floor => THEIRS.stroke_width(1),
        };
        let middle = y + BAR / 2 - 2;
        root.draw(&Text::new(bar.name.clone(), (NAMES - 8, middle), right(words(13, text))))?;
        root.draw(&Rectangle::new([(NAMES, y + 2), (NAMES + len, y + BAR - 4)], style))?;
        root.draw(&Text::new(time(bar.ns), (NAMES + len + 6, middle), left(words(13, text))))?;
    }
    root.draw(&Text::new(source(&parts[0]), (10, height - 14), left(words(12, TEXT))))?;
    Ok(root.present()?)
}

fn bar(row: &Row<'_>) -> Option<Bar> {
    let ns = row.number("median_ns")?;
    if row.cell("mode") == "one at a time" {
        return None;
    }
    let mut name = row.cell("contestant").to_owned();
    if name.starts_with("Redis") {
        name = format!("{name}, {}", row.cell("mode"));
    }
    let kind = match row.cell("exact") {
        _ if name == "onceonly" => Kind::Ours,
        "no" => Kind::NotExact,
        "-" => Kind::Floor,
        _ => Kind::Exact,
    };
    if kind == Kind::NotExact {
        name.push_str(", not exact");
    }
    Some(Bar { name, ns, kind })
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1000.0 => format!("{ns:.0}"),
        ns if ns < 10_000.0 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.0} µs", ns / 1e3),
    }
}
