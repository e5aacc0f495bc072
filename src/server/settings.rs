//! From resolved settings to what a server is made from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hosts::inline_backends;
use super::{Config, ServerError, TlsFiles, grpc, metrics};
use crate::api::{self, BadHeader, Cors, Listener, SageMaker};
use crate::archive::{
    FetchConfig, Fetcher, Location, ModelStore, UnpackLimits, UnpackStore, recover,
};
use crate::catalog::{Library, Registration, SnapshotConfig};
use crate::config::server::{
    Address, CorsConfig, LoadModels, SageMakerConfig, Scheme, ServerConfig, SourceConfig,
};
use crate::config::snapshot::SavedVersion;
use crate::handler::{EngineConfig, HandlerEngine};
use crate::listen;
use crate::model::{ModelName, Version};
use crate::runtime::batching::RULES;
use crate::runtime::process::ProcessConfig;
use crate::runtime::{Hosts, NativeLibraries, Verdicts, WorkerIds};
use crate::token;

/// What a server finds on its machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// The `lantern` program, which hosts models as well.
    pub program: PathBuf,
    /// The whole environment of worker processes.
    pub environment: Vec<(OsString, OsString)>,
    /// GPUs.
    pub gpus: u32,
    /// Processor cores.
    pub cores: usize,
}

impl Config {
    /// What `settings` ask for on `machine`. Makes the directory that archives are unpacked to, and lists the model
    /// store if everything in it is to be loaded.
    pub fn new(settings: ServerConfig, machine: &Machine) -> Result<Self, ServerError> {
        let unpacked = UnpackStore::open(&settings.temp_directory, UnpackLimits::default())?;
        let store = ModelStore::new(settings.model_store.clone());
        let restored = settings
            .snapshots
            .restored
            .clone()
            .unwrap_or_default()
            .versions;
        tidy(&store, &restored);
        Ok(Self {
            listeners: listeners(&settings),
            tls: settings.tls.as_ref().map(|tls| TlsFiles {
                certificate: tls.certificate_file.clone(),
                key: tls.private_key_file.clone(),
            }),
            api: api_config(&settings)?,
            metrics: metrics::config(
                &settings.metrics,
                settings.io_threads.unwrap_or(machine.cores),
            ),
            system: metrics::system(&settings.metrics, &machine.environment),
            grpc: grpc::config(&settings.grpc),
            tokens: settings.tokens.enabled.then(|| token::Config {
                file: settings.tokens.key_file.clone(),
                expiration: settings.tokens.expiration,
                own: settings.tokens.own_keys.clone(),
            }),
            access: None,
            hosts: hosts(&settings, machine, unpacked.directory()),
            models: match &settings.snapshots.restored {
                Some(saved) => saved
                    .versions
                    .iter()
                    .cloned()
                    .map(Registration::from)
                    .collect(),
                None => models(&settings.load_models, &store)?,
            },
            default_versions: default_versions(&settings),
            snapshots: snapshots(&settings),
            restored,
            unregister_timeout: settings.unregister_timeout,
            drain_timeout: settings.default_response_timeout,
            library: Library {
                fetcher: Fetcher::new(fetch_config(&settings.sources), store),
                unpacked,
                gpus: machine.gpus,
                cores: machine.cores,
                settings: Arc::new(settings),
            },
        })
    }
}

/// Versions that become the default of their model once they are registered.
pub(super) type DefaultVersions = BTreeMap<ModelName, Version>;

/// Removes archives that a server was fetching when it was killed.
fn tidy(store: &ModelStore, restored: &[SavedVersion]) {
    if let Some(root) = store.root() {
        let needed = restored.iter().map(|version| version.source.clone());
        recover(&root, &needed.collect());
    }
}

/// What a snapshot says counts over what `models` says.
fn default_versions(settings: &ServerConfig) -> DefaultVersions {
    let saved = settings
        .snapshots
        .restored
        .iter()
        .flat_map(|saved| &saved.versions);
    let saved = saved
        .filter(|version| version.is_default)
        .map(|version| (version.model.clone(), version.version.clone()));
    let mut defaults = settings.default_versions.clone();
    defaults.extend(saved);
    defaults
}

fn snapshots(settings: &ServerConfig) -> Option<SnapshotConfig> {
    settings.snapshots.enabled.then(|| SnapshotConfig {
        directory: settings.snapshots.directory.clone(),
        properties: settings.to_save(),
    })
}

fn fetch_config(sources: &SourceConfig) -> FetchConfig {
    FetchConfig {
        allowed: sources.allowed.clone(),
        private_hosts: sources.private_hosts.clone(),
        limit: sources.limit,
        timeout: sources.timeout,
        s3: sources.s3.0.clone(),
        ..FetchConfig::default()
    }
}

fn listeners(settings: &ServerConfig) -> Vec<(Listener, listen::Address)> {
    let mut listeners = vec![
        (Listener::Inference, &settings.inference_address),
        (Listener::Management, &settings.management_address),
    ];
    if settings.metrics.api {
        listeners.push((Listener::Metrics, &settings.metrics_address));
    }
    let listeners = listeners.into_iter();
    let rest = listeners.map(|(listener, address)| (listener, listened(address)));
    rest.chain(grpc::addresses(&settings.grpc)).collect()
}

fn listened(address: &Address) -> listen::Address {
    match address {
        Address::Tcp { scheme, socket } => listen::Address::Tcp {
            socket: *socket,
            tls: *scheme == Scheme::Https,
        },
        Address::Unix(path) => listen::Address::Unix(path.clone()),
    }
}

fn api_config(settings: &ServerConfig) -> Result<api::Config, ServerError> {
    Ok(api::Config {
        max_request_size: settings.max_request_size,
        max_response_size: settings.max_response_size,
        enable_model_api: settings.enable_model_api,
        cors: cors(&settings.cors)?,
        oip: settings.open_inference_protocol,
        sagemaker: sagemaker(&settings.sagemaker),
    })
}

fn sagemaker(sagemaker: &SageMakerConfig) -> Option<SageMaker> {
    sagemaker.is_host.then_some(SageMaker {
        multi_model: sagemaker.is_multi_model,
        concurrent_transforms: sagemaker.max_concurrent,
    })
}

fn cors(cors: &CorsConfig) -> Result<Cors, BadHeader> {
    let [origin, methods, headers] = [
        &cors.allowed_origin,
        &cors.allowed_methods,
        &cors.allowed_headers,
    ]
    .map(Option::as_deref);
    Cors::new(origin, methods, headers)
}

/// `directory` is for the working directories of worker processes.
fn hosts(settings: &ServerConfig, machine: &Machine, directory: &Path) -> Hosts {
    let cache = Some(settings.cache_directory.clone());
    let libraries = NativeLibraries {
        onnxruntime: settings.onnxruntime.clone(),
    };
    let beside = machine.program.with_file_name("lantern-torch");
    Hosts {
        verdicts: Verdicts::in_directory(settings.cache_directory.join("batching").join(RULES)),
        engine: Arc::new(HandlerEngine::lazy(EngineConfig {
            cache: cache.clone(),
        })),
        backends: Arc::new(inline_backends(&libraries)),
        processes: ProcessConfig {
            lantern: machine.program.clone(),
            lantern_torch: settings.lantern_torch.clone().unwrap_or(beside),
            libraries,
            cache,
            environment: machine.environment.clone(),
            directory: Some(directory.to_owned()),
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(settings.initial_worker_id)),
        cores: machine.cores,
        inline_runs: Arc::default(),
    }
}

fn models(load: &LoadModels, store: &ModelStore) -> Result<Vec<Registration>, ServerError> {
    Ok(match load {
        LoadModels::None => Vec::new(),
        LoadModels::All => store.list()?.iter().map(of_location).collect(),
        LoadModels::Listed(listed) => listed
            .iter()
            .map(|model| Registration {
                url: model.url.clone(),
                name: model.name.as_ref().map(ToString::to_string),
                ..Registration::default()
            })
            .collect(),
    })
}

fn of_location(location: &Location) -> Registration {
    Registration {
        url: location.url().to_owned(),
        ..Registration::default()
    }
}
