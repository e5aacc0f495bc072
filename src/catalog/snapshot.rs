//! Snapshots: what is registered, saved after every change, so that the next start can restore it.
//!
//! A thread of its own writes them, one at a time; changes that come meanwhile are saved together by the next. Whoever
//! changed something may wait until it is saved, and nothing else does. What could not be restored is carried along
//! until somebody unregisters it or registers it again: an archive that is missing today may be back tomorrow.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::entry::Entry;
use super::{Catalog, CatalogState, Requested};
use crate::config::snapshot::{More, SavedVersion};
use crate::model::{ModelName, Version};

mod file;

use file::SnapshotFiles;

pub use crate::config::snapshot::Moment;

/// Where and what to save beside the models.
#[derive(Debug, Clone)]
pub struct SnapshotConfig {
    /// Directory of snapshot files; made when the first is written.
    pub directory: PathBuf,
    /// Settings of the server.
    pub properties: BTreeMap<String, String>,
}

/// Saves the catalog; without a configuration, nothing is saved.
pub(super) struct Snapshots {
    requests: Option<Mutex<Sender<Request>>>,
    /// Whether everything that was listed is in the catalog: until then it would be saved without.
    is_open: AtomicBool,
    /// What a snapshot held and is not, or not yet, in the catalog.
    missing: Mutex<BTreeMap<(ModelName, Version), SavedVersion>>,
}

struct Request {
    moment: Moment,
    done: oneshot::Sender<()>,
}

impl Snapshots {
    /// Starts the thread that writes for `catalog`; it ends with the catalog.
    pub(super) fn new(
        cfg: Option<SnapshotConfig>,
        restored: Vec<SavedVersion>,
        catalog: Weak<CatalogState>,
    ) -> Self {
        let requests = cfg.and_then(|cfg| {
            let (requests, received) = mpsc::channel();
            let thread = std::thread::Builder::new().name("snapshots".to_owned());
            let started =
                thread.spawn(move || write_all(&SnapshotFiles::new(cfg), &received, &catalog));
            match started {
                Ok(_) => Some(Mutex::new(requests)),
                Err(error) => {
                    tracing::error!(%error, "No snapshots are saved: their thread does not start");
                    None
                }
            }
        });
        let key = |saved: &SavedVersion| (saved.model.clone(), saved.version.clone());
        let missing: BTreeMap<_, _> = restored
            .into_iter()
            .map(|saved| (key(&saved), saved))
            .collect();
        Self {
            requests,
            // What is carried along is saved from the first moment on.
            is_open: AtomicBool::new(!missing.is_empty()),
            missing: Mutex::new(missing),
        }
    }

    /// It is in the catalog now.
    pub(super) fn found(&self, model: &ModelName, version: &Version) {
        self.missing
            .lock()
            .remove(&(model.clone(), version.clone()));
    }

    /// What those come from that could not be restored yet.
    pub(super) fn missing_sources(&self) -> Vec<String> {
        let missing = self.missing.lock();
        missing.values().map(|saved| saved.source.clone()).collect()
    }

    /// Nobody wants it any more: one version, or all of a model's. Returns what there was.
    pub(super) fn forget(&self, model: &str, version: Option<&str>) -> Vec<SavedVersion> {
        let is_meant = |name: &ModelName, known: &Version| {
            name.as_str() == model && version.is_none_or(|version| known.as_str() == version)
        };
        let mut missing = self.missing.lock();
        let forgotten = missing.extract_if(.., |(name, known), _| is_meant(name, known));
        forgotten.map(|(_, saved)| saved).collect()
    }

    /// Asks for a snapshot; the answer comes when it is on disk, or was given up.
    fn request(&self, moment: Moment) -> Option<oneshot::Receiver<()>> {
        if moment == Moment::Startup {
            self.is_open.store(true, Ordering::SeqCst);
        }
        let requests = self
            .requests
            .as_ref()
            .filter(|_| self.is_open.load(Ordering::SeqCst))?;
        let (done, is_done) = oneshot::channel();
        requests.lock().send(Request { moment, done }).ok()?;
        Some(is_done)
    }
}

impl Catalog {
    /// Saves the catalog and waits until that is done. Not before everything that was listed is in it, which
    /// [`Moment::Startup`] says.
    pub async fn save(&self, moment: Moment) {
        if !self.is_closed() {
            self.save_whatever(moment).await;
        }
    }

    /// The same, also where the owner is gone.
    pub(super) async fn save_whatever(&self, moment: Moment) {
        if let Some(done) = self.state.snapshots.request(moment) {
            // Gone with the thread, it was not saved, and that was logged.
            let _ = done.await;
        }
    }
}

/// Writes until nobody can ask any more.
fn write_all(files: &SnapshotFiles, requests: &Receiver<Request>, catalog: &Weak<CatalogState>) {
    while let Ok(first) = requests.recv() {
        let mut due = vec![first];
        due.extend(requests.try_iter());
        let Some(catalog) = catalog.upgrade() else {
            return;
        };
        let versions = saved(&catalog);
        drop(catalog);
        let mut moments: Vec<_> = due.iter().map(|request| request.moment).collect();
        moments.sort_unstable();
        moments.dedup();
        for moment in moments {
            if let Err(error) = files.write(moment, &versions) {
                tracing::error!(%error, "A snapshot was not saved");
            }
        }
        for request in due {
            // Not everybody waits.
            let _ = request.done.send(());
        }
    }
}

/// Everything to be restored, by model and version.
fn saved(catalog: &CatalogState) -> Vec<SavedVersion> {
    let mut all = catalog.snapshots.missing.lock().clone();
    let models = catalog.models.load();
    for ((name, _), missing) in &mut all {
        missing.is_default &= !models.contains_key(name);
    }
    for model in models.values() {
        for entry in model.versions.iter().filter(|entry| entry.is_settled()) {
            let saved = of_entry(entry, Arc::ptr_eq(entry, &model.default));
            all.insert((saved.model.clone(), saved.version.clone()), saved);
        }
    }
    all.into_values().collect()
}

fn of_entry(entry: &Entry, is_default: bool) -> SavedVersion {
    let (spec, bounds) = (entry.spec(), entry.bounds());
    let settings = &spec.settings;
    SavedVersion {
        model: spec.name.clone(),
        version: spec.version.clone(),
        is_default,
        source: entry.source().to_owned(),
        settings: Requested {
            min_workers: Some(bounds.min),
            max_workers: Some(bounds.max),
            batch_size: Some(settings.batch_size),
            max_batch_delay: Some(settings.max_batch_delay),
            response_timeout: Some(settings.response_timeout),
            startup_timeout: Some(settings.startup_timeout),
        },
        more: More {
            url: Some(without_query(entry.url()).to_owned()),
            handler: entry.asked_handler().map(str::to_owned),
            envelope: entry.asked_envelope(),
            is_fetched: entry.is_fetched(),
            loaded_at_startup: entry.loaded_at_startup(),
            digest: Some(entry.digest().to_owned()),
            pin: entry.pin().map(str::to_owned),
        },
    }
}

/// A query may hold a signature.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
