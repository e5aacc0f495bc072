//! The backends that this program hosts, for worker processes, for tools and for the server's own process.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::backend::fake::{FakeBackend, Outcome};
use crate::backend::none::NoModel;
use crate::backend::onnx::OnnxBackend;
use crate::backend::{Backend, BackendError, LoadSpec, LoadedModel};
use crate::model::{BackendKind, Program};
use crate::runtime::NativeLibraries;

/// A row of the fake backend that starts with this ends the process, as a fault in native code does.
const ABORT: &[u8] = b"abort";

/// A row that starts with this loses the device.
const FATAL: &[u8] = b"fatal";

/// A row that starts with this is in a run that does not end.
const STUCK: &[u8] = b"stuck";

/// A row that starts with this makes the session panic.
const PANIC: &[u8] = b"panic";

/// Constructs a backend, which opens the framework's library.
pub fn backend(
    kind: BackendKind,
    libraries: &NativeLibraries,
) -> Result<Arc<dyn Backend>, BackendError> {
    Ok(match kind {
        BackendKind::Onnx => Arc::new(OnnxBackend::new(libraries.onnxruntime.as_deref())?),
        BackendKind::None => Arc::new(NoModel),
        BackendKind::Fake => Arc::new(fake()),
        BackendKind::Torch => return Err(BackendError::not_hosted(kind, Program::Lantern)),
    })
}

fn fake() -> FakeBackend {
    FakeBackend::new()
        .with_mark(ABORT, Outcome::Abort)
        .with_mark(FATAL, Outcome::Fatal)
        .with_mark(STUCK, Outcome::Hold)
        .with_mark(PANIC, Outcome::Panic)
}

/// Backends for runtimes in the server's own process. A framework's library is opened when the first model needs it: a server
/// whose models run in worker processes never opens one.
pub fn inline_backends(libraries: &NativeLibraries) -> HashMap<BackendKind, Arc<dyn Backend>> {
    let lazy = |kind: BackendKind| {
        let libraries = libraries.clone();
        let opened = LazyLock::new(move || backend(kind, &libraries));
        (kind, Arc::new(LazyBackend(opened)) as Arc<dyn Backend>)
    };
    let inline = |kind: &BackendKind| kind.info().may_be_inline;
    let kinds = BackendKind::ALL.into_iter().filter(inline);
    kinds.map(lazy).collect()
}

/// A backend that is constructed by the first load.
struct LazyBackend<F>(LazyLock<Result<Arc<dyn Backend>, BackendError>, F>);

impl<F> Backend for LazyBackend<F>
where
    F: FnOnce() -> Result<Arc<dyn Backend>, BackendError> + Send,
{
    fn load(&self, spec: &LoadSpec) -> Result<Arc<dyn LoadedModel>, BackendError> {
        let opened = LazyLock::force(&self.0).as_ref();
        opened.map_err(Clone::clone)?.load(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_hosts_the_backends_that_are_said_to_be_its_own() {
        for kind in BackendKind::ALL {
            let libraries = NativeLibraries {
                onnxruntime: Some("no/library".into()),
            };
            let made = backend(kind, &libraries).map(|_| ());
            let elsewhere = Err(BackendError::not_hosted(kind, Program::Lantern));
            let is_ours = kind.info().program == Program::Lantern;
            assert_eq!(made != elsewhere, is_ours, "{kind:?}: {made:?}");
        }
    }

    #[test]
    fn code_of_an_archive_has_no_backend_in_the_servers_process() {
        let inline = inline_backends(&NativeLibraries::default());
        let is_ours = |kind: &BackendKind| kind.info().program == Program::Lantern;
        assert!(inline.keys().all(is_ours));
        assert!(inline.contains_key(&BackendKind::Onnx));
        assert!(!inline.contains_key(&BackendKind::Torch));
    }
}
