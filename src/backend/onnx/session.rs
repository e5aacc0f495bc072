//! Running a loaded ONNX model: many workers, one ONNX Runtime session.
//!
//! `ort` runs a session through `&mut`, which would force a lock or a copy of the weights on every worker. ONNX
//! Runtime itself documents `Run` as callable from many threads at once, and serializes by itself for execution
//! providers that cannot. So this file calls `Run` through the C API.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use ort::memory::MemoryInfo;
use ort::session::Session as OrtSession;
use ort::{AsPointer as _, ErrorCode, sys};

use super::super::failure::classify;
use super::super::{BackendError, Session, Signature};
use super::value::{InputValue, OutputValue};
use crate::tensor::NamedTensor;

/// What the workers of one device share.
pub(super) struct Shared {
    pub(super) session: OrtSession,
    /// Says that input data lies in host memory.
    pub(super) memory: MemoryInfo<'static>,
    /// Names of `signature`'s inputs, as the C API takes them.
    pub(super) inputs: Vec<CString>,
    /// Names of `signature`'s outputs, likewise.
    pub(super) outputs: Vec<CString>,
    pub(super) signature: Signature,
}

/// One worker's lane. Holds nothing that changes: what a run needs lives on its stack.
pub(super) struct OnnxSession {
    shared: Arc<Shared>,
}

impl OnnxSession {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Session for OnnxSession {
    fn infer(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, BackendError> {
        let values = self.shared.values(&inputs)?;
        let outputs = self.shared.run(&values).map_err(|error| failure(&error))?;
        let named = outputs.into_iter().zip(&self.shared.signature.outputs);
        named
            .map(|(value, spec)| {
                Ok(NamedTensor::new(
                    Arc::clone(&spec.name),
                    value.into_tensor(&spec.name)?,
                ))
            })
            .collect()
    }
}

impl Shared {
    /// Values of all inputs in the model's order.
    fn values<'a>(&self, inputs: &'a [NamedTensor]) -> Result<Vec<InputValue<'a>>, BackendError> {
        let specs = &self.signature.inputs;
        if inputs.len() != specs.len() {
            let text = format!("{} tensors came for {} inputs", inputs.len(), specs.len());
            return Err(BackendError::Input(text));
        }
        let find = |(place, name): (usize, &Arc<str>)| {
            let at_place = inputs.get(place).filter(|input| input.name == *name);
            let input = at_place.or_else(|| inputs.iter().find(|input| input.name == *name));
            let missing = || BackendError::Input(format!("input {name:?} is missing"));
            InputValue::new(&input.ok_or_else(missing)?.tensor, &self.memory)
                .map_err(|error| failure(&error))
        };
        specs
            .iter()
            .map(|spec| &spec.name)
            .enumerate()
            .map(find)
            .collect()
    }

    #[expect(
        unsafe_code,
        reason = "ort runs only through &mut; the C API allows concurrent runs"
    )]
    fn run(&self, inputs: &[InputValue<'_>]) -> Result<Vec<OutputValue>, ort::Error> {
        let input_names = pointers(&self.inputs);
        let inputs: Vec<*const sys::OrtValue> = inputs.iter().map(InputValue::as_ptr).collect();
        let output_names = pointers(&self.outputs);
        let mut outputs = vec![ptr::null_mut(); output_names.len()];
        // SAFETY: the session lives as long as `self`. `Run` does not change it as far as callers can see: ONNX
        // Runtime states that one session may be run from many threads without synchronization, and takes a lock of
        // its own where an execution provider says it supports no concurrent runs. Names are NUL-terminated; names
        // and values are as many as said; values live until `inputs` of the caller goes. Inputs are not written to:
        // ONNX Runtime never reuses the buffer of a graph input. Null run options stand for the default ones.
        let status = unsafe {
            (ort::api().Run)(
                self.session.ptr().cast_mut(),
                ptr::null(),
                input_names.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
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
}

fn pointers(names: &[CString]) -> Vec<*const c_char> {
    names.iter().map(|name| name.as_ptr()).collect()
}

fn failure(error: &ort::Error) -> BackendError {
    let otherwise = match error.code() {
        ErrorCode::InvalidArgument => BackendError::Input,
        _ => BackendError::Infer,
    };
    classify(error.to_string(), otherwise)
}
