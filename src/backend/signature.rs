//! What a model takes and gives, and whether tensors agree with it.
//!
//! Checks here speak to clients: messages name the input, what was expected and what came. They know nothing of
//! frameworks. What may be stacked along axis 0 is only gathered here as evidence: `runtime::batching` decides.

use std::fmt::Write as _;

use crate::error::{Error, Kind};
use crate::model::{Arity, Declared, TensorSpec};
use crate::tensor::{NamedTensor, Tensor};

/// Specs listed in one message; a model may have hundreds.
const LISTED: usize = 8;
/// Characters of a foreign name repeated in a message.
const NAME_SHOWN: usize = 64;

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
    /// Nothing speaks against it, and too little for it.
    #[default]
    Unknown,
    /// Every input and output has an axis 0 that varies, of one name or as declared. Necessary, not sufficient.
    Shared,
    /// It is not; the reason completes "off: ".
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

/// Of a model that says nothing of itself.
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
    let name = shown(&spec.name);
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
            shown(&first.name),
            shown(axis),
            shown(&spec.name),
            shown(other)
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
    pub fn check_names(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
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
            shown(name),
            self.taken()
        ))
    }

    fn missing(&self, name: &str) -> Error {
        invalid(format!(
            "input {} is missing; the model takes {}",
            shown(name),
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
        Some((_, input)) => Err(invalid(format!("input {} came twice", shown(&input.name)))),
    }
}

fn check_spec(spec: &TensorSpec, input: &NamedTensor) -> Result<(), Error> {
    let tensor = &input.tensor;
    if spec.dtype.is_none_or(|dtype| dtype == tensor.dtype())
        && fits(spec.shape.as_deref(), tensor.shape())
    {
        return Ok(());
    }
    let member = spec
        .member(&input.name)
        .map(|_| format!("input {}: ", shown(&input.name)));
    Err(invalid(format!(
        "{}expected {spec}, got {}",
        member.unwrap_or_default(),
        described(tensor)
    )))
}

fn fits(spec: Option<&[Option<usize>]>, shape: &[usize]) -> bool {
    let Some(spec) = spec else {
        return true;
    };
    let fits = |(expected, actual): (&Option<usize>, &usize)| {
        expected.is_none_or(|expected| expected == *actual)
    };
    spec.len() == shape.len() && spec.iter().zip(shape).all(fits)
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

/// Whether two accounts of one input or output can both be true.
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
        TensorSpec::new(name, dtype, shape.to_vec())
    }

    fn of(inputs: Vec<TensorSpec>) -> Signature {
        Signature {
            inputs,
            ..Signature::default()
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
            ..Signature::default()
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
            ..Signature::default()
        };
        let message = refusal(&signature, &[tensor(&"ä".repeat(10_000), DType::U8, &[1])]);
        assert!(message.len() < 600, "{message}");
        assert!(message.ends_with("and 292 more"), "{message}");
    }

    #[test]
    fn unknown_inputs_take_anything_and_no_inputs_take_nothing() {
        let unknown = Signature::default();
        unknown.check(&[]).unwrap();
        unknown
            .check(&[tensor("x", DType::U8, &[]), tensor("y", DType::U8, &[0, 9])])
            .unwrap();
        let x = || tensor("x", DType::U8, &[1]);
        assert_eq!(refusal(&unknown, &[x(), x()]), r#"input "x" came twice"#);
        let none = Signature {
            is_open: false,
            ..Signature::default()
        };
        none.check(&[]).unwrap();
        assert_eq!(
            refusal(&none, &[x()]),
            r#"the model has no input "x"; it takes none"#
        );
    }

    #[test]
    fn optional_inputs_may_be_left_out_and_lists_have_no_gaps() {
        let with = |arity, name| TensorSpec {
            arity,
            ..spec(name, DType::U8, &[None])
        };
        let signature = of(vec![with(Arity::Many, "xs"), with(Arity::Optional, "o")]);
        let t = |name| tensor(name, DType::U8, &[1]);
        signature.check(&[]).unwrap();
        signature.check(&[t("o"), t("xs.1"), t("xs.0")]).unwrap();
        let names: Vec<_> = signature.arrange(vec![t("o"), t("xs.1"), t("xs.0")]);
        let names: Vec<_> = names.iter().map(|input| &*input.name).collect();
        assert_eq!(names, ["xs.0", "xs.1", "o"]);
        assert!(
            refusal(&signature, &[t("xs.0"), t("xs.2")]).starts_with(r#"input "xs.1" is missing"#)
        );
        assert!(refusal(&signature, &[t("xs")]).starts_with(r#"the model has no input "xs""#));
        let wrong = refusal(&signature, &[tensor("xs.0", DType::F32, &[1])]);
        assert_eq!(
            wrong,
            r#"input "xs.0": expected xs: uint8[?] (list), got fp32[1]"#
        );
    }

    #[test]
    fn only_requests_with_rows_in_common_add_rows_to_a_batch() {
        let optional = TensorSpec {
            arity: Arity::Optional,
            ..spec("o", DType::U8, &[None])
        };
        let signature = of(vec![
            spec("a", DType::U8, &[None]),
            spec("b", DType::U8, &[None]),
            optional,
        ]);
        let t = |name, shape: &[usize]| tensor(name, DType::U8, shape);
        assert_eq!(signature.rows(&[t("a", &[2]), t("b", &[2])]), Some(2));
        for apart in [
            vec![],
            vec![t("a", &[2]), t("b", &[3])],
            vec![t("a", &[0]), t("b", &[0])],
            vec![t("a", &[]), t("b", &[])],
            vec![t("a", &[2]), t("b", &[2]), t("o", &[2])],
        ] {
            assert_eq!(signature.rows(&apart), None, "{apart:?}");
        }
    }

    #[test]
    fn evidence_on_axis_0_comes_from_shapes_and_names() {
        let free = spec("x", DType::U8, &[None, Some(2)]);
        let unknown = TensorSpec {
            shape: None,
            ..free.clone()
        };
        let list = TensorSpec {
            arity: Arity::Many,
            ..free.clone()
        };
        let optional = TensorSpec {
            arity: Arity::Optional,
            ..spec("w", DType::U8, &[Some(4)])
        };
        let fixed = spec("y", DType::U8, &[Some(2), None]);
        let scalar = spec("y", DType::U8, &[]);
        let judge = |inputs: &[NamedAxis<'_>], outputs: &[NamedAxis<'_>]| {
            Axis0::judge(inputs, outputs, false)
        };
        let n = Some("N");
        assert_eq!(judge(&[(&free, n)], &[(&free, n)]), Axis0::Shared);
        assert_eq!(
            judge(&[(&free, n), (&optional, None)], &[(&free, n)]),
            Axis0::Shared
        );
        assert_eq!(
            Axis0::judge(&[(&free, Some("A"))], &[(&free, None)], true),
            Axis0::Shared
        );
        for (inputs, outputs) in [
            (vec![(&free, None)], vec![(&free, None)]),
            (vec![(&free, n)], vec![(&free, None)]),
            (vec![(&unknown, None)], vec![(&free, n)]),
            (vec![(&free, n)], vec![]),
            (vec![], vec![]),
        ] {
            assert_eq!(judge(&inputs, &outputs), Axis0::Unknown);
        }
        for (inputs, outputs, says) in [
            (
                vec![(&free, n)],
                vec![(&free, Some("M"))],
                "is called \"N\"",
            ),
            (
                vec![(&free, n)],
                vec![(&fixed, None)],
                "axis 0 of output \"y\" is always 2",
            ),
            (
                vec![(&free, n)],
                vec![(&scalar, None)],
                "output \"y\" has no axis 0",
            ),
            (vec![(&scalar, None)], vec![], "input \"y\" has no axis 0"),
            (vec![(&list, None)], vec![], "is not always one tensor"),
        ] {
            let Axis0::Refuted(reason) = judge(&inputs, &outputs) else {
                panic!("not refuted: {says}");
            };
            assert!(reason.contains(says), "{reason}");
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
