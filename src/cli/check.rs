//! What a server would refuse an archive for, found without serving it: `lantern archive` and `lantern inspect` ask the functions
//! that a registration asks.

use std::env::current_exe;
use std::fs;
use std::path::Path;

use crate::archive::Examined;
use crate::backend::check_artifact;
use crate::handler::{self, ComponentInfo};
use crate::runtime::{CompileLimits, Compiler};

/// The handler's component, if the archive can be served as far as its files tell; else why not. Settings and the kind of the
/// weights are looked at when an archive is opened, the component and what the weights say of themselves here. The component is
/// compiled as well, in a process of its own within the limits that a server has by default.
pub fn check(archive: &Examined) -> Result<ComponentInfo, String> {
    let contents = archive.contents.as_ref().map_err(ToString::to_string)?;
    archive.origin.as_ref().map_err(ToString::to_string)?;
    let path = contents.handler.under(archive.directory());
    let wasm = fs::read(&path);
    let wasm = wasm.map_err(|error| format!("The handler cannot be read: {error}"))?;
    let info = handler::check(&wasm).map_err(|error| error.message().to_owned())?;
    if let Some(artifact) = &archive.manifest.serialized_file {
        let path = artifact.under(archive.directory());
        let declared = contents.config.options.declared();
        check_artifact(contents.backend, &path, &declared)
            .map_err(|error| format!("The model cannot be served: {error}"))?;
    }
    let program = current_exe().map_err(|error| format!("The handler is not compiled: {error}"))?;
    let compiler = Compiler::new(program, None, CompileLimits::default());
    compiler
        .compile(&path, Path::new(contents.handler.as_str()))
        .map_err(|error| error.message().to_owned())?;
    Ok(info)
}
