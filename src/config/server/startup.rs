//! Which models are loaded at the start, and what is said of single versions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::model::{ModelName, Version};

use super::super::model::{Requested, VersionLimits};
use super::super::spelling;
use super::raw::Entry;
use super::reader::{Reader, SettingKind};

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedVersions {
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

impl ListedVersions {
    /// The settings of a version; none if it is not there.
    pub fn of(&self, name: &ModelName, version: &Version) -> Requested {
        let versions = self.models.get(name);
        let listed = versions.and_then(|versions| versions.get(version));
        listed.cloned().unwrap_or_default()
    }
}

/// `load_models`; without effect where a snapshot is restored.
pub fn load_models() -> SettingKind<LoadModels> {
    SettingKind::new(
        "all, none or archives separated by commas",
        |reader, entry| Some(read_load_models(reader, entry)),
    )
    .or(|_| LoadModels::None)
}

fn read_load_models(reader: &mut Reader<'_>, entry: &Entry) -> LoadModels {
    let snapshot = reader.entry("model_snapshot");
    if snapshot.is_some_and(|snapshot| !snapshot.value.trim().is_empty()) {
        reader.warn(
            entry,
            "is ignored: the snapshot says which models are restored",
        );
        return LoadModels::None;
    }
    let text = entry.value.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("none") {
        return LoadModels::None;
    }
    if text.eq_ignore_ascii_case("all") {
        return LoadModels::All;
    }
    let items = text.split(',').map(str::trim);
    let items = items.filter(|item| !item.is_empty());
    let listed = items.filter_map(|item| load_model(reader, entry, item));
    LoadModels::Listed(listed.collect())
}

fn load_model(reader: &mut Reader<'_>, entry: &Entry, item: &str) -> Option<LoadModel> {
    let (name, url) = match item.split_once('=') {
        Some((name, url)) => (Some(ModelName::new(name.trim())), url.trim()),
        None => (None, item),
    };
    let url = url.to_owned();
    let name = name.transpose();
    let name = name.map_err(|error| reader.problem(entry, error.to_string()));
    Some(LoadModel {
        name: name.ok()?,
        url,
    })
}

/// `models`, a JSON object: model → version → settings. TorchServe takes what it understands, and so do its files expect it.
pub fn listed() -> SettingKind<ListedVersions> {
    let kind = SettingKind::new("a JSON object", |reader, entry| {
        let mut listed = ListedVersions::default();
        let mut wrong = Vec::new();
        match serde_json::from_str(&entry.value) {
            Ok(document) => read_models(&document, &mut listed, &mut wrong),
            Err(error) => wrong.push(format!("is ignored: it is not JSON: {error}")),
        }
        for rule in wrong {
            reader.warn(entry, rule);
        }
        Some(listed)
    });
    kind.or(|_| ListedVersions::default())
}

fn read_models(document: &Value, listed: &mut ListedVersions, wrong: &mut Vec<String>) {
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
                    let is_default = members.iter().any(|(member, value)| {
                        member.eq_ignore_ascii_case("defaultVersion") && *value == Value::Bool(true)
                    });
                    if is_default {
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

/// The members by the names that TorchServe gives them, whatever their capitals.
fn recapitalized<'m>(
    at: &str,
    members: &'m serde_json::Map<String, Value>,
    wrong: &mut Vec<String>,
) -> BTreeMap<&'static str, &'m Value> {
    let mut named = BTreeMap::new();
    for (member, value) in members {
        let known = MEMBERS
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(member));
        match known {
            Some(known) if known == member.as_str() => _ = named.insert(known, value),
            Some(known) => {
                wrong.push(format!("has {at}.{member}, which is taken for {known}"));
                named.entry(known).or_insert(value);
            }
            None => {
                let why = spelling::unknown(member, MEMBERS);
                wrong.push(format!("has {at}.{member}, which {why}"));
            }
        }
    }
    named
}

fn read_version(
    at: &str,
    members: &serde_json::Map<String, Value>,
    wrong: &mut Vec<String>,
) -> Requested {
    let members = recapitalized(at, members, wrong);
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
        min_workers: count(number("minWorkers", 0, VersionLimits::WORKERS as u64)),
        max_workers: count(number("maxWorkers", 0, VersionLimits::WORKERS as u64)),
        batch_size: count(number("batchSize", 1, VersionLimits::BATCH_SIZE as u64)),
        max_batch_delay: number("maxBatchDelay", 0, 3_600_000).map(Duration::from_millis),
        response_timeout: number("responseTimeout", 1, 31_536_000).map(Duration::from_secs),
        startup_timeout: number("startupTimeout", 1, 31_536_000).map(Duration::from_secs),
    }
}
