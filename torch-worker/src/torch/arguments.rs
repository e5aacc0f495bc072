//! The arguments of `forward` as named tensors.
//!
//! Owns what each argument is made of, what inputs the model takes because of that, and how a declaration adds to them. A
//! tensor has the argument's name. An `int`, `float`, `bool` or `str` is a tensor of rank 0, a list of those one of rank 1.
//! Members of a tuple are `argument.0`, `argument.1`, or the names of fields; so are those of a list of tensors, of which
//! there may be any number. What has a default, or may be `None`, may be left out.

use lantern::backend::BackendError;
use lantern::model::{Arity, TensorSpec};
use lantern::tensor::{DType, NamedTensor, Tensor};

use super::shim::{self, Call, Element, Plain, Type};
use super::{dtype_number, infer_failure};

/// How the arguments of one module are made.
#[derive(Debug)]
pub(super) struct Arguments {
    arguments: Vec<Argument>,
    inputs: Vec<Input>,
}

#[derive(Debug)]
struct Argument {
    index: usize,
    form: Form,
    absent: Absent,
}

/// What becomes of an argument whose tensors are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// It cannot be left out.
    Refused,
    /// Its default.
    Default,
    /// `None`.
    None,
}

/// What an argument is made of; names are those of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// One value.
    Value(String, Value),
    /// A list of plain values: one tensor of rank 1.
    Row(String, Element),
    /// A list of tensors, each by its own name.
    Many(String),
    /// Each member by its own name.
    Tuple(Vec<Self>),
    /// `None`, unless it is given.
    Maybe(Box<Self>),
    /// `None`.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Tensor,
    Int,
    Float,
    Bool,
    Str,
    Number,
}

/// An input, and which dtypes and ranks a declaration may give it.
#[derive(Debug)]
struct Input {
    spec: TensorSpec,
    takes: Takes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Tensor,
    Scalar(Value),
    Row(Element),
}

const INTEGERS: [DType; 8] = [
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U64,
    DType::U32,
    DType::U16,
    DType::U8,
];

impl Arguments {
    /// Reads a module's schema. An argument that no tensor can stand for is left to its default; the error names one that has
    /// no default.
    pub(super) fn of(schema: &[shim::Argument]) -> Result<Self, String> {
        let mut arguments = Vec::new();
        let mut inputs = Vec::new();
        for (index, argument) in schema.iter().enumerate() {
            let Some(argument) = Argument::of(index, argument)? else {
                continue;
            };
            argument
                .form
                .list(argument.absent != Absent::Refused, &mut inputs);
            arguments.push(argument);
        }
        Ok(Self { arguments, inputs })
    }

    /// The model's inputs, with what was declared of them. The error says which declaration contradicts the schema.
    pub(super) fn declared(&self, declared: &[TensorSpec]) -> Result<Vec<TensorSpec>, String> {
        if let Some(unknown) = declared
            .iter()
            .find(|spec| self.input(&spec.name).is_none())
        {
            return Err(format!(
                "input {unknown} is declared, but forward takes {}: declare inputs by the names of its arguments",
                self.taken()
            ));
        }
        self.inputs
            .iter()
            .map(|input| input.declared(declared))
            .collect()
    }

    /// Makes the arguments of one call.
    pub(super) fn fill(
        &self,
        call: &mut Call<'_>,
        inputs: &[NamedTensor],
    ) -> Result<(), BackendError> {
        let mut filler = Filler { call, inputs };
        self.arguments
            .iter()
            .try_for_each(|argument| filler.fill(argument))
    }

    fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| *input.spec.name == *name)
    }

    fn taken(&self) -> String {
        let specs = self.inputs.iter().map(|input| input.spec.to_string());
        let specs: Vec<_> = specs.collect();
        if specs.is_empty() {
            "nothing".to_owned()
        } else {
            specs.join(", ")
        }
    }
}

impl Argument {
    fn of(index: usize, argument: &shim::Argument) -> Result<Option<Self>, String> {
        let (kind, may_be_none) = match &argument.kind {
            Type::Optional(kind) => (&**kind, true),
            kind => (kind, false),
        };
        let absent = match (argument.has_default, may_be_none) {
            (true, _) => Absent::Default,
            (false, true) => Absent::None,
            (false, false) => Absent::Refused,
        };
        let form = match (Form::of(&argument.name, kind), absent) {
            (Some(form), _) => form,
            (None, Absent::Default) => return Ok(None),
            (None, Absent::None) => Form::Nothing,
            (None, Absent::Refused) => return Err(unserved(argument)),
        };
        Ok(Some(Self {
            index,
            form,
            absent,
        }))
    }
}

fn unserved(argument: &shim::Argument) -> String {
    format!(
        "forward's argument {:?} is {}, which no tensor can stand for, and has no default: wrap the module in one that takes \
         tensors, numbers, booleans, strings, or lists and tuples of them",
        argument.name, argument.kind
    )
}

impl std::fmt::Display for Type {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tensor => formatter.write_str("Tensor"),
            Self::Int => formatter.write_str("int"),
            Self::Float => formatter.write_str("float"),
            Self::Bool => formatter.write_str("bool"),
            Self::Str => formatter.write_str("str"),
            Self::Number => formatter.write_str("number"),
            Self::None => formatter.write_str("None"),
            Self::Optional(kind) => write!(formatter, "Optional[{kind}]"),
            Self::List(kind) => write!(formatter, "List[{kind}]"),
            Self::Tuple(members) => {
                let members = members.iter().map(|(_, kind)| kind.to_string());
                write!(
                    formatter,
                    "Tuple[{}]",
                    members.collect::<Vec<_>>().join(", ")
                )
            }
            Self::Other(text) => formatter.write_str(text),
        }
    }
}

impl Form {
    /// What a value of that type is made of; `None` if no tensors can stand for it.
    fn of(name: &str, kind: &Type) -> Option<Self> {
        let name = || name.to_owned();
        Some(match kind {
            Type::Tensor => Self::Value(name(), Value::Tensor),
            Type::Int => Self::Value(name(), Value::Int),
            Type::Float => Self::Value(name(), Value::Float),
            Type::Bool => Self::Value(name(), Value::Bool),
            Type::Str => Self::Value(name(), Value::Str),
            Type::Number => Self::Value(name(), Value::Number),
            Type::Optional(kind) => Self::Maybe(Box::new(Self::of(&name(), kind)?)),
            Type::List(kind) => match &**kind {
                Type::Tensor => Self::Many(name()),
                Type::Int => Self::Row(name(), Element::Int),
                Type::Float => Self::Row(name(), Element::Float),
                Type::Bool => Self::Row(name(), Element::Bool),
                Type::Str => Self::Row(name(), Element::Str),
                Type::Number
                | Type::None
                | Type::Optional(_)
                | Type::List(_)
                | Type::Tuple(_)
                | Type::Other(_) => return None,
            },
            Type::Tuple(members) => Self::tuple(&name(), members)?,
            Type::None | Type::Other(_) => return None,
        })
    }

    fn tuple(name: &str, members: &[(Option<String>, Type)]) -> Option<Self> {
        let member = |(index, (field, kind)): (usize, &(Option<String>, Type))| {
            let label = field.clone().unwrap_or_else(|| index.to_string());
            Self::of(&format!("{name}.{label}"), kind)
        };
        let members = members.iter().enumerate().map(member);
        members.collect::<Option<_>>().map(Self::Tuple)
    }

    /// Adds the inputs that it is made of.
    fn list(&self, is_optional: bool, inputs: &mut Vec<Input>) {
        let arity = if is_optional {
            Arity::Optional
        } else {
            Arity::One
        };
        match self {
            Self::Value(name, value) => inputs.push(Input {
                spec: value.spec(name, arity),
                takes: value.takes(),
            }),
            Self::Row(name, element) => inputs.push(Input {
                spec: row_spec(name, *element, arity),
                takes: Takes::Row(*element),
            }),
            Self::Many(name) => inputs.push(Input {
                spec: Value::Tensor.spec(name, Arity::Many),
                takes: Takes::Tensor,
            }),
            Self::Tuple(members) => members
                .iter()
                .for_each(|member| member.list(is_optional, inputs)),
            Self::Maybe(form) => form.list(true, inputs),
            Self::Nothing => {}
        }
    }

    fn is_given(&self, inputs: &[NamedTensor]) -> bool {
        match self {
            Self::Value(name, _) | Self::Row(name, _) => find(inputs, name).is_some(),
            Self::Many(name) => find(inputs, &format!("{name}.0")).is_some(),
            Self::Tuple(members) => members.iter().any(|member| member.is_given(inputs)),
            Self::Maybe(form) => form.is_given(inputs),
            Self::Nothing => false,
        }
    }
}

impl Value {
    fn spec(self, name: &str, arity: Arity) -> TensorSpec {
        let (dtype, shape) = match self {
            Self::Tensor => (None, None),
            Self::Int => (Some(DType::I64), Some(Vec::new())),
            Self::Float => (Some(DType::F64), Some(Vec::new())),
            Self::Bool => (Some(DType::Bool), Some(Vec::new())),
            Self::Str => (Some(DType::Bytes), Some(Vec::new())),
            Self::Number => (None, Some(Vec::new())),
        };
        TensorSpec {
            name: name.into(),
            dtype,
            shape,
            arity,
        }
    }

    const fn takes(self) -> Takes {
        match self {
            Self::Tensor => Takes::Tensor,
            scalar => Takes::Scalar(scalar),
        }
    }

    /// The name of the type in TorchScript.
    const fn name(self) -> &'static str {
        match self {
            Self::Tensor => "Tensor",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Str => "str",
            Self::Number => "number",
        }
    }

    /// Whether a tensor of `dtype` can stand for it.
    fn accepts(self, dtype: DType) -> bool {
        let is_float = matches!(dtype, DType::F32 | DType::F64);
        match self {
            Self::Tensor => dtype != DType::Bytes,
            Self::Int => INTEGERS.contains(&dtype),
            Self::Float => is_float,
            Self::Bool => dtype == DType::Bool,
            Self::Str => dtype == DType::Bytes,
            Self::Number => is_float || INTEGERS.contains(&dtype),
        }
    }
}

const fn value_of(element: Element) -> Value {
    match element {
        Element::Tensor => Value::Tensor,
        Element::Int => Value::Int,
        Element::Float => Value::Float,
        Element::Bool => Value::Bool,
        Element::Str => Value::Str,
    }
}

fn row_spec(name: &str, element: Element, arity: Arity) -> TensorSpec {
    TensorSpec {
        shape: Some(vec![None]),
        ..value_of(element).spec(name, arity)
    }
}

impl Input {
    fn declared(&self, declared: &[TensorSpec]) -> Result<TensorSpec, String> {
        let Some(said) = declared.iter().find(|said| said.name == self.spec.name) else {
            if declared.is_empty() || self.spec.arity != Arity::One {
                return Ok(self.spec.clone());
            }
            return Err(format!(
                "input {} is not declared, but forward requires it: declare all of its arguments, or none",
                self.spec
            ));
        };
        if let Some(problem) = self.problem(said) {
            return Err(format!("input {said} is declared, but {problem}"));
        }
        Ok(TensorSpec {
            arity: self.spec.arity,
            ..said.clone()
        })
    }

    /// Why a declaration contradicts the schema.
    fn problem(&self, said: &TensorSpec) -> Option<String> {
        let accepts = |value: Value| said.dtype.is_none_or(|dtype| value.accepts(dtype));
        let axes = said.shape.as_deref();
        match self.takes {
            Takes::Tensor if !accepts(Value::Tensor) => {
                Some("TorchScript has no tensors of strings".to_owned())
            }
            Takes::Tensor => None,
            Takes::Scalar(value) => {
                let is_one = axes.is_none_or(|axes| matches!(axes, [] | [Some(1)]));
                (!accepts(value) || !is_one).then(|| {
                    format!(
                        "the argument is one {}: {} of shape [] (or [1]) stands for it",
                        value.name(),
                        standing_for(value)
                    )
                })
            }
            Takes::Row(element) => {
                let value = value_of(element);
                let is_row = axes.is_none_or(|axes| axes.len() == 1);
                (!accepts(value) || !is_row).then(|| {
                    format!(
                        "the argument is a list of {}: {} of rank 1 stands for it",
                        value.name(),
                        standing_for(value)
                    )
                })
            }
        }
    }
}

const fn standing_for(value: Value) -> &'static str {
    match value {
        Value::Tensor => "any dtype",
        Value::Int => "an integer dtype",
        Value::Float => "fp32 or fp64",
        Value::Bool => "boolean",
        Value::Str => "bytes",
        Value::Number => "an integer dtype, fp32 or fp64",
    }
}

/// Puts the tensors of one request where their arguments are.
struct Filler<'c, 'm, 'i> {
    call: &'c mut Call<'m>,
    inputs: &'i [NamedTensor],
}

impl<'i> Filler<'_, '_, 'i> {
    fn fill(&mut self, argument: &Argument) -> Result<(), BackendError> {
        if argument.form.is_given(self.inputs) || argument.absent == Absent::Refused {
            self.push(&argument.form)?;
        } else if argument.absent == Absent::None {
            self.call.push_none().map_err(infer_failure)?;
        } else {
            return Ok(());
        }
        self.call
            .take_argument(argument.index)
            .map_err(infer_failure)
    }

    fn push(&mut self, form: &Form) -> Result<(), BackendError> {
        match form {
            Form::Value(name, Value::Tensor) => {
                let tensor = self.required(name)?;
                self.push_tensor(name, tensor)
            }
            Form::Value(name, value) => {
                let tensor = self.required(name)?;
                let element = only_element(tensor)
                    .ok_or_else(|| misfit(name, &format!("one {}", value.name()), tensor))?;
                self.push_scalar(name, *value, tensor, element)
            }
            Form::Row(name, element) => self.push_row(name, *element),
            Form::Many(name) => self.push_many(name),
            Form::Tuple(members) => {
                members.iter().try_for_each(|member| self.push(member))?;
                self.call.pack_tuple(members.len()).map_err(infer_failure)
            }
            Form::Maybe(form) if form.is_given(self.inputs) => self.push(form),
            Form::Maybe(_) | Form::Nothing => self.call.push_none().map_err(infer_failure),
        }
    }

    fn push_tensor(&mut self, name: &str, tensor: &Tensor) -> Result<(), BackendError> {
        if tensor.dtype() == DType::Bytes {
            return Err(misfit(
                name,
                "a tensor, of which there are none of strings",
                tensor,
            ));
        }
        let shape = tensor.shape().iter();
        let shape = shape.map(|axis| i64::try_from(*axis).unwrap_or(i64::MAX));
        let shape: Vec<_> = shape.collect();
        let plain = Plain {
            dtype: dtype_number(tensor.dtype()),
            shape: &shape,
            data: tensor.data(),
        };
        self.call.push_tensor(plain).map_err(infer_failure)
    }

    fn push_row(&mut self, name: &str, element: Element) -> Result<(), BackendError> {
        let tensor = self.required(name)?;
        if tensor.shape().len() != 1 {
            return Err(misfit(name, "a list, of rank 1", tensor));
        }
        for bytes in elements(tensor) {
            self.push_scalar(name, value_of(element), tensor, bytes)?;
        }
        let count = tensor.elements();
        self.call.pack_list(count, element).map_err(infer_failure)
    }

    fn push_many(&mut self, name: &str) -> Result<(), BackendError> {
        let mut count = 0;
        loop {
            let member = format!("{name}.{count}");
            let Some(tensor) = find(self.inputs, &member) else {
                break;
            };
            self.push_tensor(&member, tensor)?;
            count += 1;
        }
        self.call
            .pack_list(count, Element::Tensor)
            .map_err(infer_failure)
    }

    fn push_scalar(
        &mut self,
        name: &str,
        value: Value,
        tensor: &Tensor,
        bytes: &[u8],
    ) -> Result<(), BackendError> {
        let dtype = tensor.dtype();
        let pushed = match (value, integer(dtype, bytes), float(dtype, bytes)) {
            (Value::Int | Value::Number, Some(integer), _) => self.call.push_int(integer),
            (Value::Float | Value::Number, _, Some(float)) => self.call.push_float(float),
            (Value::Bool, ..) if dtype == DType::Bool => self.call.push_bool(bytes != [0]),
            (Value::Str, ..) if dtype == DType::Bytes => self.call.push_str(bytes),
            _ => return Err(misfit(name, standing_for(value), tensor)),
        };
        pushed.map_err(infer_failure)
    }

    fn required(&self, name: &str) -> Result<&'i Tensor, BackendError> {
        let missing = || BackendError::Input(format!("input {name:?} is missing"));
        find(self.inputs, name).ok_or_else(missing)
    }
}

fn misfit(name: &str, wanted: &str, tensor: &Tensor) -> BackendError {
    BackendError::Input(format!(
        "input {name:?} must be {wanted}, got {}{:?}",
        tensor.dtype(),
        tensor.shape()
    ))
}

fn find<'i>(inputs: &'i [NamedTensor], name: &str) -> Option<&'i Tensor> {
    let input = inputs.iter().find(|input| *input.name == *name);
    input.map(|input| &input.tensor)
}

/// The element of a tensor that has one and no more than one axis.
fn only_element(tensor: &Tensor) -> Option<&[u8]> {
    let is_one = tensor.elements() == 1 && tensor.shape().len() <= 1;
    is_one.then(|| elements(tensor).next()).flatten()
}

fn elements(tensor: &Tensor) -> Box<dyn Iterator<Item = &[u8]> + '_> {
    match tensor.dtype().size() {
        Some(size) => Box::new(tensor.data().chunks_exact(size)),
        None => Box::new(tensor.strings()),
    }
}

/// An element as an integer; `None` if its dtype is no integer, or if it does not fit into TorchScript's `int`.
fn integer(dtype: DType, bytes: &[u8]) -> Option<i64> {
    let little = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    Some(match dtype {
        DType::I8 => i64::from(i8::from_le_bytes(bytes.try_into().ok()?)),
        DType::I16 => i64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        DType::I32 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        DType::I64 => i64::from_le_bytes(bytes.try_into().ok()?),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => i64::try_from(little(bytes)).ok()?,
        _ => return None,
    })
}

fn float(dtype: DType, bytes: &[u8]) -> Option<f64> {
    match dtype {
        DType::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        DType::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
