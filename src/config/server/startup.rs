//! Which models are loaded at the start, and what is said of single versions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::model::{ModelName, Version};

use super::super::model::Requested;
use super::super::nearest;
use super::reader::Reader;

/// `load_models`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LoadModels {
    /// None.
    #[default]
    None,
    /// Everything in the model store.
    All,
    /// These.
    Listed(Vec<LoadModel>),
}

/// One model to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadModel {
    /// Name to register it with, if not the archive's.
    pub name: Option<ModelName>,
    /// Where the archive is in the model store.
    pub url: String,
}

/// What `models` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Settings by model and version.
    pub models: BTreeMap<ModelName, BTreeMap<Version, Requested>>,
    /// Default versions.
    pub defaults: BTreeMap<ModelName, Version>,
}

const MEMBERS: [&str; 10] = [
    "defaultVersion",
    "marName",
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
    "runtimeType",
    "parallelLevel",
];

/// Reads `load_models`.
pub fn load_models(reader: &mut Reader) -> LoadModels {
    let Some(entry) = reader.entry("load_models") else {
        return LoadModels::None;
    };
    if reader.text("model_snapshot").is_some() {
        let rule = "is ignored: the snapshot says which models are restored";
        reader.warn("load_models", &entry, rule);
        return LoadModels::None;
    }
    let text = entry.value.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("none") {
        return LoadModels::None;
    }
    if text.eq_ignore_ascii_case("all") {
        return LoadModels::All;
    }
    let mut listed = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (name, url) = match item.split_once('=') {
            Some((name, url)) => (Some(ModelName::new(name.trim())), url.trim()),
            None => (None, item),
        };
        match name.transpose() {
            Ok(name) => listed.push(LoadModel {
                name,
                url: url.to_owned(),
            }),
            Err(error) => reader.problem("load_models", &entry, error.to_string()),
        }
    }
    LoadModels::Listed(listed)
}

/// Reads `models`, a JSON object: model → version → settings.
pub fn models(reader: &mut Reader) -> Listed {
    let mut listed = Listed::default();
    let Some(entry) = reader.entry("models") else {
        return listed;
    };
    let document: Value = match serde_json::from_str(&entry.value) {
        Ok(document) => document,
        Err(error) => {
            reader.warn(
                "models",
                &entry,
                format!("is ignored: it is not JSON: {error}"),
            );
            return listed;
        }
    };
    let mut wrong = Vec::new();
    read_models(&document, &mut listed, &mut wrong);
    // TorchServe takes what it understands, and so do its files expect it.
    for rule in wrong {
        reader.warn("models", &entry, rule);
    }
    listed
}

fn read_models(document: &Value, listed: &mut Listed, wrong: &mut Vec<String>) {
    let Some(models) = document.as_object() else {
        return wrong.push("is ignored: it must be an object of models".to_owned());
    };
    for (name, versions) in models {
        let (Ok(model), Some(versions)) = (ModelName::new(name), versions.as_object()) else {
            wrong.push(format!(
                "must map a model's name to its versions: {name:?} is ignored"
            ));
            continue;
        };
        for (version, members) in versions {
            let at = format!("{name}.{version}");
            match (Version::new(version), members.as_object()) {
                (Ok(version), Some(members)) => {
                    let requested = read_version(&at, members, wrong);
                    if members.get("defaultVersion") == Some(&Value::Bool(true)) {
                        listed.defaults.insert(model.clone(), version.clone());
                    }
                    let versions = listed.models.entry(model.clone()).or_default();
                    versions.insert(version, requested);
                }
                _ => wrong.push(format!(
                    "must map a version to its settings: {at} is ignored"
                )),
            }
        }
    }
}

fn read_version(
    at: &str,
    members: &serde_json::Map<String, Value>,
    wrong: &mut Vec<String>,
) -> Requested {
    for member in members.keys() {
        if !MEMBERS.contains(&member.as_str()) {
            wrong.push(format!(
                "has {at}.{member}, which {}",
                nearest::unknown(member, MEMBERS)
            ));
        }
    }
    let mut number = |member: &str, least: u64, most: u64| {
        let value = members.get(member).filter(|value| !value.is_null())?;
        let number = value
            .as_u64()
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            wrong.push(format!(
                "must have a whole number from {least} to {most} at {at}.{member}, which is ignored"
            ));
        }
        number
    };
    let count = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
    Requested {
        min_workers: count(number("minWorkers", 0, 1024)),
        max_workers: count(number("maxWorkers", 0, 1024)),
        batch_size: count(number("batchSize", 1, 65_536)),
        max_batch_delay: number("maxBatchDelay", 0, 3_600_000).map(Duration::from_millis),
        response_timeout: number("responseTimeout", 1, 31_536_000).map(Duration::from_secs),
        startup_timeout: number("startupTimeout", 1, 31_536_000).map(Duration::from_secs),
    }
}
