//! The operator's own keys: a file that a secret store writes, read again when it changes.
//!
//! ```json
//! {"keys": [
//!   {"sha256": "9f86d0…", "opens": ["inference"]},
//!   {"key": "in plain text", "opens": ["inference", "management"], "expires": "2027-01-01T00:00:00Z"}
//! ]}
//! ```

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;

use super::Scope;
use super::key::KeyDigest;
use super::table::{LONGEST, Row, Table};
use crate::place::{self, Stamp};

/// Most bytes of the file.
const FILE_LIMIT: usize = 1 << 20;
/// Most keys in the file. Each is compared with the key of every request.
const KEYS_LIMIT: usize = 64;
/// Fewest bytes of a key in plain text.
const SHORTEST: usize = 8;

/// Why the operator's keys cannot be used. The text names the place in the file and never repeats a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lantern_key_file {}: {rule}", path.display())]
pub struct OwnKeysError {
    path: PathBuf,
    rule: String,
}

/// The file, and its state when it was last read.
#[derive(Debug)]
pub struct OwnKeys {
    path: PathBuf,
    seen: Mutex<Option<Stamp>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Option<String>,
    sha256: Option<String>,
    opens: Vec<Opens>,
    expires: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Opens {
    Inference,
    Management,
}

impl OwnKeys {
    /// The keys in the file at `path`, which is not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self {
            seen: Mutex::new(Stamp::of(&path)),
            path,
        }
    }

    /// Whether the file has changed since this was last asked.
    pub fn has_changed(&self) -> bool {
        let now = Stamp::of(&self.path);
        std::mem::replace(&mut *self.seen.lock(), now) != now
    }

    /// Reads the file. Fails on anything that is not understood, since ignoring it could let a key open more than was meant.
    pub fn read(&self) -> Result<Table, OwnKeysError> {
        let text = contents(&self.path).map_err(|rule| self.error(rule))?;
        let document: Document = serde_json::from_slice(&text).map_err(|error| {
            // serde's text is left out: it may quote a value, which may be a key.
            let (line, column) = (error.line(), error.column());
            self.error(format!(
                "must be {{\"keys\": [{{\"key\" or \"sha256\": …, \"opens\": [\"inference\", \"management\"], \"expires\": \
                 …}}]}}, but is not at line {line}, column {column}"
            ))
        })?;
        if document.keys.len() > KEYS_LIMIT {
            return Err(self.error(format!("must have at most {KEYS_LIMIT} keys")));
        }
        let rows = document.keys.iter().enumerate();
        let rows = rows.map(|(index, entry)| {
            let row = row(entry);
            row.map_err(|rule| self.error(format!("keys[{index}] {rule}")))
        });
        rows.collect::<Result<_, _>>().map(Table::new)
    }

    fn error(&self, rule: impl Into<String>) -> OwnKeysError {
        OwnKeysError {
            path: self.path.clone(),
            rule: rule.into(),
        }
    }
}

fn row(entry: &Entry) -> Result<Row, String> {
    if entry.opens.is_empty() {
        return Err("must open something".to_owned());
    }
    let scopes = entry.opens.iter().map(|scope| match scope {
        Opens::Inference => Scope::Inference,
        Opens::Management => Scope::Management,
    });
    Ok(Row {
        digest: digest(entry)?,
        scopes: scopes.collect(),
        expires: entry.expires.as_deref().map(time).transpose()?,
    })
}

fn time(text: &str) -> Result<SystemTime, String> {
    let time: Result<Timestamp, _> = text.parse();
    let rule = "must expire at a time such as 2027-01-01T00:00:00Z";
    time.map(SystemTime::from).map_err(|_| rule.to_owned())
}

fn digest(entry: &Entry) -> Result<KeyDigest, String> {
    match (&entry.key, &entry.sha256) {
        (Some(key), None) => {
            let is_shown = key.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_shown || !(SHORTEST..=LONGEST).contains(&key.len()) {
                return Err(format!(
                    "must have a key of {SHORTEST} to {LONGEST} visible ASCII characters"
                ));
            }
            Ok(KeyDigest::of(key.as_bytes()))
        }
        (None, Some(hex)) => KeyDigest::from_hex(hex)
            .ok_or_else(|| "must have a sha256 of 64 hexadecimal digits".to_owned()),
        _ => Err("must have one of key and sha256".to_owned()),
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = place::regular_file(path).and_then(|file| {
        let mut limited = file.take(FILE_LIMIT as u64 + 1);
        limited.read_to_end(&mut bytes)
    });
    file.map_err(|error| format!("must be a file that can be read ({error})"))?;
    if bytes.len() > FILE_LIMIT {
        return Err("must be a file of at most 1 MiB".to_owned());
    }
    Ok(bytes)
}
