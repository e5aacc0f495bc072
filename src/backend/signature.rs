//! What a model takes and gives, and whether tensors agree with it.
//!
//! Messages of these checks are for clients: they name the input, what was expected and what came. Nothing here depends on a
//! framework. What may be stacked along axis 0 is only gathered here as evidence: `runtime::batching` decides.

use std::fmt::Write as _;

use crate::error::{Error, Kind, quoted};
use crate::model::{Arity, Declared, TensorSpec};
use crate::tensor::{NamedTensor, Tensor};

/// Specs listed in one message; a model may have hundreds.
const LISTED: usize = 8;

/// Names, dtypes and shapes of a model's inputs and outputs, in order, and what else is known of it before any run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs; empty where they are not known before a run.
    pub outputs: Vec<TensorSpec>,
    /// What an empty list of inputs means: nothing is known of them, so that any are handed to the framework. Otherwise
    /// the model takes none.
    pub is_open: bool,
    /// Whether axis 0 may be the batch.
    pub axis0: Axis0,
    /// Whether runs change the model.
    pub state: ModelState,
}

/// What is known, before any run, of whether axis 0 of every input and output is the batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Axis0 {
    /// Nothing shows that it is not, and too little shows that it is.
    #[default]
    Unknown,
    /// Every input and output has an axis 0 that varies, of one name or as declared. Necessary, not sufficient.
    Shared,
    /// Axis 0 is not the batch, for this reason, which completes "off: ".
    Refuted(String),
}

/// Whether runs change the model, and what is done about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ModelState {
    /// Runs leave the model as it is.
    #[default]
    Stateless,
    /// Runs change it: all workers share one copy and run one after the other.
    Locked,
    /// Runs change it: each worker has a copy of its own, as the owner asked for.
    Copied,
}

/// The signature of a model that says nothing of itself.
impl Default for Signature {
    fn default() -> Self {
        Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
            is_open: true,
            axis0: Axis0::Unknown,
            state: ModelState::Stateless,
        }
    }
}

/// An input or output and the name of its axis 0, where it has one.
pub type NamedAxis<'a> = (&'a TensorSpec, Option<&'a str>);

impl Axis0 {
    /// The evidence of inputs and outputs whose axes have names; `is_declared` if the owner declared each of them.
    /// Inputs that may be left out say nothing: a request that brings one is not stacked.
    pub fn judge(inputs: &[NamedAxis<'_>], outputs: &[NamedAxis<'_>], is_declared: bool) -> Self {
        let required = inputs
            .iter()
            .filter(|(spec, _)| spec.arity != Arity::Optional);
        let inputs = required.map(|axis| ("input", axis));
        let all: Vec<_> = inputs
            .chain(outputs.iter().map(|axis| ("output", axis)))
            .collect();
        if let Some(reason) = all
            .iter()
            .find_map(|(what, (spec, _))| obstacle(what, spec))
        {
            return Self::Refuted(reason);
        }
        let is_known = all.iter().all(|(_, (spec, _))| spec.has_free_rows());
        if !is_known || all.is_empty() || outputs.is_empty() {
            return Self::Unknown;
        }
        if is_declared {
            return Self::Shared;
        }
        same_name(&all)
    }
}

/// Why axis 0 of this one cannot be the batch.
fn obstacle(what: &str, spec: &TensorSpec) -> Option<String> {
    let name = quoted(&spec.name);
    if spec.arity != Arity::One {
        return Some(format!("{what} {name} is not always one tensor"));
    }
    match spec.shape.as_deref()?.first() {
        None => Some(format!("{what} {name} has no axis 0")),
        Some(Some(size)) => Some(format!("axis 0 of {what} {name} is always {size}")),
        Some(None) => None,
    }
}

fn same_name(all: &[(&str, &NamedAxis<'_>)]) -> Axis0 {
    let named = all
        .iter()
        .filter_map(|(what, (spec, axis))| Some((what, spec, (*axis)?)));
    let named: Vec<_> = named.collect();
    let Some((first_what, first, axis)) = named.first() else {
        return Axis0::Unknown;
    };
    match named.iter().find(|(_, _, other)| other != axis) {
        Some((what, spec, other)) => Axis0::Refuted(format!(
            "axis 0 of {first_what} {} is called {}, that of {what} {} {}; declare inputs and outputs if it is the batch all \
             the same",
            quoted(&first.name),
            quoted(axis),
            quoted(&spec.name),
            quoted(other)
        )),
        None if named.len() == all.len() => Axis0::Shared,
        None => Axis0::Unknown,
    }
}

impl Signature {
    /// What the owner says of a model that was not loaded.
    pub fn declared(declared: &Declared) -> Self {
        Self {
            inputs: declared.inputs.clone(),
            outputs: declared.outputs.clone(),
            ..Self::default()
        }
    }

    /// Checks what one request brings: every input once, no other, each of its dtype and shape. The error is
    /// [`Kind::InvalidInput`]. What is not known is left to the framework.
    pub fn check(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
        self.check_names(inputs)?;
        let mut pairs = inputs.iter().filter_map(|input| {
            let spec = self.inputs.iter().find(|spec| spec.is_named(&input.name));
            Some((spec?, input))
        });
        pairs.try_for_each(|(spec, input)| check_spec(spec, input))
    }

    /// The part of [`Self::check`] that is about names: every input once, no other.
    fn check_names(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
        check_repeated(inputs)?;
        if self.inputs.is_empty() && self.is_open {
            return Ok(());
        }
        let is_taken = |name: &str| self.inputs.iter().any(|spec| spec.is_named(name));
        if let Some(input) = inputs.iter().find(|input| !is_taken(&input.name)) {
            return Err(self.no_such(&input.name));
        }
        self.inputs
            .iter()
            .try_for_each(|spec| self.check_present(spec, inputs))
    }

    /// Puts inputs that passed [`Self::check`] into the model's order, which is how a session takes them fastest.
    #[must_use]
    pub fn arrange(&self, mut inputs: Vec<NamedTensor>) -> Vec<NamedTensor> {
        let place = |input: &NamedTensor| {
            let spec = self
                .inputs
                .iter()
                .position(|spec| spec.is_named(&input.name));
            (
                spec,
                spec.and_then(|spec| self.inputs[spec].member(&input.name)),
            )
        };
        if !inputs.is_sorted_by_key(place) {
            inputs.sort_by_cached_key(place);
        }
        inputs
    }

    /// The rows that inputs which passed [`Self::check`] add to a batch: axis 0 of all of them. `None` where they have no
    /// rows in common, bring no row, or bring what may be left out: such a request runs by itself.
    pub fn rows(&self, inputs: &[NamedTensor]) -> Option<usize> {
        let rows = inputs.first()?.tensor.rows().filter(|rows| *rows > 0)?;
        let agrees = |input: &NamedTensor| input.tensor.rows() == Some(rows);
        let is_required = |input: &NamedTensor| {
            let mut specs = self.inputs.iter();
            specs.all(|spec| spec.arity == Arity::One || !spec.is_named(&input.name))
        };
        inputs
            .iter()
            .all(|input| agrees(input) && is_required(input))
            .then_some(rows)
    }

    /// Whether axis 0 is meant to be the rows of a batch, as far as the model says of itself.
    pub fn is_batchable(&self) -> bool {
        !matches!(self.axis0, Axis0::Refuted(_))
    }

    /// Checks that what the owner declared is what the model says of itself; the text names the difference.
    pub fn confirm(&self, declared: &Declared) -> Result<(), String> {
        confirm("input", &self.inputs, &declared.inputs)?;
        confirm("output", &self.outputs, &declared.outputs)
    }

    /// An input is there unless it may be left out; a list has no gaps.
    fn check_present(&self, spec: &TensorSpec, inputs: &[NamedTensor]) -> Result<(), Error> {
        match spec.arity {
            Arity::Optional => Ok(()),
            Arity::One if inputs.iter().any(|input| input.name == spec.name) => Ok(()),
            Arity::One => Err(self.missing(&spec.name)),
            Arity::Many => {
                let members = inputs.iter().filter_map(|input| spec.member(&input.name));
                let (count, highest) = members.fold((0, 0), |(count, highest), member| {
                    (count + 1, member.max(highest))
                });
                if count == 0 || highest < count {
                    return Ok(());
                }
                let is_missing = |member: &usize| {
                    let mut given = inputs.iter();
                    !given.any(|input| spec.member(&input.name) == Some(*member))
                };
                let member = (0..highest).find(is_missing).unwrap_or(highest);
                Err(self.missing(&format!("{}.{member}", spec.name)))
            }
        }
    }

    fn no_such(&self, name: &str) -> Error {
        invalid(format!(
            "the model has no input {}; it takes {}",
            quoted(name),
            self.taken()
        ))
    }

    fn missing(&self, name: &str) -> Error {
        invalid(format!(
            "input {} is missing; the model takes {}",
            quoted(name),
            self.taken()
        ))
    }

    fn taken(&self) -> String {
        if self.inputs.is_empty() {
            "none".to_owned()
        } else {
            listed(&self.inputs)
        }
    }
}

fn check_repeated(inputs: &[NamedTensor]) -> Result<(), Error> {
    let repeated = inputs.iter().enumerate().find(|(index, input)| {
        let mut before = inputs[..*index].iter();
        before.any(|before| before.name == input.name)
    });
    match repeated {
        None => Ok(()),
        Some((_, input)) => Err(invalid(format!("input {} came twice", quoted(&input.name)))),
    }
}

fn check_spec(spec: &TensorSpec, input: &NamedTensor) -> Result<(), Error> {
    let tensor = &input.tensor;
    if spec.fits(tensor) {
        return Ok(());
    }
    let member = spec
        .member(&input.name)
        .map(|_| format!("input {}: ", quoted(&input.name)));
    Err(invalid(format!(
        "{}expected {spec}, got {}",
        member.unwrap_or_default(),
        described(tensor)
    )))
}

fn confirm(what: &str, actual: &[TensorSpec], declared: &[TensorSpec]) -> Result<(), String> {
    for spec in declared {
        let Some(own) = actual.iter().find(|own| own.name == spec.name) else {
            return Err(format!(
                "{what} {spec} is declared, but the model has only {}",
                listed(actual)
            ));
        };
        if !agrees(own, spec) {
            return Err(format!(
                "{what} {spec} is declared, but the model's is {own}"
            ));
        }
    }
    Ok(())
}

/// Whether what the model says of an input or output and what the owner declares can both be true.
fn agrees(own: &TensorSpec, declared: &TensorSpec) -> bool {
    let dtypes = own.dtype.zip(declared.dtype);
    let shapes = own.shape.as_ref().zip(declared.shape.as_ref());
    dtypes.is_none_or(|(own, declared)| own == declared)
        && shapes.is_none_or(|(own, declared)| {
            let axes = own.iter().zip(declared);
            own.len() == declared.len()
                && axes
                    .into_iter()
                    .all(|(own, said)| own.is_none() || said.is_none() || own == said)
        })
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidInput, message)
}

fn described(tensor: &Tensor) -> String {
    format!("{}{:?}", tensor.dtype(), tensor.shape())
}

fn listed(specs: &[TensorSpec]) -> String {
    let mut text = specs
        .iter()
        .take(LISTED)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if specs.len() > LISTED {
        let _ = write!(text, " and {} more", specs.len() - LISTED);
    }
    text
}

#[cfg(test)]
mod tests;
