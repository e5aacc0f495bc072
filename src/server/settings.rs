//! From resolved settings to what a server is made from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::hosts::inline_backends;
use super::{Config, ServerError, TlsFiles, grpc, metrics, places};
use crate::api::{self, BadHeader, Cors, Listener, SageMaker};
use crate::archive::{AllowedUrls, FetchConfig, Fetcher, Location, ModelStore, recover};
use crate::catalog::{Health, Library, LibraryConfig, Registration, SnapshotConfig};
use crate::config::server::{LoadModels, ServerConfig, Values};
use crate::config::snapshot::SavedVersion;
use crate::handler::{EngineConfig, HandlerEngine};
use crate::listen::Address;
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
    pub fn new(settings: &ServerConfig, machine: &Machine) -> Result<Self, ServerError> {
        let values = &settings.values;
        let unpacked = places::unpacked(&settings.unpack_directories)?;
        let store = ModelStore::new(values.model_store.clone());
        let restored = values.model_snapshot.clone().unwrap_or_default().versions;
        tidy(&store, &restored);
        Ok(Self {
            listeners: listeners(values),
            tls: settings.tls.as_ref().map(|tls| TlsFiles {
                certificate: tls.certificate_file.clone(),
                key: tls.private_key_file.clone(),
            }),
            api: api_config(settings)?,
            metrics: metrics::config(
                values,
                values.number_of_netty_threads.unwrap_or(machine.cores),
            ),
            system: metrics::system(values, &machine.environment),
            grpc: grpc::config(values),
            tokens: (!values.disable_token_authorization).then(|| token::Config {
                file: settings.key_file.clone(),
                stand_in: settings
                    .key_file
                    .file_name()
                    .map(|name| unpacked.root().join(name)),
                expiration: values.token_expiration_min,
                own: values.lantern_key_file.clone(),
            }),
            access: None,
            hosts: hosts(values, machine, unpacked.directory()),
            models: match &values.model_snapshot {
                Some(saved) => saved
                    .versions
                    .iter()
                    .cloned()
                    .map(Registration::from)
                    .collect(),
                None => models(&values.load_models, &store)?,
            },
            default_versions: default_versions(values),
            snapshots: snapshots(settings),
            restored,
            unregister_timeout: values.unregister_model_timeout,
            drain_timeout: values.default_response_timeout,
            health: Health {
                ping: values.lantern_ping,
                ready_requires: values.lantern_ready_requires,
            },
            library: Library {
                fetcher: Fetcher::new(fetch_config(settings), store),
                unpacked,
                cfg: Arc::new(library(settings, machine)),
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
fn default_versions(values: &Values) -> DefaultVersions {
    let saved = values.model_snapshot.iter();
    let saved = saved.flat_map(|saved| &saved.versions);
    let saved = saved
        .filter(|version| version.is_default)
        .map(|version| (version.model.clone(), version.version.clone()));
    let mut defaults = values.models.defaults.clone();
    defaults.extend(saved);
    defaults
}

fn snapshots(settings: &ServerConfig) -> Option<SnapshotConfig> {
    let directory = settings.snapshot_directory.clone();
    directory.map(|directory| SnapshotConfig {
        directory,
        properties: settings.to_save(),
    })
}

fn library(settings: &ServerConfig, machine: &Machine) -> LibraryConfig {
    let defaults = |at_startup| settings.defaults(at_startup, machine.gpus, machine.cores);
    LibraryConfig {
        listed: settings.values.models.clone(),
        at_startup: defaults(true),
        by_api: defaults(false),
    }
}

fn fetch_config(settings: &ServerConfig) -> FetchConfig {
    let values = &settings.values;
    FetchConfig {
        // Wrong ones were a problem when the settings were read.
        allowed: AllowedUrls::parse(&values.allowed_urls).unwrap_or_default(),
        private_hosts: values.lantern_private_hosts.clone(),
        limit: values.lantern_max_download as u64,
        timeout: values.lantern_download_timeout,
        s3: settings.s3.0.clone(),
        ..FetchConfig::default()
    }
}

fn listeners(values: &Values) -> Vec<(Listener, Address)> {
    let mut listeners = vec![
        (Listener::Inference, values.inference_address.clone()),
        (Listener::Management, values.management_address.clone()),
    ];
    if values.enable_metrics_api {
        listeners.push((Listener::Metrics, values.metrics_address.clone()));
    }
    listeners.extend(grpc::addresses(values));
    listeners
}

fn api_config(settings: &ServerConfig) -> Result<api::Config, ServerError> {
    let values = &settings.values;
    Ok(api::Config {
        max_request_size: values.max_request_size,
        enable_model_api: values.enable_model_api,
        cors: cors(values)?,
        oip: values.ts_open_inference_protocol,
        sagemaker: settings.is_on_sagemaker.then_some(SageMaker {
            multi_model: settings.is_multi_model,
            concurrent_transforms: values.NUM_WORKERS,
        }),
    })
}

fn cors(values: &Values) -> Result<Cors, BadHeader> {
    let [origin, methods, headers] = [
        &values.cors_allowed_origin,
        &values.cors_allowed_methods,
        &values.cors_allowed_headers,
    ]
    .map(Option::as_deref);
    Cors::new(origin, methods, headers)
}

/// `directory` is for the working directories of worker processes.
fn hosts(values: &Values, machine: &Machine, directory: &Path) -> Hosts {
    let cache = places::cache(&values.lantern_cache_dir);
    let verdicts = cache
        .as_ref()
        .map(|cache| cache.join("batching").join(RULES));
    let libraries = NativeLibraries {
        onnxruntime: values.lantern_onnxruntime.clone(),
    };
    let beside = machine.program.with_file_name("lantern-torch");
    Hosts {
        verdicts: verdicts.map_or_else(Verdicts::default, Verdicts::in_directory),
        engine: Arc::new(HandlerEngine::lazy(EngineConfig {
            cache: cache.clone(),
        })),
        backends: Arc::new(inline_backends(&libraries)),
        processes: ProcessConfig {
            lantern: machine.program.clone(),
            lantern_torch: values.lantern_torch.clone().unwrap_or(beside),
            libraries,
            cache,
            environment: machine.environment.clone(),
            directory: Some(directory.to_owned()),
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(values.initial_worker_port)),
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
