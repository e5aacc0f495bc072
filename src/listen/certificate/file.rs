//! Files that settings name: reading them within a limit, saying what is wrong with them, and seeing that they changed.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::place::{self, Stamp};

/// Most bytes of a file that is read.
const FILE_LIMIT: u64 = 1 << 20;

/// Why a file of certificates or keys cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {rule}, got {}", path.display())]
pub struct CertificateError {
    setting: &'static str,
    rule: String,
    path: PathBuf,
}

/// A setting, and the file that it names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    setting: &'static str,
    pub path: &'a Path,
}

impl<'a> Named<'a> {
    pub const fn new(setting: &'static str, path: &'a Path) -> Self {
        Self { setting, path }
    }

    /// The file breaks `rule`.
    pub fn problem(self, rule: impl Into<String>) -> CertificateError {
        CertificateError {
            setting: self.setting,
            rule: rule.into(),
            path: self.path.to_owned(),
        }
    }

    /// The whole file.
    pub fn contents(self) -> Result<Vec<u8>, CertificateError> {
        let mut bytes = Vec::new();
        let file = place::regular_file(self.path);
        let read = file.and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
        match read {
            Err(error) => Err(self.problem(format!("must be a file that can be read ({error})"))),
            Ok(size) if size as u64 > FILE_LIMIT => {
                Err(self.problem("must be a file of at most 1 MiB"))
            }
            Ok(_) => Ok(bytes),
        }
    }
}

/// Files, and what they were when they were last looked at.
#[derive(Debug)]
pub struct Watched {
    files: Vec<PathBuf>,
    seen: Mutex<Vec<Option<Stamp>>>,
}

impl Watched {
    /// To be made before the files are read, so that no change is missed.
    pub fn new(files: impl Into<Vec<PathBuf>>) -> Self {
        let files = files.into();
        Self {
            seen: Mutex::new(stamps(&files)),
            files,
        }
    }

    /// Whether any of them has changed since the last look.
    pub fn have_changed(&self) -> bool {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock();
        let have_changed = *seen != now;
        *seen = now;
        have_changed
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}
