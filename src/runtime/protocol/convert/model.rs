//! A model version, as the handshake carries it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::model::{
    BackendKind, BatchingMode, Declared, Hosting, InvalidName, Limits, ModelName, ModelSpec,
    Settings, StateSharing, TensorsTo, Version,
};

use super::{
    Violation, device_from_wire, device_to_wire, messages, size, specs_from_wire, specs_to_wire,
};

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
        settings: settings_to_wire(settings),
        limits: limits_to_wire(limits),
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
        settings: settings_from_wire(model.settings)?,
        limits: limits_from_wire(&model.limits)?,
    })
}

fn settings_to_wire(settings: &Settings) -> messages::Settings {
    let Settings {
        min_workers,
        max_workers,
        batch_size,
        max_batch_delay,
        wait_for_full_batches,
        batching,
        job_queue_size,
        // Admission and deadlines are kept in front.
        job_tickets: _,
        client_timeout: _,
        response_timeout,
        startup_timeout,
        max_retry_timeout,
        devices,
        intra_op_threads,
        hosting: _,
        fresh_instances,
        tensors_to,
        state,
    } = settings;
    messages::Settings {
        min_workers: *min_workers as u64,
        max_workers: *max_workers as u64,
        batch_size: *batch_size as u64,
        max_batch_delay: *max_batch_delay,
        wait_for_full_batches: *wait_for_full_batches,
        batching: match batching {
            BatchingMode::Auto => messages::BatchingMode::Auto,
            BatchingMode::On => messages::BatchingMode::On,
            BatchingMode::Off => messages::BatchingMode::Off,
        },
        job_queue_size: *job_queue_size as u64,
        response_timeout: *response_timeout,
        startup_timeout: *startup_timeout,
        max_retry_timeout: *max_retry_timeout,
        devices: devices.iter().copied().map(device_to_wire).collect(),
        intra_op_threads: intra_op_threads.map(|threads| threads as u64),
        fresh_instances: *fresh_instances,
        tensors_to: match tensors_to {
            TensorsTo::Model => messages::TensorsTo::Model,
            TensorsTo::Handler => messages::TensorsTo::Handler,
        },
        state: match state {
            StateSharing::Shared => messages::StateSharing::Shared,
            StateSharing::Copies => messages::StateSharing::Copies,
        },
    }
}

fn settings_from_wire(settings: messages::Settings) -> Result<Settings, Violation> {
    let devices = settings.devices.into_iter().map(device_from_wire);
    Ok(Settings {
        min_workers: size(settings.min_workers)?,
        max_workers: size(settings.max_workers)?,
        batch_size: size(settings.batch_size)?,
        max_batch_delay: settings.max_batch_delay,
        wait_for_full_batches: settings.wait_for_full_batches,
        batching: match settings.batching {
            messages::BatchingMode::Auto => BatchingMode::Auto,
            messages::BatchingMode::On => BatchingMode::On,
            messages::BatchingMode::Off => BatchingMode::Off,
        },
        job_queue_size: size(settings.job_queue_size)?,
        job_tickets: false,
        client_timeout: None,
        response_timeout: settings.response_timeout,
        startup_timeout: settings.startup_timeout,
        max_retry_timeout: settings.max_retry_timeout,
        devices: devices.collect(),
        intra_op_threads: settings.intra_op_threads.map(size).transpose()?,
        hosting: Hosting::Inline,
        fresh_instances: settings.fresh_instances,
        tensors_to: match settings.tensors_to {
            messages::TensorsTo::Model => TensorsTo::Model,
            messages::TensorsTo::Handler => TensorsTo::Handler,
        },
        state: match settings.state {
            messages::StateSharing::Shared => StateSharing::Shared,
            messages::StateSharing::Copies => StateSharing::Copies,
        },
    })
}

fn limits_to_wire(limits: &Limits) -> messages::Limits {
    let Limits {
        memory,
        cpu,
        init_cpu,
        output,
        response,
        host_calls,
        log_lines_per_second,
        metric_series,
        instances,
    } = limits;
    messages::Limits {
        memory: *memory as u64,
        cpu: *cpu,
        init_cpu: *init_cpu,
        output: *output as u64,
        response: *response as u64,
        host_calls: *host_calls,
        log_lines_per_second: *log_lines_per_second,
        metric_series: *metric_series as u64,
        instances: *instances as u64,
    }
}

fn limits_from_wire(limits: &messages::Limits) -> Result<Limits, Violation> {
    Ok(Limits {
        memory: size(limits.memory)?,
        cpu: limits.cpu,
        init_cpu: limits.init_cpu,
        output: size(limits.output)?,
        response: size(limits.response)?,
        host_calls: limits.host_calls,
        log_lines_per_second: limits.log_lines_per_second,
        metric_series: size(limits.metric_series)?,
        instances: size(limits.instances)?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use crate::model::{Device, TensorSpec};
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
