//! Where tenants are at home: for each a directory with its archives, its snapshots, what was unpacked and compiled, and nothing of
//! anybody else's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::settings::{default_versions, verdicts};
use super::{Config, Places, ServerError, load, logs, places};
use crate::archive::{AllowedUrls, FetchConfig, Fetcher, ModelStore, check_urls};
use crate::catalog::{
    Catalog, Health, Library, LibraryConfig, Owner, Parts, Peaks, Registration, SnapshotConfig,
};
use crate::config::server::{ListedVersions, newest_saved};
use crate::error::{Error, Kind};
use crate::fair_queue::FairQueue;
use crate::metrics::{self, Metrics, UsageSample, UsageSource};
use crate::model::{Hosting, TenantName};
use crate::place;
use crate::runtime::{Compiler, Hosts};
use crate::telemetry::{TenantLog, TenantLogs};
use crate::tenants::{Home, Homes, Ledger, Tenants};

/// What is in the directory of each tenant: the path of the file that it is in. No other directory is taken for one's.
const MARK: &str = ".lantern-tenant";
/// Locked by the server whose tenants are in the directory.
const LOCK: &str = ".lock";
/// Where directories of tenants are that are gone: `SECONDS-NAME`, by when they went.
const ASIDE: &str = ".removed";
/// Where it is written down what tenants use.
const USAGE: &str = ".usage";
/// How long they stay there.
const KEPT: Duration = Duration::from_hours(1);
/// Archives of all tenants that are examined at the same time, each unpacked.
const EXAMINED_AT_ONCE: usize = 2;

/// Where tenants come from, and what they share.
pub struct TenantsConfig {
    /// `tenants.yaml`.
    pub file: PathBuf,
    /// Where each has a directory.
    pub directory: PathBuf,
    /// Compiles the handlers of all.
    pub compiler: Arc<Compiler>,
    /// Opens the log files of each, if there are any.
    pub logs: Option<TenantLogs>,
}

/// What a new tenant gets.
pub(super) struct TenantHomes {
    directory: PathBuf,
    /// What is in [`MARK`] of each tenant of this file.
    mark: Vec<u8>,
    compiler: Arc<Compiler>,
    parts: Shared,
    places: Places,
    logs: Option<TenantLogs>,
    /// Those of tenants that are here.
    open_logs: Mutex<BTreeMap<TenantName, TenantLog>>,
    /// Keeps other servers out of the directory.
    lock: Mutex<Option<File>>,
}

/// What tenants share with the operator, or have as the operator has it.
pub(super) struct Shared {
    hosts: Hosts,
    health: Health,
    library: Arc<LibraryConfig>,
    /// How archives are fetched.
    fetching: FetchConfig,
    /// Archives that are examined at the same time.
    examining: Arc<Semaphore>,
    metrics: metrics::Config,
    unregister_timeout: Duration,
    drain_timeout: Duration,
}

impl Shared {
    /// Of the server that `cfg` makes.
    pub(super) fn new(cfg: &Config) -> Self {
        Self {
            hosts: cfg.hosts.clone(),
            health: cfg.health,
            library: Arc::new(of_tenants(&cfg.library.cfg)),
            fetching: cfg.library.fetcher.config().clone(),
            examining: Arc::new(Semaphore::new(EXAMINED_AT_ONCE)),
            metrics: cfg.metrics.clone(),
            unregister_timeout: cfg.unregister_timeout,
            drain_timeout: cfg.drain_timeout,
        }
    }

    /// Blocks until the home of each tenant is open.
    pub(super) fn open(self, cfg: &TenantsConfig) -> Result<Arc<Tenants>, ServerError> {
        let (patience, cores) = (self.drain_timeout, self.hosts.cores);
        let homes = TenantHomes::new(cfg, self);
        let homes = homes.map_err(|source| ServerError::TenantsPlace {
            path: cfg.directory.clone(),
            source,
        })?;
        let queue = FairQueue::new(cores);
        let file = cfg.file.clone();
        let ledger = Ledger::new(homes.directory.join(USAGE));
        let tenants = Tenants::open(file, check_urls, Box::new(homes), queue, ledger, patience);
        Ok(tenants?)
    }
}

impl TenantHomes {
    /// Homes below the directory of `cfg`, which is made if it is missing.
    fn new(cfg: &TenantsConfig, parts: Shared) -> io::Result<Self> {
        let directory = exactly(&cfg.directory)?;
        let lock = File::create(directory.join(LOCK))?;
        let in_use = |_| io::Error::other("another server has its tenants there");
        lock.try_lock().map_err(in_use)?;
        if let Ok(groups) = &parts.hosts.processes.sandbox.groups
            && let Err(error) = groups.divide_processor()
        {
            tracing::debug!(%error, "the kernel does not divide the processor by weight");
        }
        Ok(Self {
            mark: mark(&cfg.file)?,
            compiler: Arc::clone(&cfg.compiler),
            places: Places::default(),
            logs: cfg.logs.clone(),
            open_logs: Mutex::default(),
            lock: Mutex::new(Some(lock)),
            directory,
            parts,
        })
    }

    fn of(&self, tenant: &TenantName) -> PathBuf {
        self.directory.join(tenant.as_str())
    }

    fn hosts(&self, owner: &Owner, home: &Path, processes: &Path) -> Hosts {
        let cache = places::cache(&home.join("cache"));
        let mut hosts = self.parts.hosts.clone();
        hosts.verdicts = verdicts(cache.as_deref());
        hosts.code = Arc::new(self.compiler.with_cache_of_its_own(cache));
        hosts.processes.directory = Some(processes.to_owned());
        hosts.processes.weight = owner.processor_weight();
        hosts
    }

    /// The log of a tenant that has come, if there are log files.
    fn log(&self, tenant: &TenantName, home: &Path) -> Option<TenantLog> {
        let log = self.logs.as_ref()?.open(tenant, &home.join("logs"));
        let mut open = self.open_logs.lock();
        open.insert(tenant.clone(), log.clone());
        Some(log)
    }

    /// Nothing is written to the files of the tenant's log from then on. Blocks.
    fn close_log(&self, tenant: &TenantName) {
        let log = self.open_logs.lock().remove(tenant);
        if let Some(log) = log {
            log.close();
        }
    }

    fn fetch_config(&self) -> FetchConfig {
        FetchConfig {
            // Nothing until the file says what; and nothing is asked for with the operator's credentials.
            allowed: AllowedUrls::default(),
            s3: BTreeMap::new(),
            ..self.parts.fetching.clone()
        }
    }

    /// Whether the directory is one of a tenant of this file.
    fn is_home(&self, directory: &Path) -> bool {
        let is_directory = fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir());
        let mark = fs::read(directory.join(MARK));
        is_directory && mark.is_ok_and(|mark| mark == self.mark)
    }

    fn made(&self, owner: &Owner) -> io::Result<PathBuf> {
        let tenant = owner.tenant().ok_or(io::ErrorKind::InvalidInput)?;
        let home = exactly(&self.of(tenant))?;
        if fs::symlink_metadata(home.join(MARK)).is_ok() && !self.is_home(&home) {
            return Err(io::Error::other(
                "its directory is that of a tenant of another file",
            ));
        }
        fs::write(home.join(MARK), &self.mark)?;
        fs::create_dir_all(home.join("archives"))?;
        Ok(home)
    }
}

impl Homes for TenantHomes {
    fn open(&self, owner: Arc<Owner>) -> Result<Home, Error> {
        let no_home = |error: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, "the tenant has no home").with_detail(error)
        };
        let home = self.made(&owner).map_err(|error| no_home(&error))?;
        let unpacked = places::unpacked(&[home.join("unpacked")]);
        let unpacked = unpacked.map_err(|error| no_home(&error))?;
        let snapshots = home.join("snapshots");
        let saved = newest_saved(&snapshots).map_err(|_| no_home(&"no snapshot can be read"))?;
        let defaults = default_versions(&saved.versions);
        let store = ModelStore::new(Some(home.join("archives")));
        let name = owner.tenant().cloned();
        let log = name.as_ref().and_then(|name| self.log(name, &home));
        let shown = metrics::Config {
            model_log: logs::metrics(log.clone()),
            ..self.parts.metrics.clone()
        };
        let metrics = Metrics::of_tenant(&shown, usage(&owner));
        let catalog = Catalog::new(Parts {
            hosts: self.hosts(&owner, &home, unpacked.directory()),
            owner,
            log: Some(logs::models(log)),
            metrics: metrics.clone(),
            health: self.parts.health,
            examining: Arc::clone(&self.parts.examining),
            peaks: Peaks::kept_in(
                places::cache(&home.join("cache")).map(|cache| cache.join("peaks")),
            ),
            library: Library {
                // Nothing is allowed: there is what lies in its directory.
                fetcher: Fetcher::new(self.fetch_config(), store),
                unpacked,
                cfg: Arc::clone(&self.parts.library),
            },
            unregister_timeout: self.parts.unregister_timeout,
            snapshots: Some(SnapshotConfig {
                directory: snapshots,
                properties: BTreeMap::new(),
            }),
            restored: saved.versions.clone(),
        });
        let models = saved.versions.into_iter().map(Registration::from);
        let models = catalog.expect(models.collect(), defaults.clone());
        let places = self.places.clone();
        let span = tracing::error_span!("tenant", tenant = name.map(tracing::field::display));
        tokio::spawn(load(catalog.clone(), models, defaults, places).instrument(span));
        Ok(Home { catalog, metrics })
    }

    fn clear(&self, tenant: &TenantName) -> io::Result<PathBuf> {
        let home = self.of(tenant);
        if !self.is_home(&home) {
            return Err(io::Error::other(
                "its directory is not one that this server made",
            ));
        }
        let aside = self.directory.join(ASIDE);
        fs::create_dir_all(&aside)?;
        self.close_log(tenant);
        let mut seconds = now();
        loop {
            let place = aside.join(format!("{seconds}-{tenant}"));
            if fs::symlink_metadata(&place).is_err() {
                fs::rename(&home, &place)?;
                return Ok(place);
            }
            seconds += 1;
        }
    }

    fn sweep(&self) {
        let entries = fs::read_dir(self.directory.join(ASIDE))
            .into_iter()
            .flatten()
            .flatten();
        let until = now().saturating_sub(KEPT.as_secs());
        let is_old = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let seconds = name
                .to_str()
                .and_then(|name| name.split_once('-')?.0.parse().ok());
            seconds.is_some_and(|seconds: u64| seconds < until)
        };
        for old in entries.filter(is_old) {
            if let Err(error) = fs::remove_dir_all(old.path()) {
                tracing::warn!(%error, "what a tenant had is not all removed");
            }
        }
    }

    fn release(&self) {
        let logs = std::mem::take(&mut *self.open_logs.lock());
        for log in logs.into_values() {
            log.close();
        }
        drop(self.lock.lock().take());
    }

    fn found(&self) -> Vec<TenantName> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let homes = entries.filter(|entry| self.is_home(&entry.path()));
        let names = homes.filter_map(|entry| TenantName::new(entry.file_name().to_str()?).ok());
        names.collect()
    }
}

/// What metrics show of what an owner used.
fn usage(owner: &Arc<Owner>) -> UsageSource {
    let owner = Arc::clone(owner);
    Box::new(move || {
        let used = owner.usage().unwrap_or_default();
        UsageSample {
            amounts: [
                used.handler_seconds,
                used.inference_seconds,
                used.cpu_seconds,
                used.memory_gib_seconds,
            ],
            refusals: used.refusals.by_name().to_vec(),
            queued: owner.requests_queued(),
        }
    })
}

/// What tells the tenants of one file from those of another: its path as it is named, since what a link leads to may change.
fn mark(file: &Path) -> io::Result<Vec<u8>> {
    let file = std::path::absolute(file)?;
    let directory = fs::canonicalize(file.parent().unwrap_or(Path::new("/")))?;
    let name = file.file_name().unwrap_or_default();
    Ok(directory.join(name).into_os_string().into_vec())
}

/// The directory at `path`, made if it is missing: this one, and no other in its place.
fn exactly(path: &Path) -> io::Result<PathBuf> {
    let own = place::own(path)?;
    if fs::canonicalize(path)? == own && !fs::symlink_metadata(path)?.is_symlink() {
        return Ok(own);
    }
    let text = format!(
        "{} must be a directory that others cannot write to (chmod go-w), and no link",
        path.display()
    );
    Err(io::Error::other(text))
}

/// The directory for tenants of a file that says no other: beside it, and called as it is without its ending.
pub(super) fn beside(file: &Path) -> PathBuf {
    match file.extension() {
        Some(_) => file.with_extension(""),
        None => file.with_extension("d"),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// No two tenants share a process, the server's own included, and what the operator lists is the operator's.
fn of_tenants(library: &LibraryConfig) -> LibraryConfig {
    let mut library = LibraryConfig {
        listed: ListedVersions::default(),
        ..library.clone()
    };
    for defaults in [&mut library.at_startup, &mut library.by_api] {
        defaults.hosting = Hosting::Process;
        defaults.allow_inline = false;
    }
    library
}
