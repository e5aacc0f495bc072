//! What every setting is, and where it was said: for `lantern config`, and for the log at the start.

use super::keys::{self, Key, Standing};
use super::places::Surroundings;
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
    pub fn report(&self, surroundings: &Surroundings) -> Vec<Setting> {
        let keys = keys::KEYS.iter().filter_map(|key| self.setting(key));
        keys.chain(self.places(surroundings)).collect()
    }

    /// The value of `key` as it is shown; empty if there is none.
    pub fn shown(&self, key: &str) -> String {
        let found = keys::find(key).and_then(|key| self.setting(key));
        found.map_or_else(String::new, |setting| setting.value)
    }

    fn setting(&self, key: &'static Key) -> Option<Setting> {
        let typed = self.typed.get(key.name);
        let ignored = match key.standing {
            Standing::Ignored(why) => Some(why),
            _ => None,
        };
        let is_of_interest = matches!(key.standing, Standing::Used | Standing::Secret);
        (is_of_interest || typed.is_some()).then(|| Setting {
            key: key.name,
            value: self.value(key, typed),
            source: typed.map_or_else(|| DEFAULT.to_owned(), |entry| entry.origin.clone()),
            ignored,
        })
    }

    fn value(&self, key: &Key, typed: Option<&Entry>) -> String {
        if key.standing == Standing::Secret && typed.is_some() {
            return HIDDEN.to_owned();
        }
        if let Some(found) = self.found(key.name) {
            return found;
        }
        typed.map_or_else(
            || key.default.to_owned(),
            |entry| entry.value.trim().to_owned(),
        )
    }

    /// Values that say more than what was typed.
    fn found(&self, key: &str) -> Option<String> {
        let path = |path: &Option<std::path::PathBuf>| {
            let path = path.as_ref();
            Some(path.map_or_else(String::new, |path| path.display().to_string()))
        };
        match key {
            "inference_address" => Some(self.inference_address.to_string()),
            "management_address" => Some(self.management_address.to_string()),
            "metrics_address" => Some(self.metrics_address.to_string()),
            "model_store" => path(&self.model_store),
            "workflow_store" => path(&self.workflow_store),
            "lantern_cache_dir" => Some(self.cache_directory.display().to_string()),
            "lantern_temp_dir" => Some(self.temp_directory.display().to_string()),
            "lantern_onnxruntime" => path(&self.onnxruntime),
            "lantern_torch" => path(&self.lantern_torch),
            _ => None,
        }
    }

    /// What variables alone say.
    fn places(&self, surroundings: &Surroundings) -> Vec<Setting> {
        let file = self.file.as_ref();
        let file = file.map_or_else(String::new, |file| file.display().to_string());
        let places = [
            ("TS_CONFIG_FILE", file),
            ("LOG_LOCATION", self.logs.directory.display().to_string()),
            (
                "METRICS_LOCATION",
                self.logs.metrics_directory.display().to_string(),
            ),
            ("TEMP", surroundings.temp_directory().display().to_string()),
        ];
        let setting = |(key, value): (&'static str, String)| {
            let is_said = surroundings
                .variable(key)
                .is_some_and(|value| !value.is_empty());
            Setting {
                key,
                value,
                source: if is_said { "environment" } else { DEFAULT }.to_owned(),
                ignored: None,
            }
        };
        places.into_iter().map(setting).collect()
    }
}
