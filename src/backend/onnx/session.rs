//! Running a loaded ONNX model: many workers, one ONNX Runtime session.
//!
//! `ort` runs a session through `&mut`, which would force a lock or a copy of the weights on every worker. ONNX
//! Runtime itself documents `Run` as callable from many threads at once, and serializes by itself for execution
//! providers that cannot. So this file calls `Run` through the C API.

use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session as OrtSession};
use ort::{AsPointer as _, ErrorCode, sys};

use super::super::failure::classify;
use super::super::{BackendError, Interrupt, Session, Signature};
use super::port::{Form, Port};
use super::value::{EmptySequence, InputValue, OutputValue};
use crate::tensor::{NamedTensor, Tensor};

/// What the workers of one device share.
pub(super) struct Shared {
    pub(super) session: OrtSession,
    /// Says that input data lies in host memory.
    pub(super) memory: MemoryInfo<'static>,
    pub(super) inputs: Vec<Port>,
    /// For each input that is a sequence, one without tensors.
    pub(super) empty: Vec<Option<EmptySequence>>,
    pub(super) outputs: Vec<Port>,
    pub(super) signature: Signature,
}

/// One worker's lane. Holds nothing that a run changes: what it needs lives on its stack.
pub(super) struct OnnxSession {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
}

impl OnnxSession {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, BackendError> {
        let stop = Arc::new(Stop::new().map_err(|error| BackendError::Load(error.to_string()))?);
        Ok(Self { shared, stop })
    }
}

impl Session for OnnxSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let feed = self.shared.feed(&inputs)?;
        self.stop.reset().map_err(|error| failure(&error))?;
        let given = self.shared.run(&feed, &self.stop);
        let given = given.map_err(|error| failure(&error))?;
        let mut tensors = Vec::with_capacity(given.len());
        for (port, given) in self.shared.outputs.iter().zip(&given) {
            let copied = port.copy_out(given, &mut tensors);
            copied.map_err(|reason| {
                BackendError::Infer(format!("output {:?} {reason}", port.name))
            })?;
        }
        Ok(tensors)
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        Some(Arc::clone(&self.stop) as _)
    }
}

/// Ends a session's runs. ONNX Runtime looks at it between two operators, inside of loops as well.
struct Stop {
    options: RunOptions,
    is_asked: AtomicBool,
}

impl Stop {
    fn new() -> Result<Self, ort::Error> {
        Ok(Self {
            options: RunOptions::new()?,
            is_asked: AtomicBool::new(false),
        })
    }

    /// Lets the next run begin, whatever became of the last one.
    fn reset(&self) -> Result<(), ort::Error> {
        if self.is_asked.swap(false, Ordering::AcqRel) {
            self.options.unterminate()?;
        }
        Ok(())
    }
}

impl Interrupt for Stop {
    fn interrupt(&self) {
        if let Err(error) = self.options.terminate() {
            tracing::warn!(%error, "a run cannot be ended");
        }
        self.is_asked.store(true, Ordering::Release);
    }
}

/// The inputs of one run.
#[derive(Default)]
struct Feed<'a> {
    names: Vec<*const c_char>,
    values: Vec<*const sys::OrtValue>,
    /// What `values` points to, where it was made for this run.
    own: Vec<InputValue<'a>>,
}

impl<'a> Feed<'a> {
    fn add(&mut self, port: &Port, value: InputValue<'a>) {
        self.add_lasting(port, value.as_ptr());
        self.own.push(value);
    }

    /// Adds a value that outlives the run.
    fn add_lasting(&mut self, port: &Port, value: *const sys::OrtValue) {
        self.names.push(port.name.as_ptr());
        self.values.push(value);
    }
}

/// The tensors of one request, found by name; soonest if they come in the model's order.
struct Brought<'a> {
    tensors: &'a [NamedTensor],
    /// Where the next one is looked for first.
    next: usize,
    found: usize,
}

impl<'a> Brought<'a> {
    fn find(&mut self, name: &str) -> Option<&'a Tensor> {
        let is_it = |input: &&NamedTensor| *input.name == *name;
        let at_place = self.tensors.get(self.next).filter(is_it);
        self.next += usize::from(at_place.is_some());
        let input = at_place.or_else(|| self.tensors.iter().find(is_it))?;
        self.found += 1;
        Some(&input.tensor)
    }

    /// `name.0`, `name.1`, and so on for as long as they came.
    fn numbered(&mut self, name: &str) -> Vec<&'a Tensor> {
        (0..=self.tensors.len())
            .map_while(|place| self.find(&format!("{name}.{place}")))
            .collect()
    }

    /// That none is left over.
    fn check_all_found(&self) -> Result<(), BackendError> {
        let (came, found) = (self.tensors.len(), self.found);
        if came == found {
            return Ok(());
        }
        Err(BackendError::Input(format!(
            "{came} tensors came, and {found} of them are inputs"
        )))
    }
}

impl Shared {
    /// Values of all inputs that came, in the model's order.
    fn feed<'a>(&self, inputs: &'a [NamedTensor]) -> Result<Feed<'a>, BackendError> {
        let mut feed = Feed::default();
        let mut brought = Brought {
            tensors: inputs,
            next: 0,
            found: 0,
        };
        for (port, empty) in self.inputs.iter().zip(&self.empty) {
            let value = self
                .value(port, &mut brought)
                .map_err(|error| failure(&error))?;
            match (value, empty) {
                (Some(value), _) => feed.add(port, value),
                (None, _) if port.is_optional => {}
                (None, Some(empty)) => feed.add_lasting(port, empty.as_ptr()),
                (None, None) => {
                    let text = format!("input {:?} is missing", port.name);
                    return Err(BackendError::Input(text));
                }
            }
        }
        brought.check_all_found()?;
        Ok(feed)
    }

    /// The value of one input; `None` if no tensor came for it.
    fn value<'a>(
        &self,
        port: &Port,
        brought: &mut Brought<'a>,
    ) -> Result<Option<InputValue<'a>>, ort::Error> {
        match &port.form {
            Form::Tensor(member) => brought
                .find(&member.name)
                .map(|tensor| InputValue::tensor(tensor, &self.memory))
                .transpose(),
            Form::Sequence(elements) => match &*brought.numbered(&elements.name) {
                [] => Ok(None),
                tensors => InputValue::sequence(tensors, &self.memory).map(Some),
            },
            Form::Map { keys, values } | Form::Maps { keys, values } => {
                match (brought.find(&keys.name), brought.find(&values.name)) {
                    (Some(keys), Some(values)) => {
                        InputValue::map(keys, values, &self.memory).map(Some)
                    }
                    _ => Ok(None),
                }
            }
        }
    }

    fn run<'a>(&self, feed: &'a Feed<'_>, stop: &Stop) -> Result<Vec<OutputValue<'a>>, ort::Error> {
        let names: Vec<_> = self.outputs.iter().map(|port| port.name.as_ptr()).collect();
        run(&self.session, feed, &names, Some(&stop.options))
    }
}

/// The empty sequence that a session whose graph has no inputs gives for one output.
pub(super) fn run_for_empty_sequence(
    session: &OrtSession,
    output: &CStr,
) -> Result<Option<EmptySequence>, ort::Error> {
    let feed = Feed::default();
    let mut given = run(session, &feed, &[output.as_ptr()], None)?;
    Ok(given.pop().and_then(EmptySequence::new))
}

/// What the session gives for the outputs of these names, which are NUL-terminated and live as long as the call.
#[expect(
    unsafe_code,
    reason = "ort runs only through &mut; the C API allows concurrent runs"
)]
fn run<'a>(
    session: &OrtSession,
    feed: &'a Feed<'_>,
    output_names: &[*const c_char],
    options: Option<&RunOptions>,
) -> Result<Vec<OutputValue<'a>>, ort::Error> {
    let mut outputs = vec![ptr::null_mut(); output_names.len()];
    // SAFETY: the session is borrowed. `Run` does not change it as far as callers can see: ONNX Runtime states that
    // one session may be run from many threads without synchronization, and takes a lock of its own where an
    // execution provider says it supports no concurrent runs. Names are NUL-terminated; names and values are as many
    // as said; values live as long as `feed`, which outlives the outputs, and the session's owner. Inputs are not written to: ONNX Runtime never
    // reuses the buffer of a graph input. Null run options stand for the default ones; those that are borrowed differ in the flag
    // that ends the run, which is there to be set from other threads.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            options.map_or(ptr::null(), RunOptions::ptr),
            feed.names.as_ptr(),
            feed.values.as_ptr(),
            feed.values.len(),
            output_names.as_ptr(),
            output_names.len(),
            outputs.as_mut_ptr(),
        )
    };
    // SAFETY: what `Run` wrote is null or a value that nobody else owns; this takes ownership of each before an
    // error can return.
    let outputs = outputs
        .into_iter()
        .map(|value| unsafe { OutputValue::from_raw(value) })
        .collect();
    // SAFETY: the status is as the C API returned it, and is used once.
    unsafe { ort::Error::result_from_status(status) }?;
    Ok(outputs)
}

fn failure(error: &ort::Error) -> BackendError {
    let otherwise = match error.code() {
        ErrorCode::InvalidArgument => BackendError::Input,
        _ => BackendError::Infer,
    };
    classify(error.to_string(), otherwise)
}
