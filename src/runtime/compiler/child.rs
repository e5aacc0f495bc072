//! The compiler's process: what `lantern compile` runs.
//!
//! It takes one message from the socket that is its stdin, puts up the walls that the message asks for, compiles the component
//! that came with it, and writes the code to the file that came with it. It exits with 0, or with 1 and the reason on stderr.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::handler::{self, Sealed};
use crate::sandbox::{self, Policy, descriptors, handover};

/// Compiles one component.
pub fn run() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    let (component, mut output) = enter().map_err(|error| not_here(&error))?;
    std::thread::spawn(end_with_front);
    let code = handler::compile(&component)?;
    output.write_all(&code).map_err(|error| not_here(&error))
}

fn not_here(error: &io::Error) -> String {
    format!("cannot be compiled here: {error}")
}

/// Puts up the walls, and gives the component and the file for its code.
fn enter() -> io::Result<(Vec<u8>, File)> {
    // A kernel without this call has a front that passes nothing on.
    let _ = descriptors::close();
    let (policy, files): (Policy, Vec<OwnedFd>) = handover::receive(io::stdin().as_fd())?;
    let mut files = files.into_iter();
    let (Some(component), Some(output)) = (files.next(), files.next()) else {
        return Err(io::Error::other("there are no files"));
    };
    // Also where the walls are off: those keep others from harm, this keeps the machine.
    limit_memory(policy.limits.memory)?;
    let entered = sandbox::enter(&policy);
    if let Some((wall, reason)) = entered.missing() {
        return Err(io::Error::other(format!("{wall} is missing: {reason}")));
    }
    Ok((Sealed::received(component)?.read()?, output.into()))
}

/// Memory that is only reserved does not count.
fn limit_memory(most: Option<u64>) -> io::Result<()> {
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    Ok(setrlimit(Resource::Data, limit)?)
}

/// Nothing more comes through the socket, and it closes when the front ends: then nobody waits for the code.
#[expect(clippy::exit, reason = "the compiler cannot be asked to stop")]
fn end_with_front() {
    let _ = io::stdin().lock().read(&mut [0]);
    std::process::exit(1);
}
