//! Lists, in pages: of models, and of workflows, of which there are none.

use serde::Serialize;

use super::Operations;

/// Models on a page, if nothing else is said, and at most.
const PAGE: usize = 100;

/// Which page is wanted. What is out of range counts as not given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::api) struct ListParams {
    /// Models on the page: 0 to 100; 100 if not given.
    pub limit: Option<i64>,
    /// Models before it.
    pub next_page_token: Option<i64>,
}

/// A page, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ListPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
    models: Vec<ListedModel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedModel {
    model_name: String,
    model_url: String,
}

/// A page of the workflows, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct WorkflowPage {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
    workflows: [(); 0],
}

impl ListParams {
    /// How many on the page.
    fn limit(self) -> usize {
        let limit = self.limit.and_then(|limit| usize::try_from(limit).ok());
        limit.filter(|limit| *limit <= PAGE).unwrap_or(PAGE)
    }

    /// How many before it.
    fn offset(self) -> usize {
        let offset = self.next_page_token;
        let offset = offset.and_then(|offset| usize::try_from(offset).ok());
        offset.unwrap_or(0)
    }
}

/// Names of all models, as KServe's first protocol shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct Names {
    models: Vec<String>,
}

impl Operations {
    /// Names of all models.
    pub(in crate::api) fn names(&self) -> Names {
        let names = self.catalog.names();
        Names {
            models: names.iter().map(ToString::to_string).collect(),
        }
    }

    /// A page of the models, by name.
    pub(in crate::api) fn list(&self, params: ListParams) -> ListPage {
        let page = self.catalog.page(params.offset(), params.limit());
        let models = page.models.into_iter().map(|model| ListedModel {
            model_name: model.name,
            model_url: model.url,
        });
        ListPage {
            next_page_token: page.next.map(|next| next.to_string()),
            models: models.collect(),
        }
    }

    /// A page of the workflows: as there are none, it is empty, and only the page of nothing is followed by another.
    #[expect(clippy::unused_self, reason = "an operation as the others")]
    pub(in crate::api) fn list_workflows(&self, params: ListParams) -> WorkflowPage {
        let end = params.offset().saturating_add(params.limit());
        WorkflowPage {
            next_page_token: (end == 0).then(|| end.to_string()),
            workflows: [],
        }
    }
}
