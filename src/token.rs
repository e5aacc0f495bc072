//! Keys: what a request with each may do, and until when.
//!
//! This module owns the keys, their file and their rotation. A request's key is compared by its SHA-256 digest and in
//! constant time, so that neither the time of an answer nor a dump of the table reveals a key. It knows no HTTP and no
//! routes: `api` asks whether a key opens a scope.

use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

mod file;
mod key;
mod own;
mod table;
mod tenant;

pub use key::{Key, KeyDigest};
pub use own::OwnKeysError;
pub use table::LONGEST;
pub use tenant::{TenantKey, TenantScope};

use file::Written;
use own::OwnKeys;
use table::Table;

/// What a key opens. Scopes are not contained in each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Running models.
    Inference,
    /// Seeing and changing models.
    Management,
    /// Making new keys for the two other scopes.
    Api,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// File to which the server writes the keys that it makes, for its clients.
    pub file: PathBuf,
    /// The file in its place if that cannot be written.
    pub stand_in: Option<PathBuf>,
    /// How long such a key is valid. The key of [`Scope::Api`] is valid for ever.
    pub expiration: Duration,
    /// File of the operator's own keys. If there is one, the server makes no keys.
    pub own: Option<PathBuf>,
}

/// Why keys cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be written.
    #[error(
        "Token Authorization setup unsuccessful: {} cannot be written. Start the server in a directory that it can write \
         to, name keys of your own by lantern_key_file, or let something else keep strangers out and start with \
         --disable-token-auth",
        path.display()
    )]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no random numbers.
    #[error("Token Authorization setup unsuccessful: the system gives no random numbers ({0})")]
    Random(getrandom::Error),
    /// The operator's keys cannot be used.
    #[error(transparent)]
    Own(#[from] OwnKeysError),
}

/// All keys. [`Self::opens`] takes no lock.
#[derive(Debug)]
pub struct Tokens {
    current: ArcSwap<Table>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The server made them. The lock is held while the file is written.
    Made {
        cfg: Config,
        written: Mutex<Written>,
    },
    /// The operator made them.
    Own(OwnKeys),
}

impl Tokens {
    /// Reads the operator's keys, or makes new ones and writes them to the file, replacing its contents. Blocks.
    pub fn create(mut cfg: Config) -> Result<Self, TokenError> {
        if let Some(path) = cfg.own {
            let own = OwnKeys::new(path);
            return Ok(Self {
                current: ArcSwap::from_pointee(own.read()?),
                source: Source::Own(own),
            });
        }
        let written = Written::create(expiry(cfg.expiration))?;
        cfg.file = first_written(&written, &cfg)?;
        Ok(Self {
            current: ArcSwap::from_pointee(written.table()),
            source: Source::Made {
                cfg,
                written: Mutex::new(written),
            },
        })
    }

    /// Whether `key` opens `scope` now.
    pub fn opens(&self, key: &[u8], scope: Scope) -> bool {
        self.current.load().opens(key, scope, SystemTime::now())
    }

    /// Makes another key for `scope` and writes it to the file. The key before is invalid from then on. Blocks. Returns
    /// false if the keys are the operator's, and for [`Scope::Api`], whose key is not replaced.
    pub fn rotate(&self, scope: Scope) -> Result<bool, TokenError> {
        let Source::Made { cfg, written } = &self.source else {
            return Ok(false);
        };
        let mut written = written.lock();
        let Some(next) = written.with_new(scope, expiry(cfg.expiration))? else {
            return Ok(false);
        };
        next.write(&cfg.file)?;
        self.current.store(Arc::new(next.table()));
        *written = next;
        Ok(true)
    }

    /// Reads the operator's keys again if their file has changed. Blocks. Returns whether there are new keys. After a
    /// failure the old ones are valid until the file changes again.
    pub fn refresh(&self) -> Result<bool, OwnKeysError> {
        let Source::Own(own) = &self.source else {
            return Ok(false);
        };
        if !own.has_changed() {
            return Ok(false);
        }
        self.current.store(Arc::new(own.read()?));
        Ok(true)
    }
}

/// Writes the keys to the file, or else to the one that stands in for it, and returns which.
fn first_written(keys: &Written, cfg: &Config) -> Result<PathBuf, TokenError> {
    let Err(error) = keys.write(&cfg.file) else {
        return Ok(cfg.file.clone());
    };
    let Some(stand_in) = cfg.stand_in.clone().filter(|path| keys.write(path).is_ok()) else {
        return Err(error);
    };
    tracing::warn!(
        reason = error.source().map(ToString::to_string),
        "{} cannot be written: the keys are in {}",
        cfg.file.display(),
        stand_in.display()
    );
    Ok(stand_in)
}

fn expiry(expiration: Duration) -> SystemTime {
    SystemTime::now() + expiration
}

#[cfg(test)]
mod tests;
