//! Which outputs a client wants, and in what form.

use super::classify::classify;
use super::{Parameters, invalid, shown};
use crate::error::Error;
use crate::model::TensorSpec;
use crate::tensor::NamedTensor;

/// An output that a request names.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::api) struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Classes wanted in place of the tensor; 0 for none.
    pub classes: u64,
}

impl RequestedOutput {
    /// An output and its parameters.
    pub(in crate::api) fn new(name: String, parameters: &Parameters) -> Result<Self, Error> {
        parameters.check_of_tensor()?;
        let classes = parameters.count("classification")?.unwrap_or(0);
        Ok(Self { name, classes })
    }
}

/// Refuses outputs named twice, and those that a model whose outputs are `known` does not have.
pub(super) fn check(requested: &[RequestedOutput], known: &[TensorSpec]) -> Result<(), Error> {
    for (index, output) in requested.iter().enumerate() {
        let name = output.name.as_str();
        if requested[..index].iter().any(|before| before.name == name) {
            return Err(invalid(format!(
                "output {} was asked for twice",
                shown(name)
            )));
        }
        if !known.is_empty() && !known.iter().any(|spec| *spec.name == *name) {
            return Err(unknown(name));
        }
    }
    Ok(())
}

/// The outputs that were asked for, all if none was named, in the form that was asked for.
pub(super) fn select(
    outputs: Vec<NamedTensor>,
    requested: &[RequestedOutput],
    is_batched: bool,
) -> Result<Vec<NamedTensor>, Error> {
    if requested.is_empty() {
        return Ok(outputs);
    }
    let select = |wanted: &RequestedOutput| {
        let found = outputs.iter().find(|output| *output.name == *wanted.name);
        let output = found.ok_or_else(|| unknown(&wanted.name))?;
        match wanted.classes {
            0 => Ok(output.clone()),
            classes => classify(output, classes, is_batched),
        }
    };
    requested.iter().map(select).collect()
}

fn unknown(name: &str) -> Error {
    invalid(format!("the model has no output {}", shown(name)))
}
