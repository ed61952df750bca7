//! A report's plots, as SVG. Colours are those of the page's style sheet in light; it changes them in dark.

use std::ops::Range;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use serde_json::Value;

use super::compare::Other;
use super::tables::{bound, label, list, number, text_of};

/// Pixels, which the page scales to its width.
const SIZE: (u32, u32) = (760, 400);
const FONT: (&str, u32) = ("sans-serif", 13);
/// Lines of series, in turns: readable on white and on black.
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 98, 14),
    RGBColor(44, 140, 44),
    RGBColor(200, 60, 60),
    RGBColor(138, 100, 190),
    RGBColor(140, 86, 75),
    RGBColor(200, 100, 170),
    RGBColor(20, 150, 165),
];

/// A line of a plot.
struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    colour: RGBColor,
    /// Drawn without marks: a bound, or what is compared with.
    faint: bool,
}

/// A plot's words.
struct Words<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

/// T(rows) of each shape, beside the time that reading the weights takes.
pub fn passes(document: &Value, other: Option<&Other>) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<&str> = list(document, "passes").iter().map(|entry| text_of(entry, "shape")).collect();
    names.dedup();
    let mut unique: Vec<&str> = Vec::new();
    names.retain(|name| {
        !unique.contains(name) && {
            unique.push(name);
            true
        }
    });
    let plot = |name: &&str| {
        let mut series = Vec::new();
        let of_shape = |report: &Value| -> Vec<Value> {
            list(report, "passes").iter().filter(|entry| entry["shape"] == **name).cloned().collect()
        };
        let points = |entry: &Value| {
            list(entry, "times").iter().map(|time| (number(time, "rows"), number(time, "seconds") * 1e3)).collect()
        };
        for (index, entry) in of_shape(document).iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            series.push(Series { name: label(entry), points: points(entry), colour, faint: false });
            let least = bound(document, entry) * 1e3;
            let points = vec![(1.0, least), (32.0, least)];
            let name = format!("{}: weights read once", text_of(entry, "format"));
            series.push(Series { name, points, colour, faint: true });
        }
        if let Some(report) = other.and_then(Other::report) {
            for (index, entry) in of_shape(report).iter().enumerate() {
                let colour = COLOURS[(index + 4) % COLOURS.len()];
                let name = format!("the other: {}", label(entry));
                series.push(Series { name, points: points(entry), colour, faint: true });
            }
        }
        let title = format!("{name}: a pass by its rows");
        linear(&Words { title: &title, x: "rows", y: "ms" }, &series)
    };
    unique.iter().map(plot).collect()
}

/// Kernels between the bandwidth and the rate of multiplications.
pub fn roofline(document: &Value) -> anyhow::Result<String> {
    let [read, multiply] =
        ["read_bytes_per_second", "multiply_flops_per_second"].map(|rate| number(&document["rates"], rate));
    let mut series: Vec<Series> = Vec::new();
    for entry in list(document, "kernels") {
        for kernel in list(entry, "kernels") {
            let [bytes, flops, seconds] = ["bytes", "flops", "seconds"].map(|key| number(kernel, key));
            let point = (flops / bytes, flops / seconds / 1e9);
            if !(point.0 > 0.0 && point.1 > 0.0 && point.1.is_finite() && kernel["stored"] == true) {
                continue;
            }
            let name = format!("{}, {} {}", text_of(kernel, "kernel"), label(entry), entry["rows"]);
            match series.iter_mut().find(|known| known.name == name) {
                Some(known) => known.points.push(point),
                None => {
                    let colour = COLOURS[series.len() % COLOURS.len()];
                    series.push(Series { name, points: vec![point], colour, faint: false });
                }
            }
        }
    }
    let span = |values: Vec<f64>| -> Range<f64> {
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        least / 2.0..most * 2.0
    };
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let knee = multiply / read;
    let x = span(points().map(|point| point.0).chain([knee]).collect());
    let y = span(points().map(|point| point.1).chain([multiply / 1e9]).collect());
    let roof: Vec<(f64, f64)> = [x.start, knee, x.end].map(|at| (at, (at * read).min(multiply) / 1e9)).to_vec();
    let roof = Series { name: "measured roof".to_owned(), points: roof, colour: BLACK, faint: true };
    let words = Words { title: "Kernels below the roof", x: "operations a byte", y: "GFLOP/s" };
    drawn(&words, |root| {
        let chart = builder(root).build_cartesian_2d(x.log_scale(), y.log_scale());
        scatter(chart.map_err(fault)?, &words, &series, &roof)
    })
}

/// Tokens per second by K.
pub fn rounds(document: &Value, other: Option<&Other>) -> anyhow::Result<String> {
    let mut series = Vec::new();
    let most = list(document, "rounds").iter().map(|entry| number(entry, "drafts")).fold(1.0, f64::max);
    let mut add = |report: &Value, prefix: &str, faint: bool| {
        for (index, method) in ["ar", "vsd", "pard"].into_iter().enumerate() {
            let of_method = list(report, "rounds").iter().filter(|entry| entry["method"] == method);
            let point = |entry: &Value| (number(entry, "drafts"), number(entry, "tokens_per_second"));
            let mut points: Vec<(f64, f64)> = of_method.map(point).collect();
            points.sort_by(|one, two| one.0.total_cmp(&two.0));
            if let [(_, alone)] = points[..]
                && method == "ar"
            {
                points.push((most, alone));
            }
            if !points.is_empty() {
                series.push(Series { name: format!("{prefix}{method}"), points, colour: COLOURS[index], faint });
            }
        }
    };
    add(document, "", false);
    if let Some(report) = other.and_then(Other::report) {
        add(report, "the other: ", true);
    }
    linear(&Words { title: "Tokens per second", x: "K", y: "tokens/s" }, &series)
}

/// Acceptance by position.
pub fn acceptance(document: &Value) -> anyhow::Result<String> {
    let speculative = list(document, "rounds").iter().filter(|entry| !list(entry, "accepted_per_position").is_empty());
    let line = |(index, entry): (usize, &Value)| {
        let shares = list(entry, "accepted_per_position").iter().enumerate();
        Series {
            name: format!("{}, K = {}", text_of(entry, "method"), entry["drafts"]),
            points: shares.map(|(at, share)| (at as f64 + 1.0, share.as_f64().unwrap_or(0.0) * 100.0)).collect(),
            colour: COLOURS[index % COLOURS.len()],
            faint: false,
        }
    };
    let series: Vec<Series> = speculative.enumerate().map(line).collect();
    linear(&Words { title: "Proposals accepted", x: "position", y: "%" }, &series)
}

/// A row behind contexts.
pub fn contexts(document: &Value, other: Option<&Other>) -> anyhow::Result<String> {
    let mut series: Vec<Series> = Vec::new();
    let mut add = |report: &Value, prefix: &str, faint: bool| {
        for entry in list(report, "contexts") {
            let name = format!("{prefix}{}", label(entry));
            let point = (number(entry, "context") / 1024.0, 1.0 / number(entry, "seconds"));
            match series.iter_mut().find(|known| known.name == name) {
                Some(known) => known.points.push(point),
                None => {
                    let colour = COLOURS[series.len() % COLOURS.len()];
                    series.push(Series { name, points: vec![point], colour, faint });
                }
            }
        }
    };
    add(document, "", false);
    if let Some(report) = other.and_then(Other::report) {
        add(report, "the other: ", true);
    }
    linear(&Words { title: "Speed behind a context", x: "context, 1024 tokens", y: "tokens/s" }, &series)
}

fn linear(words: &Words, series: &[Series]) -> anyhow::Result<String> {
    let points = || series.iter().flat_map(|series| series.points.iter()).filter(|point| point.1.is_finite());
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    // Above the highest point there is room for the names.
    let top = points().map(|point| point.1).fold(0.0, f64::max).max(1e-9) * (1.06 + 0.06 * series.len() as f64);
    drawn(words, |root| {
        let chart = builder(root).build_cartesian_2d(0.0..right * 1.02, 0.0..top);
        lines(chart.map_err(fault)?, words, series)
    })
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

fn builder<'a, 'b>(root: &'a Root<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(root);
    builder.margin(8).x_label_area_size(38).y_label_area_size(62);
    builder
}

/// Draws into a text.
fn drawn(words: &Words, draw: impl FnOnce(&Root) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let root = root.titled(words.title, (FONT.0, 17)).map_err(fault)?;
        draw(&root)?;
        root.present().map_err(fault)?;
    }
    Ok(text)
}

fn mesh<X, Y>(chart: &mut Chart<X, Y>, words: &Words) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(words.x).y_desc(words.y).label_style(FONT).axis_desc_style(FONT);
    mesh.x_label_formatter(&short).y_label_formatter(&short);
    mesh.bold_line_style(RGBColor(208, 208, 208)).light_line_style(TRANSPARENT).axis_style(BLACK);
    mesh.draw().map_err(fault)
}

/// A number of few digits.
fn short(value: &f64) -> String {
    match value.abs() {
        size if size >= 10.0 || size.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn lines<'a, 'b: 'a, X, Y>(mut chart: Chart<'a, 'b, X, Y>, words: &Words, series: &[Series]) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    mesh(&mut chart, words)?;
    for Series { name, points, colour, faint } in series {
        let (colour, points) = (*colour, points.clone());
        let drawn = match faint {
            true => chart.draw_series(DashedLineSeries::new(points, 6, 4, colour.stroke_width(1))),
            false => {
                let marks = points.iter().map(|&point| Circle::new(point, 3, colour.filled()));
                chart.draw_series(marks).map_err(fault)?;
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))
            }
        };
        let width = if *faint { 1 } else { 3 };
        drawn
            .map_err(fault)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(width)));
    }
    legend(&mut chart)
}

fn scatter<'a, 'b: 'a, X, Y>(
    mut chart: Chart<'a, 'b, X, Y>,
    words: &Words,
    series: &[Series],
    roof: &Series,
) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    mesh(&mut chart, words)?;
    let line = LineSeries::new(roof.points.clone(), roof.colour.stroke_width(2));
    chart.draw_series(line).map_err(fault)?;
    for Series { name, points, colour, .. } in series {
        let colour = *colour;
        let marks = points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
        let drawn = chart.draw_series(marks).map_err(fault)?;
        drawn.label(name).legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    legend(&mut chart)
}

fn legend<'a, 'b: 'a, X, Y>(chart: &mut Chart<'a, 'b, X, Y>) -> anyhow::Result<()>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let mut labels = chart.configure_series_labels();
    labels.position(SeriesLabelPosition::UpperLeft).label_font((FONT.0, 11)).border_style(TRANSPARENT);
    labels.draw().map_err(fault)
}

fn fault(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a plot: {error}")
}
