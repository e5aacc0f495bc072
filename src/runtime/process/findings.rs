//! What the worker processes of a version say of batching: the latest for `describe`, a verdict for the next process.

use parking_lot::Mutex;

use crate::runtime::{Batching, Verdict, Verdicts};

/// What is known of one version's batching.
#[derive(Debug)]
pub struct Findings {
    digest: String,
    verdicts: Verdicts,
    latest: Mutex<Option<Batching>>,
}

impl Findings {
    /// Of the archive of that digest.
    pub fn new(digest: &str, verdicts: Verdicts) -> Self {
        Self {
            digest: digest.to_owned(),
            verdicts,
            latest: Mutex::default(),
        }
    }

    /// What is known of the archive before a process has loaded it.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdicts.of(&self.digest)
    }

    /// Takes what the process says it does, and what it found out.
    pub fn take(&self, status: Batching, verdict: Option<&Verdict>) {
        if let Some(verdict) = verdict
            && self.verdict().as_ref() != Some(verdict)
        {
            self.verdicts.keep(&self.digest, verdict);
        }
        *self.latest.lock() = Some(status);
    }

    /// What the latest process does, once there was one.
    pub fn status(&self) -> Option<Batching> {
        self.latest.lock().clone()
    }
}
