//! `wasi:io`: stdin is always at its end, stdout and stderr are kept for the log, and every pollable is ready.

use wasmtime::StoreContextMut;
use wasmtime::component::{
    ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType,
};

use super::super::fault::Exceeded;
use super::super::host::Host;
use super::{VERSION, charge};

/// Resource type of stdin. All of its handles have the number 0.
pub(super) struct InputStream;

/// Resource type of stdout and stderr, which differ by the number of the handle.
pub(super) struct OutputStream;

/// Resource type of what can be waited for. It is always ready.
pub(super) struct Pollable;

/// Resource type of a stream's error. None is ever made, since streams here do not fail.
struct IoError;

/// Most bytes that a guest may write at once. How much is kept is decided by [`super::Output`].
const WRITE_SIZE: u64 = 4096;

type Ctx<'a> = StoreContextMut<'a, Host>;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

impl OutputStream {
    pub const STDOUT: u32 = 0;
    pub const STDERR: u32 = 1;
}

pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    add_error(linker)?;
    add_poll(linker)?;
    let mut streams = linker.instance(&format!("wasi:io/streams@{VERSION}"))?;
    streams.resource(
        "input-stream",
        ResourceType::host::<InputStream>(),
        |_, _| Ok(()),
    )?;
    streams.resource(
        "output-stream",
        ResourceType::host::<OutputStream>(),
        |_, _| Ok(()),
    )?;
    add_input(&mut streams)?;
    add_output(&mut streams)
}

fn add_error(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut error = linker.instance(&format!("wasi:io/error@{VERSION}"))?;
    error.resource("error", ResourceType::host::<IoError>(), |_, _| Ok(()))?;
    error.func_wrap(
        "[method]error.to-debug-string",
        |mut store: Ctx<'_>, (_,): (Resource<IoError>,)| {
            charge(&mut store)?;
            Ok((String::new(),))
        },
    )
}

fn add_poll(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    let mut poll = linker.instance(&format!("wasi:io/poll@{VERSION}"))?;
    poll.resource("pollable", ResourceType::host::<Pollable>(), |_, _| Ok(()))?;
    poll.func_wrap(
        "[method]pollable.ready",
        |mut store: Ctx<'_>, (_,): (Resource<Pollable>,)| {
            charge(&mut store)?;
            Ok((true,))
        },
    )?;
    poll.func_wrap(
        "[method]pollable.block",
        |mut store: Ctx<'_>, (_,): (Resource<Pollable>,)| charge(&mut store),
    )?;
    poll.func_wrap(
        "poll",
        |mut store: Ctx<'_>, (pollables,): (Vec<Resource<Pollable>>,)| {
            charge(&mut store)?;
            if pollables.is_empty() {
                return Err(Exceeded::Forbidden("polled an empty list".to_owned()).into());
            }
            let ready = 0..u32::try_from(pollables.len()).unwrap_or(u32::MAX);
            Ok((ready.collect::<Vec<u32>>(),))
        },
    )
}

fn add_input(streams: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    for name in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store: Ctx<'_>, (_, _len): (Resource<InputStream>, u64)| {
                charge(&mut store)?;
                Ok((Err::<Vec<u8>, _>(StreamError::Closed),))
            },
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |mut store: Ctx<'_>, (_, _len): (Resource<InputStream>, u64)| {
                charge(&mut store)?;
                Ok((Err::<u64, _>(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap(
        "[method]input-stream.subscribe",
        |mut store: Ctx<'_>, (_,): (Resource<InputStream>,)| ready(&mut store),
    )
}

fn add_output(streams: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    streams.func_wrap(
        "[method]output-stream.check-write",
        |mut store: Ctx<'_>, (_,): (Resource<OutputStream>,)| {
            charge(&mut store)?;
            Ok((Ok::<_, StreamError>(WRITE_SIZE),))
        },
    )?;
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Ctx<'_>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| {
                charge(&mut store)?;
                write(store.data_mut(), &stream, &bytes);
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    for name in ["flush", "blocking-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Ctx<'_>, (_,): (Resource<OutputStream>,)| {
                charge(&mut store)?;
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    add_rare_output(streams)
}

/// Functions that are part of the interface but that no standard library calls.
fn add_rare_output(streams: &mut LinkerInstance<'_, Host>) -> wasmtime::Result<()> {
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Ctx<'_>, (_, _len): (Resource<OutputStream>, u64)| {
                charge(&mut store)?;
                Ok((Ok::<(), StreamError>(()),))
            },
        )?;
    }
    for name in ["splice", "blocking-splice"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Ctx<'_>,
             (_, _, _len): (Resource<OutputStream>, Resource<InputStream>, u64)| {
                charge(&mut store)?;
                Ok((Err::<u64, _>(StreamError::Closed),))
            },
        )?;
    }
    streams.func_wrap(
        "[method]output-stream.subscribe",
        |mut store: Ctx<'_>, (_,): (Resource<OutputStream>,)| ready(&mut store),
    )
}

fn ready(store: &mut Ctx<'_>) -> wasmtime::Result<(Resource<Pollable>,)> {
    charge(store)?;
    Ok((Resource::new_own(0),))
}

fn write(host: &mut Host, stream: &Resource<OutputStream>, bytes: &[u8]) {
    let output = match stream.rep() {
        OutputStream::STDERR => &mut host.stderr,
        _ => &mut host.stdout,
    };
    output.write(bytes);
}
