//! `OpenMetrics` 1.0. Samples have the names that they have in TorchServe's dialect, so that a series does not depend on
//! which of the two a client asks for.

use std::fmt::Write as _;

use prometheus::proto::{MetricFamily, MetricType};

use super::{Dialect, kind_name, number, push_escaped};

/// Units that are announced where a name ends with one.
const UNITS: [&str; 2] = ["seconds", "bytes"];

pub(in crate::metrics) const DIALECT: Dialect = Dialect {
    content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
    push_head,
    push_number: number::push_canonical,
    has_last_comma: false,
    end: "# EOF\n",
};

fn push_head(text: &mut String, family: &MetricFamily, all: &[MetricFamily]) {
    let (name, kind) = name_and_kind(family, all);
    let _ = writeln!(text, "# TYPE {name} {kind}");
    if let Some((_, unit)) = name
        .rsplit_once('_')
        .filter(|(_, unit)| UNITS.contains(unit))
    {
        let _ = writeln!(text, "# UNIT {name} {unit}");
    }
    let _ = write!(text, "# HELP {name} ");
    push_escaped(text, family.help(), true);
    text.push('\n');
}

/// A counter's family is called like its samples, but without `_total`. If that is not what they end with, or if there
/// is another family of that name, it is of unknown type: under another name it would be another series.
fn name_and_kind<'f>(family: &'f MetricFamily, all: &[MetricFamily]) -> (&'f str, &'static str) {
    let name = family.name();
    if family.get_field_type() != MetricType::COUNTER {
        return (name, kind_name(family));
    }
    let is_taken = |name: &str| all.binary_search_by(|other| other.name().cmp(name)).is_ok();
    match name.strip_suffix("_total") {
        Some(stem) if !stem.is_empty() && !is_taken(stem) => (stem, "counter"),
        _ => (name, "unknown"),
    }
}
