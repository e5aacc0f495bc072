//! Which outputs a client wants, and in what form.

use super::classify::classify;
use super::{Parameters, invalid, shown};
use crate::catalog::Signature;
use crate::error::Error;
use crate::model::{Arity, TensorSpec};
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
        if !known.is_empty() && spec(known, name).is_none() {
            return Err(unknown(name));
        }
    }
    Ok(())
}

/// The outputs that were asked for, all if none was named, in the form that was asked for. A name stands for all tensors
/// of a list, and for none of an output that may be left out and was.
pub(super) fn select(
    outputs: Vec<NamedTensor>,
    requested: &[RequestedOutput],
    signature: &Signature,
) -> Result<Vec<NamedTensor>, Error> {
    if requested.is_empty() {
        return Ok(outputs);
    }
    let mut selected = Vec::with_capacity(requested.len());
    for wanted in requested {
        for output in find(&outputs, &wanted.name, &signature.outputs)? {
            selected.push(match wanted.classes {
                0 => output.clone(),
                classes => classify(output, classes, signature.is_batchable())?,
            });
        }
    }
    Ok(selected)
}

fn find<'a>(
    outputs: &'a [NamedTensor],
    name: &str,
    known: &[TensorSpec],
) -> Result<Vec<&'a NamedTensor>, Error> {
    if let Some(output) = outputs.iter().find(|output| *output.name == *name) {
        return Ok(vec![output]);
    }
    let spec = spec(known, name).ok_or_else(|| unknown(name))?;
    match spec.arity {
        Arity::Optional => Ok(Vec::new()),
        Arity::Many if *spec.name == *name => {
            let members = outputs.iter();
            Ok(members
                .filter(|output| spec.is_named(&output.name))
                .collect())
        }
        Arity::One | Arity::Many => Err(unknown(name)),
    }
}

/// The spec of an output that is called `name`: a list, when it is stacked, is called as it is, and else its members are.
fn spec<'a>(known: &'a [TensorSpec], name: &str) -> Option<&'a TensorSpec> {
    let mut known = known.iter();
    known.find(|spec| *spec.name == *name || spec.is_named(name))
}

fn unknown(name: &str) -> Error {
    invalid(format!("the model has no output {}", shown(name)))
}
