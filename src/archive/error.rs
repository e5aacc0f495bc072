//! Why an archive is refused.

use std::fmt::Display;
use std::io;

use crate::config::Problems;
use crate::error::{Error, Kind, shortened};

/// Longest piece of a hostile name that a message repeats.
const SHOWN: usize = 120;

/// Why an archive was not found, not read, or not made. Texts name the entry, the rule and the value; they hold names
/// from the archive and from the client, never a path of this machine.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No archive was named.
    #[error("empty url")]
    EmptyUrl,
    /// A name that climbs.
    #[error("Relative path is not allowed in url: {0}")]
    RelativePath(String),
    /// There is nowhere to look.
    #[error("Model store has not been configured.")]
    NoModelStore,
    /// A place that archives are not fetched from.
    #[error("Given URL {0} does not match any allowed URL(s)")]
    UrlNotAllowed(String),
    /// A URL that breaks a rule.
    #[error("url {rule}, got {url}")]
    Url {
        /// What must hold.
        rule: &'static str,
        /// What was given.
        url: String,
    },
    /// It was not fetched.
    #[error("Failed to download archive from: {url}: {reason}")]
    Download {
        /// As given, without its query.
        url: String,
        /// For the client: nothing of what the other side or this machine said.
        reason: String,
        /// For the log.
        detail: String,
    },
    /// There is a file of that name in the store.
    #[error("Model file already exists {0}")]
    Exists(String),
    /// No such archive in the store.
    #[error("Model not found at: {0}")]
    NotFound(String),
    /// An entry that breaks a rule.
    #[error("entry {entry:?} {rule}, got {value}")]
    Entry {
        /// Name in the archive, cut if it is long.
        entry: String,
        /// What must hold.
        rule: &'static str,
        /// What was found.
        value: String,
    },
    /// The archive as a whole breaks a rule.
    #[error("the archive {rule}, got {value}")]
    Archive {
        /// What must hold.
        rule: &'static str,
        /// What was found.
        value: String,
    },
    /// Bytes that are not of the format that the name promises.
    #[error("the archive is not a readable {format}: {reason}")]
    Format {
        /// The format.
        format: &'static str,
        /// The reader's words.
        reason: String,
    },
    /// A manifest that says too little, or nonsense.
    #[error("{0}")]
    Manifest(String),
    /// A `model-config.yaml` with problems.
    #[error(transparent)]
    Config(#[from] Problems),
    /// An archive that is sound, and cannot be served here.
    #[error("{0}")]
    Unservable(String),
    /// The machine's fault.
    #[error("{doing} failed")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ArchiveError {
    /// An entry that breaks `rule`.
    pub fn entry(entry: &[u8], rule: &'static str, value: impl Display) -> Self {
        Self::Entry {
            entry: shortened(&String::from_utf8_lossy(entry), SHOWN),
            rule,
            value: shortened(&format!("{value}"), SHOWN),
        }
    }

    /// The archive as a whole breaks `rule`.
    pub fn archive(rule: &'static str, value: impl Display) -> Self {
        Self::Archive {
            rule,
            value: shortened(&format!("{value}"), SHOWN),
        }
    }

    /// For `map_err` on input and output.
    pub fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        let kind = match &error {
            ArchiveError::EmptyUrl
            | ArchiveError::RelativePath(_)
            | ArchiveError::NoModelStore
            | ArchiveError::UrlNotAllowed(_)
            | ArchiveError::NotFound(_) => Kind::ModelNotFound,
            ArchiveError::Url { .. } => Kind::BadRequest,
            ArchiveError::Exists(_) => Kind::FileExists,
            ArchiveError::Download { detail, .. } => {
                let download = Self::new(Kind::DownloadFailed, error.to_string());
                return if detail.is_empty() {
                    download
                } else {
                    download.with_detail(detail)
                };
            }
            ArchiveError::Entry { .. }
            | ArchiveError::Archive { .. }
            | ArchiveError::Format { .. }
            | ArchiveError::Manifest(_)
            | ArchiveError::Unservable(_) => Kind::InvalidModel,
            ArchiveError::Config(problems) => return problems.clone().into(),
            ArchiveError::Io { source, .. } => {
                return Self::new(Kind::Internal, error.to_string()).with_detail(source);
            }
        };
        Self::new(kind, error.to_string())
    }
}
