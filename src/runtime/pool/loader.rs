//! Loads a version's artifact once for each device. The workers of a device share the copy for as long as there are any.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::session::WorkerSession;
use crate::backend::{Backend, BackendError, LoadSpec, LoadedModel};
use crate::model::{Device, Hosting, ModelSpec};
use crate::runtime::protocol::convert::check_signature;

/// Loads the model and makes sessions.
pub(crate) struct Loader {
    backend: Arc<dyn Backend>,
    /// What to load. The device is replaced.
    spec: LoadSpec,
    /// The copy of the weights on each device, for as long as a worker uses it.
    copies: Mutex<HashMap<Device, Arc<Mutex<Copy>>>>,
}

/// The weights on one device, if they are loaded.
type Copy = Option<Weak<dyn LoadedModel>>;

impl Loader {
    /// Loads `model` with `backend` for up to `workers` workers that share `cores`.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        model: &ModelSpec,
        workers: usize,
        cores: usize,
    ) -> Self {
        let settings = &model.settings;
        let workers = workers.max(settings.max_workers).max(1);
        let fair_share = (cores / workers).max(1);
        let spec = LoadSpec {
            artifact: model.directory.join(&model.artifact),
            device: Device::Cpu,
            workers: workers.div_ceil(settings.devices.len().max(1)),
            intra_op_threads: settings.intra_op_threads.unwrap_or(fair_share).max(1),
            declared: model.declared.clone(),
            state: settings.state,
            // In a process of their own, outputs are copied to the front's memory. In the front, they wait for clients.
            has_brief_outputs: settings.hosting == Hosting::Process,
        };
        Self {
            backend,
            spec,
            copies: Mutex::new(HashMap::new()),
        }
    }

    /// Makes a session on `device`. If the weights are not there, it loads them, and blocks others who ask for the device.
    pub(crate) fn session(&self, device: Device) -> Result<WorkerSession, BackendError> {
        let shared = Arc::clone(self.copies.lock().entry(device).or_default());
        let mut copy = shared.lock();
        let loaded = copy.as_ref().and_then(Weak::upgrade);
        let model = match loaded {
            Some(model) => model,
            None => self.load(device)?,
        };
        *copy = Some(Arc::downgrade(&model));
        WorkerSession::new(model)
    }

    /// Loads the weights, and refuses a model whose signature a worker process could not report.
    fn load(&self, device: Device) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let model = self.backend.load(&LoadSpec {
            device,
            ..self.spec.clone()
        })?;
        let checked = check_signature(model.signature());
        checked.map_err(|error| BackendError::Refused(error.to_string()))?;
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::FakeBackend;
    use crate::model::Settings;
    use crate::runtime::testing;

    fn loader(settings: Settings, workers: usize, cores: usize) -> (FakeBackend, Loader) {
        let backend = FakeBackend::new();
        let model = testing::model(settings);
        let loader = Loader::new(Arc::new(backend.clone()), &model, workers, cores);
        (backend, loader)
    }

    #[test]
    fn a_device_is_loaded_once_while_it_is_in_use_and_anew_afterwards() {
        let (backend, loader) = loader(Settings::default(), 2, 2);
        let sessions = [loader.session(Device::Cpu), loader.session(Device::Cpu)];
        assert_eq!(backend.loads().len(), 1);
        drop(sessions);
        loader.session(Device::Cpu).map(drop).unwrap();
        loader.session(Device::Cuda(1)).map(drop).unwrap();
        let devices: Vec<_> = backend.loads().iter().map(|load| load.device).collect();
        assert_eq!(devices, [Device::Cpu, Device::Cpu, Device::Cuda(1)]);
    }

    #[test]
    fn workers_times_threads_fits_the_cores_unless_configured() {
        let threads = |settings, workers, cores| {
            let (backend, loader) = loader(settings, workers, cores);
            loader.session(Device::Cpu).map(drop).unwrap();
            backend.loads()[0].intra_op_threads
        };
        let upto = |max_workers| Settings {
            max_workers,
            ..Settings::default()
        };
        let configured = Settings {
            intra_op_threads: Some(3),
            ..Settings::default()
        };
        assert_eq!(threads(Settings::default(), 1, 8), 8);
        assert_eq!(threads(Settings::default(), 3, 8), 2);
        assert_eq!(threads(upto(4), 1, 8), 2);
        assert_eq!(threads(upto(16), 1, 8), 1);
        assert_eq!(threads(configured, 4, 8), 3);
    }
}
