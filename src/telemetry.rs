//! Logs: how they look, and how they leave the process without holding up a request.
//!
//! It owns the writers to standard output and to the log files, and the format of lines. It does not know what is
//! logged. Whoever logs hands over a [`Record`], by itself or through `tracing`, and goes on.

use std::path::PathBuf;

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod clock;
mod events;
mod files;
mod format;
mod journal;
mod lines;
mod record;

use clock::Clock;
use events::ToJournal;
use files::Files;
use format::Formatter;
use journal::{Outputs, Scribe};
use lines::Lines;

pub use journal::{Journal, LogWriter};
pub use record::{Log, Record};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Settings of the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How lines look.
    pub format: Format,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`, such as `info,lantern::catalog=debug`.
    pub filter: String,
    /// Where log files are written, if anywhere.
    pub directories: Option<Directories>,
}

/// Where log files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// `ts_log.log`, `model_log.log` and `access_log.log`.
    pub logs: PathBuf,
    /// `ts_metrics.log` and `model_metrics.log`.
    pub metrics: PathBuf,
}

impl Directories {
    fn of(&self, log: Log) -> PathBuf {
        match log {
            Log::Server | Log::Model | Log::Access => self.logs.clone(),
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
        }
    }
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log filter {0:?} is not understood: {1}")]
    Filter(String, String),
    /// Somebody else set up logs in this process.
    #[error("logs are set up already")]
    Twice,
    /// The writer's thread did not start.
    #[error("cannot start the thread that writes logs: {0}")]
    Thread(#[from] std::io::Error),
}

/// The process's logs; what was logged is written when this is dropped.
pub struct Telemetry {
    journal: Journal,
    // In this order: what the first still writes passes through the second.
    _scribe: Scribe,
    _console: Lines,
}

impl Telemetry {
    /// Sends all logs of this process to standard output and to the log files. Files that cannot be written are said
    /// to be, and nothing else comes of it.
    pub fn init(cfg: &Config) -> Result<Self, TelemetryError> {
        let filter = EnvFilter::try_new(&cfg.filter)
            .map_err(|error| TelemetryError::Filter(cfg.filter.clone(), error.to_string()))?;
        let console = Lines::start(std::io::stdout())?;
        let clock = Clock::of_system();
        let (files, complaints) = match &cfg.directories {
            Some(directories) => Files::open(|log| directories.of(log), &clock),
            None => (Files::default(), Vec::new()),
        };
        let journal = Journal::default();
        let outputs = Outputs {
            formatter: Formatter::new(cfg.format, clock),
            console: console.writer(),
            files,
        };
        let scribe = Scribe::start(journal.clone(), outputs)?;
        tracing_subscriber::registry()
            .with(filter)
            .with(ToJournal(journal.clone()))
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
            _scribe: scribe,
            _console: console,
        })
    }

    /// Takes records beside the events of `tracing`: requests, and metrics that are lines.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }
}

/// Sends the logs of a worker process to its stderr, as plain lines: the server that started it reads them into the
/// model's log, with a time of its own, and keeps the last ones. Does nothing the second time.
pub fn init_worker() {
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_target(false)
        .without_time();
    let _ = lines.try_init();
}
