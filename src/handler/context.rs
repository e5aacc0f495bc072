//! Interface `context`: the facts about a version that its handler is given in `init`.

use crate::model::{Device, ModelSpec};

use super::bindings::lantern::handler::context;
use super::host::Host;

impl context::Host for Host {}

/// The model's properties, borrowed.
pub(super) fn properties(model: &ModelSpec) -> Vec<(&str, &str)> {
    let properties = model.properties.iter();
    properties
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// The facts for `init`.
pub(super) fn context<'a>(
    model: &'a ModelSpec,
    device: Device,
    properties: &'a [(&'a str, &'a str)],
) -> context::ModelContext<'a> {
    context::ModelContext {
        model_name: model.name.as_str(),
        model_version: model.version.as_str(),
        manifest: &model.manifest,
        config: &model.config,
        device: match device {
            Device::Cpu => context::Device::Cpu,
            Device::Cuda(index) => context::Device::Cuda(index),
        },
        max_batch_size: u32::try_from(model.settings.batch_size).unwrap_or(u32::MAX),
        properties,
    }
}
