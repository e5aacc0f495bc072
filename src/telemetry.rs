//! Logs: the format of lines, and writing them without delaying a request.
//!
//! This module owns the writers to standard output and to the log files. It does not know what is logged. Code that logs
//! hands over a [`Record`], directly or through `tracing`, and does not wait for it to be written.

use std::io::Write as _;
use std::path::PathBuf;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

mod apart;
mod clock;
mod events;
mod files;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod journal;
mod lines;
mod record;

use apart::TenantLogWriter;
use clock::Clock;
use events::Records;
use files::Files;
use format::Formatter;
use journal::{LogWriter, Outputs};
use lines::Lines;

pub use apart::{TenantLog, TenantLogs};
pub use journal::{Journal, LogSender};
pub use record::{Log, Record};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// TorchServe's text, for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Settings of the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Format of the lines on standard output and in the files.
    pub format: Format,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`, such as `info,lantern::catalog=debug`.
    pub filter: String,
    /// Where log files are written; without it, there are none.
    pub directories: Option<Directories>,
    /// Whether there are tenants, whose lines go to files of their own.
    pub tenants: bool,
}

impl Config {
    const fn has_tenant_files(&self) -> bool {
        self.tenants && self.directories.is_some()
    }
}

/// Where log files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// Directory of `ts_log.log`, `model_log.log`, `access_log.log` and `audit.log`.
    pub logs: PathBuf,
    /// Directory of `ts_metrics.log` and `model_metrics.log`.
    pub metrics: PathBuf,
}

impl Directories {
    fn of(&self, log: Log) -> PathBuf {
        match log {
            Log::Server | Log::Model | Log::Access | Log::Audit => self.logs.clone(),
            Log::ServerMetrics | Log::ModelMetrics => self.metrics.clone(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Human,
            filter: "info".to_owned(),
            directories: None,
            tenants: false,
        }
    }
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {0:?} is not understood: {1}")]
    Filter(String, String),
    /// Logs were set up before in this process.
    #[error("logs are set up already")]
    Twice,
    /// The writer's thread did not start.
    #[error("cannot start the thread that writes logs: {0}")]
    Thread(#[from] std::io::Error),
}

/// The logs of this process. Dropping it writes what was logged and not written yet.
pub struct Telemetry {
    journal: Journal,
    /// Where tenants' lines go, if they go to files.
    tenants: Option<TenantLogWriter>,
    // Fields are dropped in this order: the last lines of the writer still pass through the console.
    _writer: LogWriter,
    _console: Lines,
}

impl Telemetry {
    /// Sends all logs of this process to standard output and to the log files. A file that cannot be written is logged on
    /// standard output, and is no error.
    pub fn init(cfg: &Config) -> Result<Self, TelemetryError> {
        let filter = filter(&cfg.filter)?;
        let console = Lines::start(std::io::stdout())?;
        let clock = Clock::of_system();
        let (files, complaints) = match &cfg.directories {
            Some(directories) => Files::open(&Log::ALL, |log| directories.of(log), &clock),
            None => (Files::default(), Vec::new()),
        };
        let journal = Journal::default();
        let tenants = cfg.has_tenant_files().then(|| {
            let formatter = Formatter::new(cfg.format, clock.clone());
            TenantLogWriter::start(formatter, journal.clone(), logs_models_at)
        });
        let tenants = tenants.transpose()?;
        let outputs = Outputs {
            formatter: Formatter::new(cfg.format, clock),
            console: console.writer(),
            files,
        };
        let writer = LogWriter::start(journal.clone(), outputs)?;
        let records = journal.clone();
        tracing_subscriber::registry()
            .with(filter)
            .with(Records(move |record| records.write(record)))
            .try_init()
            .map_err(|_| TelemetryError::Twice)?;
        for complaint in complaints {
            journal.write(Record::now(
                Log::Server,
                Level::WARN,
                complaint.into_bytes(),
            ));
        }
        Ok(Self {
            journal,
            tenants,
            _writer: writer,
            _console: console,
        })
    }

    /// The journal, for records that are not events of `tracing`: requests, and metrics that are lines.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What opens the logs of tenants, if they have files.
    pub fn tenant_logs(&self) -> Option<TenantLogs> {
        let tenants = self.tenants.as_ref();
        tenants.map(|writer| writer.logs().clone())
    }
}

/// Whether lines of models are logged at a level, as the filter has it.
fn logs_models_at(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: events::MODEL, Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: events::MODEL, Level::DEBUG),
        Level::INFO => tracing::enabled!(target: events::MODEL, Level::INFO),
        Level::WARN => tracing::enabled!(target: events::MODEL, Level::WARN),
        Level::ERROR => tracing::enabled!(target: events::MODEL, Level::ERROR),
    }
}

type Filter = Box<dyn Layer<Registry> + Send + Sync>;

/// What `text` lets through. `EnvFilter` takes locks whenever a span is made or entered, in case a directive is about spans:
/// where none is, [`Targets`] mean the same without. A target without a level is a trace to the first and an error to the second.
fn filter(text: &str) -> Result<Filter, TelemetryError> {
    let bad = |error: String| TelemetryError::Filter(text.to_owned(), error);
    let filter = EnvFilter::try_new(text).map_err(|error| bad(error.to_string()))?;
    let directives: Vec<_> = text.split(',').filter(|one| !one.is_empty()).collect();
    let is_only_of_envfilter = |one: &&str| one.contains('[') || one.trim_end().ends_with('=');
    if directives.is_empty() || directives.iter().any(is_only_of_envfilter) {
        return Ok(filter.boxed());
    }
    let targets: Result<Targets, _> = directives.join(",").parse();
    Ok(targets.map_err(|error| bad(error.to_string()))?.boxed())
}

/// Sends the logs of a worker process to its stderr, as plain lines: the server that started it reads them into the
/// model's log, with a time, model and version of its own, and keeps the last ones. Does nothing the second time.
pub fn init_worker() {
    let lines = Records(|record: Record| {
        let _ = std::io::stderr().write_all(&format::worker_line(&record));
    });
    let _ = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(lines)
        .try_init();
}
