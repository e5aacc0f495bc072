//! Makes compiled code into what can be instantiated: loads it, links its imports to the host's functions, finds its exports.

use std::fmt::Display;

use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use crate::error::{Error, Kind, reason};
use crate::model::ModelSpec;

use super::Code;
use super::assets::Assets;
use super::bindings::HandlerIndices;
use super::engine::EngineState;
use super::host::Host;

/// The interface that a component may export beside `pipeline`. wasmtime also finds it under the patch number of another
/// release of the same track.
const DESCRIBE: &str = "lantern:handler/describe@0.1.1";

/// A component that can be instantiated, and where its exports are.
pub(super) struct Linked {
    /// The component with its imports linked to the host's functions.
    pub instance: InstancePre<Host>,
    /// Where the exports of `pipeline` are.
    pub pipeline: HandlerIndices,
    /// Where the function `describe` is, if it is exported.
    pub describe: Option<ComponentExportIndex>,
}

/// Loads and links a handler, and lists its assets. Blocks on files.
pub(super) fn load(
    shared: &EngineState,
    model: &ModelSpec,
    code: &Code,
) -> Result<(Linked, Assets), Error> {
    let component = code.load(&shared.engine).map_err(|error| {
        failed(model, "was compiled for another server").with_detail(format_args!("{error:#}"))
    })?;
    let linked = link(shared, &component).map_err(|error| {
        let why = reason(&format!("{error:#}"), &model.directory);
        failed(
            model,
            format!("does not match the handler interface: {why}"),
        )
    })?;
    let assets = Assets::list(&model.directory)
        .map_err(|error| failed(model, "cannot list the archive's files").with_detail(error))?;
    Ok((linked, assets))
}

fn link(shared: &EngineState, component: &Component) -> wasmtime::Result<Linked> {
    let instance = shared.linker.instantiate_pre(component)?;
    let interface = component.get_export_index(None, DESCRIBE);
    Ok(Linked {
        pipeline: HandlerIndices::new(&instance)?,
        describe: interface
            .and_then(|interface| component.get_export_index(Some(&interface), "describe")),
        instance,
    })
}

fn failed(model: &ModelSpec, reason: impl Display) -> Error {
    let file = model.handler.display();
    Error::new(Kind::LoadFailed, format!("The handler {file} {reason}"))
}
