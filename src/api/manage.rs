//! What clients do with models, whichever protocol they speak.
//!
//! An operation takes parameters as a client gave them, checks them, acts on the catalog, and ends in an outcome or in
//! a failure. REST and gRPC turn their messages into parameters and outcomes into their messages; this module knows
//! neither.

use crate::catalog::Catalog;
use crate::error::{Error, Kind};

mod describe;
mod list;
mod register;
mod scale;

pub(super) use describe::DescribeParams;
pub(super) use list::ListParams;
pub(super) use register::RegisterParams;
pub(super) use scale::ScaleParams;

use super::audit::Notes;
use super::authority::method_not_allowed_by_mode;

/// The operations on one catalog. Cheap to clone.
#[derive(Clone)]
pub(super) struct Operations {
    catalog: Catalog,
    enable_model_api: bool,
    /// What is found out of a call for the audit log.
    notes: Option<Notes>,
}

/// How far an operation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is done.
    Done,
    /// It is under way, and the client does not wait for it.
    UnderWay,
    /// Some of its workers are up; others start, or failed.
    Partial,
}

/// The end of an operation that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How far it came.
    pub progress: Progress,
    /// TorchServe's text.
    pub message: String,
}

impl Outcome {
    fn done(message: String) -> Self {
        Self {
            progress: Progress::Done,
            message,
        }
    }

    fn under_way() -> Self {
        Self {
            progress: Progress::UnderWay,
            message: "Processing worker updates...".to_owned(),
        }
    }

    fn partial() -> Self {
        Self {
            progress: Progress::Partial,
            message: "Workers scaling in progress...".to_owned(),
        }
    }
}

impl Operations {
    /// Operations on `catalog`; models come and go only with `enable_model_api`.
    pub(super) const fn new(catalog: Catalog, enable_model_api: bool) -> Self {
        Self {
            catalog,
            enable_model_api,
            notes: None,
        }
    }

    /// The same, and `notes` are taken of what is done.
    pub(super) fn noting(self, notes: Notes) -> Self {
        Self {
            notes: Some(notes),
            ..self
        }
    }

    /// Notes which model is meant.
    fn note_model(&self, model: &str, version: Option<&str>) {
        if let Some(notes) = &self.notes {
            notes.model(model, version);
        }
    }

    /// Whether models may be registered and unregistered. Asked before a parameter is looked at, and again by the
    /// operations themselves.
    pub(super) fn check_model_api(&self) -> Result<(), Error> {
        if self.enable_model_api {
            return Ok(());
        }
        Err(method_not_allowed_by_mode())
    }

    /// Drains and removes a version, the default version if none is named.
    pub(super) async fn unregister(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<Outcome, Error> {
        self.note_model(model, version);
        self.check_model_api()?;
        let (catalog, name) = (self.catalog.clone(), model.to_owned());
        let version = version.map(str::to_owned);
        // In a task of its own: a client that leaves does not leave a version half-way out.
        let gone = tokio::spawn(async move { catalog.unregister(&name, version.as_deref()).await });
        gone.await.map_err(|panic| {
            Error::new(Kind::Internal, "Unregistering failed").with_detail(panic)
        })??;
        Ok(Outcome::done(format!("Model \"{model}\" unregistered")))
    }

    /// Makes `version` the default version.
    pub(super) async fn set_default(&self, model: &str, version: &str) -> Result<Outcome, Error> {
        self.note_model(model, Some(version));
        self.catalog.set_default(model, version).await?;
        Ok(Outcome::done(format!(
            "Default version successfully updated for model \"{model}\" to \"{version}\""
        )))
    }
}

/// Workflows are not offered, as in TorchServe since they can be registered no more.
pub(super) fn workflow_not_registered() -> Error {
    bad_request("Registering new workflows is disabled.")
}

/// There is no workflow, so there is none of this name.
pub(super) fn workflow_not_found(name: &str) -> Error {
    Error::new(
        Kind::WorkflowNotFound,
        format!("Workflow not found: {name}"),
    )
}

fn bad_request(message: impl Into<String>) -> Error {
    Error::new(Kind::BadRequest, message)
}
