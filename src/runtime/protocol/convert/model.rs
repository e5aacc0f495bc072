//! A model version, as the handshake carries it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::model::{
    BackendKind, Declared, Hosting, InvalidName, ModelName, ModelSpec, Settings, Version,
};

use super::{Violation, messages, specs_from_wire, specs_to_wire};

/// A path, byte for byte.
pub fn path_to_wire(path: &Path) -> messages::PathBytes {
    path.as_os_str().as_bytes().to_vec()
}

/// A path, byte for byte.
pub fn path_from_wire(bytes: messages::PathBytes) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// A version.
pub fn model_to_wire(spec: &ModelSpec) -> messages::Model {
    let ModelSpec {
        name,
        version,
        directory,
        artifact,
        handler,
        backend,
        digest,
        declared,
        samples,
        manifest,
        config,
        properties,
        settings,
        limits,
    } = spec;
    messages::Model {
        name: name.to_string(),
        version: version.to_string(),
        directory: path_to_wire(directory),
        artifact: path_to_wire(artifact),
        handler: path_to_wire(handler),
        backend: backend.name().to_owned(),
        digest: digest.clone(),
        inputs: specs_to_wire(&declared.inputs),
        outputs: specs_to_wire(&declared.outputs),
        samples: samples.as_deref().map(path_to_wire),
        manifest: manifest.clone(),
        config: config.clone(),
        properties: properties.clone().into_iter().collect(),
        settings: settings.clone(),
        limits: limits.clone(),
    }
}

/// A version, to be hosted in the process that got it.
pub fn model_from_wire(model: messages::Model) -> Result<ModelSpec, Violation> {
    let invalid = |error: InvalidName| Violation::Message(error.to_string());
    Ok(ModelSpec {
        name: ModelName::new(&model.name).map_err(invalid)?,
        version: Version::new(&model.version).map_err(invalid)?,
        directory: path_from_wire(model.directory),
        artifact: path_from_wire(model.artifact),
        handler: path_from_wire(model.handler),
        backend: BackendKind::named(&model.backend).ok_or_else(|| {
            Violation::Message(format!("there is no backend {:?}", model.backend))
        })?,
        digest: model.digest,
        declared: Declared {
            inputs: specs_from_wire(model.inputs)?,
            outputs: specs_from_wire(model.outputs)?,
        },
        samples: model.samples.map(path_from_wire),
        manifest: model.manifest,
        config: model.config,
        properties: model.properties.into_iter().collect(),
        settings: Settings {
            hosting: Hosting::Inline,
            ..model.settings
        },
        limits: model.limits,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::model::{Device, Limits, StateSharing, TensorSpec};
    use crate::tensor::DType;

    use super::*;

    fn spec() -> ModelSpec {
        ModelSpec {
            name: ModelName::new("digits").unwrap(),
            version: Version::new("2.0").unwrap(),
            directory: OsString::from_vec(b"models/\xff".to_vec()).into(),
            artifact: "model.onnx".into(),
            handler: "handler.wasm".into(),
            backend: BackendKind::Onnx,
            digest: "ab".repeat(32),
            declared: Declared {
                inputs: vec![TensorSpec::new("image", DType::Bf16, vec![None, Some(28)])],
                outputs: vec![],
            },
            samples: Some("samples.json".into()),
            manifest: "{}".into(),
            config: "{\"a\":1}".into(),
            properties: [("key".to_owned(), "value".to_owned())].into(),
            settings: Settings {
                devices: vec![Device::Cpu, Device::Cuda(3)],
                intra_op_threads: Some(2),
                max_batch_delay: Duration::from_millis(7),
                hosting: Hosting::Inline,
                state: StateSharing::Copies,
                ..Settings::default()
            },
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_version_arrives_as_it_was_sent() {
        let encoded = postcard::to_stdvec(&model_to_wire(&spec())).unwrap();
        let decoded = postcard::from_bytes(&encoded).unwrap();
        assert_eq!(model_from_wire(decoded).unwrap(), spec());
    }

    #[test]
    fn every_backend_arrives_as_it_was_sent_and_no_other() {
        for backend in BackendKind::ALL {
            let sent = ModelSpec { backend, ..spec() };
            assert_eq!(model_from_wire(model_to_wire(&sent)).unwrap(), sent);
        }
        let mut model = model_to_wire(&spec());
        model.backend = "tensorflow".into();
        assert!(model_from_wire(model).is_err());
    }

    #[test]
    fn a_name_against_the_rule_is_refused() {
        let mut model = model_to_wire(&spec());
        model.name = "../digits".into();
        assert!(model_from_wire(model).is_err());
    }
}
