//! `key_file.json`, in which clients find the keys that the server made, in TorchServe's format.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::key::Key;
use super::table::{Row, Table};
use super::{Scope, TokenError};

/// The three keys, as they are in the file.
#[derive(Debug, Clone)]
pub struct Written {
    management: Expiring,
    inference: Expiring,
    api: Key,
}

#[derive(Debug, Clone)]
struct Expiring {
    key: Key,
    expires: SystemTime,
}

impl Written {
    /// Makes three new keys.
    pub fn create(expires: SystemTime) -> Result<Self, TokenError> {
        Ok(Self {
            management: Expiring::create(expires)?,
            inference: Expiring::create(expires)?,
            api: Key::random().map_err(TokenError::Random)?,
        })
    }

    /// The same keys with a new one for `scope`; `None` for [`Scope::Api`], whose key is not replaced.
    pub fn with_new(&self, scope: Scope, expires: SystemTime) -> Result<Option<Self>, TokenError> {
        let mut next = self.clone();
        match scope {
            Scope::Management => next.management = Expiring::create(expires)?,
            Scope::Inference => next.inference = Expiring::create(expires)?,
            Scope::Api => return Ok(None),
        }
        Ok(Some(next))
    }

    /// The table against which requests are checked.
    pub fn table(&self) -> Table {
        Table::new(vec![
            row(
                &self.management.key,
                Scope::Management,
                Some(self.management.expires),
            ),
            row(
                &self.inference.key,
                Scope::Inference,
                Some(self.inference.expires),
            ),
            row(&self.api, Scope::Api, None),
        ])
    }

    /// Writes the file, readable by this user alone. It is replaced as a whole, so a reader finds the old keys or the new.
    pub fn write(&self, path: &Path) -> Result<(), TokenError> {
        replace(path, self.json().as_bytes()).map_err(|source| TokenError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// The file's text: pretty, without a line break at the end, as TorchServe writes it.
    pub fn json(&self) -> String {
        let whole = json!({
            "management": self.management.json(),
            "inference": self.inference.json(),
            "API": { "key": self.api.expose() },
        });
        format!("{whole:#}")
    }
}

impl Expiring {
    fn create(expires: SystemTime) -> Result<Self, TokenError> {
        let key = Key::random().map_err(TokenError::Random)?;
        Ok(Self { key, expires })
    }

    fn json(&self) -> Value {
        json!({ "key": self.key.expose(), "expiration time": shown(self.expires) })
    }
}

fn row(key: &Key, scope: Scope, expires: Option<SystemTime>) -> Row {
    Row {
        digest: key.digest(),
        scopes: vec![scope],
        expires,
    }
}

/// ISO 8601 in UTC with nanoseconds. A time beyond the calendar becomes its last.
fn shown(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    format!("{time:.9}")
}

/// Replaces a file by way of a temporary one, which is readable by this user alone from the first moment.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
