//! Registration: from an archive in the model store to a version with workers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::entry::Entry;
use super::{Catalog, Moment, conflict};
use crate::archive::ArchiveError;
use crate::config::model::Requested;
use crate::config::snapshot::{More, SavedVersion};
use crate::error::{Error, Kind};
use crate::model::{Envelope, ModelName, Version};
use crate::runtime::{Bounds, Level};

/// Characters of a URL that a message repeats.
const SHOWN: usize = 1024;

/// What somebody wants registered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// Where the archive is.
    pub url: String,
    /// Name of the model, if not the archive's.
    pub name: Option<String>,
    /// Handler, if not the archive's.
    pub handler: Option<String>,
    /// How requests are wrapped, whatever the archive says.
    pub envelope: Option<Envelope>,
    /// Settings, where the archive leaves room.
    pub requested: Requested,
    /// What a snapshot says, if this restores a version.
    pub restored: Option<Restored>,
}

/// What a version was when it was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The version that the archive must hold.
    pub version: Version,
    /// Workers it had to have; the archive does not overrule them.
    pub bounds: Option<Bounds>,
    /// The rest.
    pub more: More,
}

impl From<SavedVersion> for Registration {
    fn from(saved: SavedVersion) -> Self {
        let (min, max) = (saved.settings.min_workers, saved.settings.max_workers);
        let bounds = min.map(|min| Bounds {
            min,
            max: max.unwrap_or(min).max(min),
        });
        Self {
            url: saved.source,
            name: Some(saved.model.to_string()),
            handler: saved.more.handler.clone(),
            envelope: saved.more.envelope,
            requested: saved.settings,
            restored: Some(Restored {
                version: saved.version,
                bounds,
                more: saved.more,
            }),
        }
    }
}

/// How a registration ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// It has no workers, as nobody asked for any.
    Empty {
        /// Name.
        name: ModelName,
        /// Version.
        version: Version,
    },
    /// Its workers are up.
    Loaded {
        /// Name.
        name: ModelName,
        /// Version.
        version: Version,
        /// How many there are.
        workers: usize,
    },
    /// Its workers start.
    Starting,
    /// Some of its workers are up; others start, or failed.
    Partly,
}

impl Catalog {
    /// Registers a version. With `wait`, waits for its workers, and takes it back if they do not start: its description shows
    /// the failure for a while. Without, it stays, and its description shows the failure. `opened` gets the version before its workers start.
    pub async fn register(
        &self,
        registration: Registration,
        wait: bool,
        opened: impl FnOnce(&Entry) + Send,
    ) -> Result<Registered, Error> {
        let entry = self.open(registration, false).await?;
        opened(&entry);
        let (name, version) = (entry.spec().name.clone(), entry.spec().version.clone());
        let workers = entry.spec().settings.min_workers;
        if workers == 0 || !wait {
            self.settle(&entry).await;
        }
        if workers == 0 {
            return Ok(Registered::Empty { name, version });
        }
        let start = self.start(&entry, wait, true);
        if !wait {
            return Ok(Registered::Starting);
        }
        match start.await {
            Ok(Ok(())) if !entry.all_ready().await => Ok(Registered::Partly),
            Ok(Ok(())) => Ok(Registered::Loaded {
                name,
                version,
                workers,
            }),
            Ok(Err(error)) => Err(failed_to_start(&name, Some(&version), &error)),
            Err(panic) => Err(Error::new(Kind::Internal, "Registration failed").with_detail(panic)),
        }
    }

    /// Registers a version that the operator listed, or that is restored. Its workers do not start yet.
    pub(super) async fn register_at_startup(
        &self,
        registration: Registration,
    ) -> Result<Arc<Entry>, Error> {
        let entry = self.open(registration, true).await?;
        entry.settle();
        Ok(entry)
    }

    /// Starts the workers of a version that was registered so; it stays in the catalog even if they do not start.
    pub async fn start_at_startup(&self, entry: &Arc<Entry>) -> Result<(), Error> {
        if entry.spec().settings.min_workers == 0 {
            return Ok(());
        }
        let start = self.start(entry, false, false).await;
        start.map_err(|panic| Error::new(Kind::Internal, "Loading failed").with_detail(panic))?
    }

    /// The registration stands: it is saved, and what was fetched for it stays. A client that leaves changes nothing.
    async fn settle(&self, entry: &Arc<Entry>) {
        entry.mark_settled();
        let (catalog, entry) = (self.clone(), Arc::clone(entry));
        let settling = tokio::spawn(async move {
            catalog.save(Moment::Change).await;
            entry.settle();
        });
        // A panic was logged where it happened.
        let _ = settling.await;
    }

    async fn open(
        &self,
        registration: Registration,
        at_startup: bool,
    ) -> Result<Arc<Entry>, Error> {
        self.check_may_be_opened(&registration)?;
        let _at_work = self.at_work().await?;
        let ceilings = self.state.parts.owner.ceilings();
        let mut library = self.state.parts.library.clone().within(&ceilings);
        let url = registration.url.clone();
        let one_at_a_time = self.begin_fetching(&url, &mut library).await?;
        let mut opened = library.open(registration, at_startup).await?;
        drop(one_at_a_time);
        let warnings = std::mem::take(&mut opened.warnings);
        let (name, version) = (&opened.spec.name, &opened.spec.version);
        if !self.shows(name.as_str()) {
            return Err(not_there(&url));
        }
        let signers = self.state.parts.owner.signers();
        opened.files.origin().check(&signers)?;
        if !at_startup && self.state.expected.holds(name, version) {
            return Err(conflict(name, version));
        }
        let entry = Arc::new(Entry::new(
            opened,
            &self.state.parts.owner,
            &self.state.parts.metrics,
            self.state.parts.log.clone(),
            Arc::downgrade(&self.state),
        ));
        for warning in warnings {
            entry.tell(Level::Warn, warning);
        }
        if entry.spec().settings.min_workers > 0 {
            entry.expect_workers();
        }
        self.insert(&entry, at_startup)?;
        let (name, version) = (&entry.spec().name, &entry.spec().version);
        self.state.snapshots.found(name, version);
        self.state
            .expected
            .forget(name.as_str(), Some(version.as_str()));
        self.state
            .failed
            .forget(name.as_str(), None, Instant::now());
        Ok(entry)
    }

    /// Whoever sees certain models alone registers those, from archives that are called as they are, with or without a version.
    fn check_may_be_opened(&self, registration: &Registration) -> Result<(), Error> {
        let (url, name) = (&registration.url, registration.name.as_deref());
        let is_of_one = |only: &BTreeSet<ModelName>| {
            let rests = only.iter().filter_map(|one| url.strip_prefix(one.as_str()));
            let mut rests = rests.filter_map(|rest| rest.strip_suffix(".mar"));
            // Nothing, or `-1.0`: what is behind another word is another model's.
            let is_digit = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            let is_version = |text: &str| !text.is_empty() && text.bytes().all(is_digit);
            let is_own = |rest: &str| rest.strip_prefix('-').map_or(rest.is_empty(), is_version);
            rests.any(is_own)
        };
        let is_shown = self.only.as_deref().is_none_or(is_of_one);
        if is_shown && name.is_none_or(|name| self.shows(name)) {
            return Ok(());
        }
        Err(not_there(url))
    }

    /// Starts a version in a task of its own: a client that leaves does not end it.
    fn start(
        &self,
        entry: &Arc<Entry>,
        remove_on_failure: bool,
        is_asked: bool,
    ) -> tokio::task::JoinHandle<Result<(), Error>> {
        let (catalog, entry) = (self.clone(), Arc::clone(entry));
        tokio::spawn(async move {
            let started = entry.start(&catalog.state.parts.hosts, is_asked).await;
            match &started {
                Err(error) if remove_on_failure => catalog.take_back(&entry, error),
                Ok(()) if remove_on_failure => catalog.settle(&entry).await,
                _ => {}
            }
            started
        })
    }
}

/// The failure of an archive that is not there.
fn not_there(url: &str) -> Error {
    ArchiveError::NotFound(url.chars().take(SHOWN).collect()).into()
}

/// TorchServe's message, and why. Memory that ran out keeps its status, and so does what somebody else called off; every
/// other reason is a failed load.
pub fn failed_to_start(name: &ModelName, version: Option<&Version>, reason: &Error) -> Error {
    let kind = match reason.kind() {
        kind
        @ (Kind::OutOfMemory | Kind::HandlerOutOfMemory | Kind::Conflict | Kind::OverQuota) => kind,
        _ => Kind::LoadFailed,
    };
    let version = version.map_or("null", Version::as_str);
    let message = format!(
        "Failed to start workers for model {name} version: {version}: {}",
        reason.message()
    );
    let error = Error::new(kind, message);
    match reason.detail() {
        Some(detail) => error.with_detail(detail),
        None => error,
    }
}
