//! A record of a log: which log it belongs to, when and where it happened, and the message.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tracing::Level;

/// The logs, of which each has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Log {
    /// What the server does: `ts_log.log`.
    Server,
    /// Lines of handlers and worker processes: `model_log.log`.
    Model,
    /// One line for each request: `access_log.log`.
    Access,
    /// The server's own metrics and the machine's, as lines: `ts_metrics.log`.
    ServerMetrics,
    /// Handlers' metrics, as lines: `model_metrics.log`.
    ModelMetrics,
    /// One line for each call that manages: `audit.log`.
    Audit,
}

impl Log {
    /// Every log.
    pub const ALL: [Self; 6] = [
        Self::Server,
        Self::Model,
        Self::Access,
        Self::ServerMetrics,
        Self::ModelMetrics,
        Self::Audit,
    ];

    /// The name of its file, as in TorchServe where it has one.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Server => "ts_log.log",
            Self::Model => "model_log.log",
            Self::Access => "access_log.log",
            Self::ServerMetrics => "ts_metrics.log",
            Self::ModelMetrics => "model_metrics.log",
            Self::Audit => "audit.log",
        }
    }

    /// Whether lines of the file are a time and a message, as those of TorchServe's are.
    pub(super) const fn is_brief(self) -> bool {
        !matches!(self, Self::Server | Self::Model | Self::Audit)
    }

    /// The logger's name in TorchServe, where it does not depend on the line.
    pub(super) const fn logger(self) -> &'static str {
        match self {
            Self::Server => "lantern",
            Self::Model => "MODEL_LOG",
            Self::Access => "ACCESS_LOG",
            Self::ServerMetrics => "TS_METRICS",
            Self::ModelMetrics => "MODEL_METRICS",
            Self::Audit => "AUDIT_LOG",
        }
    }
}

/// One line, not yet in any format.
#[derive(Debug, Clone)]
pub struct Record {
    /// The log it belongs to.
    pub log: Log,
    /// When it happened.
    pub at: SystemTime,
    /// How severe it is.
    pub level: Level,
    /// Name of the thread; for a model's lines, the name that TorchServe would give its worker.
    pub thread: Arc<str>,
    /// Name of the logger.
    pub logger: &'static str,
    /// The message. It may hold text from clients and handlers: line breaks and control characters are marked when it is
    /// written.
    pub message: Vec<u8>,
    /// Names and values beside the message.
    pub fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// A record of `log` with the current time and thread.
    pub fn now(log: Log, level: Level, message: Vec<u8>) -> Self {
        Self {
            log,
            at: SystemTime::now(),
            level,
            thread: this_thread(),
            logger: log.logger(),
            message,
            fields: Vec::new(),
        }
    }

    /// What is logged in place of so many lines of `log` that did not fit.
    pub(super) fn lost(log: Log, lines: u64) -> Self {
        let message =
            format!("{lines} log lines were lost: they came faster than they could be written.");
        Self::now(log, Level::WARN, message.into_bytes())
    }

    /// Adds a named value. Text shows it only if it is not empty and not part of the thread's name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Roughly how many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.message.len() + 64 * self.fields.len()
    }
}

/// The name of this thread, looked up once.
pub(super) fn this_thread() -> Arc<str> {
    thread_local! {
        static NAME: OnceCell<Arc<str>> = const { OnceCell::new() };
    }
    NAME.with(|name| {
        let name = name.get_or_init(|| std::thread::current().name().unwrap_or("thread").into());
        Arc::clone(name)
    })
}
