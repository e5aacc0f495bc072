//! TorchServe's dialect of Prometheus's text format 0.0.4: a comma after every label, the last included, and numbers as
//! Java prints them, counts too. Families without samples are announced.

use std::fmt::Write as _;

use prometheus::proto::MetricFamily;

use super::{Dialect, kind_name, number, push_escaped};

pub(in crate::metrics) const DIALECT: Dialect = Dialect {
    content_type: "text/plain; version=0.0.4; charset=utf-8",
    push_head,
    push_number: number::push_java,
    has_last_comma: true,
    end: "",
};

fn push_head(text: &mut String, family: &MetricFamily, _all: &[MetricFamily]) {
    let name = family.name();
    let _ = write!(text, "# HELP {name} ");
    push_escaped(text, family.help(), false);
    let _ = writeln!(text, "\n# TYPE {name} {}", kind_name(family));
}
