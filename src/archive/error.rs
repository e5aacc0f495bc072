//! Why an archive is refused.

use std::fmt::Display;
use std::io;

use crate::config::Problems;
use crate::error::{Error, Kind, shortened};

/// Most bytes of a name that a message repeats.
const SHOWN: usize = 120;

/// Why an archive was not found, not read, or not made. Texts name the entry, the rule and the value; they hold names
/// from the archive and from the client, never a path of this machine.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// No archive was named.
    #[error("empty url")]
    EmptyUrl,
    /// The URL leads upward by `..`.
    #[error("Relative path is not allowed in url: {0}")]
    RelativePath(String),
    /// The server has no model store.
    #[error("Model store has not been configured.")]
    NoModelStore,
    /// `allowed_urls` does not allow the URL.
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
    /// The download failed.
    #[error("Failed to download archive from: {url}: {reason}")]
    Download {
        /// The URL without its query.
        url: String,
        /// Text for the client. It repeats nothing that the other server or this machine said.
        reason: String,
        /// What the other server or this machine said, for the log.
        detail: String,
    },
    /// Another one is being written to the same file.
    #[error("The same archive is being sent already")]
    Busy,
    /// A download cannot get its name: the store has a file of that name.
    #[error("Model file already exists {0}")]
    Exists(String),
    /// The store has no such archive.
    #[error("Model not found at: {0}")]
    NotFound(String),
    /// A link in the store, which leads to where no archive may lie.
    #[error(
        "Model not found at: {url}: a symbolic link of the model store leads to where allowed_urls allows no file; the \
         server's log says where"
    )]
    Link {
        /// What the client named.
        url: String,
        /// Where it leads, and what helps, for the log.
        leads: String,
    },
    /// A link in a directory that is an archive, which leads to where no archive may lie.
    #[error(
        "entry {entry:?} must be a file, a directory, or a symbolic link that leads to where archives may lie, got another \
         symbolic link; the server's log says where it leads"
    )]
    LinkedEntry {
        /// Name in the archive, cut if it is long.
        entry: String,
        /// Where it leads, and what helps, for the log.
        leads: String,
    },
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
    /// The file is not of the format that its name promises.
    #[error("the archive is not a readable {format}: {reason}")]
    Format {
        /// The format that it should have.
        format: &'static str,
        /// What the reader of that format said.
        reason: String,
    },
    /// The manifest lacks a member, or a member has a wrong value.
    #[error("{0}")]
    Manifest(String),
    /// The `model-config.yaml` has problems.
    #[error(transparent)]
    Config(#[from] Problems),
    /// The archive can be read, but this server cannot serve it.
    #[error("{0}")]
    Unservable(String),
    /// Input or output failed on this machine.
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
    /// An error about an entry that breaks `rule`, with the value that was found.
    pub fn entry(entry: &[u8], rule: &'static str, value: impl Display) -> Self {
        Self::Entry {
            entry: shortened(&String::from_utf8_lossy(entry), SHOWN),
            rule,
            value: shortened(&format!("{value}"), SHOWN),
        }
    }

    /// An error about an archive that as a whole breaks `rule`, with the value that was found.
    pub fn archive(rule: &'static str, value: impl Display) -> Self {
        Self::Archive {
            rule,
            value: shortened(&format!("{value}"), SHOWN),
        }
    }

    /// An error about an entry that is a link to `target`.
    pub fn linked(entry: &[u8], leads: String) -> Self {
        Self::LinkedEntry {
            entry: shortened(&String::from_utf8_lossy(entry), SHOWN),
            leads,
        }
    }

    /// Makes errors of input and output, for `map_err`.
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
            ArchiveError::Exists(_) | ArchiveError::Busy => Kind::FileExists,
            ArchiveError::Link { leads, .. } => {
                return Self::new(Kind::ModelNotFound, error.to_string()).with_detail(leads);
            }
            ArchiveError::LinkedEntry { leads, .. } => {
                return Self::new(Kind::InvalidModel, error.to_string()).with_detail(leads);
            }
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
