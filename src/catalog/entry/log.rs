//! What is logged about a version: for the operator, and for whoever owns it.

use std::time::Duration;

use super::Entry;
use crate::catalog::lines::Follower;
use crate::error::Error;
use crate::model::TenantName;
use crate::runtime::{Level, Sink as _, Status};

impl Entry {
    /// The last lines about it, `count` at most, each with a line break, and a reader of those that come after them.
    pub fn last_lines(&self, count: usize) -> (Vec<u8>, Follower) {
        self.sink.last(count)
    }

    /// Logs what concerns it and its owner may know.
    pub(in crate::catalog) fn tell(&self, level: Level, text: String) {
        self.sink.say(level, text, None);
    }

    fn tenant(&self) -> Option<&str> {
        self.owner.tenant().map(TenantName::as_str)
    }

    pub(super) fn log_missing_files(&self, error: &Error) {
        let (model, version) = (&self.spec.name, &self.spec.version);
        tracing::warn!(tenant = self.tenant(), %model, %version, %error, "files of the archive are missing");
    }

    pub(super) fn log_loaded(&self, status: &Status, took: Duration) {
        let spec = &self.spec;
        let devices: Vec<_> = status
            .workers
            .iter()
            .map(|worker| worker.device.to_string())
            .collect();
        self.show_load_times(status, took);
        tracing::info!(
            tenant = self.tenant(),
            model = %spec.name,
            version = %spec.version,
            backend = spec.backend.name(),
            hosting = ?spec.settings.hosting,
            workers = status.workers.len(),
            devices = devices.join(","),
            ms = took.as_millis(),
            "Model {} loaded.", spec.name
        );
        let ms = took.as_millis();
        let text = format!("Model {} loaded in {ms} ms.", spec.name);
        self.sink.note(Level::Info, text);
    }

    /// A start that was called off has not failed.
    pub(super) fn log_failed(&self, error: &Error, is_called_off: bool) {
        let (model, version, url) = (&self.spec.name, &self.spec.version, &self.url);
        if is_called_off {
            self.tell(
                Level::Info,
                format!("Loading model {model} was called off."),
            );
            return;
        }
        let tenant = self.tenant();
        tracing::error!(tenant, %model, %version, "Failed to load model: {url}: {error}");
        if let Some(frames) = error.frames() {
            tracing::debug!(tenant, %model, %version, "{frames}");
        }
        let text = format!("Failed to load model {model}: {}", error.message());
        self.sink.note(Level::Error, text);
    }
}
