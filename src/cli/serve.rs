//! Serving in this process: flags that are settings, logs, and signals.

use std::ffi::OsString;
use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, banner};
use crate::api::{AccessLine, AccessLog, AuditLine, AuditLog};
use crate::archive::check_urls;
use crate::config::server::{Environment, Flags, ServerConfig};
use crate::memory;
use crate::metrics::MetricLog;
use crate::sandbox::descriptors;
use crate::server::{Config, Machine, Server};

use crate::telemetry::{self, Directories, Journal, Log, LogSender, Record, Telemetry};

/// The line on standard output for which scripts that start TorchServe wait.
const STARTED: &str = "Model server started.\n";
/// The variable that lists directories in which the dynamic linker searches libraries.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
/// Variables of this process that worker processes get, because native libraries need them.
const PASSED_ON: [&str; 6] = [
    LIBRARY_PATH,
    "CUDA_VISIBLE_DEVICES",
    "CUDA_MODULE_LOADING",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "TZ",
];

/// Flags of the server. A setting that is not given comes from the environment, the file, or its default.
#[derive(Debug, Clone, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of torchserve"
)]
pub struct ServeArgs {
    /// Directory that archives are loaded from
    #[arg(long, value_name = "DIR")]
    pub model_store: Option<PathBuf>,
    /// Models to load: NAME=FILE or FILE, within the model store; `all` for everything in it
    #[arg(long, value_name = "[NAME=]FILE", num_args = 1..)]
    pub models: Vec<String>,
    /// Directory that workflows are loaded from; the model store unless given
    #[arg(long, value_name = "DIR")]
    pub workflow_store: Option<PathBuf>,
    /// File of settings in TorchServe's format (`config.properties`)
    #[arg(long, value_name = "FILE")]
    pub ts_config: Option<PathBuf>,
    /// Allow models to be registered and unregistered through the management API
    #[arg(long)]
    pub enable_model_api: bool,
    /// Serve without tokens
    #[arg(long, alias = "dt")]
    pub disable_token_auth: bool,
    /// Write and read no snapshot of the catalog
    #[arg(long, alias = "ncs")]
    pub no_config_snapshots: bool,
    /// Kept for the flags of torchserve: settings of log4j, which nothing here reads; see --log and --log-format
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub log_config: Option<PathBuf>,
    /// Kept for the flags of torchserve: there are no C++ workers
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub cpp_log_config: Option<PathBuf>,
    /// Kept for the flags of torchserve: plug-ins are Java classes, which nothing here runs
    #[arg(long, alias = "ppath", value_name = "DIR", hide_short_help = true)]
    pub plugins_path: Option<PathBuf>,
    /// One more setting, over those of the file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by part, such as `info,lantern::catalog=debug` or `warn,model=info`
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Whether each request gets a line in the log
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub access_log: bool,
}

/// Values of `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// TorchServe's text, for people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    const fn format(self) -> telemetry::Format {
        match self {
            Self::Human => telemetry::Format::Human,
            Self::Json => telemetry::Format::Json,
        }
    }
}

impl ServeArgs {
    /// The settings among the flags.
    pub fn into_flags(self) -> Flags {
        Flags {
            ts_config: self.ts_config,
            model_store: self.model_store,
            models: self.models,
            enable_model_api: self.enable_model_api,
            disable_token_auth: self.disable_token_auth,
            workflow_store: self.workflow_store,
            no_config_snapshots: self.no_config_snapshots,
            log_config: self.log_config,
            cpp_log_config: self.cpp_log_config,
            plugins_path: self.plugins_path,
            set: self.set,
        }
    }
}

/// Serves until a signal ends it.
pub fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    // An old kernel cannot; then worker processes close what they were not given.
    let _ = descriptors::keep_to_self();
    descriptors::raise_limit();
    memory::keep_between_requests();
    let environment = Environment::of_process();
    let (format, filter) = (args.log_format.format(), args.log.clone());
    let access = args.access_log;
    let settings = load(&args.into_flags(), &environment)?;
    let telemetry = Telemetry::init(&telemetry::Config {
        format,
        filter,
        directories: directories(&settings),
        tenants: settings.values.lantern_tenants.is_some(),
    })?;
    let machine = machine(&environment)?;
    let threads = settings
        .values
        .number_of_netty_threads
        .unwrap_or(machine.cores);
    banner::introduce(&settings, &environment, &machine);
    let mut cfg = Config::new(&settings, &machine)?;
    if access {
        cfg.access = Some(access_log(telemetry.journal().clone()));
    }
    cfg.audit = Some(audit_log(telemetry.journal().clone()));
    if let Some(tenants) = &mut cfg.tenants {
        tenants.logs = telemetry.tenant_logs();
    }
    let journal = telemetry.journal();
    cfg.metrics.server_log = metric_log(journal.log(Log::ServerMetrics));
    cfg.metrics.model_log = metric_log(journal.log(Log::ModelMetrics));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One more than threads that serve: the spare, which goes on while others are held by runs.
        .worker_threads(threads.max(1) + 1)
        .thread_name("lantern-io")
        .enable_all()
        .build()?;
    cfg.hosts.inline_runs.keep_spare_thread(runtime.handle());
    let code = runtime.block_on(serve(cfg, journal));
    // Blocking tasks that still run are not waited for.
    runtime.shutdown_background();
    code
}

/// Resolves the settings. A failure has TorchServe's text where TorchServe has one.
pub fn load(flags: &Flags, environment: &Environment) -> Result<ServerConfig, Failure> {
    ServerConfig::load(flags, environment, check_urls)
        .map_err(|problems| Failure::new(format!("Invalid configuration: {problems}")))
}

fn directories(settings: &ServerConfig) -> Option<Directories> {
    settings.values.lantern_log_files.then(|| Directories {
        logs: settings.log_directory.clone(),
        metrics: settings.metrics_directory.clone(),
    })
}

/// Sends each answered request to its log.
fn access_log(journal: Journal) -> AccessLog {
    AccessLog::new(move |line: AccessLine| {
        let mut record = Record::now(Log::Access, tracing::Level::INFO, line.message)
            .with("status", line.status)
            .with("request_id", line.request_id);
        if let Some(client) = line.client_request_id {
            record = record.with("client_request_id", String::from(client));
        }
        journal.write(record);
    })
}

/// Sends each call that manages to its log.
fn audit_log(journal: Journal) -> AuditLog {
    AuditLog::new(move |AuditLine(fields)| {
        let mut record = Record::now(Log::Audit, tracing::Level::INFO, Vec::new());
        record.fields = fields;
        journal.write(record);
    })
}

/// Sends metrics that are lines to their log.
fn metric_log(writer: LogSender) -> MetricLog {
    MetricLog::new(move |line| writer.write(line.as_bytes()))
}

/// Serves until the first signal, drains until the second.
async fn serve(cfg: Config, journal: &Journal) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new()?;
    let running = Server::bind(cfg)?.start();
    journal.print(STARTED);
    let signal = signals.next().await;
    tracing::info!("{signal}: stopping. A second signal ends the server at once.");
    tokio::select! {
        () = running.stop() => Ok(ExitCode::SUCCESS),
        signal = signals.next() => {
            tracing::warn!("{signal}: requests in flight are abandoned.");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal, and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

pub(super) fn machine(environment: &Environment) -> io::Result<Machine> {
    let passed_on = PASSED_ON.iter().filter_map(|name| {
        let value = environment.variable(name)?;
        Some((name.into(), passed_on(name, value, environment)))
    });
    Ok(Machine {
        program: std::env::current_exe()?,
        environment: passed_on.collect(),
        gpus: gpus(environment),
        cores: std::thread::available_parallelism().map_or(1, NonZero::get),
    })
}

/// The value of a variable for a worker process, which works in another directory: relative paths are made absolute.
fn passed_on(name: &str, value: &str, environment: &Environment) -> OsString {
    if name != LIBRARY_PATH {
        return value.into();
    }
    // An empty entry means the working directory of a process, and libraries must not be searched there.
    let entries = value.split(':').filter(|entry| !entry.is_empty());
    let entries: Vec<_> = entries.map(|entry| environment.path(entry)).collect();
    std::env::join_paths(entries).unwrap_or_else(|_| value.into())
}

/// The number of GPUs that this process may use. Device files are counted, since asking CUDA would load it into the front.
fn gpus(environment: &Environment) -> u32 {
    let is_gpu = |name: &str| {
        let number = name.strip_prefix("nvidia");
        number.is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let found = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_gpu))
        .count();
    let visible = environment.variable("CUDA_VISIBLE_DEVICES");
    let visible = visible.map(|list| {
        list.split(',')
            .filter(|id| !id.trim().is_empty() && id.trim() != "-1")
            .count()
    });
    u32::try_from(visible.unwrap_or(found).min(found)).unwrap_or(u32::MAX)
}
