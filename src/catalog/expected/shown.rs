//! Versions that are not in the catalog, as descriptions, the list and the index show them.

use std::collections::BTreeMap;

use crate::catalog::describe::Description;
use crate::catalog::index::Indexed;
use crate::catalog::{Catalog, Which};
use crate::model::ModelName;

impl Catalog {
    /// Descriptions of what is meant and not in the catalog: versions that are going to be opened or could not be. Where one
    /// is meant, this is it, whatever else is there.
    pub fn describe_expected(&self, name: &str, which: Which<'_>) -> Vec<Description> {
        if !self.shows(name) {
            return Vec::new();
        }
        let all = self.state.expected.all.load();
        let named = all.iter().filter(|expected| expected.is_named(name));
        let described = named.clone().map(|expected| expected.describe());
        match which {
            Which::All => described.collect(),
            Which::Default if self.state.expected.is_default_final(name) => Vec::new(),
            Which::Default => {
                let is_found = self.find(name, None).is_ok();
                let mut candidates = named.clone().filter(|one| one.may_be_default);
                let default = candidates.find(|one| one.is_pending() || !is_found);
                let shown = default.or_else(|| named.clone().next().filter(|_| !is_found));
                shown.into_iter().map(|one| one.describe()).collect()
            }
            Which::Version(version) if self.find(name, Some(version)).is_ok() => Vec::new(),
            Which::Version(version) => {
                let meant = named.filter(|expected| expected.may_be_version(Some(version)));
                meant.take(1).map(|one| one.describe()).collect()
            }
        }
    }

    /// Names and URLs of models that are going to be opened, as far as the names are known.
    pub(in crate::catalog) fn pending_models(&self) -> BTreeMap<ModelName, String> {
        let all = self.state.expected.all.load();
        let pending = all
            .iter()
            .rev()
            .filter(|expected| expected.is_pending() && expected.preview.is_name_known);
        pending
            .map(|expected| (expected.name().clone(), expected.shown_url().to_owned()))
            .collect()
    }

    /// What is expected, as the index shows it.
    pub(in crate::catalog) fn expected_index(&self) -> Vec<Indexed> {
        let all = self.state.expected.all.load();
        all.iter().map(|expected| expected.indexed()).collect()
    }
}
