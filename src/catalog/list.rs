//! The list of models, in pages.

use std::collections::BTreeMap;

use super::Catalog;
use crate::model::ModelName;

/// One model in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedModel {
    /// Name.
    pub name: String,
    /// URL of its default version.
    pub url: String,
}

/// A page of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Models, by name.
    pub models: Vec<ListedModel>,
    /// Where the next page starts. As in TorchServe there is one even if this page ends exactly at the end.
    pub next: Option<usize>,
}

impl Catalog {
    /// Every model and the URL of its default version, those that are still to be opened included.
    fn listed(&self) -> BTreeMap<ModelName, String> {
        let mut listed = self.pending_models();
        let models = self.state.models.load();
        let models = models.iter();
        listed.extend(models.map(|(name, model)| (name.clone(), model.default.url().to_owned())));
        listed.retain(|name, _| self.shows(name.as_str()));
        listed
    }

    /// Names of all models, in order.
    pub fn names(&self) -> Vec<ModelName> {
        self.listed().into_keys().collect()
    }

    /// At most `limit` models from the one at `offset` on.
    pub fn page(&self, offset: usize, limit: usize) -> Page {
        let models = self.listed();
        let end = offset.saturating_add(limit);
        let page = models.iter().skip(offset).take(limit);
        Page {
            models: page
                .map(|(name, url)| ListedModel {
                    name: name.to_string(),
                    url: url.clone(),
                })
                .collect(),
            next: (end <= models.len()).then_some(end),
        }
    }
}
