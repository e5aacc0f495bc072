//! What a model takes and gives, and whether tensors agree with it.
//!
//! Checks here speak to clients: messages name the input, what was expected and what came. They know nothing of
//! frameworks, and nothing of batches beyond axis 0 being the rows.

use std::fmt::Write as _;

use crate::error::{Error, Kind};
use crate::model::{Declared, TensorSpec};
use crate::tensor::{NamedTensor, Tensor};

/// Specs listed in one message; a model may have hundreds.
const LISTED: usize = 8;
/// Characters of a foreign name repeated in a message.
const NAME_SHOWN: usize = 64;

/// Names, dtypes and shapes of a model's inputs and outputs, in order. A backend that cannot know them, and was
/// told nothing, leaves a list empty: then tensors go by position and are checked by the framework alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Checks what one request brings: every input once, no other, each of its dtype and shape, all with the same
    /// rows on axis 0 and at least one. Where inputs are unknown only the rows are checked. The error is
    /// [`Kind::InvalidInput`].
    pub fn check(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
        if inputs.is_empty() {
            return Err(self.missing(self.inputs.first()));
        }
        if !self.inputs.is_empty() {
            self.check_names(inputs)?;
            for spec in &self.inputs {
                if let Some(input) = find(inputs, &spec.name) {
                    check_spec(spec, &input.tensor)?;
                }
            }
        }
        self.check_rows(inputs)
    }

    /// Puts inputs that passed [`Self::check`] into the model's order, which is how a session takes them fastest.
    #[must_use]
    pub fn arrange(&self, mut inputs: Vec<NamedTensor>) -> Vec<NamedTensor> {
        let place =
            |input: &NamedTensor| self.inputs.iter().position(|spec| spec.name == input.name);
        if !inputs.is_sorted_by_key(place) {
            inputs.sort_by_key(place);
        }
        inputs
    }

    /// Rows that every run must have, where the model fixes axis 0 of an input: a request must then bring exactly
    /// as many, and a batch holds one request.
    pub fn fixed_rows(&self) -> Option<usize> {
        self.inputs
            .iter()
            .find_map(|spec| spec.shape.first().copied().flatten())
    }

    /// Whether tensors of several requests may be stacked for one run: every input has an axis 0 that varies.
    /// Where not, the batcher must run each request by itself, and its outputs are all its own.
    pub fn is_batchable(&self) -> bool {
        self.inputs
            .iter()
            .all(|spec| matches!(spec.shape.first(), Some(None)))
    }

    /// Checks what a run over `rows` rows gave, before it is split: every output has as many rows. The error is
    /// [`Kind::InferenceFailed`]. A model that is not batchable may answer as it likes.
    pub fn check_outputs(&self, rows: usize, outputs: &[NamedTensor]) -> Result<(), Error> {
        if !self.is_batchable() {
            return Ok(());
        }
        match outputs
            .iter()
            .find(|output| output.tensor.rows() != Some(rows))
        {
            None => Ok(()),
            Some(output) => Err(Error::new(
                Kind::InferenceFailed,
                format!(
                    "the model does not keep axis 0: {rows} rows went in, output {} is {}",
                    shown(&output.name),
                    described(&output.tensor)
                ),
            )),
        }
    }

    /// Checks that what the owner declared is what the model says of itself; the text names the difference.
    pub(crate) fn confirm(&self, declared: &Declared) -> Result<(), String> {
        confirm("input", &self.inputs, &declared.inputs)?;
        confirm("output", &self.outputs, &declared.outputs)
    }

    fn check_names(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
        for (index, input) in inputs.iter().enumerate() {
            if !self.inputs.iter().any(|spec| spec.name == input.name) {
                return Err(invalid(format!(
                    "the model has no input {}; it takes {}",
                    shown(&input.name),
                    listed(&self.inputs)
                )));
            }
            if inputs[..index]
                .iter()
                .any(|before| before.name == input.name)
            {
                return Err(invalid(format!("input {} came twice", shown(&input.name))));
            }
        }
        let absent = self
            .inputs
            .iter()
            .find(|spec| find(inputs, &spec.name).is_none());
        absent.map_or(Ok(()), |spec| Err(self.missing(Some(spec))))
    }

    fn check_rows(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
        let is_scalar = |name: &str| {
            self.inputs
                .iter()
                .any(|spec| *spec.name == *name && spec.shape.is_empty())
        };
        let mut batched = inputs.iter().filter(|input| !is_scalar(&input.name));
        let Some(first) = batched.next() else {
            return Ok(());
        };
        let rows = rows_of(first)?;
        for input in batched {
            let actual = rows_of(input)?;
            if actual != rows {
                return Err(invalid(format!(
                    "all inputs share axis 0: input {} has {rows} rows, input {} has {actual}",
                    shown(&first.name),
                    shown(&input.name)
                )));
            }
        }
        Ok(())
    }

    fn missing(&self, spec: Option<&TensorSpec>) -> Error {
        match spec {
            Some(spec) => invalid(format!(
                "input {} is missing; the model takes {}",
                shown(&spec.name),
                listed(&self.inputs)
            )),
            None => invalid("no input tensors: the model takes at least one".to_owned()),
        }
    }
}

fn find<'a>(inputs: &'a [NamedTensor], name: &str) -> Option<&'a NamedTensor> {
    inputs.iter().find(|input| *input.name == *name)
}

fn check_spec(spec: &TensorSpec, tensor: &Tensor) -> Result<(), Error> {
    let fits = |(expected, actual): (&Option<usize>, &usize)| {
        expected.is_none_or(|expected| expected == *actual)
    };
    if spec.dtype == tensor.dtype()
        && spec.shape.len() == tensor.shape().len()
        && spec.shape.iter().zip(tensor.shape()).all(fits)
    {
        return Ok(());
    }
    Err(invalid(format!(
        "expected {spec}, got {}",
        described(tensor)
    )))
}

fn rows_of(input: &NamedTensor) -> Result<usize, Error> {
    match input.tensor.rows() {
        None => Err(invalid(format!(
            "input {} is a scalar: axis 0 must hold the rows",
            shown(&input.name)
        ))),
        Some(0) => Err(invalid(format!(
            "input {} has no rows: axis 0 must not be 0",
            shown(&input.name)
        ))),
        Some(rows) => Ok(rows),
    }
}

fn confirm(what: &str, actual: &[TensorSpec], declared: &[TensorSpec]) -> Result<(), String> {
    for spec in declared {
        let Some(own) = actual.iter().find(|own| own.name == spec.name) else {
            return Err(format!(
                "{what} {spec} is declared, but the model has only {}",
                listed(actual)
            ));
        };
        let fits = own.dtype == spec.dtype
            && own.shape.len() == spec.shape.len()
            && own
                .shape
                .iter()
                .zip(&spec.shape)
                .all(|(own, said)| own.is_none() || said.is_none() || own == said);
        if !fits {
            return Err(format!(
                "{what} {spec} is declared, but the model's is {own}"
            ));
        }
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidInput, message)
}

fn described(tensor: &Tensor) -> String {
    format!("{}{:?}", tensor.dtype(), tensor.shape())
}

fn shown(name: &str) -> String {
    match name.char_indices().nth(NAME_SHOWN) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}…", &name[..end]),
    }
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
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;
    use crate::tensor::DType;

    fn spec(name: &str, dtype: DType, shape: &[Option<usize>]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    fn tensor(name: &str, dtype: DType, shape: &[usize]) -> NamedTensor {
        let length = shape.iter().product::<usize>() * dtype.size().unwrap();
        NamedTensor::new(
            name,
            Tensor::new(dtype, shape.to_vec(), Bytes::from(vec![0; length])).unwrap(),
        )
    }

    fn two_inputs() -> Signature {
        Signature {
            inputs: vec![
                spec("a", DType::F32, &[None, Some(3)]),
                spec("b", DType::I64, &[None]),
            ],
            outputs: vec![],
        }
    }

    fn refusal(signature: &Signature, inputs: &[NamedTensor]) -> String {
        let error = signature.check(inputs).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
        error.message().to_owned()
    }

    #[test]
    fn matching_inputs_pass_in_any_order_and_are_arranged() {
        let signature = two_inputs();
        let inputs = vec![
            tensor("b", DType::I64, &[2]),
            tensor("a", DType::F32, &[2, 3]),
        ];
        signature.check(&inputs).unwrap();
        let names: Vec<_> = signature
            .arrange(inputs)
            .into_iter()
            .map(|input| input.name)
            .collect();
        assert_eq!(names, ["a".into(), "b".into()]);
    }

    #[test]
    fn refusals_name_the_input_and_what_was_expected() {
        let signature = two_inputs();
        let a = || tensor("a", DType::F32, &[2, 3]);
        let b = || tensor("b", DType::I64, &[2]);
        let cases = [
            (
                vec![],
                r#"input "a" is missing; the model takes a: fp32[?, 3], b: int64[?]"#,
            ),
            (
                vec![a()],
                r#"input "b" is missing; the model takes a: fp32[?, 3], b: int64[?]"#,
            ),
            (
                vec![a(), b(), tensor("c", DType::U8, &[2])],
                r#"the model has no input "c"; it takes a: fp32[?, 3], b: int64[?]"#,
            ),
            (vec![a(), b(), a()], r#"input "a" came twice"#),
            (
                vec![tensor("a", DType::F64, &[2, 3]), b()],
                "expected a: fp32[?, 3], got fp64[2, 3]",
            ),
            (
                vec![tensor("a", DType::F32, &[2, 4]), b()],
                "expected a: fp32[?, 3], got fp32[2, 4]",
            ),
            (
                vec![tensor("a", DType::F32, &[3]), b()],
                "expected a: fp32[?, 3], got fp32[3]",
            ),
            (
                vec![a(), tensor("b", DType::I64, &[3])],
                r#"all inputs share axis 0: input "a" has 2 rows, input "b" has 3"#,
            ),
            (
                vec![
                    tensor("a", DType::F32, &[0, 3]),
                    tensor("b", DType::I64, &[0]),
                ],
                r#"input "a" has no rows: axis 0 must not be 0"#,
            ),
        ];
        for (inputs, message) in cases {
            assert_eq!(refusal(&signature, &inputs), message);
        }
    }

    #[test]
    fn long_names_and_long_signatures_are_cut_in_messages() {
        let specs = (0..300)
            .map(|index| spec(&format!("in{index}"), DType::U8, &[None]))
            .collect();
        let signature = Signature {
            inputs: specs,
            outputs: vec![],
        };
        let message = refusal(&signature, &[tensor(&"ä".repeat(10_000), DType::U8, &[1])]);
        assert!(message.len() < 600, "{message}");
        assert!(message.ends_with("and 292 more"), "{message}");
    }

    #[test]
    fn unknown_inputs_take_any_names_but_agree_on_rows() {
        let signature = Signature::default();
        signature.check(&[tensor("x", DType::U8, &[2, 9])]).unwrap();
        refusal(&signature, &[]);
        refusal(&signature, &[tensor("x", DType::U8, &[])]);
        refusal(
            &signature,
            &[tensor("x", DType::U8, &[2]), tensor("y", DType::U8, &[3])],
        );
    }

    #[test]
    fn fixed_rows_and_scalars_keep_requests_apart() {
        let fixed = Signature {
            inputs: vec![spec("x", DType::U8, &[Some(2), None])],
            outputs: vec![],
        };
        assert_eq!((fixed.fixed_rows(), fixed.is_batchable()), (Some(2), false));
        fixed.check(&[tensor("x", DType::U8, &[2, 5])]).unwrap();
        assert_eq!(
            refusal(&fixed, &[tensor("x", DType::U8, &[1, 5])]),
            "expected x: uint8[2, ?], got uint8[1, 5]"
        );
        let scalar = Signature {
            inputs: vec![spec("x", DType::U8, &[None]), spec("t", DType::F32, &[])],
            outputs: vec![],
        };
        assert_eq!((scalar.fixed_rows(), scalar.is_batchable()), (None, false));
        scalar
            .check(&[tensor("x", DType::U8, &[2]), tensor("t", DType::F32, &[])])
            .unwrap();
        assert!(two_inputs().is_batchable() && Signature::default().is_batchable());
    }

    #[test]
    fn outputs_must_keep_the_rows_of_the_batch() {
        let signature = two_inputs();
        signature
            .check_outputs(3, &[tensor("y", DType::U8, &[3, 2])])
            .unwrap();
        for shape in [&[1, 2][..], &[]] {
            let error = signature
                .check_outputs(3, &[tensor("y", DType::U8, shape)])
                .unwrap_err();
            assert_eq!(error.kind(), Kind::InferenceFailed);
            assert!(
                error.message().contains(r#"output "y" is uint8"#),
                "{error}"
            );
        }
    }

    #[test]
    fn declarations_are_confirmed_by_the_model() {
        let signature = two_inputs();
        let declare = |spec| Declared {
            inputs: vec![spec],
            outputs: vec![],
        };
        signature
            .confirm(&declare(spec("a", DType::F32, &[None, None])))
            .unwrap();
        for wrong in [
            spec("z", DType::F32, &[None, Some(3)]),
            spec("a", DType::F64, &[None, Some(3)]),
            spec("a", DType::F32, &[None, Some(4)]),
            spec("a", DType::F32, &[None]),
        ] {
            assert!(signature.confirm(&declare(wrong)).is_err());
        }
    }
}
