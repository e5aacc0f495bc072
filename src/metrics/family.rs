//! A family and its series. Its lock is held to make a series and to copy the list of them, never to count.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, MetricFamily};

use super::MetricKind;
use super::cell::Cell;
use super::shards::Shards;

/// How many series of a family may outlive what they were made for; further ones go with it.
const KEPT_LIMIT: usize = 10_000;

/// What a family is.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// Name.
    pub(super) name: String,
    /// What the metric means, for people. Not empty.
    pub(super) help: String,
    /// Kind.
    pub(super) kind: MetricKind,
    /// Names of the labels, in the order they are written.
    pub(super) labels: Vec<String>,
    /// Upper bounds of a histogram's buckets.
    pub(super) bounds: Arc<[f64]>,
}

/// How long a series is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Until the server ends, as with TorchServe.
    Kept,
    /// As long as somebody holds the cell.
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

/// All series of one name. Cheap to clone.
#[derive(Clone)]
pub(super) struct Family(Arc<FamilyState>);

struct FamilyState {
    desc: Desc,
    kind: MetricKind,
    bounds: Arc<[f64]>,
    shards: Shards,
    series: Mutex<Series>,
}

#[derive(Default)]
struct Series {
    /// By their label values, one after the other: `("a", "11")` and `("a1", "1")` are different series.
    held: BTreeMap<Arc<[String]>, Held>,
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
    /// A family without series. Fails if a name is not one that Prometheus takes.
    pub(super) fn new(definition: Definition, shards: Shards) -> prometheus::Result<Self> {
        let Definition {
            name,
            help,
            kind,
            labels,
            bounds,
        } = definition;
        Ok(Self(Arc::new(FamilyState {
            desc: Desc::new(name, help, labels, HashMap::new())?,
            kind,
            bounds,
            shards,
            series: Mutex::default(),
        })))
    }

    pub(super) fn name(&self) -> &str {
        &self.0.desc.fq_name
    }

    /// The cell of the series with these label values, made if need be. There must be as many values as labels.
    pub(super) fn bind(&self, values: &[&str], hold: Hold) -> Arc<Cell> {
        let values: Arc<[String]> = values.iter().map(|&value| value.to_owned()).collect();
        let mut series = self.0.series.lock();
        if let Some(cell) = series.held.get(&values).and_then(Held::cell) {
            return cell;
        }
        series.sweep();
        let cell = Arc::new(Cell::new(self.0.kind, &self.0.bounds, self.0.shards));
        let entry = match hold {
            Hold::Kept if series.held.len() < KEPT_LIMIT => Held::Kept(Arc::clone(&cell)),
            Hold::Kept | Hold::WhileUsed => Held::WhileUsed(Arc::downgrade(&cell)),
        };
        series.held.insert(values, entry);
        cell
    }

    /// Name, help and kind, without samples.
    pub(super) fn head(&self) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.0.desc.fq_name.clone());
        family.set_help(self.0.desc.help.clone());
        family.set_field_type(self.0.kind.into());
        family
    }

    /// Every series at this moment.
    fn series(&self) -> Vec<(Arc<[String]>, Arc<Cell>)> {
        let series = self.0.series.lock();
        let alive = series
            .held
            .iter()
            .filter_map(|(values, held)| Some((Arc::clone(values), held.cell()?)));
        alive.collect()
    }

    fn labels(&self, values: &[String]) -> Vec<LabelPair> {
        let names = self.0.desc.variable_labels.iter();
        names.zip(values).map(label_pair).collect()
    }
}

impl Collector for Family {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.series().into_iter();
        let metrics = series.map(|(values, cell)| cell.metric(self.labels(&values)));
        let mut family = self.head();
        family.set_metric(metrics.collect());
        vec![family]
    }
}

fn label_pair((name, value): (&String, &String)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.clone());
    pair.set_value(value.clone());
    pair
}

#[cfg(test)]
mod tests {
    use prometheus::proto::Metric;

    use super::*;

    fn family(labels: &[&str]) -> Family {
        let definition = Definition {
            name: "f".to_owned(),
            help: "help".to_owned(),
            kind: MetricKind::Counter,
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            bounds: Arc::default(),
        };
        Family::new(definition, Shards::for_threads(2)).unwrap()
    }

    /// The label values of every series that is collected.
    fn shown(family: &Family) -> Vec<String> {
        let collected = family.collect();
        let metrics = collected[0].get_metric().iter();
        let values = |metric: &Metric| {
            metric
                .get_label()
                .iter()
                .map(LabelPair::value)
                .collect::<Vec<_>>()
                .join(",")
        };
        metrics.map(values).collect()
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
        assert_eq!(shown(&family), ["kept", "used"]);
        drop(two);
        assert_eq!(shown(&family), ["kept"]);
    }

    #[test]
    fn not_everything_is_kept_for_ever() {
        let family = family(&["a"]);
        for number in 0..=KEPT_LIMIT {
            family.bind(&[&number.to_string()], Hold::Kept);
        }
        assert_eq!(shown(&family).len(), KEPT_LIMIT);
    }
}
