//! The format of snapshots: the names and the text of their files, and `model_snapshot`, the JSON in them that says what is
//! registered.
//!
//! What TorchServe writes, what is written by hand for KServe, and what is written here are read alike. Members that
//! TorchServe does not have stand under `lantern`, where it does not look. When snapshots are written, and how they come
//! to be whole on disk, is the business of `catalog`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::model::Requested;
use crate::model::{Envelope, ModelName, Version};

mod file;

pub(super) use file::damage;
pub use file::{Moment, file_name, is_ours, names, stamp, stamp_of, text};

/// One version as it was saved.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedVersion {
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: Version,
    /// Whether it was the model's default version.
    pub is_default: bool,
    /// Its archive: a path in the model store, or a whole one where the archive lies elsewhere.
    pub source: String,
    /// How it was served.
    pub settings: Requested,
    /// What TorchServe loses.
    pub more: More,
}

/// Facts on a version that are shown, not needed to serve it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// The URL that it was registered with, without its query.
    pub url: Option<String>,
    /// Its handler, where it was named at registration.
    pub handler: Option<String>,
    /// How requests are wrapped, where that was said at registration.
    pub envelope: Option<Envelope>,
    /// Whether the archive was fetched for it, and goes with it.
    pub is_fetched: bool,
    /// Whether the operator listed it.
    pub loaded_at_startup: bool,
    /// SHA-256 of the archive, in hexadecimal.
    pub digest: Option<String>,
    /// SHA-256 that the archive must have when it is restored, where the registration pinned one.
    pub pin: Option<String>,
}

/// What a snapshot says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Saved {
    /// Versions that can be restored.
    pub versions: Vec<SavedVersion>,
    /// Versions that cannot, and why.
    pub problems: Vec<String>,
}

/// Reads `model_snapshot`. Fails if it is not what a snapshot looks like; single versions may still be wrong.
pub fn parse(text: &str) -> Result<Saved, String> {
    let document: Value =
        serde_json::from_str(text).map_err(|error| format!("must be JSON: {error}"))?;
    let models = match document.get("models") {
        Some(Value::Object(models)) => models,
        None if document.is_object() => return Ok(Saved::default()),
        _ => return Err("must be an object whose `models` maps names to versions".to_owned()),
    };
    let mut saved = Saved::default();
    for (model, versions) in models {
        let Some(versions) = versions.as_object() else {
            saved
                .problems
                .push(format!("{model} must map versions to their settings"));
            continue;
        };
        for (version, members) in versions {
            match read_version(model, version, members) {
                Ok(version) => saved.versions.push(version),
                Err(rule) => saved.problems.push(format!("{model} {version} {rule}")),
            }
        }
    }
    Ok(saved)
}

/// Writes `model_snapshot` for a file called `name`, made `created` milliseconds after 1970.
pub(super) fn render(name: &str, created: i64, versions: &[SavedVersion]) -> String {
    let mut models = Map::new();
    for version in versions {
        let model = models
            .entry(version.model.as_str())
            .or_insert_with(|| json!({}));
        model[version.version.as_str()] = write_version(version);
    }
    let document = json!({
        "name": name,
        "modelCount": versions.len(),
        "created": created,
        "models": models,
    });
    // `$$NAME$$` in a file of settings stands for a variable: what a client named must not.
    format!("{document:#}").replace('$', "\\u0024")
}

fn read_version(model: &str, version: &str, members: &Value) -> Result<SavedVersion, String> {
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let more = &members["lantern"];
    let source = text(&more["source"]).or_else(|| text(&members["marName"]));
    Ok(SavedVersion {
        model: ModelName::new(model).map_err(|error| format!("cannot be restored: {error}"))?,
        version: Version::new(version).map_err(|error| format!("cannot be restored: {error}"))?,
        is_default: members["defaultVersion"].as_bool().unwrap_or_default(),
        source: source.ok_or("must have a marName")?,
        settings: read_settings(members)?,
        more: More {
            url: text(&more["url"]),
            handler: text(&more["handler"]),
            envelope: text(&more["serviceEnvelope"]).and_then(|name| Envelope::named(&name)),
            is_fetched: more["fetched"].as_bool().unwrap_or_default(),
            loaded_at_startup: more["loadedAtStartup"].as_bool().unwrap_or_default(),
            digest: text(&more["sha256"]),
            pin: text(&more["pinnedSha256"]),
        },
    })
}

/// TorchServe writes -1 workers and a delay of -10000 ms where it meant nothing.
fn read_settings(members: &Value) -> Result<Requested, String> {
    let number = |member: &str| match &members[member] {
        Value::Null => Ok(None),
        value => {
            let number = value
                .as_i64()
                .or_else(|| value.as_str()?.trim().parse().ok());
            number
                .map(Some)
                .ok_or_else(|| format!("must have a whole number as {member}, got {value}"))
        }
    };
    let count = |number: Option<i64>| {
        number.map(|number| usize::try_from(number.clamp(0, 1 << 20)).unwrap_or_default())
    };
    let time = |number: Option<i64>, unit: fn(u64) -> Duration| {
        let number = number.and_then(|number| u64::try_from(number).ok());
        number.map(|number| unit(number.min(1 << 40)))
    };
    let workers = count(number("minWorkers")?);
    Ok(Requested {
        min_workers: workers,
        max_workers: count(number("maxWorkers")?).map(|most| most.max(workers.unwrap_or_default())),
        batch_size: count(number("batchSize")?).map(|size| size.max(1)),
        max_batch_delay: time(number("maxBatchDelay")?, Duration::from_millis),
        response_timeout: time(number("responseTimeout")?, Duration::from_secs)
            .filter(|time| !time.is_zero()),
        startup_timeout: time(number("startupTimeout")?, Duration::from_secs),
    })
}

fn write_version(saved: &SavedVersion) -> Value {
    let settings = &saved.settings;
    let mar_name = if saved.source.starts_with('/') {
        saved.source.rsplit('/').next().unwrap_or_default()
    } else {
        &saved.source
    };
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    let delay = settings
        .max_batch_delay
        .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    json!({
        "defaultVersion": saved.is_default,
        "marName": mar_name,
        "minWorkers": settings.min_workers,
        "maxWorkers": settings.max_workers,
        "batchSize": settings.batch_size,
        "maxBatchDelay": delay,
        "responseTimeout": seconds(settings.response_timeout),
        "startupTimeout": seconds(settings.startup_timeout),
        // What TorchServe can read; the archive knows better.
        "runtimeType": "python",
        "lantern": {
            "source": saved.source,
            "url": saved.more.url,
            "handler": saved.more.handler,
            "serviceEnvelope": saved.more.envelope.map(Envelope::name),
            "fetched": saved.more.is_fetched,
            "loadedAtStartup": saved.more.loaded_at_startup,
            "sha256": saved.more.digest,
            "pinnedSha256": saved.more.pin,
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(source: &str) -> SavedVersion {
        SavedVersion {
            model: ModelName::new("noop").unwrap(),
            version: Version::new("1.0").unwrap(),
            is_default: true,
            source: source.to_owned(),
            settings: Requested {
                min_workers: Some(1),
                max_workers: Some(3),
                batch_size: Some(4),
                max_batch_delay: Some(Duration::from_millis(10)),
                response_timeout: Some(Duration::from_secs(3)),
                startup_timeout: Some(Duration::from_mins(2)),
            },
            more: More {
                url: Some("https://h.org/$$HOME$$/noop.mar".to_owned()),
                handler: None,
                envelope: Some(Envelope::KServe),
                is_fetched: true,
                loaded_at_startup: true,
                digest: Some("00".to_owned()),
                pin: Some("00".to_owned()),
            },
        }
    }

    #[test]
    fn what_is_written_is_what_torchserve_reads() {
        insta::assert_snapshot!(render(
            "20261120152439289-snapshot.cfg",
            1_795_188_279_293,
            &[version("noop.mar")]
        ));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for source in ["noop.mar", "team/noop.mar", "/srv/models/noop.mar"] {
            let text = render("x", 0, &[version(source)]);
            assert!(!text.contains('$'));
            let saved = parse(&text).unwrap();
            assert_eq!(saved.versions, [version(source)]);
        }
    }

    #[test]
    fn what_was_written_before_pins_were_saved_pins_nothing() {
        let text = render("x", 0, &[version("noop.mar")]);
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let more = document["models"]["noop"]["1.0"]["lantern"].as_object_mut();
        assert!(more.unwrap().remove("pinnedSha256").is_some());
        let saved = parse(&document.to_string()).unwrap();
        let mut expected = version("noop.mar");
        expected.more.pin = None;
        assert_eq!(saved.versions, [expected]);
    }

    #[test]
    fn what_is_written_by_hand_for_kserve_is_read() {
        let text = r#"{"name":"startup.cfg","modelCount":1,"models":{"mnist":{"1.0":{"defaultVersion":true,
            "marName":"mnist.mar","minWorkers":1,"maxWorkers":5,"batchSize":1,"maxBatchDelay":10}}}}"#;
        let saved = parse(text).unwrap();
        assert_eq!(saved.problems, Vec::<String>::new());
        let [mnist] = saved.versions.as_slice() else {
            panic!("{saved:?}");
        };
        assert_eq!(
            (mnist.source.as_str(), mnist.is_default),
            ("mnist.mar", true)
        );
        assert_eq!(mnist.settings.max_workers, Some(5));
        assert_eq!(mnist.settings.startup_timeout, None);
    }

    #[test]
    fn oddities_of_torchserve_are_understood() {
        let text = r#"{"models":{"m":{"1":{"marName":"m.mar","minWorkers":-1,"maxWorkers":-1,"batchSize":0,
            "maxBatchDelay":-10000,"responseTimeout":"7"}}}}"#;
        let settings = &parse(text).unwrap().versions[0].settings;
        assert_eq!(
            (settings.min_workers, settings.max_workers),
            (Some(0), Some(0))
        );
        assert_eq!(
            (settings.batch_size, settings.max_batch_delay),
            (Some(1), None)
        );
        assert_eq!(settings.response_timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn one_wrong_version_does_not_lose_the_others() {
        let text = r#"{"models":{"../m":{"1":{"marName":"m.mar"}},"a":[],"b":{"1":{},"2":{"marName":"b.mar"},
            "3":{"marName":"b.mar","minWorkers":"many"}}}}"#;
        let saved = parse(text).unwrap();
        assert_eq!(saved.versions.len(), 1);
        insta::assert_snapshot!(saved.problems.join("\n"));
        for corrupt in ["", "{", "[]", "1", r#"{"models": 1}"#] {
            assert!(parse(corrupt).is_err(), "{corrupt}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
