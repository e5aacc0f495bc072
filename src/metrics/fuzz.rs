//! What the fuzzer calls: metrics as lines of a log.

use std::sync::Arc;

use parking_lot::Mutex;

use super::line::{MetricLog, Template, parse};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("metric_line", metric_line)];

/// A line to read, or else a unit, a label's value and a request's id, apart by NUL, to be written.
fn metric_line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(parsed) = parse(&text) {
        assert!(parsed.value.is_finite() && !parsed.name.is_empty());
        assert!(!parsed.label_values.is_empty());
    }
    let mut pieces = text.split('\0');
    let mut piece = || pieces.next().unwrap_or("x");
    let (unit, value, request) = (piece(), piece(), piece());
    let line = written(unit, value, request);
    assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    assert_eq!(line.matches('|').count(), 2, "{line:?}");
    if !unit.contains([':', '#']) && !unit.is_empty() {
        let parsed = parse(&line).expect("what is written is read");
        assert_eq!(parsed.label_values.len(), 2, "{line:?}");
    }
}

/// A line of a metric with one label beside that of the host.
fn written(unit: &str, value: &str, request: &str) -> String {
    let written = Arc::new(Mutex::new(String::new()));
    let line = Arc::clone(&written);
    let log = MetricLog::new(move |text| line.lock().push_str(text));
    let labels = [("Label", value), ("Hostname", "vm")];
    Template::new("Name", unit, labels.into_iter(), log).write(3.5, request);
    written.lock().clone()
}
