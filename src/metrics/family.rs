//! A family and its series. The lock is for making series and for taking their list, never for counting.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Kind;
use super::cell::{Cell, Shards};

/// Series that outlive what they were made for; one more goes with it.
const KEPT_LIMIT: usize = 10_000;

/// What a family is.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// Name.
    pub(super) name: String,
    /// One line of explanation.
    pub(super) help: String,
    /// Kind.
    pub(super) kind: Kind,
    /// Names of the labels, in the order they are written.
    pub(super) labels: Vec<String>,
    /// Upper bounds of a histogram's buckets.
    pub(super) bounds: Arc<[f64]>,
}

/// How long a series is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Until the server ends, as TorchServe does it.
    Kept,
    /// As long as somebody has the cell.
    WhileUsed,
}

enum Held {
    Kept(Arc<Cell>),
    WhileUsed(Weak<Cell>),
}

impl Held {
    fn cell(&self) -> Option<Arc<Cell>> {
        match self {
            Self::Kept(cell) => Some(Arc::clone(cell)),
            Self::WhileUsed(cell) => cell.upgrade(),
        }
    }
}

/// All series of one name.
pub(super) struct Family {
    definition: Definition,
    shards: Shards,
    series: Mutex<Series>,
}

#[derive(Default)]
struct Series {
    /// By their labels as they are written, which no two series share: quotes within values are escaped.
    held: BTreeMap<Arc<str>, Held>,
    /// How many there may be before those that nobody uses are looked for.
    sweep_at: usize,
}

impl Series {
    /// Forgets series that nobody uses, once there are twice as many as were left the last time.
    fn sweep(&mut self) {
        if self.held.len() >= self.sweep_at {
            self.held.retain(|_, held| held.cell().is_some());
            self.sweep_at = (2 * self.held.len()).max(16);
        }
    }
}

impl Family {
    /// No series yet.
    pub(super) fn new(definition: Definition, shards: Shards) -> Self {
        Self {
            definition,
            shards,
            series: Mutex::default(),
        }
    }

    /// What it is.
    pub(super) const fn definition(&self) -> &Definition {
        &self.definition
    }

    /// The cell of the series with these label values, made if need be. As many values as labels.
    pub(super) fn bind(&self, values: &[&str], hold: Hold) -> Arc<Cell> {
        let labels = written(&self.definition.labels, values);
        let mut series = self.series.lock();
        if let Some(cell) = series.held.get(labels.as_str()).and_then(Held::cell) {
            return cell;
        }
        series.sweep();
        let definition = &self.definition;
        let cell = Arc::new(Cell::new(definition.kind, &definition.bounds, self.shards));
        let entry = match hold {
            Hold::Kept if series.held.len() < KEPT_LIMIT => Held::Kept(Arc::clone(&cell)),
            Hold::Kept | Hold::WhileUsed => Held::WhileUsed(Arc::downgrade(&cell)),
        };
        series.held.insert(labels.into(), entry);
        cell
    }

    /// Every series at this moment, in the order of the labels.
    pub(super) fn series(&self) -> Vec<(Arc<str>, Arc<Cell>)> {
        let series = self.series.lock();
        let alive = series
            .held
            .iter()
            .filter_map(|(labels, held)| Some((Arc::clone(labels), held.cell()?)));
        alive.collect()
    }
}

/// `a="x",b="y",`, with a comma after the last as well.
fn written(names: &[String], values: &[&str]) -> String {
    let mut labels = String::new();
    for (name, value) in names.iter().zip(values) {
        let _ = write!(labels, "{name}=\"{}\",", Escaped(value));
    }
    labels
}

/// A label value as it is written.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => formatter.write_str("\\\\")?,
                '"' => formatter.write_str("\\\"")?,
                '\n' => formatter.write_str("\\n")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(labels: &[&str]) -> Family {
        let definition = Definition {
            name: "f".to_owned(),
            help: String::new(),
            kind: Kind::Counter,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            bounds: Arc::default(),
        };
        Family::new(definition, Shards::for_threads(2))
    }

    fn shown(family: &Family) -> Vec<String> {
        let series = family.series().into_iter();
        series.map(|(labels, _)| labels.to_string()).collect()
    }

    #[test]
    fn values_that_read_the_same_in_a_row_are_different_series() {
        let family = family(&["a", "b"]);
        let cells = [
            ["1", "11"],
            ["11", "1"],
            ["111", ""],
            ["", "111"],
            ["1\",b=\"1", "1"],
        ]
        .map(|values| family.bind(&values, Hold::WhileUsed));
        assert_eq!(shown(&family).len(), 5);
        assert!(Arc::ptr_eq(
            &cells[0],
            &family.bind(&["1", "11"], Hold::Kept)
        ));
    }

    #[test]
    fn series_go_with_their_last_user_unless_they_are_kept() {
        let family = family(&["a"]);
        family.bind(&["kept"], Hold::Kept).update(1.0);
        let [one, two] = [0; 2].map(|_| family.bind(&["used"], Hold::WhileUsed));
        drop(one);
        assert_eq!(shown(&family), ["a=\"kept\",", "a=\"used\","]);
        drop(two);
        assert_eq!(shown(&family), ["a=\"kept\","]);
    }

    #[test]
    fn not_everything_is_kept_for_ever() {
        let family = family(&["a"]);
        for number in 0..=KEPT_LIMIT {
            family.bind(&[&number.to_string()], Hold::Kept);
        }
        assert_eq!(shown(&family).len(), KEPT_LIMIT);
    }

    #[test]
    fn quotes_breaks_and_backslashes_stay_within_their_value() {
        let family = family(&["a"]);
        let _cell = family.bind(&["x\"} 1\n# \\ü\u{1F980}"], Hold::WhileUsed);
        assert_eq!(shown(&family), ["a=\"x\\\"} 1\\n# \\\\ü\u{1F980}\","]);
    }
}
