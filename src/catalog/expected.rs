//! Versions that the operator listed, or that are restored, from before a listener opens until their archives are open.
//!
//! What is known of them is read from the archive without unpacking it. Where that cannot be, as with an archive that has
//! to be fetched, any model that is not there may be the one. Requests wait here until it is known, no longer than their
//! deadline and no more than the version's queue takes. A version whose archive cannot be opened stays, as failed, until
//! it is unregistered or registered again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::describe::{Condition, Description};
use super::entry::Entry;
use super::index::Indexed;
use super::library::Preview;
use super::{Bounds, Catalog, Registration, Signature};
use crate::error::{Error, Kind};
use crate::metrics::LoadFailure;
use crate::model::{ModelName, Version};
use crate::runtime::Level;

mod shown;
mod waiting;

/// One version that is listed and not in the catalog.
pub struct Expected {
    registration: Registration,
    /// Where it stands in the list.
    place: usize,
    preview: Preview,
    /// Whether it may become the default version of its model.
    may_be_default: bool,
    /// Requests that wait for it.
    waiting: AtomicUsize,
    /// Why its archive cannot be opened, if it cannot.
    failure: OnceLock<(Error, LoadFailure)>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Expectations {
    all: ArcSwap<Vec<Arc<Expected>>>,
    /// Held while `all` is replaced.
    writing: Mutex<()>,
    changed: Notify,
    /// Nothing that is still expected comes any more.
    has_ended: AtomicBool,
    /// Versions that become the default of their model.
    defaults: OnceLock<BTreeMap<ModelName, Version>>,
    /// By model, the rank of the version that is the default so far.
    ranks: Mutex<BTreeMap<ModelName, usize>>,
}

/// The rank of a version that stays the default whatever else comes.
const FIRST: usize = 0;

impl Expected {
    /// What is to be registered.
    pub(super) const fn registration(&self) -> &Registration {
        &self.registration
    }

    /// As given by whoever listed it.
    pub fn url(&self) -> &str {
        &self.registration.url
    }

    /// Its name, as far as it is known; the one it would have by its URL otherwise.
    fn name(&self) -> &ModelName {
        &self.preview.spec.name
    }

    fn is_pending(&self) -> bool {
        self.failure.get().is_none()
    }

    fn has_failed(&self) -> bool {
        !self.is_pending()
    }

    /// Whether it is, for certain, a version of the model.
    fn is_named(&self, name: &str) -> bool {
        // What failed has no other name any more.
        (self.preview.is_name_known || self.has_failed()) && self.name().as_str() == name
    }

    fn may_be_named(&self, name: &str) -> bool {
        !self.preview.is_name_known || self.is_named(name)
    }

    fn may_be_version(&self, version: Option<&str>) -> bool {
        let is_known = self.preview.is_version_known;
        version.is_none_or(|version| !is_known || self.preview.spec.version.as_str() == version)
    }

    /// Whether the server is to have workers of it.
    fn should_serve(&self) -> bool {
        self.preview.spec.settings.min_workers > 0
    }

    fn is_listed(&self) -> bool {
        let restored = self.registration.restored.as_ref();
        restored.is_none_or(|restored| restored.more.loaded_at_startup)
    }

    fn shown_url(&self) -> &str {
        let restored = self.registration.restored.as_ref();
        let shown = restored.and_then(|restored| restored.more.url.as_deref());
        shown.unwrap_or_else(|| self.url())
    }

    fn condition(&self) -> Condition {
        match self.failure.get() {
            None => Condition::Loading,
            Some((error, _)) => Condition::Failed(error.clone()),
        }
    }

    /// It as its entry would be described.
    fn describe(&self) -> Description {
        let settings = &self.preview.spec.settings;
        let waiting = self.waiting.load(Ordering::Relaxed);
        Description {
            spec: Arc::clone(&self.preview.spec),
            backend: self.preview.backend,
            runtime: self.preview.runtime,
            url: self.shown_url().to_owned(),
            origin: None,
            bounds: Bounds {
                min: settings.min_workers,
                max: settings.max_workers,
            },
            loaded_at_startup: self.is_listed(),
            condition: self.condition(),
            workers: Vec::new(),
            walls: Vec::new(),
            queue_remaining: settings.job_queue_size.saturating_sub(waiting),
            queue_pending: waiting.min(settings.job_queue_size),
            signature: Arc::new(Signature::declared(&self.preview.spec.declared)),
            batching: None,
            last_output: Vec::new(),
            last_error: None,
        }
    }

    fn indexed(&self) -> Indexed {
        let version = &self.preview.spec.version;
        Indexed {
            name: self.name().to_string(),
            version: self.preview.is_version_known.then(|| version.to_string()),
            condition: Some(self.condition()),
            is_ready: false,
            url: self.shown_url().to_owned(),
        }
    }

    /// Lets one request wait, if there is room.
    fn enter(&self) -> Result<Waiting<'_>, Error> {
        let waiting = Waiting(self);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before < self.preview.spec.settings.job_queue_size {
            return Ok(waiting);
        }
        let message = format!(
            "Model \"{}\" is still loading, and as many requests wait for it as may",
            self.name()
        );
        Err(Error::new(Kind::QueueFull, message))
    }
}

/// A request that waits; counted until it is dropped.
struct Waiting<'a>(&'a Expected);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Expectations {
    fn update(&self, change: impl FnOnce(&mut Vec<Arc<Expected>>)) {
        let _writing = self.writing.lock();
        let mut all = Vec::clone(&self.all.load());
        change(&mut all);
        self.all.store(Arc::new(all));
        self.changed.notify_waiters();
    }

    fn remove(&self, expected: &Arc<Expected>) {
        self.update(|all| all.retain(|other| !Arc::ptr_eq(other, expected)));
    }

    /// Forgets what failed and may be that version, or any of the model's. Whether there was such.
    pub(super) fn forget(&self, name: &str, version: Option<&str>) -> bool {
        let is_meant = |expected: &Arc<Expected>| {
            expected.has_failed() && expected.is_named(name) && expected.may_be_version(version)
        };
        if !self.all.load().iter().any(is_meant) {
            return false;
        }
        self.update(|all| all.retain(|expected| !is_meant(expected)));
        true
    }

    /// Whether that version is listed, for certain, and still to come.
    pub(super) fn holds(&self, name: &ModelName, version: &Version) -> bool {
        let all = self.all.load();
        all.iter().any(|expected| {
            let is_version =
                expected.preview.is_version_known && expected.preview.spec.version == *version;
            expected.is_pending() && expected.is_named(name.as_str()) && is_version
        })
    }

    /// Nothing comes any more: everybody who waits is answered.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Whether no request may be sent here any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Whether an archive is still to be opened whose version should serve, of a model that is shown.
    pub(super) fn has_pending(&self, shows: impl Fn(&str) -> bool) -> bool {
        let all = self.all.load();
        let mut pending = all.iter().filter(|expected| expected.is_pending());
        pending.any(|expected| expected.should_serve() && shows(expected.name().as_str()))
    }

    /// Whether a version that should serve cannot be opened, and `has_model` says that no other of its model is there.
    pub(super) fn has_lost(&self, has_model: impl Fn(&str) -> bool) -> bool {
        let all = self.all.load();
        let mut failed = all.iter().filter(|expected| expected.has_failed());
        failed.any(|expected| expected.should_serve() && !has_model(expected.name().as_str()))
    }

    /// The model stays with the default version that it has.
    pub(super) fn pin(&self, name: &str) {
        if let Ok(name) = ModelName::new(name) {
            self.ranks.lock().insert(name, FIRST);
        }
    }

    /// Whether no version that is still to come becomes the model's default.
    fn is_default_final(&self, name: &str) -> bool {
        self.ranks.lock().get(name) == Some(&FIRST)
    }

    /// The rank of a version in the order in which versions are listed, or the first if it was named as the default.
    fn rank(&self, name: &ModelName, version: &Version, place: usize) -> usize {
        let defaults = self.defaults.get();
        let named = defaults.and_then(|defaults| defaults.get(name));
        if named == Some(version) {
            FIRST
        } else {
            place + 1
        }
    }
}

impl Catalog {
    /// Makes known what is going to be registered, before anybody can ask. Reads the manifests of archives that are on
    /// this machine, and blocks for as long as that takes. In `defaults` are versions that become the default of their
    /// model; of others it is the first that is listed. Those to be fetched come last.
    pub fn expect(
        &self,
        registrations: Vec<Registration>,
        defaults: BTreeMap<ModelName, Version>,
    ) -> Vec<Arc<Expected>> {
        let library = &self.state.parts.library;
        let preview = registrations.iter().map(|one| library.preview(one));
        let preview: Vec<_> = preview.collect();
        let may_be_default = default_candidates(&preview, &defaults);
        let listed = registrations
            .into_iter()
            .zip(preview)
            .zip(may_be_default)
            .enumerate();
        let expect = |(place, ((registration, preview), may_be_default))| {
            Arc::new(Expected {
                registration,
                place,
                preview,
                may_be_default,
                waiting: AtomicUsize::new(0),
                failure: OnceLock::new(),
            })
        };
        let mut expected: Vec<_> = listed.map(expect).collect();
        // Set once: a server starts once.
        let _ = self.state.expected.defaults.set(defaults);
        self.state
            .expected
            .update(|all| all.extend_from_slice(&expected));
        expected.sort_by_key(|expected| !expected.preview.is_here);
        expected
    }

    /// Registers what was expected; its workers do not start yet. If it cannot be opened, it is shown as failed.
    pub async fn register_expected(&self, expected: &Arc<Expected>) -> Result<Arc<Entry>, Error> {
        let registration = expected.registration().clone();
        match self.register_at_startup(registration).await {
            Ok(entry) => {
                self.take_rank(expected, &entry);
                self.state.expected.remove(expected);
                Ok(entry)
            }
            Err(error) => {
                self.lose(expected, error.clone());
                Err(error)
            }
        }
    }

    /// Makes a version the default if it stands before the one that is. Requests that name no version wait until then.
    fn take_rank(&self, expected: &Expected, entry: &Entry) {
        let (name, version) = (&entry.spec().name, &entry.spec().version);
        let rank = self.state.expected.rank(name, version, expected.place);
        let mut ranks = self.state.expected.ranks.lock();
        if ranks.get(name).is_some_and(|taken| *taken <= rank) {
            return;
        }
        match self.make_default(name.as_str(), version.as_str()) {
            Ok(()) => drop(ranks.insert(name.clone(), rank)),
            Err(error) => {
                tracing::warn!("The default version of {name} stays as it is: {error}");
            }
        }
    }

    /// Its archive cannot be opened. One that somebody else registered meanwhile is not missed.
    fn lose(&self, expected: &Arc<Expected>, error: Error) {
        if error.kind() == Kind::Conflict {
            return self.state.expected.remove(expected);
        }
        let spec = &expected.preview.spec;
        if let Some(log) = &self.state.parts.log {
            let text = format!("Failed to load model {}: {}", spec.name, error.message());
            log.say(Level::Error, text, spec);
        }
        let shown = self
            .state
            .parts
            .metrics
            .load_failure(&spec.name, &spec.version);
        // Set once: an archive is opened once.
        let _ = expected.failure.set((error, shown));
        self.state.expected.changed.notify_waiters();
    }

    /// Nothing more is loaded, and the server is not ready from now on: it stops.
    pub fn begin_stop(&self) {
        self.announce_stop();
        self.state.expected.end();
    }
}

/// Which of these versions may become the default of their models: those that `defaults` may mean, else the first.
fn default_candidates(preview: &[Preview], defaults: &BTreeMap<ModelName, Version>) -> Vec<bool> {
    let is_meant = |one: &Preview| {
        let default = defaults.get(&one.spec.name);
        default.is_some_and(|version| !one.is_version_known || *version == one.spec.version)
    };
    let meant = preview.iter().filter(|one| is_meant(one));
    let has_meant: BTreeSet<_> = meant.map(|one| one.spec.name.clone()).collect();
    let mut seen = BTreeSet::new();
    let candidate = |one: &Preview| {
        let is_first = seen.insert(one.spec.name.clone());
        if has_meant.contains(&one.spec.name) {
            is_meant(one)
        } else {
            is_first
        }
    };
    preview.iter().map(candidate).collect()
}

/// The failure of a request whose deadline came before the model.
pub(super) fn still_loading(name: &str) -> Error {
    let message = format!("Model \"{name}\" is still loading");
    Error::new(Kind::Loading, message)
}
