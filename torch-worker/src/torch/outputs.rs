//! What `forward` returns, as named outputs.
//!
//! One tensor is `output_0`; members of a tuple or list are `output_0`, `output_1` and so on, those of a dict have its keys
//! and those of a `NamedTuple` its fields. Names of nested members are joined by dots: `output_1.0`, `boxes.left`. `None`
//! is left out and keeps its number. An `int` is an int64, a `float` an fp64, a `bool` a boolean and a `str` a bytes of
//! rank 0; a list of those is one tensor of rank 1. The shim does that. This module owns what is known of the outputs
//! before a run, and the declared outputs: they select outputs by name, or give names to counted ones, and are checked
//! after each run.

use bytes::Bytes;
use lantern::backend::BackendError;
use lantern::model::{Arity, TensorSpec};
use lantern::tensor::{DType, NamedTensor, Tensor};

use super::dtype_of;
use super::shim::{Answer, Type};

/// The outputs of a module, as far as they are known before a run.
#[derive(Debug)]
pub(super) struct Outputs {
    /// What the owner declared; empty if nothing.
    declared: Vec<TensorSpec>,
    /// What the return type says; empty if it leaves them open.
    known: Vec<TensorSpec>,
}

impl Outputs {
    /// Reads the return type `returns`. The error says which declaration contradicts that.
    pub(super) fn of(returns: Option<&Type>, declared: &[TensorSpec]) -> Result<Self, String> {
        let known = returns.and_then(known).unwrap_or_default();
        if !known.is_empty() && !declared.is_empty() {
            confirm(returns, &known, declared)?;
        }
        Ok(Self {
            declared: declared.to_vec(),
            known,
        })
    }

    /// The outputs, with what was declared of them.
    pub(super) fn specs(&self) -> &[TensorSpec] {
        if self.declared.is_empty() {
            &self.known
        } else {
            &self.declared
        }
    }

    /// Copies the outputs of one run out.
    pub(super) fn read(&self, answer: &Answer) -> Result<Vec<NamedTensor>, BackendError> {
        let names: Vec<String> = (0..answer.len()).map(|index| answer.name(index)).collect();
        if self.declared.is_empty() {
            return names
                .iter()
                .enumerate()
                .map(|(index, name)| copied(answer, index, name))
                .collect();
        }
        let places = find_places(&names, &self.known, answer.is_counted(), &self.declared);
        let places = places.map_err(BackendError::Infer)?;
        let output = |(spec, index): (&TensorSpec, usize)| {
            let output = copied(answer, index, &spec.name)?;
            check(spec, &output.tensor)?;
            Ok(output)
        };
        self.declared.iter().zip(places).map(output).collect()
    }
}

/// The outputs of a return type; `None` if their number is only known after a run.
fn known(returns: &Type) -> Option<Vec<TensorSpec>> {
    let mut outputs = Vec::new();
    list("", returns, Arity::One, &mut outputs)?;
    Some(outputs)
}

fn list(name: &str, kind: &Type, arity: Arity, outputs: &mut Vec<TensorSpec>) -> Option<()> {
    let (dtype, shape) = match kind {
        Type::Tensor => (None, None),
        Type::Int => (Some(DType::I64), Some(vec![])),
        Type::Float => (Some(DType::F64), Some(vec![])),
        Type::Bool => (Some(DType::Bool), Some(vec![])),
        Type::Str => (Some(DType::Bytes), Some(vec![])),
        Type::Number => (None, Some(vec![])),
        Type::None => return Some(()),
        Type::Optional(kind) => return list(name, kind, Arity::Optional, outputs),
        Type::List(kind) => (Some(row_dtype(kind)?), Some(vec![None])),
        Type::Tuple(members) => {
            let mut members = members.iter().enumerate();
            return members.try_for_each(|(index, (field, kind))| {
                list(&member(name, index, field.as_deref()), kind, arity, outputs)
            });
        }
        Type::Other(_) => return None,
    };
    let name = if name.is_empty() { "output_0" } else { name };
    outputs.push(TensorSpec {
        name: name.into(),
        dtype,
        shape,
        arity,
    });
    Some(())
}

const fn row_dtype(kind: &Type) -> Option<DType> {
    match kind {
        Type::Int => Some(DType::I64),
        Type::Float => Some(DType::F64),
        Type::Bool => Some(DType::Bool),
        Type::Str => Some(DType::Bytes),
        Type::Tensor
        | Type::Number
        | Type::None
        | Type::Optional(_)
        | Type::List(_)
        | Type::Tuple(_)
        | Type::Other(_) => None,
    }
}

fn member(parent: &str, index: usize, field: Option<&str>) -> String {
    match (parent, field) {
        ("", None) => format!("output_{index}"),
        ("", Some(field)) => field.to_owned(),
        (parent, None) => format!("{parent}.{index}"),
        (parent, Some(field)) => format!("{parent}.{field}"),
    }
}

/// Checks a declaration against what the return type says.
fn confirm(
    returns: Option<&Type>,
    known: &[TensorSpec],
    declared: &[TensorSpec],
) -> Result<(), String> {
    let is_named = matches!(returns, Some(Type::Tuple(members)) if members.iter().any(|(field, _)| field.is_some()));
    let is_fixed = known.iter().all(|spec| spec.arity == Arity::One);
    let names: Vec<String> = known.iter().map(|spec| spec.name.to_string()).collect();
    if !is_fixed {
        return Ok(());
    }
    let places = find_places(&names, known, !is_named, declared)?;
    let pairs = declared.iter().zip(places);
    let pairs = pairs.map(|(said, place)| (said, &known[place]));
    let misfit = |(said, own): &(&TensorSpec, &TensorSpec)| {
        own.dtype.is_some_and(|dtype| said.dtype != Some(dtype))
            || own.shape.as_ref().is_some_and(|own| {
                said.shape
                    .as_ref()
                    .is_some_and(|said| said.len() != own.len())
            })
    };
    match pairs.into_iter().find(misfit) {
        None => Ok(()),
        Some((said, own)) => Err(format!(
            "output {said} is declared, but the model's is {own}"
        )),
    }
}

/// Which output each declared one is: the one of that name, or, where outputs are counted, the one at that place of those
/// that are `known`. `None` keeps its place.
fn find_places(
    names: &[String],
    known: &[TensorSpec],
    is_counted: bool,
    declared: &[TensorSpec],
) -> Result<Vec<usize>, String> {
    let by_name = |spec: &TensorSpec| names.iter().position(|name| **name == *spec.name);
    let places: Option<Vec<usize>> = declared.iter().map(by_name).collect();
    if let Some(places) = places {
        return Ok(places);
    }
    let is_known = |spec: &TensorSpec| known.iter().any(|own| own.name == spec.name);
    if is_counted && !declared.iter().all(is_known) {
        return by_place(names, known, declared);
    }
    let missing = declared.iter().find(|spec| by_name(spec).is_none());
    let missing = missing.map_or("", |spec| &*spec.name);
    Err(format!(
        "output {missing:?} is declared, but the model returns {}",
        names.join(", ")
    ))
}

fn by_place(
    names: &[String],
    known: &[TensorSpec],
    declared: &[TensorSpec],
) -> Result<Vec<usize>, String> {
    if names.len() != declared.len() {
        return Err(format!(
            "{} outputs are declared, but the model returns {}: {}",
            declared.len(),
            names.len(),
            names.join(", ")
        ));
    }
    let place = |(index, spec): (usize, &TensorSpec)| {
        let own = name_at(index, names, known);
        let place = names.iter().position(|name| *name == own);
        place.ok_or_else(|| {
            format!(
                "output {:?} is declared for {own}, but the model returns {}",
                spec.name,
                names.join(", ")
            )
        })
    };
    declared.iter().enumerate().map(place).collect()
}

/// The name of the output at `index`, whether or not it came.
fn name_at(index: usize, names: &[String], known: &[TensorSpec]) -> String {
    let is_nested = |name: &String| name.contains('.');
    match known.get(index) {
        Some(spec) => spec.name.to_string(),
        None if names.iter().any(is_nested) => names[index].clone(),
        None => member("", index, None),
    }
}

/// Checks an output against its declaration.
fn check(spec: &TensorSpec, tensor: &Tensor) -> Result<(), BackendError> {
    if spec.fits(tensor) {
        return Ok(());
    }
    Err(BackendError::Infer(format!(
        "output {spec} is declared, but the model returned {}{:?}",
        tensor.dtype(),
        tensor.shape()
    )))
}

/// Copies one output out under a name.
fn copied(answer: &Answer, index: usize, name: &str) -> Result<NamedTensor, BackendError> {
    let broken = |reason: String| BackendError::Infer(format!("output {name:?}: {reason}"));
    let plain = answer.tensor(index);
    let dtype = dtype_of(plain.dtype).ok_or_else(|| broken("is of no dtype".to_owned()))?;
    let shape = plain.shape.iter();
    let shape = shape.map(|axis| usize::try_from(*axis).unwrap_or(0));
    let data = Bytes::copy_from_slice(plain.data);
    let tensor = Tensor::new(dtype, shape.collect(), data);
    let tensor = tensor.map_err(|error| broken(error.to_string()))?;
    Ok(NamedTensor::new(name, tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> TensorSpec {
        TensorSpec::new(name, DType::F32, vec![None])
    }

    fn tuple(members: &[(Option<&str>, Type)]) -> Type {
        let member =
            |(field, kind): &(Option<&str>, Type)| (field.map(str::to_owned), kind.clone());
        Type::Tuple(members.iter().map(member).collect())
    }

    fn shown(returns: &Type) -> Option<String> {
        let specs = known(returns)?;
        let specs: Vec<_> = specs.iter().map(ToString::to_string).collect();
        Some(specs.join(", "))
    }

    #[test]
    fn outputs_are_known_from_the_return_type() {
        let pair = tuple(&[(None, Type::Tensor), (None, Type::Int)]);
        let nested = tuple(&[(None, Type::Tensor), (None, pair.clone())]);
        let named = tuple(&[(Some("boxes"), pair.clone()), (Some("count"), Type::Int)]);
        for (returns, outputs) in [
            (Type::Tensor, "output_0: any[...]"),
            (Type::Str, "output_0: bytes[]"),
            (Type::None, ""),
            (pair, "output_0: any[...], output_1: int64[]"),
            (
                nested,
                "output_0: any[...], output_1.0: any[...], output_1.1: int64[]",
            ),
            (named, "boxes.0: any[...], boxes.1: int64[], count: int64[]"),
            (
                Type::Optional(Box::new(Type::Tensor)),
                "output_0: any[...] (optional)",
            ),
            (Type::List(Box::new(Type::Float)), "output_0: fp64[?]"),
        ] {
            assert_eq!(shown(&returns).as_deref(), Some(outputs));
        }
        assert_eq!(shown(&Type::List(Box::new(Type::Tensor))), None);
        assert_eq!(shown(&Type::Other("Dict[str, Tensor]".to_owned())), None);
    }

    #[test]
    fn declared_outputs_are_found_by_name_or_else_by_place() {
        let names = ["output_0".to_owned(), "output_1".to_owned()];
        let places = |declared: &[&str], is_counted| {
            let declared: Vec<_> = declared.iter().map(|name| spec(name)).collect();
            find_places(&names, &[], is_counted, &declared)
        };
        assert_eq!(places(&["a", "b"], true), Ok(vec![0, 1]));
        assert_eq!(places(&["output_1", "output_0"], true), Ok(vec![1, 0]));
        assert_eq!(places(&["output_1"], true), Ok(vec![1]));
        assert!(places(&["a"], true).is_err());
        assert!(places(&["a", "b"], false).unwrap_err().contains("\"a\""));
    }

    #[test]
    fn what_was_none_keeps_its_place_among_declared_outputs() {
        let maybe = || Type::Optional(Box::new(Type::Tensor));
        let flat = tuple(&[(None, Type::Tensor), (None, maybe()), (None, maybe())]);
        let inner = tuple(&[(None, maybe()), (None, maybe())]);
        let nested = tuple(&[(None, Type::Tensor), (None, inner)]);
        let places = |returns: &Type, came: [&str; 2], declared: [&str; 2]| {
            let known = known(returns).unwrap_or_default();
            let declared = declared.map(spec);
            find_places(&came.map(str::to_owned), &known, true, &declared)
        };
        let list = Type::List(Box::new(maybe()));
        for (returns, first, second) in [
            (&flat, "output_1", "output_2"),
            (&list, "output_1", "output_2"),
            (&nested, "output_1.0", "output_1.1"),
        ] {
            let came = ["output_0", first];
            assert_eq!(places(returns, came, ["a", "b"]), Ok(vec![0, 1]));
            let error = places(returns, ["output_0", second], ["a", "b"]);
            assert_eq!(
                error,
                Err(format!(
                    "output \"b\" is declared for {first}, but the model returns output_0, {second}"
                ))
            );
        }
        // What is declared by the model's own names is those alone.
        assert!(places(&flat, ["output_0", "output_2"], ["output_0", "output_1"]).is_err());
    }

    #[test]
    fn a_declaration_that_contradicts_the_return_type_is_refused() {
        let of = |returns: &Type, declared: &[TensorSpec]| {
            Outputs::of(Some(returns), declared).map(|outputs| outputs.specs().len())
        };
        let pair = tuple(&[(None, Type::Tensor), (None, Type::Int)]);
        let count = TensorSpec::new("count", DType::I64, vec![]);
        assert_eq!(of(&pair, &[spec("y"), count]), Ok(2));
        assert!(of(&pair, &[spec("y"), spec("z")]).is_err());
        assert!(of(&Type::Tensor, &[spec("y"), spec("z")]).is_err());
        let named = tuple(&[(Some("boxes"), Type::Tensor)]);
        assert!(of(&named, &[spec("y")]).is_err());
        assert_eq!(of(&named, &[spec("boxes")]), Ok(1));
    }

    #[test]
    fn an_output_that_is_not_as_declared_is_an_error() {
        let tensor = Tensor::new(DType::F32, vec![2], vec![0; 8].into()).unwrap();
        check(&spec("y"), &tensor).unwrap();
        let other = TensorSpec::new("y", DType::I64, vec![None, Some(3)]);
        let error = check(&other, &tensor).unwrap_err();
        assert_eq!(
            error.to_string(),
            "output y: int64[?, 3] is declared, but the model returned fp32[2]"
        );
    }
}
