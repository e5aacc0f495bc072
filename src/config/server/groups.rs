//! Settings that belong together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::super::snapshot::Saved;

/// The gRPC listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcConfig {
    /// Where predictions are served.
    pub inference: GrpcListenerConfig,
    /// Where models are managed.
    pub management: GrpcListenerConfig,
    /// `enable_grpc_ssl`: both speak TLS.
    pub tls: bool,
}

/// One gRPC listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcListenerConfig {
    /// Where it listens; port 0 for any that is free.
    pub address: SocketAddr,
    /// How old a connection becomes before its client is asked to make another; `None` for any age.
    pub max_connection_age: Option<Duration>,
    /// How long calls on a connection that is too old may still take; `None` for as long as they need.
    pub max_connection_age_grace: Option<Duration>,
}

/// Certificate and key of every listener that speaks TLS, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// `certificate_file`: the certificate, with those that vouch for it after it.
    pub certificate_file: PathBuf,
    /// `private_key_file`: PKCS#8, PKCS#1 or SEC1.
    pub private_key_file: PathBuf,
}

/// Tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenConfig {
    /// Whether requests need one; not if `disable_token_authorization`.
    pub enabled: bool,
    /// `token_expiration_min`: how long one is good for.
    pub expiration: Duration,
    /// `key_file.json` in the current directory.
    pub key_file: PathBuf,
    /// `lantern_key_file`: the operator's keys, in place of those that the server makes.
    pub own_keys: Option<PathBuf>,
}

/// Snapshots of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotConfig {
    /// Whether any is written; not with `--ncs`.
    pub enabled: bool,
    /// Where they are written: `LOG_LOCATION/config`.
    pub directory: PathBuf,
    /// `model_snapshot` of the file that was read: these models are restored, and no others loaded.
    pub restored: Option<Saved>,
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// `enable_metrics_api`.
    pub api: bool,
    /// `metrics_mode`.
    pub mode: MetricsMode,
    /// `metrics_config`: a `metrics.yaml` in place of the built-in one.
    pub file: Option<PathBuf>,
    /// `model_metrics_auto_detect`: handlers' metrics need no definition in `metrics.yaml`.
    pub auto_detect: bool,
    /// Whether gauges of the machine are kept; not if `disable_system_metrics`.
    pub system: bool,
    /// `metric_time_interval`: how often gauges of the machine are read.
    pub interval: Duration,
    /// `system_metrics_cmd`: a command that prints metrics of the machine.
    pub system_command: Option<String>,
}

/// `metrics_mode`. TorchServe's default is `log`, which leaves its metrics API empty; here it is `prometheus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsMode {
    /// Metrics are log lines, and the API shows none.
    Log,
    /// The API shows them.
    #[default]
    Prometheus,
    /// The API shows the three `ts_*` families alone.
    Legacy,
}

/// `cors_*`; no header is sent for what is not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsConfig {
    /// `access-control-allow-origin`.
    pub allowed_origin: Option<String>,
    /// `access-control-allow-methods`.
    pub allowed_methods: Option<String>,
    /// `access-control-allow-headers`.
    pub allowed_headers: Option<String>,
}

/// Where log files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `lantern_log_files`: whether there are any beside standard output.
    pub files: bool,
    /// `LOG_LOCATION`: the server's log, the models' and that of requests.
    pub directory: PathBuf,
    /// `METRICS_LOCATION`: metrics as log lines.
    pub metrics_directory: PathBuf,
}

/// What probes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HealthConfig {
    /// `lantern_ping`.
    pub ping: PingMeaning,
    /// `lantern_ready_requires`.
    pub ready_requires: ReadyRequires,
}

/// `lantern_ping`: what `/ping` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PingMeaning {
    /// Whether no model has been without a worker for longer than it is restarted, as TorchServe does.
    #[default]
    TorchServe,
    /// Whether the server is ready.
    Ready,
}

/// `lantern_ready_requires`: how many of the models that should serve must serve for the server to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadyRequires {
    /// Each.
    #[default]
    All,
    /// One, if there is one.
    Any,
    /// None.
    None,
}

/// What Amazon SageMaker says to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SageMakerConfig {
    /// Whether SageMaker runs this server: it sets `SAGEMAKER_BIND_TO_PORT`.
    pub is_host: bool,
    /// `SAGEMAKER_MULTI_MODE`: models come and go through the API.
    pub is_multi_model: bool,
    /// `NUM_WORKERS`: requests that it may send at the same time.
    pub max_concurrent: usize,
}
