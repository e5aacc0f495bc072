//! Makes a component's file into code that can be instantiated: reads, screens, compiles (or takes from the cache), links.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use crate::error::{Error, Kind, reason};
use crate::model::ModelSpec;

use super::assets::Assets;
use super::bindings::HandlerIndices;
use super::cache::CodeCache;
use super::engine::EngineState;
use super::host::Host;
use super::inspect;

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

/// Compiles and links a handler. Blocks for as long as compiling takes: seconds for the largest handlers.
pub(super) fn load(shared: &EngineState, model: &ModelSpec) -> Result<(Linked, Assets), Error> {
    let wasm = read(&model.directory.join(&model.handler))
        .map_err(|error| failed(model, "cannot be read").with_detail(error))?;
    let component = component(shared, &wasm).map_err(|reason| failed(model, reason))?;
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

/// Reads at most one byte more than components may have, so that one that is too large is noticed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut wasm = Vec::new();
    let limit = inspect::SIZE_LIMIT as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut wasm)?;
    Ok(wasm)
}

/// Compiled code of `wasm`, from the cache if it is there. An error is the reason for the author.
fn component(shared: &EngineState, wasm: &[u8]) -> Result<Component, String> {
    let Some(cache) = &shared.cache else {
        return compile(&shared.engine, wasm);
    };
    if let Some(component) = cached(&shared.engine, cache, wasm) {
        return Ok(component);
    }
    let component = compile(&shared.engine, wasm)?;
    keep(cache, wasm, &component);
    Ok(component)
}

fn cached(engine: &Engine, cache: &CodeCache, wasm: &[u8]) -> Option<Component> {
    let code = cache.get(&cache.id(wasm))?;
    #[expect(
        unsafe_code,
        reason = "loading compiled code is unsafe: wasmtime runs it without checking it"
    )]
    // SAFETY: the cache only returns bytes whose MAC it made itself in `keep`, from `Component::serialize` of this
    // version of wasmtime with these settings, which are part of the name.
    let component = unsafe { Component::deserialize(engine, code) };
    component.ok()
}

/// Puts compiled code into the cache. If that fails the handler is served all the same, and compiled again next time.
fn keep(cache: &CodeCache, wasm: &[u8], component: &Component) {
    let kept = component
        .serialize()
        .map_err(|error| error.to_string())
        .and_then(|code| {
            cache
                .put(&cache.id(wasm), &code)
                .map_err(|error| error.to_string())
        });
    if let Err(error) = kept {
        tracing::warn!(error, "the compiled handler cannot be written to the cache");
    }
}

/// The only place that compiles. Compiling has no limits of its own yet beyond what [`inspect::screen`] refuses.
fn compile(engine: &Engine, wasm: &[u8]) -> Result<Component, String> {
    inspect::screen(wasm, engine.get_wasm_features())?;
    Component::from_binary(engine, wasm).map_err(|error| format!("does not compile: {error:#}"))
}
