//! Tenants: who owns models beside the operator, which keys open what they have, and their life.
//!
//! Each tenant has a catalog and metrics of its own. Whoever shows a tenant's key gets those and nothing else, so that there is no way
//! from a request to what another tenant has, neither by a name nor by a list. This module knows neither HTTP nor where a tenant's files
//! are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::catalog::{Catalog, Moment, Owner, Sampler, Usage};
use crate::config::Problems;
use crate::config::server::CheckUrls;
use crate::config::tenants::{self as file, TenantSettings, TenantsFile};
use crate::error::{Error, Kind};
use crate::fair_queue::{FairQueue, Party};
use crate::metrics::Metrics;
use crate::model::{ModelName, TenantName};
use crate::place::Stamp;
use crate::token::{KeyDigest, LONGEST, TenantKey, TenantScope};

mod ledger;
mod shares;

pub use ledger::Ledger;
use shares::{Shares, Used};

/// What a new tenant gets, and what becomes of its files.
pub trait Homes: Send + Sync {
    /// The catalog and the metrics of `owner`, whose models load from then on. Blocks.
    fn open(&self, owner: Arc<Owner>) -> Result<Home, Error>;

    /// Puts everything that `tenant` has on disk aside, and returns where. It is removed a while later. Blocks.
    fn clear(&self, tenant: &TenantName) -> io::Result<PathBuf>;

    /// Removes what was put aside a while ago. Blocks.
    fn sweep(&self);

    /// No tenant's home is used any more: another server may have them.
    fn release(&self);

    /// Tenants of this file that have something on disk. Blocks.
    fn found(&self) -> Vec<TenantName>;
}

/// What a tenant has.
pub struct Home {
    /// Its models.
    pub catalog: Catalog,
    /// Their metrics.
    pub metrics: Metrics,
}

/// One tenant.
pub struct Tenant {
    owner: Arc<Owner>,
    home: Home,
    is_suspended: AtomicBool,
    since: SystemTime,
    /// What the ledger knows it by.
    number: u64,
    sampler: Mutex<Sampler>,
    /// Whether its processes come after others'.
    is_set_back: AtomicBool,
}

impl Tenant {
    /// Its models.
    pub const fn catalog(&self) -> &Catalog {
        &self.home.catalog
    }

    /// Their metrics.
    pub const fn metrics(&self) -> &Metrics {
        &self.home.metrics
    }

    /// Its name; `None` is the operator's, which no tenant is.
    pub fn name(&self) -> Option<&TenantName> {
        self.owner.tenant()
    }

    /// Who its models' owner is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether its calls are refused for now.
    pub fn is_suspended(&self) -> bool {
        self.is_suspended.load(Ordering::Relaxed)
    }

    /// When it came.
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// What it has used since it came, up to now. Reads files of the system.
    pub fn usage(&self) -> Usage {
        self.home.catalog.sample(&mut self.sampler.lock());
        self.owner.usage().unwrap_or_default()
    }

    /// Fails while its calls are refused.
    pub fn check_not_suspended(&self) -> Result<(), Error> {
        if self.is_suspended() {
            return Err(Error::new(Kind::Suspended, "The tenant is suspended"));
        }
        Ok(())
    }

    fn place_processes(&self, is_back: bool) {
        if is_back || self.is_set_back.load(Ordering::Relaxed) {
            let is_done = self.home.catalog.set_back(is_back);
            self.is_set_back
                .store(is_back || !is_done, Ordering::Relaxed);
        }
    }

    fn follow(&self, settings: &TenantSettings) {
        follow(&self.owner, settings);
        self.is_suspended
            .store(settings.is_suspended, Ordering::Relaxed);
    }
}

fn follow(owner: &Owner, settings: &TenantSettings) {
    owner.set_quotas(settings.quotas);
    owner.set_weight(settings.weight.unwrap_or(1));
    owner.set_ceilings(settings.limits.clone());
    owner.set_signers(settings.signers.clone());
    owner.set_sources(settings.sources.clone());
}

/// What a key opens.
#[derive(Clone)]
pub struct Access {
    /// Whose key it is.
    pub tenant: Arc<Tenant>,
    /// The tenant's models, as far as the key is for them.
    pub catalog: Catalog,
    tenants: Arc<Tenants>,
    /// `None` for the operator's.
    key: Option<(KeyDigest, TenantScope)>,
}

impl Access {
    /// Whether the operator has it, and no key of the tenant's.
    pub const fn is_operators(&self) -> bool {
        self.key.is_none()
    }

    /// Whether it is given still: a stream of messages outlives keys and tenants.
    pub fn check(&self) -> Result<(), Error> {
        let table = self.tenants.table.load();
        let is_given = match self.key {
            Some((digest, scope)) => table.keys.get(&digest).is_some_and(|row| {
                Arc::ptr_eq(&row.tenant, &self.tenant)
                    && self.catalog.is_restricted_to(row.models.as_deref())
                    && row.key.opens(scope, SystemTime::now())
            }),
            None => table
                .tenants
                .values()
                .any(|tenant| Arc::ptr_eq(tenant, &self.tenant)),
        };
        if !is_given {
            return Err(Error::new(Kind::InvalidKey, "The key opens this no more"));
        }
        if self.key.is_some() {
            self.tenant.check_not_suspended()?;
        }
        Ok(())
    }
}

/// All tenants of a file. Whoever asks for one takes no lock.
pub struct Tenants {
    path: PathBuf,
    check_urls: CheckUrls,
    homes: Box<dyn Homes>,
    /// Where the requests of all wait.
    queue: Arc<FairQueue>,
    /// The operator among them.
    operator: Party,
    ledger: Ledger,
    shares: Mutex<Shares>,
    /// How long requests of a tenant that goes may take.
    patience: Duration,
    table: ArcSwap<Table>,
    reading: Mutex<Reading>,
    /// Whether the file that is there is wrong.
    is_file_refused: AtomicBool,
}

#[derive(Default)]
struct Table {
    tenants: BTreeMap<TenantName, Arc<Tenant>>,
    keys: HashMap<KeyDigest, Row>,
}

struct Row {
    key: TenantKey,
    models: Option<Arc<BTreeSet<ModelName>>>,
    tenant: Arc<Tenant>,
}

/// What the file said, and what is still to be done about it.
#[derive(Default)]
struct Reading {
    stamp: Option<Stamp>,
    /// Another one that was seen once: whoever writes the file may not be done.
    coming: Option<Stamp>,
    settings: TenantsFile,
    /// Tenants that are on their way out. One of that name waits for it.
    leaving: BTreeSet<TenantName>,
    /// Whether the settings are not in force for every tenant.
    is_behind: bool,
    /// Why some have no home: said once.
    homeless: BTreeMap<TenantName, String>,
}

impl Tenants {
    /// Reads the file at `path`, and opens every tenant's home. Blocks, within a runtime. Fails if the file cannot be used.
    pub fn open(
        path: PathBuf,
        check_urls: CheckUrls,
        homes: Box<dyn Homes>,
        queue: Arc<FairQueue>,
        ledger: Ledger,
        patience: Duration,
    ) -> Result<Arc<Self>, Problems> {
        let stamp = Stamp::of(&path);
        let settings = file::load(&path, check_urls)?;
        let tenants = Arc::new(Self {
            path,
            check_urls,
            homes,
            operator: queue.party(1),
            queue,
            ledger,
            shares: Mutex::default(),
            patience,
            table: ArcSwap::default(),
            reading: Mutex::default(),
            is_file_refused: AtomicBool::new(false),
        });
        let mut reading = tenants.reading.lock();
        reading.stamp = stamp;
        tenants.apply(&mut reading, settings);
        drop(reading);
        Ok(tenants)
    }

    /// Whether the file that is there is wrong, so that an earlier one is in force.
    pub fn is_file_refused(&self) -> bool {
        self.is_file_refused.load(Ordering::Relaxed)
    }

    /// The operator, as its requests wait.
    pub const fn operator(&self) -> &Party {
        &self.operator
    }

    /// Reads the file again if it has changed since the last time but one that this was called, and does what is left to do. Blocks, within
    /// a runtime. Returns whether there are other settings now. After a failure the old ones hold until the file changes again.
    pub fn refresh(self: &Arc<Self>) -> Result<bool, Problems> {
        let mut reading = self.reading.lock();
        let stamp = Stamp::of(&self.path);
        if stamp == reading.stamp {
            if reading.is_behind {
                let settings = reading.settings.clone();
                self.apply(&mut reading, settings);
            }
            return Ok(false);
        }
        if stamp != reading.coming {
            reading.coming = stamp;
            return Ok(false);
        }
        let settings = file::load(&self.path, self.check_urls);
        if Stamp::of(&self.path) != stamp {
            return Ok(false);
        }
        reading.stamp = stamp;
        self.is_file_refused
            .store(settings.is_err(), Ordering::Relaxed);
        self.apply(&mut reading, settings?);
        Ok(true)
    }

    /// What `key` opens in `scope` now, if it is a tenant's that does.
    pub fn access(self: &Arc<Self>, key: &[u8], scope: TenantScope) -> Option<Access> {
        if key.len() > LONGEST {
            return None;
        }
        let (table, digest) = (self.table.load(), KeyDigest::of(key));
        let row = table.keys.get(&digest)?;
        row.key.opens(scope, SystemTime::now()).then(|| Access {
            catalog: row.tenant.catalog().restricted_to(row.models.clone()),
            tenant: Arc::clone(&row.tenant),
            tenants: Arc::clone(self),
            key: Some((digest, scope)),
        })
    }

    /// Whose key `key` is, and which, whatever it opens.
    pub fn holder(&self, key: &[u8]) -> Option<(TenantName, TenantKey)> {
        if key.len() > LONGEST {
            return None;
        }
        let table = self.table.load();
        let row = table.keys.get(&KeyDigest::of(key))?;
        Some((row.tenant.name()?.clone(), row.key.clone()))
    }

    /// Everything of the tenant that is called so, for the operator.
    pub fn named(self: &Arc<Self>, name: &str) -> Option<Access> {
        let table = self.table.load();
        let tenant = table.tenants.get(name)?;
        Some(Access {
            catalog: tenant.catalog().clone(),
            tenant: Arc::clone(tenant),
            tenants: Arc::clone(self),
            key: None,
        })
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<(TenantName, Arc<Tenant>)> {
        let table = self.table.load();
        let all = table.tenants.iter();
        all.map(|(name, tenant)| (name.clone(), Arc::clone(tenant)))
            .collect()
    }

    /// The server is about to stop: no tenant's models are ready from now on. Requests are served as before.
    pub fn announce_stop(&self) {
        for (_, tenant) in self.all() {
            tenant.catalog().announce_stop();
        }
    }

    /// The server stops: nothing more is loaded, and no tenant's models are ready.
    pub fn begin_stop(&self) {
        for (_, tenant) in self.all() {
            tenant.catalog().begin_stop();
        }
    }

    /// Saves what is registered, and ends every runtime; requests in flight may take `patience`.
    pub async fn stop(self: &Arc<Self>, patience: Duration) {
        let all = self.all();
        let stopping = all.iter().map(|(_, tenant)| async {
            tenant.catalog().save(Moment::Shutdown).await;
            tenant.catalog().drain(patience).await;
        });
        self.noted().await;
        self.placed_as_usual().await;
        futures_util::future::join_all(stopping).await;
        self.noted().await;
        self.homes.release();
    }

    async fn noted(self: &Arc<Self>) {
        let tenants = Arc::clone(self);
        // A panic was logged where it happened.
        let _ = tokio::task::spawn_blocking(move || tenants.note_usage()).await;
    }

    /// What is left to be answered is not kept waiting.
    async fn placed_as_usual(self: &Arc<Self>) {
        let all = self.all();
        let place = move || {
            for (_, tenant) in &all {
                tenant.place_processes(false);
            }
        };
        // A panic was logged where it happened.
        let _ = tokio::task::spawn_blocking(place).await;
    }

    /// Writes down what every tenant has used since the last time. Blocks.
    pub fn note_usage(&self) {
        for (name, tenant) in self.all() {
            self.ledger.note(&name, tenant.number, || tenant.usage());
        }
    }

    /// Has the kernel let the processes of those tenants come last that used more than their share of the processors since this was last called.
    /// What requests cost is charged in the queue in any case; but a process may do something without a request. The operator's are not looked
    /// at. Blocks.
    pub fn place_processes(&self) {
        let all = self.all();
        let used = all.iter().map(|(_, tenant)| Used {
            number: tenant.number,
            weight: tenant.owner.weight(),
            seconds: tenant.usage().cpu_seconds,
        });
        let used: Vec<_> = used.collect();
        let beyond = self
            .shares
            .lock()
            .beyond(&used, self.queue.cores(), Instant::now());
        for (_, tenant) in &all {
            tenant.place_processes(beyond.contains(&tenant.number));
        }
    }

    /// Removes what was put aside a while ago. Blocks, for as long as that takes.
    pub fn sweep(&self) {
        self.homes.sweep();
    }

    /// Removes what tenants have left that went while no server ran. Blocks. To be called once the server serves: one that does not start
    /// changes nothing.
    pub fn clear_others(&self) {
        let reading = self.reading.lock();
        for name in self.homes.found() {
            if !reading.settings.tenants.contains_key(&name) && !reading.leaving.contains(&name) {
                self.clear(&name);
            }
        }
    }

    /// Whether what it had is out of the way of another tenant of that name.
    fn clear(&self, name: &TenantName) -> bool {
        match self.homes.clear(name) {
            Ok(aside) => tracing::info!(
                tenant = %name,
                "Tenant {name} is removed. What it had is in {} for an hour yet.",
                aside.display()
            ),
            Err(error) => {
                tracing::error!(
                    tenant = %name, %error,
                    "what tenant {name} had is not removed: no other tenant is served by that name until this server is started again"
                );
                return false;
            }
        }
        true
    }

    /// Puts `settings` in force: tenants come, change and go.
    fn apply(self: &Arc<Self>, reading: &mut Reading, settings: TenantsFile) {
        let before = self.table.load_full();
        let (mut tenants, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = before
            .tenants
            .iter()
            .map(|(name, tenant)| (name.clone(), Arc::clone(tenant)))
            .partition(|(name, _)| settings.tenants.contains_key(name));
        // What is taken away is taken away first: opening homes takes its time.
        self.table.store(Arc::new(Table::new(&settings, &tenants)));
        for (name, tenant) in gone {
            reading.leaving.insert(name.clone());
            tokio::spawn(Arc::clone(self).leave(name, tenant));
        }
        self.operator
            .set_weight(settings.operator_weight.unwrap_or(1));
        reading.is_behind = false;
        for (name, settings) in &settings.tenants {
            if tenants.contains_key(name) {
                continue;
            }
            match self.arrived(name, settings, reading) {
                Some(tenant) => drop(tenants.insert(name.clone(), tenant)),
                None => reading.is_behind = true,
            }
        }
        self.table.store(Arc::new(Table::new(&settings, &tenants)));
        reading.settings = settings;
    }

    /// A tenant that was not there before; `None` while it cannot be.
    fn arrived(
        &self,
        name: &TenantName,
        settings: &TenantSettings,
        reading: &mut Reading,
    ) -> Option<Arc<Tenant>> {
        if reading.leaving.contains(name) {
            return None;
        }
        let owner = Owner::tenant_with(name.clone(), self.queue.party(1));
        // Before anything of its is loaded.
        follow(&owner, settings);
        let owner = Arc::new(owner);
        match self.homes.open(Arc::clone(&owner)) {
            Ok(home) => {
                reading.homeless.remove(name);
                Some(Arc::new(Tenant {
                    owner,
                    home,
                    is_suspended: AtomicBool::new(settings.is_suspended),
                    since: SystemTime::now(),
                    number: self.ledger.begin(),
                    sampler: Mutex::default(),
                    is_set_back: AtomicBool::new(false),
                }))
            }
            Err(error) => {
                let why = error.to_string();
                if reading.homeless.insert(name.clone(), why.clone()) != Some(why) {
                    tracing::error!(tenant = %name, %error, "tenant {name} cannot be served yet");
                }
                None
            }
        }
    }

    /// A tenant that is in the file no more: its requests end, then everything that it had goes.
    async fn leave(self: Arc<Self>, name: TenantName, tenant: Arc<Tenant>) {
        tracing::info!(tenant = %name, "Tenant {name} is to be removed: its requests in flight are answered.");
        tenant.catalog().begin_stop();
        tenant.catalog().close().await;
        // What its processes used is known as long as they are there. A panic was logged where it happened.
        let sampled = Arc::clone(&tenant);
        let sampled = move || {
            sampled.usage();
            sampled.place_processes(false);
        };
        let _ = tokio::task::spawn_blocking(sampled).await;
        tenant.catalog().drain(self.patience).await;
        let cleared = tokio::task::spawn_blocking(move || {
            self.ledger.note(&name, tenant.number, || tenant.usage());
            self.ledger.end(tenant.number);
            drop(tenant);
            if self.clear(&name) {
                self.reading.lock().leaving.remove(&name);
            }
        });
        // A panic was logged where it happened.
        let _ = cleared.await;
    }
}

impl Table {
    /// Of `tenants`, which follow their `settings` from now on.
    fn new(settings: &TenantsFile, tenants: &BTreeMap<TenantName, Arc<Tenant>>) -> Self {
        let mut keys = HashMap::new();
        for (name, tenant) in tenants {
            let Some(settings) = settings.tenants.get(name) else {
                continue;
            };
            tenant.follow(settings);
            let rows = settings.keys.iter().cloned();
            keys.extend(rows.map(|key| (key.digest, Row::new(key, tenant))));
        }
        Self {
            tenants: tenants.clone(),
            keys,
        }
    }
}

impl Row {
    fn new(key: TenantKey, tenant: &Arc<Tenant>) -> Self {
        Self {
            models: key.models.clone().map(Arc::new),
            tenant: Arc::clone(tenant),
            key,
        }
    }
}
