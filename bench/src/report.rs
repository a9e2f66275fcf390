//! The result of a benchmark.

use std::collections::BTreeMap;

use serde::Serialize;

/// A benchmark's result: a text for people, and the line of JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The benchmark's name.
    pub(crate) name: &'static str,
    /// The measured figures by name; the names carry the units.
    pub(crate) figures: BTreeMap<String, f64>,
    /// The ratios of our figures to others'.
    pub(crate) ratios: BTreeMap<String, f64>,
    /// The lines of the table.
    #[serde(skip)]
    pub(crate) text: String,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, figures: BTreeMap::new(), ratios: BTreeMap::new(), text: String::new() }
    }

    /// Adds a figure, rounded to three decimals.
    pub(crate) fn figure(&mut self, key: impl Into<String>, value: f64) {
        self.figures.insert(key.into(), rounded(value));
    }

    /// Adds the ratio of `ours` to `theirs`.
    pub(crate) fn ratio(&mut self, key: &str, ours: f64, theirs: f64) -> f64 {
        let ratio = rounded(ours / theirs);
        self.ratios.insert(key.to_owned(), ratio);
        ratio
    }

    /// Adds a line for people.
    pub(crate) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_json_has_the_name_the_figures_and_ours_over_theirs() {
        let mut report = Report::new("cni");
        report.figure("add_p50_ms", 2.0004);
        report.ratio("add_p50_vs_ptp", 2.0, 8.0);
        report.line("for people");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(json, r#"{"name":"cni","figures":{"add_p50_ms":2.0},"ratios":{"add_p50_vs_ptp":0.25}}"#);
    }
}
