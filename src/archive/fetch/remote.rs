//! Parses what a client wrote: the URL, the digest that it pins, and the name that the file gets in the store.

use std::path::PathBuf;

use url::Url;

use super::super::urls::{BadUrl, SourceUrl};
use super::Failure;
use crate::archive::ArchiveError;
use crate::archive::store::shorten;

/// What comes before a pinned digest, at the end of a URL or name.
const PIN: &str = "#sha256=";
/// Most bytes of a URL.
const LONGEST: usize = 8192;
/// Most bytes of a file's name.
const NAME_LIMIT: usize = 255;

/// A URL to fetch.
#[derive(Debug)]
pub struct Remote {
    /// The URL in the form that is compared with `allowed_urls`.
    pub source: SourceUrl,
    /// The URL to request, without fragment.
    pub url: Url,
    /// The name of the file in the store.
    pub name: String,
    /// The URL without its query, which may hold a signature.
    pub shown: String,
    typed: String,
}

/// Splits a URL or name from the digest that it pins.
pub fn split_pin(text: &str) -> Result<(&str, Option<String>), ArchiveError> {
    let Some((source, digest)) = text.rsplit_once(PIN) else {
        return Ok((text, None));
    };
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest {
        return Ok((source, Some(digest.to_ascii_lowercase())));
    }
    Err(ArchiveError::Url {
        rule: "must end in #sha256= and 64 hexadecimal digits, or pin no digest",
        url: shorten(text),
    })
}

/// The URL or name of an archive whose SHA-256 must be `digest`.
pub fn with_pin(source: &str, digest: &str) -> String {
    format!("{source}{PIN}{digest}")
}

impl Remote {
    /// Parses a URL; `None` if `text` is the name of an archive in the store.
    pub fn parse(text: &str) -> Result<Option<Self>, ArchiveError> {
        let scheme = text
            .split_once("://")
            .map(|(scheme, _)| scheme.to_ascii_lowercase());
        if !matches!(scheme.as_deref(), Some("http" | "https" | "file" | "s3")) {
            return Ok(None);
        }
        let refused = || ArchiveError::UrlNotAllowed(shorten(text));
        if text.contains("..") {
            return Err(ArchiveError::RelativePath(shorten(text)));
        }
        if text.len() > LONGEST {
            return Err(refused());
        }
        let (source, url) = SourceUrl::parse(text).map_err(|bad| match bad {
            BadUrl::Malformed => malformed(text),
            _ => refused(),
        })?;
        if url.fragment().is_some() {
            return Err(ArchiveError::Url {
                rule: "must have no fragment but #sha256= and 64 hexadecimal digits",
                url: shorten(text),
            });
        }
        let name = source.segments.last().filter(|name| is_file_name(name));
        let name = name.ok_or_else(|| ArchiveError::Url {
            rule: "must end in the name of a file, at most 255 bytes and not hidden",
            url: shorten(text),
        })?;
        Ok(Some(Self {
            name: name.clone(),
            shown: shorten(text.split('?').next().unwrap_or(text)),
            typed: shorten(text),
            source,
            url,
        }))
    }

    /// The path of a `file://` URL.
    pub fn path(&self) -> PathBuf {
        self.source.path()
    }

    /// The error that `allowed_urls` does not allow it.
    pub fn not_allowed(&self) -> ArchiveError {
        ArchiveError::UrlNotAllowed(self.typed.clone())
    }

    /// The error that the download failed.
    pub fn failed(&self, failure: Failure) -> ArchiveError {
        let (reason, detail) = match failure {
            Failure::Refused(reason, detail) => (reason, detail),
            Failure::Broken(reason, detail) => (reason.to_owned(), detail),
            Failure::Here(error) => return error,
        };
        ArchiveError::Download {
            url: self.shown.clone(),
            reason,
            detail,
        }
    }
}

fn malformed(text: &str) -> ArchiveError {
    ArchiveError::Download {
        url: shorten(text),
        reason: "it is not a URL".to_owned(),
        detail: String::new(),
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_LIMIT && !name.starts_with('.')
}
