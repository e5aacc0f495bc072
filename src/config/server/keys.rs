//! Every key of the server's settings, TorchServe's and ours. Each stands here once: the type and the range of its value,
//! its default, its variable, what it is for.
//!
//! From this table come the fields of [`Values`], what is read and refused, `lantern config`, what snapshots save, and
//! the reference in `docs/settings.md`. To add a key, add a row here, and read the field where it has its effect.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::listen::Address;
use crate::metrics::Mode;
use crate::model::{Envelope, HandlerHeaders, Hosting};
use crate::sandbox::Demands;

use Weight::{Light, Needed, Safety};

use super::super::model::VersionLimits;
use super::super::snapshot::Saved;
use super::environment::Environment;
use super::kinds::{
    address, demands, duration, envelope, file, found_file, handler_headers, host, metrics_mode,
    milliseconds, minutes, names, number, number_or_zero, open_inference_protocol, optional, path,
    path_or, saved_models, seconds, seconds_or_none, shown_size, size, size_or_none, socket_mode,
    store, switch, text, tls_file, truth, urls, word,
};
use super::reader::{Reader, SettingKind};
use super::startup::{ListedVersions, LoadModels, listed, load_models};

/// One key of the settings.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it is written in a file.
    pub name: &'static str,
    /// The value that holds where nothing is typed; in parentheses where it is found out at the start; empty for none.
    pub default: &'static str,
    /// What it is for, in lines.
    pub lines: &'static [&'static str],
    /// What its values look like.
    pub shape: fn() -> String,
    /// What a wrong value does.
    pub weight: Weight,
    /// What becomes of it.
    pub role: Role,
    /// Whether it opens the server to somebody who is otherwise kept out. No snapshot sets it.
    pub opens: bool,
    /// The variable that sets it, if one does.
    variable: Variable,
}

/// How much hangs on a key: what a wrong value does, and whether the name is taken in other capitals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It decides who may do what. A wrong value stops the start, and the name is never guessed.
    Safety,
    /// It is a number or place that nothing can stand in for. A wrong value stops the start, as in TorchServe.
    Needed,
    /// The server serves without it. A wrong value is a warning, and what TorchServe falls back to holds, or the default.
    Light,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is a setting here.
    Setting,
    /// A setting whose value nobody should read from a terminal or a log.
    Secret,
    /// Snapshots hold it, for people to read.
    Note,
    /// TorchServe has it; here it does nothing, for this reason.
    Ignored(&'static str),
}

/// The variable that sets a key.
#[derive(Debug, Clone, Copy)]
enum Variable {
    /// `TS_` and the key in capitals; `LANTERN_…` for our keys.
    Usual,
    /// Another name, read where the file asks for variables.
    Named(&'static str),
    /// Another name, always read.
    Always(&'static str),
    /// None: TorchServe takes the key from the file alone.
    None,
}

impl Key {
    const fn new(name: &'static str, default: &'static str, role: Role) -> Self {
        Self {
            name,
            default,
            lines: &[],
            shape: String::new,
            weight: Light,
            role,
            opens: false,
            variable: Variable::Usual,
        }
    }

    /// Whether its effect is a setting's.
    pub const fn is_setting(&self) -> bool {
        matches!(self.role, Role::Setting | Role::Secret)
    }

    /// The variable that sets it, if one does, and whether it counts even where the file does not ask for variables.
    pub fn environment_variable(&self) -> Option<(String, bool)> {
        let is_ours = self.name.starts_with("lantern_");
        match self.variable {
            Variable::None => None,
            Variable::Named(name) => Some((name.to_owned(), false)),
            Variable::Always(name) => Some((name.to_owned(), true)),
            Variable::Usual if is_ours => Some((self.name.to_uppercase(), true)),
            Variable::Usual => Some((format!("TS_{}", self.name.to_uppercase()), false)),
        }
    }
}

/// All keys, in the order in which they are shown.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    SETTINGS.iter().chain(OTHERS)
}

/// What is known of `name`; `None` if there is no such key.
pub fn find(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name)
}

/// The key that `name` is in other capitals.
pub fn find_in_other_capitals(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name.eq_ignore_ascii_case(name))
}

/// Makes the field, the key and the reading of each setting from one row:
/// `/// meaning`, `key: type = "default", weight, kind => what differs from other keys;`. Other keys have a role instead of a kind.
macro_rules! settings {
    (
        $(
            $(#[doc = $line:literal])+
            $key:ident: $type:ty = $default:literal, $weight:expr, $kind:expr $(=> $differs:ident: $how:expr)?;
        )+
        without effect:
        $($other:ident = $other_default:literal, $role:expr $(=> $other_differs:ident: $other_how:expr)?;)+
    ) => {
        /// The value of every key.
        #[expect(non_snake_case, reason = "one key is written in capitals")]
        #[derive(Debug, Clone, PartialEq)]
        pub struct Values {
            $($(#[doc = $line])+ pub $key: $type,)+
        }

        /// Every key that has a value.
        const SETTINGS: &[Key] = &[$(Key {
            lines: &[$($line),+],
            weight: $weight,
            shape: || SettingKind::<$type>::shape($kind),
            $($differs: $how,)?
            ..Key::new(stringify!($key), $default, Role::Setting)
        },)+];

        /// Keys of TorchServe's that do nothing here, and what a snapshot notes for people to read.
        const OTHERS: &[Key] = &[$(Key {
            $($other_differs: $other_how,)?
            ..Key::new(stringify!($other), $other_default, $role)
        },)+];

        impl Values {
            /// Reads every key.
            pub fn read(reader: &mut Reader<'_>) -> Self {
                let mut keys = SETTINGS.iter();
                let mut next = || keys.next().expect("there is one for each field");
                Self { $($key: reader.take(next(), &$kind),)+ }
            }

            /// The value of `key`, where that says more than what was typed.
            pub fn shown(&self, key: &str) -> Option<String> {
                match key {
                    $(stringify!($key) => SettingKind::<$type>::show(&$kind, &self.$key),)+
                    _ => None,
                }
            }
        }
    };
}

const NO_JAVA: &str = "has no effect: there is no Java virtual machine";
const AS_SENT: &str =
    "has no effect: a handler gets each body as it was sent, with its content type";
const NO_SEQUENCES: &str = "has no effect: requests are independent of each other";
const NO_INTEL: &str = "has no effect: the Intel extension for PyTorch is not used";
const NO_LAUNCHER: &str = "has no effect: workers are threads; their number is lantern.intraOpThreads of model-config.yaml";

settings! {
    /// Address of predictions over HTTP.
    inference_address: Address = "http://127.0.0.1:8080", Safety, address(80, 443);
    /// Address of the management of models over HTTP.
    management_address: Address = "http://127.0.0.1:8081", Safety, address(8081, 8444);
    /// Address of metrics over HTTP.
    metrics_address: Address = "http://127.0.0.1:8082", Safety, address(8082, 8445);
    /// Host of predictions over gRPC.
    grpc_inference_address: IpAddr = "127.0.0.1", Safety, host();
    /// Host of the management of models over gRPC.
    grpc_management_address: IpAddr = "127.0.0.1", Safety, host();
    /// Port of predictions over gRPC; 0 for any that is free.
    grpc_inference_port: u16 = "7070", Needed, number(0, u16::MAX);
    /// Port of the management of models over gRPC; 0 for any that is free.
    grpc_management_port: u16 = "7071", Needed, number(0, u16::MAX);
    /// Age in ms at which the client of a connection for predictions is asked to make another.
    grpc_inference_max_connection_age_ms: Option<Duration> = "", Needed, optional(milliseconds());
    /// Time in ms that calls on a connection that is too old may still take.
    grpc_inference_max_connection_age_grace_ms: Option<Duration> = "", Needed, optional(milliseconds());
    /// Age in ms at which the client of a connection for management is asked to make another.
    grpc_management_max_connection_age_ms: Option<Duration> = "", Needed, optional(milliseconds());
    /// Time in ms that calls on a connection that is too old may still take.
    grpc_management_max_connection_age_grace_ms: Option<Duration> = "", Needed, optional(milliseconds());
    /// Whether gRPC is spoken over TLS.
    enable_grpc_ssl: bool = "false", Safety, truth();
    /// Private key for TLS in PEM: PKCS#8, PKCS#1 or SEC1.
    private_key_file: Option<PathBuf> = "", Safety, tls_file();
    /// Certificate for TLS in PEM, with those that vouch for it after it.
    certificate_file: Option<PathBuf> = "", Safety, tls_file();
    /// Keystore for TLS, PKCS #12 or JKS, where the two files in PEM are not given: its first key, with the chain of its certificate.
    keystore: Option<PathBuf> = "", Safety, tls_file();
    /// Password of the keystore and of the key in it.
    keystore_pass: Option<String> = "changeit", Safety, text() => role: Role::Secret;
    /// Models to load at the start: `all`, or names, paths and URLs of archives, each with `NAME=` before it if it is registered by another name.
    load_models: LoadModels = "", Needed, load_models();
    /// Settings of single versions: a JSON object of models, of versions, of settings.
    models: ListedVersions = "", Light, listed() => variable: Variable::None;
    /// Directory that archives are loaded from.
    model_store: Option<PathBuf> = "", Needed, store();
    /// Directory that workflows are loaded from.
    workflow_store: Option<PathBuf> = "(model_store)", Light, store();
    /// Models of a snapshot; they are restored, and no others loaded.
    model_snapshot: Option<Saved> = "", Needed, saved_models() => variable: Variable::None;
    /// Workers of a version that says nothing; 0 for as many as there are devices.
    default_workers_per_model: Option<usize> = "0", Needed, number_or_zero(VersionLimits::WORKERS);
    /// Time in s from the arrival of a request until its answer.
    default_response_timeout: Duration = "120", Needed, seconds();
    /// Time in s from the start of loading until the first worker is ready.
    default_startup_timeout: Duration = "120", Needed, seconds();
    /// Time in s that unregistering waits for requests in flight.
    unregister_model_timeout: Duration = "120", Needed, seconds();
    /// Requests that may wait for one version.
    job_queue_size: usize = "100", Needed, number(1, VersionLimits::JOB_QUEUE_SIZE);
    /// Most GPUs to use.
    number_of_gpu: Option<u32> = "(all)", Needed, optional(number(0, 1024));
    /// Threads for connections; 0 for as many as cores.
    number_of_netty_threads: Option<usize> = "0", Needed, number_or_zero(1024);
    /// Bytes of a request's body.
    max_request_size: usize = "6553500", Safety, number(1, 1 << 40);
    /// Bytes of a response's body.
    max_response_size: usize = "6553500", Safety, number(1, 1 << 40);
    /// Where archives may be fetched from; nowhere unless it is set. What is not understood allows nothing, with a warning.
    allowed_urls: String = "", Safety, urls() => opens: true;
    /// Whether the variable `TS_ALLOWED_URLS` is read too.
    use_env_allowed_urls: bool = "false", Safety, truth() => variable: Variable::None;
    /// `access-control-allow-origin` of responses; no header unless it is set.
    cors_allowed_origin: Option<String> = "", Safety, text();
    /// `access-control-allow-methods` of responses; no header unless it is set.
    cors_allowed_methods: Option<String> = "", Safety, text();
    /// `access-control-allow-headers` of responses; no header unless it is set.
    cors_allowed_headers: Option<String> = "", Safety, text();
    /// A `metrics.yaml` in place of the built-in one.
    metrics_config: Option<PathBuf> = "", Light, path();
    /// Whether metrics are scraped, log lines, or the three `ts_*` families alone. TorchServe's default is `log`.
    metrics_mode: Mode = "prometheus", Light, metrics_mode();
    /// Whether handlers' metrics need no definition in `metrics.yaml`.
    model_metrics_auto_detect: bool = "false", Light, switch();
    /// Whether metrics are served.
    enable_metrics_api: bool = "true", Light, switch();
    /// Whether the machine is not measured.
    disable_system_metrics: bool = "false", Light, switch();
    /// A command that prints metrics of the machine.
    system_metrics_cmd: Option<String> = "", Safety, text() => variable: Variable::None;
    /// Seconds between two measurements of the machine.
    metric_time_interval: Duration = "60", Needed, seconds() => variable: Variable::None;
    /// TorchServe's way to write logs; here they never hold up a request.
    async_logging: bool = "true", Light, switch();
    /// Whether TorchServe's variables (`TS_…`) are read.
    enable_envvars_config: bool = "false", Light, truth() => variable: Variable::None;
    /// Whether requests need no token.
    disable_token_authorization: bool = "false", Safety, truth() => opens: true;
    /// Minutes that a token is good for.
    token_expiration_min: Duration = "60", Safety, minutes() => variable: Variable::Named("TS_TOKEN_EXPIRATION_TIME_MIN");
    /// Whether the API may register and unregister models.
    enable_model_api: bool = "false", Safety, truth() => opens: true;
    /// Whether Open Inference Protocol is served, over HTTP (`/v2`) and gRPC. TorchServe's default is that it is not.
    ts_open_inference_protocol: bool = "true", Light, open_inference_protocol() => variable: Variable::Always("TS_OPEN_INFERENCE_PROTOCOL");
    /// How platforms wrap requests where an archive says nothing else: none, body, json, kserve or kservev2.
    service_envelope: Envelope = "", Needed, envelope();
    /// Id of the first worker.
    initial_worker_port: u32 = "9000", Needed, number(0, 1_000_000_000);
    /// Requests that Amazon SageMaker may send at the same time.
    NUM_WORKERS: usize = "1", Needed, number(1, 1_000_000);
    /// Where models run that do not say: in a worker process each, or `inline`, in the server's (ONNX).
    lantern_hosting: Hosting = "process", Safety, word(&[("process", Hosting::Process), ("inline", Hosting::Inline)]) => opens: true;
    /// Whether archives may ask for `hosting: inline`.
    lantern_allow_inline: bool = "false", Safety, truth() => opens: true;
    /// Whether something else keeps strangers out: no warning about addresses beyond loopback without tokens.
    lantern_allow_public: bool = "false", Safety, truth() => opens: true;
    /// Keys of the operator's in place of those in `key_file.json`.
    lantern_key_file: Option<PathBuf> = "", Safety, file();
    /// The file of tenants: who owns models beside the operator, with which keys and quotas. It is read again when it changes.
    lantern_tenants: Option<PathBuf> = "", Safety, file();
    /// Directory of what tenants have: archives, snapshots, what was unpacked and compiled. What tenants have that are not in the file is
    /// removed from it.
    lantern_tenants_dir: Option<PathBuf> = "(beside lantern_tenants: its name without the ending)", Safety, path().or(|_| None);
    /// Certificates in PEM of the authorities that vouch for clients: without a certificate by one of them, no client speaks TLS here.
    lantern_client_ca: Option<PathBuf> = "", Safety, file();
    /// Whether a client's `x-request-id` becomes the id of its request; otherwise it is logged beside the server's own.
    lantern_adopt_request_id: bool = "false", Safety, truth();
    /// Whether log files are written beside standard output.
    lantern_log_files: bool = "true", Light, truth();
    /// What `/ping` says: what TorchServe says, or whether the server is ready, for rolling updates that probe it.
    lantern_ping: PingMeaning = "torchserve", Light, word(&[("torchserve", PingMeaning::TorchServe), ("ready", PingMeaning::Ready)]);
    /// Time in s for which the server, asked to stop, says that it is not ready and serves on; then it drains.
    lantern_drain_delay: Duration = "0", Needed, seconds_or_none();
    /// Time in s that a connection over HTTP may stay without the head of its next request. Proxies in front of the server
    /// should give up an idle connection sooner, so that none sends a request into one that is being closed.
    lantern_keep_alive: Duration = "75", Needed, seconds();
    /// Bytes in flight: bodies that are read, answers that clients have not taken yet. What is beyond it waits, and is refused then.
    lantern_bytes_in_flight: usize = "(a quarter of the memory of the machine, or of its control group)", Safety, size().or(Environment::most_bytes_in_flight).shown(shown_size);
    /// Those of one client, which is one address, or one /64 of IPv6; at most `lantern_bytes_in_flight`.
    lantern_bytes_in_flight_of_peer: Option<usize> = "(half of lantern_bytes_in_flight)", Safety, optional(size());
    /// Time in s that a body or an answer waits for room among the bytes in flight.
    lantern_bytes_timeout: Duration = "5", Safety, seconds();
    /// Time in s that the head of a request over HTTP/1 may take from its first byte on.
    lantern_head_timeout: Duration = "20", Safety, seconds();
    /// Time in s within which more of a body must arrive: at least 512 bytes for each second of it, or what is left.
    lantern_body_timeout: Duration = "20", Safety, seconds();
    /// Time in s within which a client must take some of its answer: at least 512 bytes for each second of it.
    lantern_write_timeout: Duration = "30", Safety, seconds();
    /// Connections for predictions, and a quarter as many for everything else. Beyond it, one that is idle makes room for the next.
    lantern_max_connections: usize = "8192", Safety, number(1, 1_000_000);
    /// Those of one client, which is one address, or one /64 of IPv6.
    lantern_max_connections_of_peer: Option<usize> = "(half of lantern_max_connections)", Safety, optional(number(1, 1_000_000));
    /// TLS handshakes at the same time on one address; others wait.
    lantern_max_handshakes: usize = "256", Safety, number(1, 1_000_000);
    /// Time in s that a TLS handshake may take.
    lantern_handshake_timeout: Duration = "10", Safety, seconds();
    /// Calls at the same time on one connection over HTTP/2.
    lantern_max_streams: u32 = "256", Safety, number(1, 100_000);
    /// Calls that the client of a connection over HTTP/2 may take back before the server has looked at them.
    lantern_max_resets: usize = "20", Safety, number(0, 100_000);
    /// Time in s that requests in flight may take when the server stops; by default as long as `default_response_timeout`.
    lantern_drain_timeout: Option<Duration> = "(default_response_timeout)", Needed, optional(seconds());
    /// Mode of the files of Unix sockets, in octal; who may write to one may connect. TorchServe leaves it to the umask.
    lantern_socket_mode: u32 = "0600", Safety, socket_mode() => opens: true;
    /// How many of the models that should serve must do so for the server to be ready; `any` is one, if there is one.
    lantern_ready_requires: ReadyRequires = "all", Light, word(&[("all", ReadyRequires::All), ("any", ReadyRequires::Any), ("none", ReadyRequires::None)]);
    /// Directory of compiled handlers, and of what was found out about batching.
    lantern_cache_dir: PathBuf = "(the user's cache)", Light, path_or(Environment::cache_directory);
    /// Directory that archives are unpacked to; another one if nothing can be written there.
    lantern_temp_dir: PathBuf = "(the state directory, else below the temporary one)", Safety, path_or(Environment::unpack_directory);
    /// ONNX Runtime's library; found by `ORT_DYLIB_PATH`, beside the program, in `../lib` from there, in `.runtime/`, or among the system's.
    lantern_onnxruntime: Option<PathBuf> = "(found)", Safety, found_file(Environment::onnxruntime);
    /// The program that hosts TorchScript; found beside the program.
    lantern_torch: Option<PathBuf> = "(found)", Safety, found_file(Environment::lantern_torch);
    /// Walls around worker processes: `require` starts none without, `prefer` puts up what is possible. A single one has its own word: `prefer, landlock=require`. `lantern doctor` lists them.
    lantern_sandbox: Demands = "prefer", Safety, demands();
    /// Headers that handlers may set although they act on more than a response: cookies, CORS, redirects and the like (docs/security.md lists them).
    lantern_handler_headers: HandlerHeaders = "", Safety, handler_headers() => opens: true;
    /// Ceiling of `lantern.limits.memory`.
    lantern_max_memory: usize = "1GiB", Safety, size();
    /// Ceiling of `lantern.limits.cpu`.
    lantern_max_cpu: Duration = "2s", Safety, duration();
    /// Ceiling of `lantern.limits.initCpu`.
    lantern_max_init_cpu: Duration = "1min", Safety, duration();
    /// Memory that compiling one handler may take.
    lantern_compile_memory: usize = "1GiB", Safety, size();
    /// CPU time that compiling one handler may take. It may wait three times as long for a processor.
    lantern_compile_cpu: Duration = "30s", Safety, duration();
    /// Ceiling of `lantern.limits.output`.
    lantern_max_output: usize = "256MiB", Safety, size();
    /// Ceiling of `lantern.limits.response`.
    lantern_max_response: usize = "64MiB", Safety, size();
    /// Ceiling of `lantern.limits.hostCalls`.
    lantern_max_host_calls: u64 = "10000000", Safety, number(1, u64::MAX);
    /// Ceiling of `lantern.limits.logLinesPerSecond`.
    lantern_max_log_lines_per_second: u32 = "1000", Safety, number(0, u32::MAX);
    /// Ceiling of `lantern.limits.logBytesPerSecond`.
    lantern_max_log_bytes_per_second: usize = "1MiB", Safety, size();
    /// Ceiling of `lantern.limits.observationsPerSecond`.
    lantern_max_observations_per_second: u32 = "100000", Safety, number(0, u32::MAX);
    /// Ceiling of `lantern.limits.metricSeries`.
    lantern_max_metric_series: usize = "1000", Safety, number(0, 1_000_000);
    /// Ceiling of `lantern.limits.instances`.
    lantern_max_instances: usize = "256", Safety, number(1, 65_536);
    /// Memory that all handler instances of a version may have together: one for which there is not enough has fewer instances.
    lantern_max_handler_memory: usize = "4GiB", Safety, size();
    /// Ceiling of `lantern.limits.processMemory`: what weights and handler of a version may take together.
    lantern_max_process_memory: usize = "(three quarters of the memory of the machine, or of its control group)", Safety, size().or(Environment::most_process_memory).shown(shown_size);
    /// Memory that each worker process shares with the server for bodies from 32 KiB on, in each direction; 0 for none. It is taken as it is used, and given back when it is not.
    lantern_shared_memory: usize = "64MiB", Safety, size_or_none();
    /// Ceiling of `lantern.limits.threads`.
    lantern_max_threads: usize = "1024", Safety, number(1, 65_536);
    /// Time that requests, starts, restarts and batches may take, whoever asks for it outside these settings: `responseTimeout`,
    /// `startupTimeout`, `maxRetryTimeoutInSec` and `maxBatchDelay` above it become it, with a warning. What these settings say
    /// of timeouts themselves is not lowered.
    lantern_max_timeout: Duration = "1h", Safety, duration();
    /// Workers that a version may have, whoever asks for them: each is a thread with a session of its own.
    lantern_max_workers: usize = "(one for each 64 MiB of the memory of the machine, or of its control group; 16 to 1024)", Safety, number(1, VersionLimits::WORKERS).or(Environment::most_workers).shown(ToString::to_string);
    /// Rows that a batch may have, whoever asks for them.
    lantern_max_batch_size: usize = "65536", Safety, number(1, VersionLimits::BATCH_SIZE);
    /// Requests that may wait for a version, whoever asks for them.
    lantern_max_job_queue_size: usize = "1000000", Safety, number(1, VersionLimits::JOB_QUEUE_SIZE);
    /// Bytes that an archive that is fetched may have.
    lantern_max_download: usize = "16GiB", Safety, size();
    /// Time that an archive may take to arrive.
    lantern_download_timeout: Duration = "30min", Safety, duration();
    /// Whether items of `allowed_urls` may stand for every host: `.*`, `https?://.*`. Without it they allow nothing.
    lantern_allow_any_url: bool = "false", Safety, truth() => opens: true;
    /// Hosts of `allowed_urls` that may lead to addresses of this machine and its network.
    lantern_private_hosts: BTreeSet<String> = "", Safety, names() => opens: true;

    without effect:
    netty_client_threads = "0", Role::Ignored("has no effect: connections to worker processes need no threads of their own");
    use_native_io = "true", Role::Ignored("has no effect: the system's own interface is always used") => variable: Variable::None;
    io_ratio = "50", Role::Ignored("has no effect: there is no such ratio here") => variable: Variable::None;
    prefer_direct_buffer = "false", Role::Ignored(NO_JAVA);
    limit_max_image_pixels = "true", Role::Ignored("has no effect: what a handler may decode is bounded by its memory (lantern_max_memory)");
    decode_input_request = "true", Role::Ignored(AS_SENT);
    keystore_type = "PKCS12", Role::Ignored("has no effect: a keystore says itself whether it is PKCS #12 or JKS");
    default_service_handler = "", Role::Ignored("has no effect: an archive holds or names its own handler");
    install_py_dep_per_model = "false", Role::Ignored("has no effect: handlers are WebAssembly components, and no Python package is installed");
    blacklist_env_vars = "", Role::Ignored("has no effect: worker processes get none of the server's variables, handlers none at all");
    ts_header_key_sequence_id = "ts_request_sequence_id", Role::Ignored(NO_SEQUENCES) => variable: Variable::Named("TS_HEADER_KEY_SEQUENCE_ID");
    ts_header_key_sequence_start = "ts_request_sequence_start", Role::Ignored(NO_SEQUENCES) => variable: Variable::Named("TS_HEADER_KEY_SEQUENCE_START");
    ts_header_key_sequence_end = "ts_request_sequence_end", Role::Ignored(NO_SEQUENCES) => variable: Variable::Named("TS_HEADER_KEY_SEQUENCE_END");
    initial_distribution_port = "29500", Role::Ignored("has no effect: no model is spread over processes by torchrun");
    model_server_home = "", Role::Ignored("has no effect: nothing is read from a home directory");
    ipex_enable = "false", Role::Ignored(NO_INTEL);
    ipex_gpu_enable = "false", Role::Ignored(NO_INTEL);
    cpu_launcher_enable = "false", Role::Ignored(NO_LAUNCHER);
    cpu_launcher_args = "", Role::Ignored(NO_LAUNCHER);
    cpp_log_config = "", Role::Ignored("has no effect: there are no C++ workers");
    debug = "false", Role::Ignored("has no effect: workers are always started by the server");
    vmargs = "", Role::Ignored(NO_JAVA) => variable: Variable::None;
    plugins_path = "", Role::Ignored("has no effect: plug-ins are Java classes, which nothing here runs") => variable: Variable::None;
    version = "", Role::Note;
    python = "", Role::Note => variable: Variable::None;
    tsConfigFile = "", Role::Note => variable: Variable::None;
}

/// What `/ping` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PingMeaning {
    /// Whether no model has been without a worker for longer than it is restarted, as TorchServe does.
    #[default]
    TorchServe,
    /// Whether the server is ready.
    Ready,
}

/// How many of the models that should serve must serve for the server to be ready.
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
