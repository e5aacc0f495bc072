//! The composition root: builds the parts, binds every socket before it serves any, loads models, and drains.
//!
//! It knows every part and none of their insides. Where settings come from is the command line's business.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::grpc::{Config as GrpcConfig, Grpc};
use crate::api::{
    self, AccessLog, Api, AuditLog, BadHeader, Followers, Listener, Protocol, Services,
};
use crate::archive::ArchiveError;
use crate::backend;
use crate::catalog::{
    Catalog, Entry, Expected, Health, Library, Moment, Owner, Parts, Peaks, Registration,
    SnapshotConfig,
};
use crate::config::Problems;
use crate::config::snapshot::SavedVersion;
use crate::listen::{Address, CertificateError};
use crate::memory;
use crate::metrics::{Metrics, System, SystemCollector};
use crate::model::{ModelName, Version};
use crate::runtime::Hosts;
use crate::tenants::Tenants;
use crate::token::{self, TokenError, Tokens};

mod front;
mod grpc;
mod hosts;
mod logs;
mod metrics;
mod places;
mod secure;
mod settings;
mod sockets;
mod tenants;
mod watch;

pub use front::FrontLimits;
pub(crate) use hosts::backend;
pub use secure::TlsConfig;
pub use settings::{Machine, probe};
pub use tenants::TenantsConfig;

use front::Front;
use secure::TlsParts;
use settings::DefaultVersions;
use sockets::Bound;

/// Models that load at the same time.
const LOADING_AT_ONCE: usize = 4;

/// How long a model that loads keeps its place among those.
const LONGEST_PLACE: Duration = Duration::from_secs(30);

/// What a server is made from.
pub struct Config {
    /// Where to listen, and for what. Listeners with the same address share a socket.
    pub listeners: Vec<(Listener, Address)>,
    /// What TLS is spoken with, where it is.
    pub tls: TlsConfig,
    /// Settings of the API.
    pub api: api::Config,
    /// What clients may keep the server busy with.
    pub front: FrontLimits,
    /// Settings of the metrics.
    pub metrics: crate::metrics::Config,
    /// How the machine is measured, if it is.
    pub system: Option<System>,
    /// Settings of listeners that speak gRPC; of those that are not here, the default.
    pub grpc: BTreeMap<Listener, GrpcConfig>,
    /// Where keys come from; without, requests need none.
    pub tokens: Option<token::Config>,
    /// Where tenants come from, if there are any.
    pub tenants: Option<TenantsConfig>,
    /// Takes a line for each request, if anybody wants them.
    pub access: Option<AccessLog>,
    /// Takes a line for each call that manages, if anybody wants them.
    pub audit: Option<AuditLog>,
    /// What runtimes are made from.
    pub hosts: Hosts,
    /// What probes answer.
    pub health: Health,
    /// Opens archives.
    pub library: Library,
    /// Models to load.
    pub models: Vec<Registration>,
    /// Where the catalog is saved, if it is.
    pub snapshots: Option<SnapshotConfig>,
    /// Versions to restore; they are among the models to load.
    pub restored: Vec<SavedVersion>,
    /// Versions that become the default of their model once all have loaded.
    pub default_versions: BTreeMap<ModelName, Version>,
    /// How long unregistering may wait for requests in flight.
    pub unregister_timeout: Duration,
    /// How long the server serves on when it is asked to stop, and says that it is not ready.
    pub drain_delay: Duration,
    /// How long requests in flight may take when the server stops.
    pub drain_timeout: Duration,
    /// Mode of the files of Unix sockets.
    pub socket_mode: u32,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A socket cannot be bound.
    #[error("cannot listen on {address} for {}", listener.name())]
    Bind {
        /// Where.
        address: Address,
        /// For what.
        listener: Listener,
        /// Why.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There are no keys.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The library has no cryptography for TLS.
    #[error("cannot speak TLS")]
    Tls(#[from] rustls::Error),
    /// No certificate can be made.
    #[error("cannot make a certificate")]
    NoCertificate(#[from] rcgen::Error),
    /// A value cannot be sent in a header.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// The model store cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The file of tenants cannot be used.
    #[error("lantern_tenants: {0}")]
    Tenants(#[from] Problems),
    /// Tenants have nowhere to put what they have.
    #[error("lantern_tenants_dir {} cannot be used", path.display())]
    TenantsPlace {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Archives cannot be unpacked anywhere.
    #[error(
        "archives need a directory to be unpacked to, which lantern_temp_dir names, and none can be written to: {0}"
    )]
    NoPlace(String),
}

/// A server that is bound and serves nobody yet.
pub struct Server {
    sockets: Vec<Bound>,
    tls: Option<TlsParts>,
    services: Services,
    front: Front,
    api: api::Config,
    collector: Option<SystemCollector>,
    grpc: BTreeMap<Listener, GrpcConfig>,
    models: Vec<Arc<Expected>>,
    default_versions: DefaultVersions,
    drain: Drain,
}

/// A server that serves.
pub struct Running {
    addresses: Vec<(Listener, Address)>,
    tenants: Option<Arc<Tenants>>,
    catalog: Catalog,
    stop: CancellationToken,
    serving: TaskTracker,
    loading: tokio::task::JoinHandle<()>,
    drain: Drain,
}

/// How a server ends.
#[derive(Debug, Clone, Copy)]
struct Drain {
    /// How long it serves on.
    delay: Duration,
    /// How long requests in flight may take after that.
    timeout: Duration,
}

impl Server {
    /// Binds every socket and builds the parts; models that are to be loaded are known from then on. Must be called within a
    /// runtime.
    pub fn bind(cfg: Config) -> Result<Self, ServerError> {
        let shared = tenants::Shared::new(&cfg);
        let tls = secure::parts(&cfg.listeners, cfg.tls)?;
        let front = Front::new(cfg.front);
        let sockets = sockets::bind(cfg.listeners, tls.as_ref(), &front, cfg.socket_mode)?;
        let tokens = cfg.tokens.map(Tokens::create).transpose()?.map(Arc::new);
        let tenants = cfg.tenants.map(|tenants| shared.open(&tenants));
        let tenants = tenants.transpose()?;
        let operator = tenants.as_ref().map_or_else(Owner::default, |tenants| {
            Owner::operator_with(tenants.operator().clone())
        });
        let mut hosts = cfg.hosts;
        hosts.processes.weight = operator.processor_weight();
        let metrics = Metrics::with_front(&cfg.metrics, Some(front.sources(tenants.clone())));
        let collector = cfg.system.map(|system| metrics.collector(system));
        let catalog = Catalog::new(Parts {
            owner: Arc::new(operator),
            log: None,
            examining: Arc::new(Semaphore::new(1)),
            peaks: Peaks::default(),
            hosts,
            metrics: metrics.clone(),
            health: cfg.health,
            library: cfg.library,
            unregister_timeout: cfg.unregister_timeout,
            snapshots: cfg.snapshots,
            restored: cfg.restored,
        });
        let models = catalog.expect(cfg.models, cfg.default_versions.clone());
        Ok(Self {
            sockets,
            tls,
            services: Services {
                catalog,
                metrics,
                tokens,
                tenants,
                access: cfg.access,
                audit: cfg.audit,
                followers: Followers::default(),
                refusals: front.refusals().clone(),
            },
            front,
            api: cfg.api,
            collector,
            grpc: cfg.grpc,
            models,
            default_versions: cfg.default_versions,
            drain: Drain {
                delay: cfg.drain_delay,
                timeout: cfg.drain_timeout,
            },
        })
    }

    /// Serves on every socket, and loads the models meanwhile.
    pub fn start(self) -> Running {
        let (stop, serving) = (CancellationToken::new(), TaskTracker::new());
        let mut addresses = Vec::with_capacity(self.sockets.len());
        for Bound { listeners, socket } in self.sockets {
            for listener in &listeners {
                tracing::info!("{} API listens on {}", listener.name(), socket.address());
                addresses.push((*listener, socket.address().clone()));
            }
            let services = self.services.clone();
            let protocol = match *listeners {
                [listener] if listener.is_grpc() => {
                    let cfg = self.grpc.get(&listener).cloned().unwrap_or_default();
                    Protocol::Grpc(Grpc::new(listener, services, &self.api, cfg, &stop))
                }
                _ => Protocol::Rest(Api::new(
                    &listeners,
                    services,
                    self.api.clone(),
                    stop.clone(),
                )),
            };
            serving.spawn(api::serve(socket, protocol, stop.clone()));
        }
        if let Some(TlsParts {
            certificates,
            clients,
        }) = self.tls
        {
            serving.spawn(watch::certificates(certificates, stop.clone()));
            if let Some(clients) = clients {
                serving.spawn(watch::clients(clients, stop.clone()));
            }
        }
        if let Some(tokens) = &self.services.tokens {
            serving.spawn(watch::keys(Arc::clone(tokens), stop.clone()));
        }
        if let Some(tenants) = &self.services.tenants {
            serving.spawn(watch::tenants(Arc::clone(tenants), stop.clone()));
        }
        serving.close();
        let budget = self.front.budget().clone();
        let giving_back = memory::keep_giving_back(move || budget.used(), backend::give_back);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(giving_back).await });
        if let Some(collector) = self.collector {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(collector.run()).await });
        }
        let catalog = self.services.catalog;
        let loading = load(
            catalog.clone(),
            self.models,
            self.default_versions,
            Places::default(),
        );
        let loading = tokio::spawn(loading);
        Running {
            addresses,
            tenants: self.services.tenants,
            catalog,
            stop,
            serving,
            loading,
            drain: self.drain,
        }
    }
}

impl Running {
    /// Where a listener listens.
    pub fn bound(&self, listener: Listener) -> Option<&Address> {
        // Metrics may be shown at two; their own address comes last.
        let found = self.addresses.iter().rfind(|(one, _)| *one == listener);
        found.map(|(_, address)| address)
    }

    /// Interface and port of a listener on TCP.
    pub fn address(&self, listener: Listener) -> Option<SocketAddr> {
        self.bound(listener).and_then(Address::socket)
    }

    /// All models.
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Waits until every model that was listed has loaded or failed.
    pub async fn loaded(&mut self) {
        // A panic was logged where it happened; the models it concerns are not in the catalog.
        let _ = (&mut self.loading).await;
    }

    /// Says that it is not ready and serves on for the drain delay; then accepts nothing more, answers what was accepted,
    /// and ends every runtime. Requests, runs and models that take longer than the drain timeout are not waited for.
    pub async fn stop(self) {
        self.leave_rotation().await;
        tracing::info!("Draining: no new connections; requests in flight are answered.");
        let since = Instant::now();
        self.stop.cancel();
        self.loading.abort();
        self.catalog.begin_stop();
        if let Some(tenants) = &self.tenants {
            tenants.begin_stop();
        }
        if tokio::time::timeout(self.drain.timeout, self.serving.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "Requests in flight took longer than {:?} (lantern_drain_timeout): they are abandoned.",
                self.drain.timeout
            );
        }
        self.catalog.save(Moment::Shutdown).await;
        let left = self.drain.timeout.saturating_sub(since.elapsed());
        self.end_runtimes(left.max(MIN_DRAIN_TIMEOUT)).await;
        tracing::info!(
            "Model server stopped after {} ms.",
            since.elapsed().as_millis()
        );
    }

    /// Whoever spreads requests over servers learns from probes that this one goes, and has time to.
    async fn leave_rotation(&self) {
        self.catalog.announce_stop();
        if let Some(tenants) = &self.tenants {
            tenants.announce_stop();
        }
        if !self.drain.delay.is_zero() {
            tracing::info!(
                "Not ready from now on; requests are served for {:?} yet (lantern_drain_delay).",
                self.drain.delay
            );
            tokio::time::sleep(self.drain.delay).await;
        }
    }

    /// A version that is being scaled or loaded may not hear of the end before that is done.
    async fn end_runtimes(&self, patience: Duration) {
        let of_tenants = async {
            if let Some(tenants) = &self.tenants {
                tenants.stop(patience).await;
            }
        };
        let drained = async {
            tokio::join!(self.catalog.drain(patience), of_tenants);
        };
        let limit = patience + MAX_EXIT_TIME;
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!("Workers took longer than {limit:?} to end: they are killed.");
        }
    }
}

/// What runtimes get to end, even if requests took all the time there was.
const MIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// What worker processes get beyond that to exit.
const MAX_EXIT_TIME: Duration = Duration::from_secs(5);

/// Registers what is to be loaded, which is saved then, and starts the workers meanwhile.
async fn load(
    catalog: Catalog,
    models: Vec<Arc<Expected>>,
    defaults: DefaultVersions,
    places: Places,
) {
    let (total, since) = (models.len(), Instant::now());
    let starts = Starts {
        catalog: catalog.clone(),
        tasks: TaskTracker::new(),
        places: places.starting,
        loaded: Arc::default(),
    };
    let opening = &places.opening;
    let open = async |expected| {
        let _place = opening.acquire().await;
        starts.open(expected).await;
    };
    stream::iter(models)
        .for_each_concurrent(LOADING_AT_ONCE, open)
        .await;
    for (name, version) in &defaults {
        if let Err(error) = catalog.find(name.as_str(), Some(version.as_str())) {
            tracing::warn!(
                "Version {version} of {name} is its default no more: {error}. Another version is, if there is one."
            );
        }
    }
    catalog.save(Moment::Startup).await;
    starts.tasks.close();
    starts.tasks.wait().await;
    if total > 0 {
        let (loaded, took) = (
            starts.loaded.load(Ordering::Relaxed),
            since.elapsed().as_millis(),
        );
        tracing::info!("{loaded} of {total} models loaded in {took} ms.");
    }
}

/// How many archives are opened, and versions started, at the same time. All tenants share one.
#[derive(Clone)]
struct Places {
    opening: Arc<Semaphore>,
    starting: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let places = || Arc::new(Semaphore::new(LOADING_AT_ONCE));
        Self {
            opening: places(),
            starting: places(),
        }
    }
}

/// Models whose workers start, a few at a time.
struct Starts {
    catalog: Catalog,
    tasks: TaskTracker,
    places: Arc<Semaphore>,
    loaded: Arc<AtomicUsize>,
}

impl Starts {
    /// Opens an archive and has its workers start, which is not waited for. One that cannot be opened is one failed
    /// model, not a failed server.
    async fn open(&self, expected: Arc<Expected>) {
        let url = expected.url();
        tracing::info!("Loading initial models: {url}");
        match self.catalog.register_expected(&expected).await {
            Ok(entry) => self.start(entry),
            Err(error) => tracing::error!("Failed to load model: {url}: {error}"),
        }
    }

    fn start(&self, entry: Arc<Entry>) {
        let (catalog, places) = (self.catalog.clone(), Arc::clone(&self.places));
        let loaded = Arc::clone(&self.loaded);
        self.tasks.spawn(async move {
            let place = places.acquire_owned().await;
            let starting = catalog.start_at_startup(&entry);
            tokio::pin!(starting);
            // One that takes long must not keep others from starting.
            let early = tokio::time::timeout(LONGEST_PLACE, &mut starting).await;
            drop(place);
            let started = match early {
                Ok(started) => started,
                Err(_) => starting.await,
            };
            // One that does not serve has said why.
            let is_loaded = started.is_ok();
            loaded.fetch_add(usize::from(is_loaded), Ordering::Relaxed);
        });
    }
}
