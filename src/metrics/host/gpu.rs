//! NVIDIA's devices, through the driver's own library. A machine without it has none.

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::float;

/// The devices of this machine.
pub(super) enum Gpus {
    /// The library was not opened yet.
    Unknown,
    /// The driver's library, opened.
    Driver(Box<Nvml>),
    /// There is no such library.
    None,
}

/// One device at one moment.
pub(super) struct Gpu {
    /// Its index, as a label.
    pub(super) index: String,
    /// Percent of the time that it computed.
    pub(super) utilization: f64,
    /// Bytes in use.
    pub(super) memory_used: f64,
    /// Bytes there are.
    pub(super) memory_total: f64,
}

impl Gpus {
    /// Every device that answers. The first call opens the library.
    pub(super) fn measure(&mut self) -> Vec<Gpu> {
        if matches!(self, Self::Unknown) {
            *self = Self::open();
        }
        let Self::Driver(nvml) = self else {
            return Vec::new();
        };
        let count = nvml.device_count().unwrap_or(0);
        (0..count)
            .filter_map(|index| gpu(nvml, index).ok())
            .collect()
    }

    fn open() -> Self {
        match Nvml::init() {
            Ok(nvml) => Self::Driver(Box::new(nvml)),
            Err(error) => {
                tracing::debug!("GPUs are not measured: {error}");
                Self::None
            }
        }
    }
}

fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = device.memory_info()?;
    // Parts of a divided device have memory and no utilization.
    let utilization = device.utilization_rates().map_or(0, |rates| rates.gpu);
    Ok(Gpu {
        index: index.to_string(),
        utilization: utilization.into(),
        memory_used: float(memory.used),
        memory_total: float(memory.total),
    })
}
