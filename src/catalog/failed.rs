//! Registrations that failed while a client waited for their workers: what was to be, and why it is not.
//!
//! Such a version is taken back, so that it can be registered again, and no request waits for it. Its description stays for
//! whoever looks for the reason: for [`KEPT_FOR`], until its name is registered again or unregistered, and only the last
//! [`MOST`] of them. Lists do not show it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::describe::{Condition, Description};
use super::entry::Entry;
use super::{Catalog, Which};
use crate::error::{Error, Kind};

/// How long a failure is shown.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// How many failures are kept.
const MOST: usize = 64;

/// The failures, oldest first.
#[derive(Default)]
pub(super) struct FailedRegistrations(Mutex<VecDeque<Failed>>);

struct Failed {
    at: Instant,
    description: Description,
}

impl Failed {
    fn is_meant(&self, name: &str, version: Option<&str>) -> bool {
        let spec = &self.description.spec;
        let is_version = |version| spec.version.as_str() == version;
        spec.name.as_str() == name && version.is_none_or(is_version)
    }

    fn is_current(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < KEPT_FOR
    }
}

impl FailedRegistrations {
    fn keep(&self, description: Description, at: Instant) {
        let mut all = self.0.lock();
        all.retain(|failed| failed.is_current(at));
        if all.len() == MOST {
            all.pop_front();
        }
        all.push_back(Failed { at, description });
    }

    /// Forgets the failures of that version, or of all the model's. Whether there were such.
    pub(super) fn forget(&self, name: &str, version: Option<&str>, now: Instant) -> bool {
        let mut all = self.0.lock();
        all.retain(|failed| failed.is_current(now));
        let before = all.len();
        all.retain(|failed| !failed.is_meant(name, version));
        all.len() < before
    }

    /// The failures that are meant, the last one first.
    fn find(&self, name: &str, which: Which<'_>, now: Instant) -> Vec<Description> {
        let (version, most) = match which {
            Which::Default => (None, 1),
            Which::Version(version) => (Some(version), 1),
            Which::All => (None, MOST),
        };
        let all = self.0.lock();
        let current = all.iter().rev().filter(|failed| failed.is_current(now));
        let meant = current.filter(|failed| failed.is_meant(name, version));
        meant
            .take(most)
            .map(|failed| failed.description.clone())
            .collect()
    }
}

impl Catalog {
    /// Takes back a version whose workers did not start, and keeps why for those who ask.
    pub(super) fn take_back(&self, entry: &Arc<Entry>, reason: &Error) {
        let description = Description {
            condition: Condition::Failed(reason.clone()),
            ..entry.describe()
        };
        // Kept first, so that it is found by whoever does not find the entry any more. Whoever unregistered it knows why.
        if reason.kind() != Kind::Conflict {
            self.state.failed.keep(description, Instant::now());
        }
        self.remove(entry);
    }

    /// Descriptions of versions whose registration failed a short while ago, of those that are meant.
    pub fn describe_failed(&self, name: &str, which: Which<'_>) -> Vec<Description> {
        if !self.shows(name) {
            return Vec::new();
        }
        self.state.failed.find(name, which, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Bounds, Signature};
    use crate::model::{ModelName, ModelSpec, Settings, Version};
    use crate::runtime::testing;

    fn description(name: &str, version: &str) -> Description {
        let spec = ModelSpec {
            name: ModelName::new(name).unwrap(),
            version: Version::new(version).unwrap(),
            ..testing::model(Settings::default())
        };
        Description {
            spec: Arc::new(spec),
            backend: None,
            runtime: "wasm",
            url: String::new(),
            origin: None,
            bounds: Bounds::exactly(1),
            loaded_at_startup: false,
            condition: Condition::Failed(Error::new(Kind::LoadFailed, "why")),
            workers: Vec::new(),
            walls: Vec::new(),
            queue_remaining: 0,
            queue_pending: 0,
            signature: Arc::new(Signature::default()),
            batching: None,
            last_output: Vec::new(),
            last_error: None,
        }
    }

    fn versions(failed: &FailedRegistrations, which: Which<'_>, now: Instant) -> Vec<String> {
        let found = failed.find("a", which, now);
        let versions = found.iter().map(|one| one.spec.version.to_string());
        versions.collect()
    }

    #[test]
    fn failures_are_found_by_name_and_version_until_they_are_old() {
        let (failed, start) = (FailedRegistrations::default(), Instant::now());
        let later = start + Duration::from_mins(5);
        failed.keep(description("a", "1"), start);
        failed.keep(description("a", "2"), later);
        failed.keep(description("b", "3"), later);
        assert_eq!(versions(&failed, Which::Default, later), ["2"]);
        assert_eq!(versions(&failed, Which::All, later), ["2", "1"]);
        assert_eq!(versions(&failed, Which::Version("1"), later), ["1"]);
        assert_eq!(versions(&failed, Which::Version("3"), later), [""; 0]);
        let end = start + KEPT_FOR;
        assert_eq!(versions(&failed, Which::All, end), ["2"]);
        assert!(!failed.forget("a", Some("1"), end));
        assert!(failed.forget("a", None, end));
        assert_eq!(versions(&failed, Which::All, end), [""; 0]);
    }

    #[test]
    fn only_the_last_failures_are_kept() {
        let (failed, now) = (FailedRegistrations::default(), Instant::now());
        for version in 0..=MOST {
            failed.keep(description("a", &version.to_string()), now);
        }
        let found = versions(&failed, Which::All, now);
        assert_eq!(found.len(), MOST);
        assert_eq!(found.first(), Some(&MOST.to_string()));
        assert_eq!(found.last().map(String::as_str), Some("1"));
    }
}
