//! Running a loaded ONNX model: many workers, one ONNX Runtime session.
//!
//! `ort` runs a session through `&mut`, which would force a lock or a copy of the weights on every worker. So [`run`] calls
//! `Run` through the C API, and says why several threads may.

use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::session::{RunOptions, Session as OrtSession, SessionInputValue};
use ort::value::DynValue;
use ort::{AsPointer as _, ErrorCode};

use super::super::failure::classify;
use super::super::{BackendError, Interrupt, Session, Signature};
use super::port::{Form, Port};
use super::value::{OutputValue, StayingOutputs, map_value, sequence_value, tensor_value};
use crate::tensor::{NamedTensor, Tensor};

/// What the workers of one device share.
pub(super) struct SharedSession {
    pub(super) session: OrtSession,
    pub(super) inputs: Vec<Port>,
    /// For each input that is a sequence, one without tensors.
    pub(super) empty: Vec<Option<DynValue>>,
    pub(super) outputs: Vec<Port>,
    pub(super) signature: Signature,
    /// Whether outputs may stay where ONNX Runtime put them: in its arena, which shrinks only when few calls come.
    pub(super) has_brief_outputs: bool,
}

/// One worker's session. Holds nothing that a run changes: what it needs lives on its stack.
pub(super) struct OnnxSession {
    shared: Arc<SharedSession>,
    terminator: Arc<Terminator>,
}

impl OnnxSession {
    pub(super) fn new(shared: Arc<SharedSession>) -> Result<Self, BackendError> {
        let terminator =
            Arc::new(Terminator::new().map_err(|error| BackendError::Load(error.to_string()))?);
        Ok(Self { shared, terminator })
    }
}

impl Session for OnnxSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let feed = self.shared.feed(&inputs)?;
        self.terminator.reset().map_err(|error| failure(&error))?;
        let outputs = &self.shared.outputs;
        let wanted: Vec<_> = outputs
            .iter()
            .map(|port| (port.name.as_ptr(), port.is_optional))
            .collect();
        let options = Some(&self.terminator.options);
        let given = run(&self.shared.session, &feed, &wanted, options);
        let given = given.map_err(|error| failure(&error))?;
        let mut tensors = Vec::with_capacity(given.len());
        let stay = StayingOutputs {
            session: &self.shared,
            inputs: &inputs,
        };
        let stay = self.shared.has_brief_outputs.then_some(stay);
        for (port, given) in outputs.iter().zip(given) {
            let taken = port.take_out(given, stay, &mut tensors);
            taken.map_err(|reason| {
                BackendError::Infer(format!("output {:?} {reason}", port.name))
            })?;
        }
        Ok(tensors)
    }

    fn interrupter(&self) -> Option<Arc<dyn Interrupt>> {
        Some(Arc::clone(&self.terminator) as _)
    }
}

/// Ends a session's runs. ONNX Runtime looks at it between two operators, inside of loops as well.
struct Terminator {
    options: RunOptions,
    was_used: AtomicBool,
}

impl Terminator {
    fn new() -> Result<Self, ort::Error> {
        Ok(Self {
            options: RunOptions::new()?,
            was_used: AtomicBool::new(false),
        })
    }

    /// Lets the next run begin, whether or not the last one was ended.
    fn reset(&self) -> Result<(), ort::Error> {
        if self.was_used.swap(false, Ordering::AcqRel) {
            self.options.unterminate()?;
        }
        Ok(())
    }
}

impl Interrupt for Terminator {
    fn interrupt(&self) {
        if let Err(error) = self.options.terminate() {
            tracing::warn!(%error, "a run cannot be ended");
        }
        self.was_used.store(true, Ordering::Release);
    }
}

/// The inputs of one run, each with its name in the graph.
type Feed<'a> = Vec<(&'a CStr, SessionInputValue<'a>)>;

/// The tensors of one request. They are found by name, fastest if they come in the model's order.
struct RequestTensors<'a> {
    all: &'a [NamedTensor],
    /// Where the next one is looked for first.
    next: usize,
    found: usize,
}

impl<'a> RequestTensors<'a> {
    fn find(&mut self, name: &str) -> Option<&'a Tensor> {
        let is_it = |input: &&NamedTensor| *input.name == *name;
        let at_place = self.all.get(self.next).filter(is_it);
        self.next += usize::from(at_place.is_some());
        let input = at_place.or_else(|| self.all.iter().find(is_it))?;
        self.found += 1;
        Some(&input.tensor)
    }

    /// The tensors `name.0`, `name.1` and so on, up to the first that is missing.
    fn numbered(&mut self, name: &str) -> Vec<&'a Tensor> {
        (0..=self.all.len())
            .map_while(|place| self.find(&format!("{name}.{place}")))
            .collect()
    }

    /// Checks that each of them is an input.
    fn check_all_found(&self) -> Result<(), BackendError> {
        let (came, found) = (self.all.len(), self.found);
        if came == found {
            return Ok(());
        }
        Err(BackendError::Input(format!(
            "{came} tensors came, and {found} of them are inputs"
        )))
    }
}

impl SharedSession {
    /// Values of all inputs that came, in the model's order.
    fn feed<'a>(&'a self, inputs: &'a [NamedTensor]) -> Result<Feed<'a>, BackendError> {
        let mut feed = Feed::with_capacity(self.inputs.len());
        let mut tensors = RequestTensors {
            all: inputs,
            next: 0,
            found: 0,
        };
        for (port, empty) in self.inputs.iter().zip(&self.empty) {
            let value = value(port, &mut tensors).map_err(|error| failure(&error))?;
            match (value, empty) {
                (Some(value), _) => feed.push((&port.name, value)),
                (None, _) if port.is_optional => {}
                (None, Some(empty)) => feed.push((&port.name, empty.into())),
                (None, None) => {
                    let text = format!("input {:?} is missing", port.name);
                    return Err(BackendError::Input(text));
                }
            }
        }
        tensors.check_all_found()?;
        Ok(feed)
    }
}

/// The value of one input; `None` if no tensor came for it.
fn value<'a>(
    port: &Port,
    tensors: &mut RequestTensors<'a>,
) -> Result<Option<SessionInputValue<'a>>, ort::Error> {
    match &port.form {
        Form::Tensor(member) => tensors.find(&member.name).map(tensor_value).transpose(),
        Form::Sequence(elements) => match &*tensors.numbered(&elements.name) {
            [] => Ok(None),
            tensors => sequence_value(tensors).map(Some),
        },
        Form::Map { keys, values } | Form::Maps { keys, values } => {
            match (tensors.find(&keys.name), tensors.find(&values.name)) {
                (Some(keys), Some(values)) => map_value(keys, values).map(Some),
                (None | Some(_), None) | (None, Some(_)) => Ok(None),
            }
        }
    }
}

/// What a session gives for one output whose graph has no inputs.
pub(super) fn run_without_inputs(
    session: &OrtSession,
    output: &CStr,
    options: Option<&RunOptions>,
) -> Result<DynValue, ort::Error> {
    let feed = Feed::new();
    let mut given = run(session, &feed, &[(output.as_ptr(), false)], options)?;
    let given = given.pop().and_then(OutputValue::without_inputs);
    given.ok_or_else(|| ort::Error::new("no value was given"))
}

/// What the session gives for the outputs of these names, which are NUL-terminated and live as long as the call.
///
/// Several threads may be here with one session, though `ort` asks for `&mut` and warns that execution providers'
/// allocators and ONNX Runtime's statistics are not thread-safe. ONNX Runtime documents `Run` as callable from many
/// threads, and takes a lock of its own around it if a provider says that it supports no concurrent runs. Two providers are
/// registered here, for processors and for CUDA, and neither says so: of what their runs share, arenas and their statistics
/// have a lock, streams come from a pool that has one, and CUDA's handles belong to the thread. What might be kept from run
/// to run beside that is off: memory patterns, profiling, graph capture. Values that are made here take memory from the
/// default allocator, which is the C library's, and not from an arena. `runs_on_many_threads_give_the_bits_of_a_lone_run`
/// tries that out.
#[expect(
    unsafe_code,
    reason = "ort runs only through &mut; the C API allows concurrent runs"
)]
fn run<'a>(
    session: &OrtSession,
    feed: &'a Feed<'_>,
    wanted: &[(*const c_char, bool)],
    options: Option<&RunOptions>,
) -> Result<Vec<OutputValue<'a>>, ort::Error> {
    let names: Vec<_> = feed.iter().map(|(name, _)| name.as_ptr()).collect();
    let values: Vec<_> = feed.iter().map(|(_, value)| value.ptr()).collect();
    let output_names: Vec<_> = wanted.iter().map(|(name, _)| *name).collect();
    let mut outputs = vec![ptr::null_mut(); wanted.len()];
    // SAFETY: the session is borrowed, and runs of other threads may be under way, as said above. Names are NUL-terminated;
    // names and values are as many as said; values live as long as `feed`, which outlives the outputs. Inputs are not
    // written to: ONNX Runtime never reuses the buffer of a graph input. Null run options stand for the default ones; those
    // that are borrowed differ in the flag that ends the run, which is there to be set from other threads.
    let status = unsafe {
        (ort::api().Run)(
            session.ptr().cast_mut(),
            options.map_or(ptr::null(), RunOptions::ptr),
            names.as_ptr(),
            values.as_ptr(),
            values.len(),
            output_names.as_ptr(),
            output_names.len(),
            outputs.as_mut_ptr(),
        )
    };
    // SAFETY: the status is as the C API returned it, and is used once.
    let is_done = unsafe { ort::Error::result_from_status(status) };
    let outputs = outputs.into_iter().zip(wanted);
    // SAFETY: what `Run` wrote is null or a value that nobody else owns; this takes ownership of each, also where the run
    // failed.
    let outputs = outputs
        .map(|(value, (_, is_optional))| unsafe {
            OutputValue::from_raw(value, *is_optional, session.allocator())
        })
        .collect();
    is_done.map(|()| outputs)
}

fn failure(error: &ort::Error) -> BackendError {
    let otherwise = match error.code() {
        ErrorCode::InvalidArgument => BackendError::Input,
        _ => BackendError::Infer,
    };
    classify(error.to_string(), otherwise)
}
