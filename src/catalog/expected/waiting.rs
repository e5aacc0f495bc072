//! Requests that wait until it is known which version they mean, and what can be answered before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::futures::Notified;

use super::{Expected, still_loading};
use crate::catalog::Catalog;
use crate::catalog::entry::Entry;
use crate::error::{Error, Kind};

/// Which model was loaded at start-up.
enum Startup {
    /// This one, or not exactly one.
    Known(Option<Arc<Entry>>),
    /// It is known when this one is open.
    Awaited(Arc<Expected>),
}

/// What a request for that version waits for; `is_found` says that the catalog has one.
fn awaited<'a>(
    all: &'a [Arc<Expected>],
    name: &str,
    version: Option<&str>,
    is_found: bool,
) -> Option<&'a Arc<Expected>> {
    let is_awaited = |expected: &&Arc<Expected>| {
        expected.is_pending() && expected.may_be_named(name) && expected.may_be_version(version)
    };
    let mut awaited = all.iter().filter(is_awaited);
    let is_known = |expected: &&Arc<Expected>| expected.is_named(name);
    if is_found {
        let is_default = |expected: &&Arc<Expected>| is_known(expected) && expected.may_be_default;
        return awaited.find(is_default).filter(|_| version.is_none());
    }
    awaited.clone().find(is_known).or_else(|| awaited.next())
}

/// Why that version is not there, if it was listed and could not be opened.
fn failure(all: &[Arc<Expected>], name: &str, version: Option<&str>) -> Option<Error> {
    let mut failed = all.iter().filter(|expected| expected.has_failed());
    let meant =
        failed.find(|expected| expected.is_named(name) && expected.may_be_version(version))?;
    let (reason, _) = meant.failure.get()?;
    Some(not_loaded(name, reason))
}

impl Catalog {
    /// As [`Self::find`], but waits for the version if it may be among those that are listed and not open yet, until
    /// the request that arrived at `arrival` is of no use any more, or until `own` if that is sooner.
    pub async fn awaited(
        &self,
        name: &str,
        version: Option<&str>,
        arrival: Instant,
        own: Option<Instant>,
    ) -> Result<Arc<Entry>, Error> {
        self.check_shown(name)?;
        loop {
            // Looked at before the models: what is no longer expected is among them by then.
            if self.state.expected.all.load().is_empty() {
                return self.find(name, version);
            }
            let changed = self.state.expected.changed.notified();
            let all = self.state.expected.all.load_full();
            let found = self.find(name, version);
            if found.is_ok() && (version.is_some() || self.state.expected.is_default_final(name)) {
                return found;
            }
            let Some(expected) = awaited(&all, name, version, found.is_ok()) else {
                return found.map_err(|error| failure(&all, name, version).unwrap_or(error));
            };
            let waited = self.wait(expected, changed, arrival, own).await;
            waited.map_err(|error| error.unwrap_or_else(|| still_loading(name)))?;
        }
    }

    /// The default version of the model that was loaded at start-up, if exactly one model was; waits until that is known,
    /// as [`Self::awaited`] does.
    pub async fn awaited_startup_model(
        &self,
        arrival: Instant,
    ) -> Result<Option<Arc<Entry>>, Error> {
        loop {
            let changed = self.state.expected.changed.notified();
            let expected = match self.startup_model() {
                Startup::Known(entry) => return Ok(entry),
                Startup::Awaited(expected) => expected,
            };
            let waited = self.wait(&expected, changed, arrival, None).await;
            let name = expected.name().as_str();
            waited.map_err(|error| error.unwrap_or_else(|| still_loading(name)))?;
        }
    }

    fn startup_model(&self) -> Startup {
        let all = self.state.expected.all.load();
        let is_listed = |expected: &&Arc<Expected>| {
            expected.is_pending() && expected.is_listed() && self.shows(expected.name().as_str())
        };
        let listed: Vec<_> = all.iter().filter(is_listed).collect();
        let known = listed.iter().filter(|one| one.preview.is_name_known);
        let mut names: BTreeSet<_> = known.map(|one| one.name().clone()).collect();
        if !listed.is_empty() {
            let models = self.state.models.load();
            let started = self.shown(&models).filter(|model| model.is_of_startup());
            names.extend(started.map(|model| model.default.spec().name.clone()));
        }
        match listed.first() {
            Some(first) if names.len() <= 1 => Startup::Awaited(Arc::clone(first)),
            Some(_) => Startup::Known(None),
            None => Startup::Known(self.only_startup_model()),
        }
    }

    /// Waits for the next change among those expected. An error without a reason means that it took too long.
    async fn wait(
        &self,
        expected: &Expected,
        changed: Notified<'_>,
        arrival: Instant,
        own: Option<Instant>,
    ) -> Result<(), Option<Error>> {
        if self.state.expected.has_ended() {
            return Err(None);
        }
        let _waiting = expected.enter().map_err(Some)?;
        let deadline = arrival + expected.preview.spec.settings.answer_timeout();
        let deadline = own.map_or(deadline, |own| own.min(deadline));
        let waited = tokio::time::timeout_at(deadline.into(), changed).await;
        waited.map_err(|_| None)
    }

    /// Refuses a version of which nobody knows and which is not going to come.
    pub fn check_known(&self, name: &str, version: Option<&str>) -> Result<(), Error> {
        self.check_shown(name)?;
        let all = self.state.expected.all.load_full();
        let is_expected =
            awaited(&all, name, version, false).is_some() || failure(&all, name, version).is_some();
        match self.find(name, version) {
            Err(_) if is_expected => Ok(()),
            found => found.map(drop),
        }
    }

    /// Whether a request for that version would be served now; an error if there is none and none is to come.
    pub fn is_version_ready(&self, name: &str, version: Option<&str>) -> Result<bool, Error> {
        self.check_known(name, version)?;
        let all = self.state.expected.all.load_full();
        let found = self.find(name, version).ok();
        let is_awaited = awaited(&all, name, version, found.is_some()).is_some()
            && !self.state.expected.is_default_final(name);
        let is_ready = found.is_some_and(|entry| entry.is_ready());
        Ok(is_ready && !is_awaited && !self.is_stopping())
    }

    /// Whether worker processes of the default version of a model keep dying.
    pub fn is_version_degraded(&self, name: &str) -> bool {
        let found = self.find(name, None);
        found.is_ok_and(|entry| entry.is_degraded())
    }
}

/// The reason may name paths and hosts, which are for those who manage models: its description has it.
fn not_loaded(name: &str, reason: &Error) -> Error {
    let message = format!("Model \"{name}\" could not be loaded");
    Error::new(Kind::NoWorker, message).with_detail(reason.message())
}
