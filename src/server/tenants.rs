//! Where tenants are at home: for each a directory with its archives, its snapshots, what was unpacked and compiled, and nothing of
//! anybody else's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::settings::{default_versions, verdicts};
use super::{load, places};
use crate::archive::{FetchConfig, Fetcher, ModelStore};
use crate::catalog::{
    Catalog, Health, Library, LibraryConfig, Owner, Parts, Registration, SnapshotConfig,
};
use crate::config::server::{ListedVersions, newest_saved};
use crate::error::{Error, Kind};
use crate::metrics::{self, Metrics};
use crate::model::{Hosting, TenantName};
use crate::place;
use crate::runtime::{Compiler, Hosts};
use crate::tenants::{Home, Homes};

/// What is in the directory of each tenant, so that no other directory is taken for one's.
const MARK: &str = ".lantern-tenant";

/// Where tenants come from, and what they share.
pub struct TenantsConfig {
    /// `tenants.yaml`.
    pub file: PathBuf,
    /// Where each has a directory.
    pub directory: PathBuf,
    /// Compiles the handlers of all.
    pub compiler: Arc<Compiler>,
}

/// What a new tenant gets.
pub(super) struct TenantHomes {
    directory: PathBuf,
    compiler: Arc<Compiler>,
    parts: Shared,
}

/// What tenants share with the operator, or have as the operator has it.
pub(super) struct Shared {
    pub(super) hosts: Hosts,
    pub(super) health: Health,
    pub(super) library: Arc<LibraryConfig>,
    pub(super) metrics: metrics::Config,
    pub(super) unregister_timeout: Duration,
}

impl TenantHomes {
    /// Homes below the directory of `cfg`, which is made if it is missing.
    pub(super) fn new(cfg: &TenantsConfig, mut parts: Shared) -> io::Result<Self> {
        parts.library = Arc::new(of_tenants(&parts.library));
        Ok(Self {
            directory: place::own(&cfg.directory)?,
            compiler: Arc::clone(&cfg.compiler),
            parts,
        })
    }

    fn of(&self, tenant: &TenantName) -> PathBuf {
        self.directory.join(tenant.as_str())
    }

    fn hosts(&self, home: &Path, processes: &Path) -> Hosts {
        let cache = places::cache(&home.join("cache"));
        let mut hosts = self.parts.hosts.clone();
        hosts.verdicts = verdicts(cache.as_deref());
        hosts.code = Arc::new(self.compiler.with_cache_of_its_own(cache));
        hosts.processes.directory = Some(processes.to_owned());
        hosts
    }

    fn made(&self, owner: &Owner) -> io::Result<PathBuf> {
        let tenant = owner.tenant().ok_or(io::ErrorKind::InvalidInput)?;
        let home = place::own(&self.of(tenant))?;
        fs::write(home.join(MARK), "")?;
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
        let saved = newest_saved(&snapshots).unwrap_or_default();
        let defaults = default_versions(&saved.versions);
        let store = ModelStore::new(Some(home.join("archives")));
        let metrics = Metrics::of_tenant(&self.parts.metrics);
        let catalog = Catalog::new(Parts {
            owner,
            hosts: self.hosts(&home, unpacked.directory()),
            metrics: metrics.clone(),
            health: self.parts.health,
            library: Library {
                // Nothing is allowed: there is what lies in its directory.
                fetcher: Fetcher::new(FetchConfig::default(), store),
                unpacked,
                cfg: Arc::clone(&self.parts.library),
            },
            unregister_timeout: self.parts.unregister_timeout,
            snapshots: Some(SnapshotConfig {
                directory: snapshots,
                properties: std::collections::BTreeMap::new(),
            }),
            restored: saved.versions.clone(),
        });
        let models = saved.versions.into_iter().map(Registration::from);
        let models = catalog.expect(models.collect(), defaults.clone());
        tokio::spawn(load(catalog.clone(), models, defaults));
        Ok(Home { catalog, metrics })
    }

    fn clear(&self, tenant: &TenantName) -> io::Result<()> {
        let home = self.of(tenant);
        match fs::symlink_metadata(home.join(MARK)) {
            Ok(_) => fs::remove_dir_all(home),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn found(&self) -> Vec<TenantName> {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let marked = entries.filter(|entry| entry.path().join(MARK).exists());
        let names = marked.filter_map(|entry| TenantName::new(entry.file_name().to_str()?).ok());
        names.collect()
    }
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
