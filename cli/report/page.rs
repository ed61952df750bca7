//! The page: a plot of everything, each with its table beneath. It needs no other file and no network.

use serde_json::Value;

use super::compare::Other;
use super::plots;
use super::tables::{self, Table, list, number, text_of};

const STYLE: &str = include_str!("page.css");

/// The page of `document`, beside `other` if there is one.
pub fn page(document: &Value, other: Option<&Other>) -> anyhow::Result<String> {
    let has = |key: &str| !list(document, key).is_empty();
    let has_rates = !document["rates"].is_null();
    let mut body = heading(document);
    if has("passes") {
        body += &section("passes", &plots::passes(document, other)?, &tables::passes(document));
    }
    if has("kernels") {
        let plot = if has_rates { vec![plots::roofline(document)?] } else { Vec::new() };
        body += &section("kernels", &plot, &tables::kernels(document));
    }
    if has("rounds") {
        body += &section("rounds", &[plots::rounds(document, other)?], &tables::rounds(document));
        let table = tables::acceptance(document);
        if table.rows.len() > 1 {
            body += &section("acceptance", &[plots::acceptance(document)?], &table);
        }
    }
    if has("contexts") {
        body += &section("contexts", &[plots::contexts(document, other)?], &tables::contexts(document));
    }
    for (name, table) in [
        ("prompts", tables::prompts(document)),
        ("training", tables::training(document)),
        ("skipped", tables::skipped(document)),
    ] {
        if table.rows.len() > 1 {
            body += &section(name, &[], &table);
        }
    }
    if let Some(other) = other {
        body += &section("compared", &[], &tables::compared(document, other));
    }
    let title = escaped(text_of(document, "device"));
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>pard report: {title}</title>\n<style>\n{STYLE}</style>\n{body}</html>\n"
    ))
}

fn heading(document: &Value) -> String {
    let rates = &document["rates"];
    let mut text = format!("<h1>{}</h1>\n", escaped(text_of(document, "device")));
    text += &format!(
        "<p>pard {}, {}, {:.0} s{}. Plans: {}.</p>\n",
        escaped(text_of(document, "engine")),
        escaped(text_of(document, "begun")),
        number(document, "seconds"),
        if document["complete"] == true { "" } else { ", broken off" },
        escaped(&list(document, "plans").iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")),
    );
    if !rates.is_null() {
        text += &format!(
            "<p>Measured: {:.1} GB/s read, {:.0} GFLOP/s multiplied in f32.</p>\n",
            number(rates, "read_bytes_per_second") / 1e9,
            number(rates, "multiply_flops_per_second") / 1e9
        );
    }
    for check in list(document, "checks") {
        let faults: Vec<&str> = list(check, "faults").iter().filter_map(Value::as_str).collect();
        let verdict = if faults.is_empty() { "all right".to_owned() } else { faults.join("; ") };
        let products = text_of(check, "products");
        text += &format!("<p>Self-check, {}: {}.</p>\n", escaped(products), escaped(&verdict));
    }
    text
}

fn section(name: &str, plots: &[String], table: &Table) -> String {
    let row = |(index, row): (usize, &Vec<String>)| {
        let tag = if index == 0 { "th" } else { "td" };
        let cells: Vec<String> = row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let rows: String = table.rows.iter().enumerate().map(row).collect();
    format!(
        "<section id=\"{name}\">\n<h2>{}</h2>\n{}<div class=\"table\"><table>\n{rows}</table></div>\n</section>\n",
        escaped(&table.title),
        plots.concat()
    )
}

/// `text` as HTML shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
