//! Settings of the server: the command line, the environment and `config.properties`, in TorchServe's keys.
//!
//! Two steps: `raw` gathers what was typed, and from where; `resolve` turns it into a [`ServerConfig`], reporting
//! every problem at once. `server/keys.rs` lists the keys. Nothing here binds, loads or starts anything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Hosting, Limits, ModelName, Version};

use super::model::{Defaults, Most, Requested};
use super::{Problem, Problems};

mod address;
mod file;
mod groups;
mod keys;
mod parts;
mod places;
mod raw;
mod reader;
mod report;
mod resolve;
mod saved;
mod sources;
mod startup;

pub use address::{Address, Scheme};
pub use groups::{
    CorsConfig, GrpcConfig, GrpcListenerConfig, HealthConfig, LogConfig, MetricsConfig,
    MetricsMode, PingMeaning, ReadyRequires, SageMakerConfig, SnapshotConfig, TlsConfig,
    TokenConfig,
};
pub use places::Surroundings;
pub use raw::{Entry, Flags};
pub use report::Setting;
pub use sources::{SourceConfig, Variables};
pub use startup::{LoadModel, LoadModels};

/// Settings of the server, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where predictions are served.
    pub inference_address: Address,
    /// Where models are managed.
    pub management_address: Address,
    /// Where metrics are shown.
    pub metrics_address: Address,
    /// The same over gRPC.
    pub grpc: GrpcConfig,
    /// Certificate and key, if files were named. Listeners that speak TLS without make their own.
    pub tls: Option<TlsConfig>,
    /// Who may ask.
    pub tokens: TokenConfig,
    /// What is measured, and where it is shown.
    pub metrics: MetricsConfig,
    /// `ts_open_inference_protocol`: whether `/v2` and its gRPC service are there. TorchServe's default is that they
    /// are not; here they are unless the key or the variable `TS_OPEN_INFERENCE_PROTOCOL` says otherwise.
    pub open_inference_protocol: bool,
    /// Where the catalog is saved, and what is restored.
    pub snapshots: SnapshotConfig,
    /// Where log files are written.
    pub logs: LogConfig,
    /// What probes are told.
    pub health: HealthConfig,
    /// What SageMaker says.
    pub sagemaker: SageMakerConfig,
    /// Directory that archives are loaded from.
    pub model_store: Option<PathBuf>,
    /// Directory that workflows are loaded from; the model store unless said otherwise.
    pub workflow_store: Option<PathBuf>,
    /// Where archives may be fetched from.
    pub sources: SourceConfig,
    /// Models to load at the start; none if a snapshot is restored.
    pub load_models: LoadModels,
    /// Settings of single versions (`models`).
    pub models: BTreeMap<ModelName, BTreeMap<Version, Requested>>,
    /// Versions that `models` makes the default of their model.
    pub default_versions: BTreeMap<ModelName, Version>,
    /// Workers of a version that says nothing; `None` for as many as there are devices.
    pub default_workers: Option<usize>,
    /// From arrival until the answer.
    pub default_response_timeout: Duration,
    /// From the start of loading until the first worker is ready.
    pub default_startup_timeout: Duration,
    /// How long unregistering waits for requests in flight.
    pub unregister_timeout: Duration,
    /// Requests that may wait for one version.
    pub job_queue_size: usize,
    /// Most GPUs to use; `None` for all there are.
    pub number_of_gpu: Option<u32>,
    /// Threads for connections; `None` for as many as cores.
    pub io_threads: Option<usize>,
    /// Bytes of a request's body.
    pub max_request_size: usize,
    /// Bytes of a response's body.
    pub max_response_size: usize,
    /// Whether the API may register and unregister models.
    pub enable_model_api: bool,
    /// Headers for browsers.
    pub cors: CorsConfig,
    /// Id of the first worker.
    pub initial_worker_id: u32,
    /// Where runtimes are hosted unless an archive says otherwise.
    pub hosting: Hosting,
    /// Whether archives may have themselves hosted in the server's process.
    pub allow_inline: bool,
    /// The most that a handler may be given.
    pub ceilings: Limits,
    /// The most that one version may have.
    pub most: Most,
    /// Where compiled handlers are kept.
    pub cache_directory: PathBuf,
    /// Where archives are unpacked.
    pub temp_directory: PathBuf,
    /// `libonnxruntime.so.*`, if there is one.
    pub onnxruntime: Option<PathBuf>,
    /// The `lantern-torch` program, if there is one.
    pub lantern_torch: Option<PathBuf>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// Everything that was typed, by key, as snapshots save it. May hold secrets.
    pub typed: BTreeMap<String, Entry>,
    /// What the file says where it names variables with `$$NAME$$`: their values may be secrets.
    pub written: BTreeMap<String, String>,
    /// What was ignored, and why.
    pub warnings: Vec<Problem>,
}

impl ServerConfig {
    /// Reads the file that flags and environment name, and resolves everything.
    pub fn load(flags: &Flags, surroundings: &Surroundings) -> Result<Self, Problems> {
        let raw = raw::gather(flags, surroundings)?;
        resolve::resolve(raw, flags, surroundings)
    }

    /// Whether any listener speaks TLS.
    pub const fn is_tls_needed(&self) -> bool {
        self.inference_address.is_tls()
            || self.management_address.is_tls()
            || self.metrics_address.is_tls()
            || self.grpc.tls
    }

    /// What holds for a version about which nobody says anything. `at_startup`, a version without workers would be of
    /// no use, so it gets one for each device; a registration by the API gets none.
    pub fn defaults(&self, at_startup: bool, gpus: u32, cores: usize) -> Defaults {
        let gpus = self.number_of_gpu.map_or(gpus, |most| gpus.min(most));
        let devices = usize::try_from(gpus).ok().filter(|gpus| *gpus > 0);
        let workers = match (self.default_workers, at_startup) {
            (Some(workers), _) => workers,
            (None, true) => devices.unwrap_or(cores).max(1),
            (None, false) => 0,
        };
        Defaults {
            workers,
            response_timeout: self.default_response_timeout,
            startup_timeout: self.default_startup_timeout,
            job_queue_size: self.job_queue_size,
            max_response: self.max_response_size,
            hosting: self.hosting,
            allow_inline: self.allow_inline,
            gpus,
            ceilings: self.ceilings.clone(),
            most: self.most.clone(),
        }
    }

    /// What `models` says of a version; nothing if it is not there.
    pub fn listed(&self, name: &ModelName, version: &Version) -> Requested {
        let versions = self.models.get(name);
        let listed = versions.and_then(|versions| versions.get(version));
        listed.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
