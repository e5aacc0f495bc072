//! The list of models, in pages.

use super::Catalog;

/// One model in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Name.
    pub name: String,
    /// URL of its default version.
    pub url: String,
}

/// A page of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Models, by name.
    pub models: Vec<Listed>,
    /// Where the next page starts. As in TorchServe there is one even if this page ends exactly at the end.
    pub next: Option<usize>,
}

impl Catalog {
    /// At most `limit` models from the one at `offset` on.
    pub fn page(&self, offset: usize, limit: usize) -> Page {
        let models = self.0.models.load();
        let end = offset.saturating_add(limit);
        let page = models.iter().skip(offset).take(limit);
        Page {
            models: page
                .map(|(name, model)| Listed {
                    name: name.to_string(),
                    url: model.default.url().to_owned(),
                })
                .collect(),
            next: (end <= models.len()).then_some(end),
        }
    }
}
