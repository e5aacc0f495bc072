//! Opens libtorch's CUDA half at run time, so that one program serves machines with and without a GPU.
//!
//! The program is not linked to `libtorch_cuda`. Opening it registers CUDA with libtorch, which asks for it once, at
//! the first use: it must be open before anything else of CUDA is touched.

use std::path::PathBuf;
use std::sync::OnceLock;

use lantern::backend::BackendError;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

const LIBRARY: &str = "libtorch_cuda.so";

/// Opened once for the whole process; libtorch keeps pointers into it, so it is never closed.
static OPENED: OnceLock<Result<(), String>> = OnceLock::new();

/// Makes CUDA device `index` usable, or says why it is not.
pub(super) fn prepare(index: u32) -> Result<(), BackendError> {
    OPENED
        .get_or_init(open)
        .clone()
        .map_err(BackendError::Library)?;
    let devices = tch::Cuda::device_count();
    if i64::from(index) < devices {
        return Ok(());
    }
    Err(BackendError::Library(format!(
        "cuda:{index} is asked for, but libtorch sees {devices} CUDA devices"
    )))
}

#[expect(unsafe_code, reason = "opening a library runs its initializers")]
fn open() -> Result<(), String> {
    // SAFETY: the library belongs to the libtorch that this program runs on, and its initializers register themselves
    // with it. Nothing else of this process is in CUDA at this time.
    let library = unsafe { Library::open(Some(path()), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| {
        format!("CUDA is asked for, but {LIBRARY} does not load: {error}. Install torch with CUDA, and NVIDIA's driver")
    })?;
    std::mem::forget(library);
    Ok(())
}

/// The library beside the libtorch that is loaded already; its name alone where that place is not known.
fn path() -> PathBuf {
    loaded_libtorch()
        .and_then(|libtorch| Some(libtorch.parent()?.join(LIBRARY)))
        .unwrap_or_else(|| LIBRARY.into())
}

/// Where `libtorch_cpu` of this process lies.
fn loaded_libtorch() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.contains("libtorch_cpu.so"))?;
    line.find('/').map(|start| PathBuf::from(&line[start..]))
}
