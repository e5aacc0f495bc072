//! Logs: how they look, and how they leave the process without holding up a request.
//!
//! It owns the one writer to standard output and the format of lines. It does not know what is logged.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod lines;

pub use lines::{LineWriter, Lines};

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
    /// Colors, for a terminal.
    pub color: bool,
    /// What is logged, in the syntax of `tracing_subscriber::EnvFilter`, such as `info,lantern::catalog=debug`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Format::Human,
            color: false,
            filter: "info".to_owned(),
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
    lines: Lines,
}

impl Telemetry {
    /// Sends all logs of this process to standard output.
    pub fn init(cfg: &Config) -> Result<Self, TelemetryError> {
        let filter = EnvFilter::try_new(&cfg.filter)
            .map_err(|error| TelemetryError::Filter(cfg.filter.clone(), error.to_string()))?;
        let lines = Lines::start(std::io::stdout())?;
        let writer = lines.writer();
        let layer = tracing_subscriber::fmt::layer()
            .with_span_events(FmtSpan::NONE)
            .with_writer(move || writer.clone());
        let registry = tracing_subscriber::registry().with(filter);
        let done = match cfg.format {
            Format::Human => {
                let layer = layer.with_target(false).with_ansi(cfg.color);
                registry.with(layer).try_init()
            }
            Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        };
        done.map_err(|_| TelemetryError::Twice)?;
        Ok(Self { lines })
    }

    /// A writer of whole lines beside the logs, such as the access log's.
    pub fn writer(&self) -> LineWriter {
        self.lines.writer()
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
