//! `wasi:cli`: no arguments, no environment, no terminal; `exit` ends the call.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};

use super::super::fault::Exceeded;
use super::super::host::Host;
use super::io::{InputStream, OutputStream};
use super::{VERSION, charge};

/// Resource type of terminals. There is never one.
struct TerminalInput;
struct TerminalOutput;

type Ctx<'a> = StoreContextMut<'a, Host>;

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_environment(linker)?;
    add_streams(linker)?;
    add_terminals(linker)?;
    let mut exit = linker.instance(&format!("wasi:cli/exit@{VERSION}"))?;
    exit.func_wrap("exit", |_: Ctx<'_>, (_status,): (Result<(), ()>,)| {
        Err::<(), _>(Exceeded::Exit.into())
    })
}

fn add_environment(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut environment = linker.instance(&format!("wasi:cli/environment@{VERSION}"))?;
    environment.func_wrap("get-environment", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((Vec::<(String, String)>::new(),))
    })?;
    environment.func_wrap("get-arguments", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((Vec::<String>::new(),))
    })?;
    environment.func_wrap("initial-cwd", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((None::<String>,))
    })
}

fn add_streams(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut stdin = linker.instance(&format!("wasi:cli/stdin@{VERSION}"))?;
    stdin.func_wrap("get-stdin", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((Resource::<InputStream>::new_own(0),))
    })?;
    for (name, stream) in [
        ("stdout", OutputStream::STDOUT),
        ("stderr", OutputStream::STDERR),
    ] {
        let mut output = linker.instance(&format!("wasi:cli/{name}@{VERSION}"))?;
        output.func_wrap(&format!("get-{name}"), move |mut store: Ctx<'_>, (): ()| {
            charge(&mut store)?;
            Ok((Resource::<OutputStream>::new_own(stream),))
        })?;
    }
    Ok(())
}

fn add_terminals(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut input = linker.instance(&format!("wasi:cli/terminal-input@{VERSION}"))?;
    input.resource(
        "terminal-input",
        ResourceType::host::<TerminalInput>(),
        |_, _| Ok(()),
    )?;
    let mut output = linker.instance(&format!("wasi:cli/terminal-output@{VERSION}"))?;
    output.resource(
        "terminal-output",
        ResourceType::host::<TerminalOutput>(),
        |_, _| Ok(()),
    )?;
    let mut stdin = linker.instance(&format!("wasi:cli/terminal-stdin@{VERSION}"))?;
    stdin.func_wrap("get-terminal-stdin", |mut store: Ctx<'_>, (): ()| {
        charge(&mut store)?;
        Ok((None::<Resource<TerminalInput>>,))
    })?;
    for name in ["stdout", "stderr"] {
        let mut output = linker.instance(&format!("wasi:cli/terminal-{name}@{VERSION}"))?;
        output.func_wrap(
            &format!("get-terminal-{name}"),
            |mut store: Ctx<'_>, (): ()| {
                charge(&mut store)?;
                Ok((None::<Resource<TerminalOutput>>,))
            },
        )?;
    }
    Ok(())
}
