//! What the worker processes of a version say of batching: the latest for `describe`, a verdict for the next process.
//!
//! A process may lie, of its own archive alone. What it says is kept at most twice: that requests may be stacked, and that they
//! may not.

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::model::ModelSpec;
use crate::runtime::{Batching, Verdict, Verdicts, batching};

/// What is known of one version's batching.
#[derive(Debug)]
pub struct Findings {
    key: String,
    verdicts: Verdicts,
    latest: Mutex<Option<Batching>>,
}

impl Findings {
    /// Of the version of an archive.
    pub fn new(model: &ModelSpec, verdicts: Verdicts) -> Self {
        Self {
            key: batching::key(&model.digest, model.settings.batch_size),
            verdicts,
            latest: Mutex::default(),
        }
    }

    /// What is known of the archive before a process has loaded it.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdicts.of(&self.key)
    }

    /// Takes what the process says it does, and what it found out. Must be called within a tokio runtime.
    pub fn take(&self, status: Batching, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict.filter(|verdict| self.is_news(verdict)) {
            let tasks = Handle::current();
            self.verdicts.keep_soon(&self.key, verdict, &tasks);
        }
        *self.latest.lock() = Some(status);
    }

    /// What the latest process does, once there was one.
    pub fn status(&self) -> Option<Batching> {
        self.latest.lock().clone()
    }

    /// A refutation is final.
    fn is_news(&self, verdict: &Verdict) -> bool {
        match (self.verdict(), verdict) {
            (Some(Verdict::Refuted(_)), _) => false,
            (None, _) => true,
            (Some(Verdict::Confirmed(_)), said) => matches!(said, Verdict::Refuted(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;
    use crate::runtime::{Grounds, testing};

    #[test]
    fn a_process_changes_what_is_known_at_most_twice() {
        let confirmed = |grounds| Verdict::Confirmed(grounds);
        let refuted = |reason: &str| Verdict::Refuted(reason.to_owned());
        for (known, said, is_news) in [
            (None, confirmed(Grounds::Samples), true),
            (None, refuted("a"), true),
            (
                Some(confirmed(Grounds::Samples)),
                confirmed(Grounds::Requests),
                false,
            ),
            (Some(confirmed(Grounds::Samples)), refuted("a"), true),
            (Some(refuted("a")), refuted("b"), false),
            (Some(refuted("a")), confirmed(Grounds::Samples), false),
        ] {
            let mut model = testing::model(Settings::default());
            model.digest = "ab".repeat(32);
            let findings = Findings::new(&model, Verdicts::default());
            if let Some(known) = &known {
                findings.verdicts.keep(&findings.key, known);
            }
            assert_eq!(findings.is_news(&said), is_news, "{known:?}, then {said:?}");
        }
    }
}
