//! The catalog and the model store as one list: what serves, and what could be loaded.

use super::{Catalog, Condition};
use crate::error::{Error, Kind};

/// One version, or an archive of the model store that is not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// Name of the model.
    pub name: String,
    /// Version; `None` for an archive, whose version is not known until it is opened.
    pub version: Option<String>,
    /// Where it is in its life; `None` for an archive.
    pub condition: Option<Condition>,
    /// Whether a request sent now would be served.
    pub is_ready: bool,
    /// Where it comes from.
    pub url: String,
}

impl Catalog {
    /// Every version, and every archive of the model store that no version comes from and whose name no model has; by
    /// name.
    pub async fn index(&self) -> Result<Vec<Indexed>, Error> {
        let mut index: Vec<Indexed> = self.entries().iter().map(|entry| entry.indexed()).collect();
        index.extend(self.expected_index());
        for (name, url) in self.archives().await? {
            if !index.iter().any(|one| one.name == name || one.url == url) {
                index.push(Indexed {
                    name,
                    version: None,
                    condition: None,
                    is_ready: false,
                    url,
                });
            }
        }
        index.retain(|one| self.shows(&one.name));
        index.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(index)
    }

    /// Names that archives of the model store would have, and their URLs.
    async fn archives(&self) -> Result<Vec<(String, String)>, Error> {
        let store = self.state.parts.library.fetcher.store().clone();
        let listed = tokio::task::spawn_blocking(move || store.list()).await;
        let listed = listed.map_err(|panic| {
            Error::new(Kind::Internal, "The model store could not be listed").with_detail(panic)
        })??;
        let names = listed.archives.iter();
        Ok(names
            .map(|location| (location.stem().to_owned(), location.url().to_owned()))
            .collect())
    }
}
