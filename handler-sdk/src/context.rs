//! Facts about the model version that a handler is created for.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;
pub use crate::bindings::lantern::handler::context::Device;
use crate::bindings::lantern::handler::context::ModelContext;

/// The facts that [`Handler::init`](crate::Handler::init) gets.
///
/// ```
/// use handler_sdk::{Context, Error};
/// use serde::Deserialize;
///
/// /// The section `handler:` of model-config.yaml.
/// #[derive(Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct Settings {
///     top_k: usize,
/// }
///
/// impl Default for Settings {
///     fn default() -> Self {
///         Self { top_k: 5 }
///     }
/// }
///
/// let context = handler_sdk::testing::Host::new().settings(serde_json::json!({"top_k": 3})).context();
/// assert_eq!(context.settings::<Settings>()?.top_k, 3);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Context {
    facts: ModelContext,
}

impl Context {
    pub(crate) fn new(facts: ModelContext) -> Self {
        Self { facts }
    }

    /// The model's name.
    pub fn model_name(&self) -> &str {
        &self.facts.model_name
    }

    /// The model's version.
    pub fn model_version(&self) -> &str {
        &self.facts.model_version
    }

    /// Where this version's models run.
    pub fn device(&self) -> &Device {
        &self.facts.device
    }

    /// The most rows that one run of the model takes.
    pub fn max_batch_size(&self) -> u32 {
        self.facts.max_batch_size
    }

    /// `MANIFEST.json` as it is in the archive; empty if there is none.
    pub fn manifest(&self) -> &str {
        &self.facts.manifest
    }

    /// A further property that the host gives, by name.
    pub fn property(&self, name: &str) -> Option<&str> {
        let (_, value) = self.facts.properties.iter().find(|(key, _)| key == name)?;
        Some(value)
    }

    /// The whole of `model-config.yaml`.
    ///
    /// # Errors
    /// Internal, if the host's JSON of it is broken.
    pub fn config(&self) -> Result<Value, Error> {
        serde_json::from_str(&self.facts.config)
            .map_err(|error| Error::internal(format!("model-config.yaml: {error}")))
    }

    /// The section `handler:` of `model-config.yaml`, which belongs to the handler; an empty object if there is none.
    ///
    /// # Errors
    /// Internal, naming what in the section is not a `T`.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let mut config = self.config()?;
        let section = match config.get_mut("handler").map(Value::take) {
            None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
            Some(section) => section,
        };
        serde_json::from_value(section)
            .map_err(|error| Error::internal(format!("model-config.yaml, `handler`: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use crate::testing::Host;

    #[test]
    fn settings_default_to_an_empty_object() {
        let context = Host::new().context();
        assert_eq!(
            context.settings::<BTreeMap<String, u32>>().unwrap(),
            BTreeMap::new()
        );
    }

    #[test]
    fn wrong_settings_name_the_section() {
        let context = Host::new().settings(json!({"top_k": "five"})).context();
        let error = context.settings::<BTreeMap<String, u32>>().unwrap_err();
        assert!(
            error
                .message()
                .starts_with("model-config.yaml, `handler`: invalid type"),
            "{error}"
        );
    }
}
