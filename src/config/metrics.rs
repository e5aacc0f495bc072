//! `metrics.yaml`, the file that `metrics_config` names: which of TorchServe's metrics there are, with their kinds,
//! units and dimensions.
//!
//! It is read within the limits of every YAML document here; every problem is reported at once, with its line. What
//! becomes of a listing is the business of `metrics`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::model::Fields;
use super::yaml::{self, Node, Value};
use super::{Problem, Problems};
use crate::metrics::{ListedMetric, Listing, MetricKind};

/// Metrics that a file may list.
const MOST_METRICS: usize = 2000;
/// Dimensions of one metric.
const MOST_DIMENSIONS: usize = 16;
/// Bytes of a name.
const LONGEST_NAME: usize = 256;
/// What TorchServe's workers append to the dimensions of every metric of a model.
const HOSTNAME: &str = "Hostname";

/// Reads the file at `path`.
pub fn load(path: &Path) -> Result<Listing, Problems> {
    let origin = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => parse(&origin, &bytes),
        Err(error) => Err(Problem::plain(origin, "", format!("cannot be read: {error}")).into()),
    }
}

/// Reads a document; `origin` is what problems call it.
pub fn parse(origin: &str, bytes: &[u8]) -> Result<Listing, Problems> {
    let document = yaml::parse(origin, bytes)?;
    let mut fields = Fields::new(origin);
    let mut listing = Listing::NONE;
    for (key, node) in fields.map("the document", &document) {
        match key.as_str() {
            // A place for anchors.
            "dimensions" => {}
            "ts_metrics" => listing.ts = section(&mut fields, key, node),
            "model_metrics" => listing.model = model_section(&mut fields, key, node),
            _ => fields.unknown(
                key,
                node,
                key,
                ["dimensions", "ts_metrics", "model_metrics"],
            ),
        }
    }
    check_across(&mut fields, &listing, &document);
    Problems::or(fields.finish().0, listing)
}

/// One metric is the server's or a model's.
fn check_across(fields: &mut Fields, listing: &Listing, document: &Node) {
    let names: HashSet<_> = listing.ts.iter().map(|listed| &listed.name).collect();
    for listed in &listing.model {
        if names.contains(&listed.name) {
            let rule = format!(
                "lists {} under ts_metrics and under model_metrics",
                listed.name
            );
            fields.key_problem("", document, rule);
        }
    }
    let count = listing.ts.len() + listing.model.len();
    if count > MOST_METRICS {
        let rule = format!("may list {MOST_METRICS} metrics, and lists {count}");
        fields.key_problem("", document, rule);
    }
}

/// The metrics of one section; of two with one name the last holds.
fn section(fields: &mut Fields, section: &str, node: &Node) -> Vec<ListedMetric> {
    let mut listed: Vec<ListedMetric> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (key, node) in fields.map(section, node) {
        let path = format!("{section}.{key}");
        let Some(kind) = kind(key) else {
            fields.unknown(&path, node, key, ["counter", "gauge", "histogram"]);
            continue;
        };
        for item in fields.list(&path, node) {
            let Some(metric) = metric(fields, &path, kind, item) else {
                continue;
            };
            if let Some(place) = places.get(&metric.name) {
                listed[*place] = metric;
            } else {
                places.insert(metric.name.clone(), listed.len());
                listed.push(metric);
            }
        }
    }
    listed
}

fn model_section(fields: &mut Fields, name: &str, node: &Node) -> Vec<ListedMetric> {
    let mut listed = section(fields, name, node);
    for metric in &mut listed {
        metric.labels.retain(|label| label != HOSTNAME);
        metric.labels.push(HOSTNAME.to_owned());
    }
    listed
}

fn kind(key: &str) -> Option<MetricKind> {
    match key {
        "counter" => Some(MetricKind::Counter),
        "gauge" => Some(MetricKind::Gauge),
        "histogram" => Some(MetricKind::Histogram),
        _ => None,
    }
}

fn metric(fields: &mut Fields, path: &str, kind: MetricKind, item: &Node) -> Option<ListedMetric> {
    let (mut name, mut unit, mut labels) = (None, None, Vec::new());
    for (key, node) in fields.map(path, item) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "name" => name = fields.text(&path, node),
            "unit" => unit = fields.text(&path, node),
            "dimensions" => labels = dimensions(fields, &path, node),
            _ => fields.unknown(&path, item, key, ["name", "unit", "dimensions"]),
        }
    }
    if name.is_none() {
        fields.key_problem(path, item, "Metric name cannot be empty.");
    }
    if unit.is_none() {
        fields.key_problem(path, item, "Metric unit cannot be empty.");
    }
    let listed = ListedMetric {
        name: name?,
        kind,
        unit: unit?,
        labels,
    };
    check(fields, path, item, &listed).then_some(listed)
}

fn dimensions(fields: &mut Fields, path: &str, node: &Node) -> Vec<String> {
    let items = fields.list(path, node);
    items
        .iter()
        .filter_map(|item| fields.text(path, item))
        .collect()
}

/// Whether scrapes can show a metric that is listed so.
fn check(fields: &mut Fields, path: &str, item: &Node, listed: &ListedMetric) -> bool {
    let rule = if !is_name(&listed.name, b"_:") || listed.name.starts_with("lantern_") {
        Some("has a name that is not [a-zA-Z_:][a-zA-Z0-9_:]*, or that begins with lantern_")
    } else if listed.unit.len() > LONGEST_NAME || listed.unit.chars().any(char::is_control) {
        Some("has a unit that is no short text")
    } else if !are_labels(&listed.labels) {
        Some(
            "has dimensions that are not at most 16 different names [a-zA-Z_][a-zA-Z0-9_]*, or one that Prometheus \
              has for itself",
        )
    } else {
        None
    };
    if let Some(rule) = rule {
        let named = Node {
            line: item.line,
            value: Value::Text(listed.name.clone()),
        };
        fields.problem(path, &named, rule);
    }
    rule.is_none()
}

fn are_labels(labels: &[String]) -> bool {
    let distinct: HashSet<_> = labels.iter().collect();
    let is_legal =
        |label: &String| is_name(label, b"_") && !label.starts_with("__") && label != "le";
    labels.len() <= MOST_DIMENSIONS && distinct.len() == labels.len() && labels.iter().all(is_legal)
}

fn is_name(name: &str, marks: &[u8]) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    let starts_with_digit = name.starts_with(|first: char| first.is_ascii_digit());
    let is_short = (1..=LONGEST_NAME).contains(&name.len());
    is_short && !starts_with_digit && name.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(text: &str) -> Listing {
        parse("metrics.yaml", text.as_bytes()).unwrap()
    }

    fn refused(text: &str) -> String {
        parse("metrics.yaml", text.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn torchserves_own_file_is_the_default() {
        let text = include_str!("../../docs/metrics.yaml");
        assert_eq!(listing(text), Listing::default());
    }

    #[test]
    fn kinds_units_and_dimensions_are_the_files() {
        let listing = listing(
            "dimensions:\n  - &level \"Level\"\n\
             ts_metrics:\n  histogram:\n    - name: QueueTime\n      unit: Milliseconds\n      dimensions: [*level, Where]\n\
             model_metrics:\n  counter:\n    - {name: InferenceRequestCount, unit: count, dimensions: []}\n",
        );
        insta::assert_debug_snapshot!(listing);
    }

    #[test]
    fn the_last_of_two_with_one_name_holds() {
        let listing = listing(
            "ts_metrics:\n  counter:\n    - {name: a, unit: u}\n  gauge:\n    - {name: a, unit: v}\n    - {name: b, unit: w}\n",
        );
        let kinds: Vec<_> = listing
            .ts
            .iter()
            .map(|one| (one.name.as_str(), one.kind))
            .collect();
        assert_eq!(kinds, [("a", MetricKind::Gauge), ("b", MetricKind::Gauge)]);
    }

    #[test]
    fn an_empty_file_lists_nothing() {
        for text in [
            "",
            "ts_metrics:\n",
            "ts_metrics:\n  counter:\nmodel_metrics: {}\n",
        ] {
            assert_eq!(listing(text), Listing::NONE);
        }
    }

    #[test]
    fn every_problem_is_reported_with_its_line() {
        let text = "ts_metrics:
  counter:
    - unit: Count
    - name: a
    - {name: \"a b\", unit: u}
    - {name: lantern_x, unit: u}
    - {name: ok, unit: u, dimensions: [a, a]}
    - {name: le, unit: u, dimensions: [le]}
    - {name: ok, unit: u, dimension: [a]}
    - {name: 7, unit: u}
  summary: []
model_metric: {}
";
        insta::assert_snapshot!(refused(text));
    }

    #[test]
    fn a_metric_is_of_the_server_or_of_models() {
        let text = "ts_metrics: {gauge: [{name: a, unit: u}]}\nmodel_metrics: {gauge: [{name: a, unit: u}]}\n";
        assert!(refused(text).contains("lists a under ts_metrics and under model_metrics"));
    }

    #[test]
    fn hostile_files_are_refused() {
        let many: Vec<_> = (0..3000)
            .map(|n| format!("    - {{name: m{n}, unit: u}}\n"))
            .collect();
        let many = many.concat();
        for text in [
            "- a\n".to_owned(),
            "ts_metrics: 7\n".to_owned(),
            "ts_metrics: {counter: {a: b}}\n".to_owned(),
            "ts_metrics: !!java.lang.Runtime {}\n".to_owned(),
            format!("ts_metrics:\n  counter:\n{many}"),
            format!(
                "ts_metrics: {{counter: [{{name: {}, unit: u}}]}}\n",
                "a".repeat(300)
            ),
            "ts_metrics: {counter: [{name: a, unit: \"x\\ny\"}]}\n".to_owned(),
        ] {
            refused(&text);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_a_problem() {
        let error = load(Path::new("/nowhere/metrics.yaml"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/nowhere/metrics.yaml: cannot be read"),
            "{error}"
        );
    }
}
