//! `MAR-INF/MANIFEST.json`: the JSON as written, and the checked [`Manifest`].

use serde::{Deserialize, Deserializer};

use crate::model::{ModelName, Version};

use super::ArchiveError;
use super::entry::EntryName;

/// What the archive says runs its handler. An archive with a component may name any of them, since TorchServe's archiver
/// knows only the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// `wasm`.
    Wasm,
    /// `python`.
    Python,
    /// `python3`.
    Python3,
    /// `LSP`.
    Lsp,
}

impl Runtime {
    /// Every runtime, Lantern's own first.
    pub const ALL: [Self; 4] = [Self::Wasm, Self::Python, Self::Python3, Self::Lsp];

    /// The name in manifests and in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasm => "wasm",
            Self::Python => "python",
            Self::Python3 => "python3",
            Self::Lsp => "LSP",
        }
    }

    /// The runtime of that name, which is case-sensitive.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|runtime| runtime.name() == name)
    }
}

/// A manifest whose members were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The model's name; without one, whoever registers the archive gives it.
    pub name: Option<ModelName>,
    /// The model's version.
    pub version: Version,
    /// What the archive says runs its handler.
    pub runtime: Runtime,
    /// The handler as written: the file of a component, or the name of a Python handler.
    pub handler: Option<String>,
    /// How requests are wrapped, as written; archives of TorchServe's first releases say it.
    pub envelope: Option<String>,
    /// The file of the weights.
    pub serialized_file: Option<EntryName>,
    /// The file of the settings, `model-config.yaml`.
    pub config_file: Option<EntryName>,
    /// The whole text of the file, which handlers get.
    pub text: String,
}

/// The JSON as written. Unknown members are ignored, as in TorchServe.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    #[serde(default, deserialize_with = "text")]
    runtime: Option<String>,
    model: Option<RawModel>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawModel {
    #[serde(default, deserialize_with = "text")]
    model_name: Option<String>,
    #[serde(default, deserialize_with = "text")]
    model_version: Option<String>,
    #[serde(default, deserialize_with = "text")]
    handler: Option<String>,
    #[serde(default, deserialize_with = "text")]
    envelope: Option<String>,
    #[serde(default, deserialize_with = "text")]
    serialized_file: Option<String>,
    #[serde(default, deserialize_with = "text")]
    config_file: Option<String>,
}

/// Reads a text. Old archives have numbers where a text is meant, which are taken as well.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    use serde_json::Value;
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(serde::de::Error::custom(format!(
            "expected a text, got {other}"
        ))),
    }
}

impl Manifest {
    /// Parses and checks the bytes of a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, ArchiveError> {
        let refuse = |message: String| ArchiveError::Manifest(message);
        let text = std::str::from_utf8(bytes)
            .map_err(|_| refuse("Failed to parse MANIFEST.json: it is not UTF-8".into()))?;
        let raw: RawManifest = serde_json::from_str(text)
            .map_err(|error| refuse(format!("Failed to parse MANIFEST.json: {error}")))?;
        let Some(model) = raw.model else {
            return Err(refuse("Missing Model entry in manifest file.".into()));
        };
        let Some(version) = model.model_version else {
            return Err(refuse("Model version is not defined.".into()));
        };
        let name = model.model_name.as_deref().map(ModelName::new).transpose();
        Ok(Self {
            name: name.map_err(|error| refuse(error.to_string()))?,
            version: Version::new(&version).map_err(|error| refuse(error.to_string()))?,
            runtime: runtime(raw.runtime.as_deref())?,
            handler: model.handler,
            envelope: model.envelope,
            serialized_file: file("serializedFile", model.serialized_file)?,
            config_file: file("configFile", model.config_file)?,
            text: text.to_owned(),
        })
    }
}

fn runtime(name: Option<&str>) -> Result<Runtime, ArchiveError> {
    let Some(name) = name else {
        return Ok(Runtime::Python);
    };
    Runtime::from_name(name).ok_or_else(|| {
        let names = Runtime::ALL.map(Runtime::name).join(", ");
        let message =
            format!("Runtime is not defined or invalid: it must be one of {names}, got {name:?}");
        ArchiveError::Manifest(message)
    })
}

fn file(member: &str, name: Option<String>) -> Result<Option<EntryName>, ArchiveError> {
    let Some(name) = name else {
        return Ok(None);
    };
    match EntryName::parse(name.as_bytes()) {
        Ok(Some(name)) => Ok(Some(name)),
        Ok(None) => Err(ArchiveError::Manifest(format!(
            "{member} must name a file, got {name:?}"
        ))),
        Err(error) => Err(ArchiveError::Manifest(format!("{member}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Manifest::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn unknown_members_are_ignored() {
        let text = r#"{"createdOn": "x", "model": {"modelName": "m", "modelVersion": 1.5, "extensions": []}}"#;
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.version.as_str(), "1.5");
        assert_eq!(manifest.runtime, Runtime::Python);
        assert_eq!((manifest.handler, manifest.serialized_file), (None, None));
        assert_eq!(manifest.text, text);
    }

    #[test]
    fn what_torchserve_requires_is_required() {
        let cases = [
            ("{}", "Missing Model entry in manifest file."),
            (
                r#"{"model": {"modelName": "m"}}"#,
                "Model version is not defined.",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(refused(text), message);
        }
        assert!(refused("[").starts_with("Failed to parse MANIFEST.json"));
        assert!(
            refused(r#"{"runtime": "ruby", "model": {"modelVersion": "1"}}"#)
                .contains("got \"ruby\"")
        );
    }

    #[test]
    fn files_lie_in_the_archive() {
        for name in ["../x.pt", "/etc/passwd", "a\\\\b", "./"] {
            let text =
                format!(r#"{{"model": {{"modelVersion": "1", "serializedFile": "{name}"}}}}"#);
            assert!(refused(&text).starts_with("serializedFile"), "{name}");
        }
    }

    #[test]
    fn names_and_versions_follow_the_rule() {
        assert!(
            refused(r#"{"model": {"modelName": "../m", "modelVersion": "1"}}"#)
                .contains("model name")
        );
        assert!(refused(r#"{"model": {"modelVersion": "1/2"}}"#).contains("model version"));
    }
}
