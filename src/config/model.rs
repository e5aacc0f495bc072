//! `model-config.yaml`: what an archive's author says of how the model is to be served.
//!
//! TorchServe's keys stand at the top and follow its rules: a value that breaks a rule is ignored with a warning, so
//! that archives that load there load here. Ours stand under `lantern:` and are strict. What stands under `handler:`,
//! and at the top without being a setting, is the handler's own. `model/keys.rs` is the table of the keys; `model/torchserve.rs`
//! and `model/lantern.rs` read their values; `model/resolve.rs` says which setting wins.

use super::yaml::{self, Node, Value};
use super::{Problem, Problems};
use crate::model::Envelope;

mod fields;
mod keys;
mod lantern;
mod resolve;
mod torchserve;

pub(super) use fields::Fields;
pub use keys::{IGNORED, Key, LimitOptions, Options, Weight, keys};
pub use lantern::limits_of;
pub use resolve::{Defaults, Requested, Resolved, VersionLimits, resolve};

/// A `model-config.yaml` that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Options of the archive.
    pub options: Options,
    /// Whether TorchServe's `ts_handler_*` metrics are wanted: `handler: {profile: true}`.
    pub is_profiled: bool,
    /// The whole document as JSON, for the handler; `{}` if there is none.
    pub json: String,
    /// What was ignored, and why.
    pub warnings: Vec<Problem>,
}

/// `deviceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// The processor.
    Cpu,
    /// GPUs, where there are any.
    Gpu,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            options: Options::default(),
            is_profiled: false,
            json: "{}".to_owned(),
            warnings: Vec::new(),
        }
    }
}

impl ModelConfig {
    /// Takes what the manifest says of the envelope, unless the document says it. A name that nobody knows has no effect,
    /// as the whole member has none in TorchServe.
    #[must_use]
    pub fn with_manifests_envelope(mut self, name: Option<&str>) -> Self {
        let Some(name) = name else { return self };
        let known = Envelope::named(name);
        if known.is_none() {
            let rule = format!("has no effect: it is none of {}", Envelope::choices());
            self.warnings
                .push(Problem::new("MANIFEST.json", "model.envelope", rule, name));
        }
        self.options.envelope = self.options.envelope.or(known);
        self
    }

    /// Reads the document in `bytes`; `origin` is what messages call it, such as its name in the archive.
    pub fn parse(origin: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let document = yaml::parse(origin, bytes)?;
        let mut fields = fields::Fields::new(origin);
        let mut options = Options::default();
        let json = match &document.value {
            Value::Null => "{}".to_owned(),
            Value::Map(entries) => {
                read(&mut fields, entries, &mut options);
                document.to_json().to_string()
            }
            other => {
                let rule = "must be a mapping of keys to values";
                return Err(Problem::new(origin, "", rule, other.describe()).into());
            }
        };
        let (problems, warnings) = fields.finish();
        let config = Self {
            options,
            is_profiled: is_profiled(&document),
            json,
            warnings,
        };
        Problems::or(problems, config)
    }
}

/// Settings under `handler:` are the handler's own; this one TorchServe's workers read as well.
fn is_profiled(document: &Node) -> bool {
    let entry = |node: &Node, key: &str| match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node.clone()),
        _ => None,
    };
    let profile = entry(document, "handler").and_then(|handler| entry(&handler, "profile"));
    profile.and_then(|profile| profile.value.truth()) == Some(true)
}

fn read(fields: &mut fields::Fields, entries: &[(String, Node)], options: &mut Options) {
    let entries = torchserve::recapitalized(fields, entries);
    for (key, node) in &entries {
        match key.as_str() {
            // Free settings, seen by the handler alone.
            "handler" => {}
            "lantern" => lantern::read(fields, node, options),
            _ => torchserve::read(fields, key, node, options),
        }
    }
    torchserve::check_workers(fields, &entries, options);
}

#[cfg(test)]
mod tests;
