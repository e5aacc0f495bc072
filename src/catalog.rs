//! All registered models: which versions there are, which is the default, and who may run now.
//!
//! Lookups take no lock: readers see a snapshot of the catalog that writers replace. It knows archives and
//! runtimes; it knows no protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore};

use crate::config::server::{PingMeaning, ReadyRequires};
use crate::config::snapshot::SavedVersion;
use crate::error::{Error, Kind};
use crate::metrics::Metrics;
use crate::model::{ModelName, Version};
use crate::runtime::Hosts;

mod admission;
mod archives;
mod describe;
mod entry;
mod expected;
mod failed;
mod index;
mod library;
mod lines;
mod list;
mod memory;
mod owner;
mod register;
mod sampler;
mod sink;
mod snapshot;
mod statistics;

use expected::Expectations;
use failed::FailedRegistrations;
use snapshot::Snapshots;

pub use crate::config::model::Requested;
pub use crate::runtime::failures::cannot_describe;
pub use crate::runtime::{
    Batching, Bounds, Level, ModelState, Room, Signature, WorkerState, WorkerStatus,
};
pub use archives::Sending;
pub use describe::{Condition, Description};
pub use entry::{Entry, Promise};
pub use expected::Expected;
pub use index::Indexed;
pub use library::{Library, LibraryConfig};
pub use lines::{Follower, KEPT_LINES, Speaker};
pub use list::{ListedModel, Page};
pub use memory::Peaks;
pub use owner::{Owner, Usage};
pub use register::{Registered, Registration, Restored, failed_to_start};
pub use sampler::Sampler;
pub use sink::{ModelLine, OwnersLog};
pub use snapshot::{Moment, SnapshotConfig};
pub use statistics::{BatchStatistics, Counted, Statistics};

/// What a catalog is made from.
pub struct Parts {
    /// Whose models these are.
    pub owner: Arc<Owner>,
    /// How much memory models had.
    pub peaks: Peaks,
    /// Where lines about its models go, if not to the operator's logs.
    pub log: Option<OwnersLog>,
    /// Permits for examining archives that are sent.
    pub examining: Arc<Semaphore>,
    /// What runtimes are made from.
    pub hosts: Hosts,
    /// Where versions bind their metrics.
    pub metrics: Metrics,
    /// What probes answer.
    pub health: Health,
    /// Opens archives.
    pub library: Library,
    /// How long unregistering may wait for requests in flight.
    pub unregister_timeout: Duration,
    /// Where the catalog is saved, if it is.
    pub snapshots: Option<SnapshotConfig>,
    /// Versions that are to be restored.
    pub restored: Vec<SavedVersion>,
}

/// What probes answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// What `/ping` says.
    pub ping: PingMeaning,
    /// How many models must serve for the server to be ready.
    pub ready_requires: ReadyRequires,
}

/// All registered models of one owner. Cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    state: Arc<CatalogState>,
    /// The only models that are there for whoever has this handle; all if that is not said.
    only: Option<Arc<BTreeSet<ModelName>>>,
}

struct CatalogState {
    models: ArcSwap<Models>,
    /// Read while files of the owner's are read or written; written by whoever takes them away.
    at_work: RwLock<()>,
    /// Held while an archive is sent.
    uploading: Arc<tokio::sync::Mutex<()>>,
    /// Held while `models` is replaced, never while anything is awaited.
    writing: Mutex<()>,
    /// What is listed and not among them yet, or could not be opened.
    expected: Expectations,
    /// The server is about to stop.
    is_stopping: AtomicBool,
    /// The owner is gone: nothing changes any more. Set while `writing` is held.
    is_closed: AtomicBool,
    /// What was to be registered and does not load.
    failed: FailedRegistrations,
    parts: Parts,
    snapshots: Snapshots,
}

type Models = BTreeMap<ModelName, Arc<Model>>;

/// The versions of one model, in the order of registration; never empty.
#[derive(Clone)]
struct Model {
    default: Arc<Entry>,
    versions: Vec<Arc<Entry>>,
}

/// Which versions of a model are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// The default version.
    Default,
    /// The named one.
    Version(&'a str),
    /// All of them.
    All,
}

impl Catalog {
    /// An empty catalog.
    pub fn new(parts: Parts) -> Self {
        let (snapshots, restored) = (parts.snapshots.clone(), parts.restored.clone());
        let state = Arc::new_cyclic(|shared| CatalogState {
            models: ArcSwap::default(),
            at_work: RwLock::default(),
            uploading: Arc::default(),
            writing: Mutex::default(),
            expected: Expectations::default(),
            is_stopping: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            failed: FailedRegistrations::default(),
            parts,
            snapshots: Snapshots::new(snapshots, restored, Weak::clone(shared)),
        });
        Self { state, only: None }
    }

    /// The same for somebody to whom only these models are there.
    #[must_use]
    pub fn restricted_to(&self, only: Option<Arc<BTreeSet<ModelName>>>) -> Self {
        Self {
            state: Arc::clone(&self.state),
            only,
        }
    }

    /// The models that are there for whoever has this handle.
    fn shown<'a>(&'a self, models: &'a Models) -> impl Iterator<Item = &'a Arc<Model>> {
        let shown = models.iter().filter(|(name, _)| self.shows(name.as_str()));
        shown.map(|(_, model)| model)
    }

    /// Whether a model of that name may be there for whoever has this handle.
    fn shows(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name))
    }

    /// Fails for a model that is not there for whoever has this handle, as if there were none.
    fn check_shown(&self, name: &str) -> Result<(), Error> {
        if self.shows(name) {
            return Ok(());
        }
        Err(model_not_found(name))
    }

    /// The version that a request means: the default version if it names none.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Entry>, Error> {
        self.check_shown(name)?;
        let models = self.state.models.load();
        let model = models.get(name).ok_or_else(|| model_not_found(name))?;
        match version {
            None => Ok(Arc::clone(&model.default)),
            Some(version) => model
                .version(version)
                .ok_or_else(|| version_not_found(name, version)),
        }
    }

    /// The versions that `which` means.
    pub fn select(&self, name: &str, which: Which<'_>) -> Result<Vec<Arc<Entry>>, Error> {
        match which {
            Which::Default => Ok(vec![self.find(name, None)?]),
            Which::Version(version) => Ok(vec![self.find(name, Some(version))?]),
            Which::All => {
                self.check_shown(name)?;
                let models = self.state.models.load();
                let model = models.get(name).ok_or_else(|| model_not_found(name))?;
                Ok(model.versions.clone())
            }
        }
    }

    /// What `/ping` says, in the meaning that the operator chose.
    pub fn is_healthy(&self) -> bool {
        match self.state.parts.health.ping {
            PingMeaning::TorchServe => self.is_healthy_at(Instant::now()),
            PingMeaning::Ready => self.is_ready(),
        }
    }

    /// Whether, at `now`, no default version that should serve has been without a worker for longer than it is restarted. As
    /// in TorchServe, an archive that cannot be opened is not among them.
    pub fn is_healthy_at(&self, now: Instant) -> bool {
        let models = self.state.models.load();
        self.shown(&models)
            .all(|model| model.default.is_healthy_at(now))
    }

    /// The default version of the model that was loaded at start-up, if exactly one model was.
    pub fn only_startup_model(&self) -> Option<Arc<Entry>> {
        let models = self.state.models.load();
        let mut started = self.shown(&models).filter(|model| model.is_of_startup());
        let only = started.next()?;
        started.next().is_none().then(|| Arc::clone(&only.default))
    }

    /// Whether any worker of any version is ready.
    pub fn has_ready_worker(&self) -> bool {
        let entries = self.entries();
        entries.iter().any(|entry| entry.workers_ready() > 0)
    }

    /// Whether requests should be sent here now: as many of the models that should serve do as the operator requires. Those
    /// are the default version of each model unless it was scaled to none, and what was listed and is not open.
    pub fn is_ready(&self) -> bool {
        if self.is_stopping() {
            return false;
        }
        match self.state.parts.health.ready_requires {
            ReadyRequires::All => self.serves_all(),
            ReadyRequires::Any => self.serves_any() || self.serves_all(),
            ReadyRequires::None => true,
        }
    }

    /// Whether worker processes of the default version of some model keep dying.
    pub fn is_degraded(&self) -> bool {
        let models = self.state.models.load();
        self.shown(&models).any(|model| model.default.is_degraded())
    }

    /// The server is about to stop: it is not ready from now on, and neither is any model. Requests are served as before.
    pub fn announce_stop(&self) {
        self.state.is_stopping.store(true, Ordering::SeqCst);
    }

    /// Whether the server is about to stop.
    pub fn is_stopping(&self) -> bool {
        self.state.is_stopping.load(Ordering::SeqCst)
    }

    fn serves_any(&self) -> bool {
        let models = self.state.models.load();
        self.shown(&models).any(|model| model.default.is_ready())
    }

    fn serves_all(&self) -> bool {
        // Looked at first: what is no longer pending is among the models by then.
        if self.state.expected.has_pending(|name| self.shows(name)) {
            return false;
        }
        let models = self.state.models.load();
        let mut serving = self
            .shown(&models)
            .filter(|model| model.default.should_serve());
        serving.all(|model| model.default.is_ready())
            && !self
                .state
                .expected
                .has_lost(|name| models.contains_key(name) || !self.shows(name))
    }

    /// Sets the gauges that are only known when somebody asks.
    pub fn measure(&self) {
        for entry in self.entries() {
            entry.measure();
        }
    }

    /// Makes `version` the default version, and saves that.
    pub async fn set_default(&self, name: &str, version: &str) -> Result<(), Error> {
        self.check_shown(name)?;
        let (now, named) = (Instant::now(), Some(version));
        if let Err(error) = self.awaited(name, named, now, None).await
            && error.kind().is_passing()
        {
            return Err(error);
        }
        self.make_default(name, version)?;
        self.state.expected.pin(name);
        self.save(Moment::Change).await;
        Ok(())
    }

    /// Makes `version` the default version.
    pub fn make_default(&self, name: &str, version: &str) -> Result<(), Error> {
        self.update(|models| {
            let model = models.get_mut(name).ok_or_else(|| model_not_found(name))?;
            let default = model.version(version);
            // One that leaves would take the default with it.
            let Some(default) = default.filter(|entry| !entry.is_leaving()) else {
                let message = format!("Model version {version} does not exist for model {name}");
                return Err(Error::new(Kind::VersionNotFound, message));
            };
            Arc::make_mut(model).default = default;
            Ok(())
        })
    }

    /// Changes how many workers a version has, as was promised, and waits until it has them.
    pub async fn scale(&self, promise: Promise, bounds: Bounds) -> Result<(), Error> {
        let scaled = promise.entry().scale(&self.state.parts.hosts, bounds);
        scaled.await?;
        drop(promise);
        self.save(Moment::Change).await;
        Ok(())
    }

    /// Drains a version and removes it. The default version only goes last. Must not be dropped before it is done.
    pub async fn unregister(&self, name: &str, version: Option<&str>) -> Result<(), Error> {
        self.check_shown(name)?;
        let now = Instant::now();
        let until = Some(now + self.state.parts.unregister_timeout);
        let entry = match self.awaited(name, version, now, until).await {
            Ok(entry) => entry,
            Err(error) => return self.forget(name, version).await.ok_or(error),
        };
        let _one_at_a_time = entry.unregistering.lock().await;
        self.begin_leaving(&entry, version)?;
        if !entry.drain(self.state.parts.unregister_timeout).await {
            let message = format!("Timed out while cleaning resources: {name}");
            return Err(Error::new(Kind::CleanupTimedOut, message));
        }
        self.remove(&entry);
        self.state.failed.forget(name, version, Instant::now());
        // Another version may have been registered by the name of a file that was fetched for this one.
        if !self
            .entries()
            .iter()
            .any(|other| other.source() == entry.source())
        {
            entry.give_up_archive();
        }
        // What was fetched for the entry goes with it, but not before it is saved that nothing needs it.
        self.save(Moment::Change).await;
        entry.tell(Level::Info, format!("Model {name} unregistered."));
        Ok(())
    }

    /// Unregisters what could not be restored, could not be opened or did not load, if there is such a version.
    async fn forget(&self, name: &str, version: Option<&str>) -> Option<()> {
        let forgotten = self.state.snapshots.forget(name, version);
        let was_refused = self.state.failed.forget(name, version, Instant::now());
        let had_failed = self.state.expected.forget(name, version) || was_refused;
        if forgotten.is_empty() && !had_failed {
            return None;
        }
        let archives = self.state.parts.library.give_up(&forgotten);
        self.save(Moment::Change).await;
        drop(archives);
        Some(())
    }

    /// Refuses new requests everywhere, waits at most `timeout` for those in flight, and ends all runtimes.
    pub async fn drain(&self, timeout: Duration) {
        let entries = self.entries();
        join_all(entries.iter().map(|entry| entry.shut_down(timeout))).await;
    }

    /// Workers that a version may have at most.
    pub fn most_workers(&self) -> usize {
        self.state.parts.library.cfg.by_api.most.workers
    }

    /// Every version of every model.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let models = self.state.models.load();
        let entries = self.shown(&models).flat_map(|model| &model.versions);
        entries.cloned().collect()
    }

    /// Refuses new requests to a version, if it may go. No version becomes the default between the check and the refusal.
    fn begin_leaving(&self, entry: &Arc<Entry>, named: Option<&str>) -> Result<(), Error> {
        let name = entry.spec().name.as_str();
        let _writing = self.state.writing.lock();
        let models = self.state.models.load();
        let model = models.get(name).ok_or_else(|| model_not_found(name))?;
        if !model.versions.iter().any(|other| Arc::ptr_eq(other, entry)) {
            // Somebody else removed it meanwhile.
            return Err(named.map_or_else(
                || model_not_found(name),
                |version| version_not_found(name, version),
            ));
        }
        if Arc::ptr_eq(&model.default, entry) && model.versions.len() > 1 {
            let message = format!("Cannot remove default version for model {name}");
            return Err(Error::new(Kind::DefaultVersionInUse, message));
        }
        entry.begin_leaving();
        Ok(())
    }

    /// Adds a version. One that a client wants, and no snapshot, has to be within the owner's quotas.
    fn insert(&self, entry: &Arc<Entry>, at_startup: bool) -> Result<(), Error> {
        let (name, version) = (&entry.spec().name, &entry.spec().version);
        self.update(|models| {
            if !at_startup {
                owner::check_room(models, &self.state.parts.owner.quotas(), entry)?;
            }
            let Some(model) = models.get_mut(name.as_str()) else {
                models.insert(name.clone(), Arc::new(Model::first(entry)));
                return Ok(());
            };
            if model.version(version.as_str()).is_some() {
                return Err(conflict(name, version));
            }
            Arc::make_mut(model).versions.push(Arc::clone(entry));
            Ok(())
        })
    }

    /// Takes note that a version is to have at most so many workers, if its owner may have that many.
    pub fn promise_workers(&self, entry: &Arc<Entry>, most: usize) -> Result<Promise, Error> {
        let _writing = self.state.writing.lock();
        self.check_open()?;
        let models = self.state.models.load();
        owner::check_workers(&models, &self.state.parts.owner.quotas(), entry, most)?;
        Ok(Promise::new(entry, most))
    }

    /// The owner is gone: nothing is registered, changed or saved from now on, and what was asked for before is on disk. Requests are served
    /// as before.
    pub async fn close(&self) {
        {
            let _writing = self.state.writing.lock();
            self.state.is_closed.store(true, Ordering::SeqCst);
        }
        // An archive that is being sent breaks off at its next piece, and what is begun is done.
        drop(self.state.uploading.lock().await);
        drop(self.state.at_work.write().await);
        // Snapshots are written one after the other: once this one is, none is under way.
        self.save_whatever(Moment::Shutdown).await;
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::new(Kind::Draining, "The tenant is removed"));
        }
        Ok(())
    }

    /// Leave to work with files of the owner's, which nobody takes away meanwhile.
    async fn at_work(&self) -> Result<RwLockReadGuard<'_, ()>, Error> {
        let at_work = self.state.at_work.read().await;
        self.check_open()?;
        Ok(at_work)
    }

    /// Leave to take files of the owner's away, while nobody works with them.
    async fn alone(&self) -> Result<RwLockWriteGuard<'_, ()>, Error> {
        let alone = self.state.at_work.write().await;
        self.check_open()?;
        Ok(alone)
    }

    /// Whether this handle shows these models alone, or all.
    pub fn is_restricted_to(&self, only: Option<&BTreeSet<ModelName>>) -> bool {
        self.only.as_deref() == only
    }

    fn is_closed(&self) -> bool {
        self.state.is_closed.load(Ordering::SeqCst)
    }

    fn remove(&self, entry: &Arc<Entry>) {
        let name = entry.spec().name.as_str();
        let removed: Result<(), Error> = self.update(|models| {
            let Some(model) = models.get_mut(name) else {
                return Ok(());
            };
            let model = Arc::make_mut(model);
            model.versions.retain(|other| !Arc::ptr_eq(other, entry));
            match model.versions.first() {
                None => {
                    models.remove(name);
                }
                Some(first) if Arc::ptr_eq(&model.default, entry) => {
                    model.default = Arc::clone(first);
                }
                Some(_) => {}
            }
            Ok(())
        });
        debug_assert!(removed.is_ok() || self.is_closed());
    }

    /// Replaces the snapshot by a changed copy, unless the change fails.
    fn update<T>(&self, change: impl FnOnce(&mut Models) -> Result<T, Error>) -> Result<T, Error> {
        let _writing = self.state.writing.lock();
        self.check_open()?;
        let mut models = Models::clone(&self.state.models.load());
        let result = change(&mut models)?;
        self.state.models.store(Arc::new(models));
        Ok(result)
    }
}

impl Model {
    fn first(entry: &Arc<Entry>) -> Self {
        Self {
            default: Arc::clone(entry),
            versions: vec![Arc::clone(entry)],
        }
    }

    /// Whether a version of it was listed.
    fn is_of_startup(&self) -> bool {
        let mut versions = self.versions.iter();
        versions.any(|entry| entry.is_loaded_at_startup())
    }

    fn version(&self, version: &str) -> Option<Arc<Entry>> {
        let mut versions = self.versions.iter();
        versions
            .find(|entry| entry.spec().version.as_str() == version)
            .cloned()
    }
}

fn model_not_found(name: &str) -> Error {
    Error::new(Kind::ModelNotFound, format!("Model not found: {name}"))
}

fn version_not_found(name: &str, version: &str) -> Error {
    let message = format!("Model version: {version} does not exist for model: {name}");
    Error::new(Kind::VersionNotFound, message)
}

fn conflict(name: &ModelName, version: &Version) -> Error {
    let message = format!("Model version {version} is already registered for model {name}");
    Error::new(Kind::Conflict, message)
}
