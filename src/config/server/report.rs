//! What every setting is, and where it was set: for `lantern config`, and for the log at the start.

use super::environment::Environment;
use super::keys::{self, Key, Role};
use super::{ServerConfig, raw::Entry};

/// What is shown in place of a secret.
const HIDDEN: &str = "********";
/// Where a value comes from that nobody typed.
const DEFAULT: &str = "default";

/// One setting as it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key; for what a variable alone can say, the variable.
    pub key: &'static str,
    /// Its value, hidden if it is a secret; empty if there is none.
    pub value: String,
    /// File and line, variable or flag; `default` otherwise.
    pub source: String,
    /// Why it does nothing, if it does nothing.
    pub ignored: Option<&'static str>,
}

impl ServerConfig {
    /// Every setting in the order of the keys: those that hold, and those that were typed in vain.
    pub fn report(&self, environment: &Environment) -> Vec<Setting> {
        let keys = keys::keys().filter_map(|key| self.setting(key));
        keys.chain(self.directories(environment)).collect()
    }

    /// The value of `key` as it is shown; empty if there is none.
    pub fn shown(&self, key: &str) -> String {
        let found = keys::find(key).and_then(|key| self.setting(key));
        found.map_or_else(String::new, |setting| setting.value)
    }

    fn setting(&self, key: &'static Key) -> Option<Setting> {
        let typed = self.typed.get(key.name);
        let ignored = match key.role {
            Role::Ignored(why) => Some(why),
            _ => None,
        };
        (key.is_setting() || typed.is_some()).then(|| Setting {
            key: key.name,
            value: self.value(key, typed),
            source: typed.map_or_else(|| DEFAULT.to_owned(), |entry| entry.origin.clone()),
            ignored,
        })
    }

    fn value(&self, key: &Key, typed: Option<&Entry>) -> String {
        if key.role == Role::Secret && typed.is_some() {
            return HIDDEN.to_owned();
        }
        if let Some(shown) = self.values.shown(key.name) {
            return shown;
        }
        typed.map_or_else(
            || key.default.to_owned(),
            |entry| entry.value.trim().to_owned(),
        )
    }

    /// What variables alone say.
    fn directories(&self, environment: &Environment) -> Vec<Setting> {
        let file = self.file.as_ref();
        let file = file.map_or_else(String::new, |file| file.display().to_string());
        let directories = [
            ("TS_CONFIG_FILE", file),
            ("LOG_LOCATION", self.log_directory.display().to_string()),
            (
                "METRICS_LOCATION",
                self.metrics_directory.display().to_string(),
            ),
            ("TEMP", environment.temp_directory().display().to_string()),
        ];
        let setting = |(key, value): (&'static str, String)| {
            let is_said = environment
                .variable(key)
                .is_some_and(|value| !value.is_empty());
            Setting {
                key,
                value,
                source: if is_said { "environment" } else { DEFAULT }.to_owned(),
                ignored: None,
            }
        };
        directories.into_iter().map(setting).collect()
    }
}
