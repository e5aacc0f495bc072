//! From resolved settings to what a server is made from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::TenantsConfig;
use super::hosts::inline_backends;
use super::{Config, FrontLimits, ServerError, TlsConfig, grpc, metrics, places, tenants};
use crate::api::{self, BadHeader, Cors, Http2Limits, Listener, SageMaker};
use crate::archive::{AllowedUrls, FetchConfig, Fetcher, Location, ModelStore, Proxies, recover};
use crate::catalog::{Health, Library, LibraryConfig, Registration, SnapshotConfig};
use crate::config::server::{LoadModels, ServerConfig, Values};
use crate::config::snapshot::SavedVersion;
use crate::error::Error;
use crate::handler::HandlerEngine;
use crate::listen::Address;
use crate::model::{Limits, ModelName, Version};
use crate::runtime::batching::RULES;
use crate::runtime::process::{self, ProcessConfig, SandboxConfig};
use crate::runtime::{CompileLimits, Compiler, Hosts, NativeLibraries, Verdicts, WorkerIds};
use crate::sandbox::Outcomes;
use crate::token;

/// The port of KServe's containers.
const KSERVE_PORT: u16 = 8080;

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
        let fetch = fetch_config(settings);
        let store = ModelStore::new(values.model_store.clone()).linking_to(&fetch.allowed);
        let restored = values.model_snapshot.clone().unwrap_or_default().versions;
        tidy(&store, &restored);
        let cache = places::cache(&values.lantern_cache_dir);
        let sandbox = SandboxConfig::new(values.lantern_sandbox.clone());
        let compiler = Arc::new(compiler(values, machine, cache.clone(), &sandbox));
        Ok(Self {
            listeners: listeners(settings),
            tls: TlsConfig::new(settings),
            api: api_config(settings)?,
            front: FrontLimits::new(values),
            // The spare thread counts as well: with fewer shards than threads, two would count in one.
            metrics: metrics::config(
                values,
                values.number_of_netty_threads.unwrap_or(machine.cores) + 1,
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
            audit: None,
            tenants: values.lantern_tenants.clone().map(|file| TenantsConfig {
                directory: (values.lantern_tenants_dir.clone())
                    .unwrap_or_else(|| tenants::beside(&file)),
                compiler: Arc::clone(&compiler),
                logs: None,
                file,
            }),
            hosts: hosts(
                values,
                machine,
                unpacked.directory(),
                verdicts(cache.as_deref()),
                sandbox,
                compiler,
            ),
            models: match &values.model_snapshot {
                Some(saved) => saved
                    .versions
                    .iter()
                    .cloned()
                    .map(Registration::from)
                    .collect(),
                None => models(&values.load_models, &store)?,
            },
            default_versions: listed_default_versions(values, &restored),
            snapshots: snapshots(settings),
            restored,
            unregister_timeout: values.unregister_model_timeout,
            drain_delay: values.lantern_drain_delay,
            drain_timeout: values
                .lantern_drain_timeout
                .unwrap_or(values.default_response_timeout),
            socket_mode: values.lantern_socket_mode,
            health: Health {
                ping: values.lantern_ping,
                ready_requires: values.lantern_ready_requires,
            },
            library: Library {
                fetcher: Fetcher::new(fetch, store),
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
fn listed_default_versions(values: &Values, saved: &[SavedVersion]) -> DefaultVersions {
    let mut defaults = values.models.defaults.clone();
    defaults.extend(default_versions(saved));
    defaults
}

/// Those of `saved` that were the default of their model.
pub(super) fn default_versions(saved: &[SavedVersion]) -> DefaultVersions {
    let defaults = saved.iter().filter(|version| version.is_default);
    defaults
        .map(|version| (version.model.clone(), version.version.clone()))
        .collect()
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
        // What is not understood was a warning when the settings were read.
        allowed: AllowedUrls::read(&values.allowed_urls, values.lantern_allow_any_url).0,
        private_hosts: values.lantern_private_hosts.clone(),
        limit: values.lantern_max_download as u64,
        timeout: values.lantern_download_timeout,
        s3: settings.s3.0.clone(),
        proxies: Proxies::new(&settings.proxies.0),
        ..FetchConfig::default()
    }
}

fn listeners(settings: &ServerConfig) -> Vec<(Listener, Address)> {
    let values = &settings.values;
    let mut listeners = vec![
        (Listener::Inference, values.inference_address.clone()),
        (Listener::Management, values.management_address.clone()),
    ];
    if values.enable_metrics_api {
        listeners.push((Listener::Metrics, values.metrics_address.clone()));
    }
    listeners.extend(grpc::addresses(values));
    if let Some(address) = kserves_address(settings, &listeners) {
        // Whoever asks for the address of predictions means their own, which comes last.
        listeners.insert(0, (Listener::Inference, address));
    }
    listeners
}

/// Where KServe sends predictions and probes, whatever port the settings name: that of the wrapper in its container of
/// TorchServe. Here nothing stands before the server, so it listens there itself, on the interface of predictions.
fn kserves_address(settings: &ServerConfig, others: &[(Listener, Address)]) -> Option<Address> {
    let mut socket = settings.values.inference_address.socket()?;
    socket.set_port(KSERVE_PORT);
    let is_taken = |(_, other): &(Listener, Address)| {
        other.socket().map(|other| other.port()) == Some(KSERVE_PORT)
    };
    let is_wanted = settings.is_on_kserve && !others.iter().any(is_taken);
    is_wanted.then_some(Address::Tcp {
        socket,
        tls: settings.values.inference_address.is_tls(),
    })
}

fn api_config(settings: &ServerConfig) -> Result<api::Config, ServerError> {
    let values = &settings.values;
    Ok(api::Config {
        max_request_size: values.max_request_size,
        enable_model_api: values.enable_model_api,
        cors: cors(values)?,
        oip: values.ts_open_inference_protocol,
        kserve: settings.is_on_kserve || values.service_envelope.is_kserves(),
        adopt_request_id: values.lantern_adopt_request_id,
        keep_alive: values.lantern_keep_alive,
        head_timeout: values.lantern_head_timeout,
        body_timeout: values.lantern_body_timeout,
        write_timeout: values.lantern_write_timeout,
        http2: Http2Limits {
            streams: values.lantern_max_streams,
            resets: values.lantern_max_resets,
        },
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

/// Which walls go up around worker processes. Blocks for some milliseconds.
pub fn probe(values: &Values, machine: &Machine) -> io::Result<Outcomes> {
    let cfg = ProcessConfig {
        lantern: machine.program.clone(),
        environment: machine.environment.clone(),
        libraries: NativeLibraries {
            onnxruntime: values.lantern_onnxruntime.clone(),
        },
        sandbox: SandboxConfig::new(values.lantern_sandbox.clone()),
        ..ProcessConfig::default()
    };
    let limits = Limits {
        process_memory: values.lantern_max_process_memory,
        threads: values.lantern_max_threads,
        ..Limits::default()
    };
    process::probe(&cfg, machine.gpus > 0, &limits)
}

/// `directory` is for the working directories of worker processes.
fn hosts(
    values: &Values,
    machine: &Machine,
    directory: &Path,
    verdicts: Verdicts,
    sandbox: SandboxConfig,
    code: Arc<Compiler>,
) -> Hosts {
    let libraries = NativeLibraries {
        onnxruntime: values.lantern_onnxruntime.clone(),
    };
    let beside = machine.program.with_file_name("lantern-torch");
    Hosts {
        verdicts,
        code,
        engine: Arc::new(HandlerEngine::lazy()),
        backends: Arc::new(inline_backends(&libraries)),
        processes: ProcessConfig {
            lantern: machine.program.clone(),
            lantern_torch: values.lantern_torch.clone().unwrap_or(beside),
            libraries,
            environment: machine.environment.clone(),
            directory: Some(directory.to_owned()),
            sandbox,
            shared_memory: values.lantern_shared_memory,
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(values.initial_worker_port)),
        cores: machine.cores,
        inline_runs: Arc::default(),
    }
}

/// What was found out about batching, kept beside the compiled handlers in `cache`.
pub(super) fn verdicts(cache: Option<&Path>) -> Verdicts {
    let directory = cache.map(|cache| cache.join("batching").join(RULES));
    directory.map_or_else(Verdicts::default, Verdicts::in_directory)
}

fn compiler(
    values: &Values,
    machine: &Machine,
    cache: Option<PathBuf>,
    sandbox: &SandboxConfig,
) -> Compiler {
    let memory = values.lantern_compile_memory as u64;
    let limits = CompileLimits::new(memory, values.lantern_compile_cpu);
    Compiler::new(machine.program.clone(), cache, limits)
        .within(sandbox.demands.clone(), sandbox.users.clone())
}

fn models(load: &LoadModels, store: &ModelStore) -> Result<Vec<Registration>, ServerError> {
    Ok(match load {
        LoadModels::None => Vec::new(),
        LoadModels::All => everything(store)?,
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

/// Every archive in the store. A link that is not followed is left out with a warning.
fn everything(store: &ModelStore) -> Result<Vec<Registration>, ServerError> {
    let listing = store.list()?;
    for refused in listing.refused {
        tracing::warn!("Not loaded: {}", Error::from(refused));
    }
    Ok(listing.archives.iter().map(of_location).collect())
}

fn of_location(location: &Location) -> Registration {
    Registration {
        url: location.url().to_owned(),
        ..Registration::default()
    }
}

#[cfg(test)]
mod tests {
    use crate::archive::check_urls;
    use crate::config::server::{Environment, Flags};
    use crate::model::Envelope;

    use super::*;

    /// KServe's own `config.properties`, as far as it says where to listen.
    const KSERVES: [&str; 4] = [
        "inference_address=http://0.0.0.0:8085",
        "management_address=http://0.0.0.0:8085",
        "metrics_address=http://0.0.0.0:8082",
        "enable_envvars_config=true",
    ];

    fn settings(variables: &[(&str, &str)], set: &[&str]) -> ServerConfig {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = Environment {
            variables: variables.iter().map(owned).collect(),
            ..Environment::default()
        };
        let flags = Flags {
            set: set.iter().map(|setting| (*setting).to_owned()).collect(),
            ..Flags::default()
        };
        ServerConfig::load(&flags, &environment, check_urls).unwrap()
    }

    fn predictions(settings: &ServerConfig) -> Vec<String> {
        let listeners = listeners(settings).into_iter();
        let inference = listeners.filter(|(listener, _)| *listener == Listener::Inference);
        inference.map(|(_, address)| address.to_string()).collect()
    }

    #[test]
    fn kserves_port_is_served_where_kserve_runs_the_server() {
        for protocol in ["v1", "v2", "grpc-v2"] {
            let settings = settings(&[("PROTOCOL_VERSION", protocol)], &KSERVES);
            let expected = ["http://0.0.0.0:8080", "http://0.0.0.0:8085"];
            assert_eq!(predictions(&settings), expected);
            assert!(api_config(&settings).unwrap().kserve);
        }
    }

    #[test]
    fn no_other_address_is_added() {
        let own = ["http://0.0.0.0:8085"];
        // A transformer in the same pod has the port, and the server no such variable.
        let beside = settings(&[("TS_SERVICE_ENVELOPE", "kserve")], &KSERVES);
        assert_eq!(predictions(&beside), own);
        let other = settings(&[("PROTOCOL_VERSION", "HTTP/2")], &KSERVES);
        assert_eq!(predictions(&other), own);
        let on_kserve = [("PROTOCOL_VERSION", "v1")];
        let default = settings(&on_kserve, &[]);
        assert_eq!(predictions(&default), ["http://127.0.0.1:8080"]);
        for (taken, own) in [
            (
                ["management_address=http://127.0.0.1:8080"],
                "http://127.0.0.1:8085",
            ),
            (["inference_address=unix:/tmp/i.sock"], "unix:/tmp/i.sock"),
        ] {
            let set = [&["inference_address=http://127.0.0.1:8085"], &taken[..]].concat();
            assert_eq!(predictions(&settings(&on_kserve, &set)), [own]);
        }
    }

    #[test]
    fn the_envelope_comes_from_the_variable_that_kserve_sets() {
        for (name, expected) in [
            ("kserve", Envelope::KServe),
            ("kservev2", Envelope::KServeV2),
            ("", Envelope::None),
        ] {
            let settings = settings(&[("TS_SERVICE_ENVELOPE", name)], &KSERVES);
            assert_eq!(settings.values.service_envelope, expected);
            let is_kserves = api_config(&settings).unwrap().kserve;
            assert_eq!(is_kserves, expected != Envelope::None);
            assert_eq!(settings.defaults(true, 0, 1).envelope, expected);
        }
    }
}
