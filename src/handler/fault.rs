//! Why a call did not return (a limit, a trap, a panic, a value that breaks the interface), and what the client is told.
//!
//! A client's message names what happened, in which function, and the limit if there was one. wasmtime's own text,
//! backtraces and the panic's message are for the author: they go to the detail and to the model's log.

use std::fmt;
use std::time::Duration;

use wasmtime::Trap;

use crate::error::{Error, Kind, truncated};
use crate::model::Limits;

/// Most bytes of a fault's detail. A backtrace can have any number of long names.
const DETAIL_LIMIT: usize = 8 << 10;

/// A function that the handler exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Init,
    Preprocess,
    Postprocess,
    Describe,
}

impl fmt::Display for Function {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Init => "init",
            Self::Preprocess => "preprocess",
            Self::Postprocess => "postprocess",
            Self::Describe => "describe",
        })
    }
}

/// A rule of the host that the guest broke. It ends the call, from within a host function or at a tick.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exceeded {
    /// The call took more CPU time than it may.
    #[error("used more than {} ms of CPU time", .0.as_millis())]
    Cpu(Duration),
    /// The call made more calls to the host than it may.
    #[error("made more than {0} calls to the host")]
    HostCalls(u64),
    /// The handler did something that handlers may not do; the text says what.
    #[error("{0}")]
    Forbidden(String),
    /// The handler called `wasi:cli/exit`.
    #[error("called exit")]
    Exit,
}

/// What is known about a call when it failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Circumstances<'a> {
    /// The function that was called.
    pub function: Function,
    /// The handler's limits.
    pub limits: &'a Limits,
    /// Whether memory was refused during the call.
    pub was_refused_memory: bool,
    /// Whether the process had no memory for the handler during the call.
    pub ran_out_of_memory: bool,
    /// What the call wrote to stderr.
    pub stderr: &'a str,
}

/// The client's error for a call that failed with wasmtime's `error`.
pub(super) fn classify(error: &wasmtime::Error, call: Circumstances<'_>) -> Error {
    let (kind, what) = kind_of(error, call);
    let message = message(call.function, &what, kind);
    let kind = match call.function {
        Function::Init => Kind::LoadFailed,
        Function::Preprocess | Function::Postprocess | Function::Describe => kind,
    };
    Error::new(kind, message).with_detail(truncated(&format!("{error:?}"), DETAIL_LIMIT))
}

/// The text for the client: what the handler did, in which function, and where to read more.
fn message(function: Function, what: &str, kind: Kind) -> String {
    let begin = begin(function);
    let has_more = matches!(kind, Kind::HandlerPanicked | Kind::HandlerTrapped);
    let end = if has_more {
        "; see the model's log"
    } else {
        ""
    };
    format!("{begin} handler {what} in {function}{end}")
}

/// How a message about a call begins.
pub(super) const fn begin(function: Function) -> &'static str {
    match function {
        Function::Init | Function::Describe => "The",
        Function::Preprocess | Function::Postprocess => "Prediction failed: the",
    }
}

/// The memory of a handler is the process's as well, beside the model's.
const NO_MEMORY: &str =
    "got no more memory for its process (lantern.limits.processMemory, lantern_max_process_memory)";

fn kind_of(error: &wasmtime::Error, call: Circumstances<'_>) -> (Kind, String) {
    if let Some(exceeded) = error.downcast_ref::<Exceeded>() {
        return (kind_of_exceeded(exceeded), exceeded.to_string());
    }
    if call.was_refused_memory {
        let what = format!(
            "needed more than its {} bytes of memory",
            call.limits.memory
        );
        return (Kind::HandlerOutOfMemory, what);
    }
    if call.ran_out_of_memory {
        return (Kind::HandlerOutOfMemory, NO_MEMORY.to_owned());
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::UnreachableCodeReached) if call.stderr.contains("panicked at") => {
            (Kind::HandlerPanicked, "panicked".to_owned())
        }
        Some(trap) => (
            Kind::HandlerTrapped,
            format!("trapped ({})", name_of(*trap)),
        ),
        None => (Kind::HandlerOutput, broken_value(error, call.limits)),
    }
}

const fn kind_of_exceeded(exceeded: &Exceeded) -> Kind {
    match exceeded {
        Exceeded::Cpu(_) => Kind::HandlerTimedOut,
        Exceeded::HostCalls(_) | Exceeded::Forbidden(_) | Exceeded::Exit => Kind::HandlerTrapped,
    }
}

/// wasmtime has no public type for exhausted hostcall fuel, so it is recognized by its text. A test with a guest that
/// returns too much fails if that text changes.
fn broken_value(error: &wasmtime::Error, limits: &Limits) -> String {
    if format!("{error:#}").contains("too much data is being copied") {
        return format!("handed over more than {} bytes", limits.output);
    }
    "returned a value that breaks the rules of the handler interface".to_owned()
}

fn name_of(trap: Trap) -> &'static str {
    match trap {
        Trap::StackOverflow => "call stack exhausted",
        Trap::MemoryOutOfBounds => "memory access out of bounds",
        Trap::TableOutOfBounds => "table access out of bounds",
        Trap::IndirectCallToNull | Trap::BadSignature => "bad indirect call",
        Trap::IntegerOverflow => "integer overflow",
        Trap::IntegerDivisionByZero => "integer division by zero",
        Trap::BadConversionToInteger => "bad conversion to integer",
        Trap::UnreachableCodeReached => "unreachable code",
        _ => "illegal instruction or value",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(error: &wasmtime::Error, was_refused_memory: bool, stderr: &str) -> Error {
        let limits = Limits::default();
        let call = Circumstances {
            function: Function::Preprocess,
            limits: &limits,
            was_refused_memory,
            ran_out_of_memory: false,
            stderr,
        };
        classify(error, call)
    }

    #[test]
    fn a_panic_is_told_from_other_traps_by_its_message() {
        let trap = || wasmtime::Error::from(Trap::UnreachableCodeReached);
        let panic = "thread panicked at src/lib.rs:1:1:\nsecret";
        let error = classified(&trap(), false, panic);
        assert_eq!(error.kind(), Kind::HandlerPanicked);
        let says = "Prediction failed: the handler panicked in preprocess; see the model's log";
        assert_eq!(error.message(), says);
        assert_eq!(classified(&trap(), false, "").kind(), Kind::HandlerTrapped);
        assert_eq!(
            classified(&trap(), true, "").kind(),
            Kind::HandlerOutOfMemory
        );
    }

    #[test]
    fn limits_are_named() {
        let error = classified(&Exceeded::Cpu(Duration::from_millis(250)).into(), false, "");
        assert_eq!(error.kind(), Kind::HandlerTimedOut);
        assert_eq!(
            error.message(),
            "Prediction failed: the handler used more than 250 ms of CPU time in preprocess"
        );
    }
}
