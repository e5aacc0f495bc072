//! The metrics of tenants among those of the server.

use prometheus::proto::{LabelPair, MetricFamily};

use crate::model::TenantName;

/// The label that tells whose a sample is.
const LABEL: &str = "tenant";

/// `families`, which are sorted by name, with the samples in `more`, which are `tenant`'s. What a handler measures by a name that
/// has another type among `families` is left out: a name has one type in a scrape.
pub(super) fn with_those_of(
    mut families: Vec<MetricFamily>,
    tenant: &TenantName,
    more: Vec<MetricFamily>,
) -> Vec<MetricFamily> {
    let known = families.len();
    for mut family in more
        .into_iter()
        .filter(|family| !family.get_metric().is_empty())
    {
        for metric in family.mut_metric().iter_mut() {
            let mut labels = metric.take_label();
            for label in labels.iter_mut().filter(|label| label.name() == LABEL) {
                // As Prometheus calls one that a target has for itself.
                label.set_name(format!("exported_{LABEL}"));
            }
            labels.push(label(tenant));
            metric.set_label(labels);
        }
        let by_name = |other: &MetricFamily| other.name().cmp(family.name());
        match families[..known].binary_search_by(by_name) {
            Err(_) => families.push(family),
            Ok(place) if families[place].get_field_type() == family.get_field_type() => {
                families[place].mut_metric().extend(family.take_metric());
            }
            Ok(_) => {
                tracing::debug!(%tenant, "{} has another type elsewhere: it is left out", family.name());
            }
        }
    }
    families.sort_by(|one, other| one.name().cmp(other.name()));
    families
}

fn label(tenant: &TenantName) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(LABEL.to_owned());
    label.set_value(tenant.as_str().to_owned());
    label
}
