//! What a model file says of its inputs and outputs, read before ONNX Runtime reads the file.
//!
//! The file is asked for what ONNX Runtime's API cannot tell: a tensor without a shape and a scalar look the same there.
//! And types that are not served are refused here, by name, since `ort` has no values for some of them and panics.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::Path;

use super::super::Signature;
use super::value;
use super::wire::{Content, Walker, WireError};
use crate::model::{Declared, TensorSpec};
use crate::tensor::{DType, MAX_RANK};

/// How deep types may be nested; those that are served have three levels.
const MAX_DEPTH: usize = 8;
/// Bytes of a name, so that what is made of it fits a handshake.
const MAX_NAME: usize = 4000;
/// Bytes of an initializer's name, which is not reported.
const MAX_INITIALIZER_NAME: usize = 1 << 20;

/// What the file says of its inputs and outputs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    /// Names of inputs whose tensors have no shape in the file, so that their rank is unknown.
    pub(super) unranked_inputs: HashSet<String>,
    /// The same of outputs.
    pub(super) unranked_outputs: HashSet<String>,
    /// The inputs that are tensors.
    pub(super) tensors: Vec<TensorSpec>,
    /// Whether all inputs are.
    is_all_tensors: bool,
}

impl Interface {
    /// Checks that inputs which the owner declared are those of the file; the text names the difference. Of outputs the file
    /// need not say the whole truth.
    pub(super) fn confirm(&self, declared: &Declared) -> Result<(), String> {
        let is_tensor = |spec: &&TensorSpec| self.tensors.iter().any(|own| own.name == spec.name);
        let known = declared.inputs.iter();
        let known = known.filter(|spec| self.is_all_tensors || is_tensor(spec));
        let signature = Signature {
            inputs: self.tensors.clone(),
            ..Signature::default()
        };
        signature.confirm(&Declared {
            inputs: known.cloned().collect(),
            outputs: Vec::new(),
        })
    }
}

/// Why a model file is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum InterfaceError {
    /// Not a model.
    #[error("the model file {0}")]
    Wire(#[from] WireError),
    /// An input or output that is not served.
    #[error("{what} {name:?} {reason}")]
    Value {
        /// `input` or `output`.
        what: Direction,
        /// Its name.
        name: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

/// Whether a value goes into the graph or comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Input,
    Output,
}

impl fmt::Display for Direction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// A `TypeProto`. Elements are numbers of `TensorProto.DataType`.
#[derive(Debug, PartialEq, Eq)]
enum Type {
    Tensor {
        element: u64,
        shape: Option<Shape>,
    },
    Sequence(Box<Type>),
    Map {
        key: u64,
        value: Box<Type>,
    },
    Optional(Box<Type>),
    SparseTensor,
    Opaque,
    /// The file has no type. ONNX Runtime infers that of an output and refuses such an input.
    Missing,
}

/// A `TensorShapeProto`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    rank: usize,
    /// The sizes of the axes that are served, `None` where they vary.
    sizes: Vec<Option<usize>>,
}

/// A `ValueInfoProto`.
struct Value {
    name: String,
    kind: Type,
}

/// Reads the model file `artifact`.
pub(super) fn read(artifact: &Path) -> Result<Interface, InterfaceError> {
    let file = File::open(artifact).map_err(WireError::Read)?;
    let length = file.metadata().map_err(WireError::Read)?.len();
    read_from(BufReader::new(file), length)
}

pub(super) fn read_from(
    reader: impl BufRead + Seek,
    length: u64,
) -> Result<Interface, InterfaceError> {
    let mut read = Reader {
        walker: Walker::new(reader),
        inputs: Vec::new(),
        outputs: Vec::new(),
        initializers: HashSet::new(),
    };
    read.model(length)?;
    // An initializer that is an input as well has a value already, so a type that is not served only means that no request
    // can replace it.
    let is_needed = |input: &Value| {
        let is_served = input.kind.check(Direction::Input).is_ok();
        is_served || !read.initializers.contains(&input.name)
    };
    read.inputs.retain(is_needed);
    let tensors: Vec<_> = read.inputs.iter().filter_map(Value::spec).collect();
    Ok(Interface {
        is_all_tensors: tensors.len() == read.inputs.len(),
        tensors,
        unranked_inputs: unranked(Direction::Input, read.inputs)?,
        unranked_outputs: unranked(Direction::Output, read.outputs)?,
    })
}

/// Checks that all of `values` are served, and keeps the names of those whose rank is unknown.
fn unranked(what: Direction, values: Vec<Value>) -> Result<HashSet<String>, InterfaceError> {
    let mut names = HashSet::new();
    for Value { name, kind } in values {
        if let Err(reason) = kind.check(what) {
            return Err(InterfaceError::Value { what, name, reason });
        }
        if kind.is_unranked() {
            names.insert(name);
        }
    }
    Ok(names)
}

impl Value {
    /// What a tensor is in the file, optional or not; `None` of others.
    fn spec(&self) -> Option<TensorSpec> {
        let kind = match &self.kind {
            Type::Optional(inner) => &**inner,
            other => other,
        };
        let Type::Tensor { element, shape } = kind else {
            return None;
        };
        let dtype = value::dtype_of_number(*element)?;
        Some(TensorSpec {
            shape: shape.as_ref().map(|shape| shape.sizes.clone()),
            ..TensorSpec::new(&*self.name, dtype, Vec::new())
        })
    }
}

impl Type {
    /// Whether it is served; the text says why not and what to do.
    fn check(&self, what: Direction) -> Result<(), String> {
        match self {
            Self::Missing => Ok(()),
            Self::Tensor { element, shape } => {
                check_element(*element).and(check_rank(shape.as_ref().map(|shape| shape.rank)))
            }
            Self::Optional(inner) if inner.may_be_optional() => inner.check(what),
            Self::Sequence(inner) if inner.may_be_in_sequence(what) => inner.check(what),
            Self::Map { key, value } if matches!(**value, Self::Tensor { .. }) => {
                check_element(*key).and(value.check(what))
            }
            Self::SparseTensor => Err("is a sparse tensor, which is not served: \
                 make it dense inside the graph"
                .to_owned()),
            Self::Opaque => Err("is of an opaque type, which is not served: \
                 take or give tensors instead"
                .to_owned()),
            Self::Sequence(_) | Self::Map { .. } | Self::Optional(_) => Err(format!(
                "is of {self}, which is not served: tensors are, sequences and maps of them, optional tensors and \
                 sequences, and as an output a sequence of maps"
            )),
        }
    }

    fn may_be_optional(&self) -> bool {
        match self {
            Self::Tensor { .. } => true,
            Self::Sequence(inner) => matches!(**inner, Self::Tensor { .. }),
            Self::Map { .. }
            | Self::Optional(_)
            | Self::SparseTensor
            | Self::Opaque
            | Self::Missing => false,
        }
    }

    fn may_be_in_sequence(&self, what: Direction) -> bool {
        match self {
            Self::Tensor { .. } => true,
            Self::Map { .. } => what == Direction::Output,
            Self::Sequence(_)
            | Self::Optional(_)
            | Self::SparseTensor
            | Self::Opaque
            | Self::Missing => false,
        }
    }

    /// Whether it is a tensor, optional or not, without a shape.
    fn is_unranked(&self) -> bool {
        match self {
            Self::Tensor { shape, .. } => shape.is_none(),
            Self::Optional(inner) => inner.is_unranked(),
            Self::Missing => true,
            Self::Sequence(_) | Self::Map { .. } | Self::SparseTensor | Self::Opaque => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { element, .. } => write!(formatter, "tensor({})", name(*element)),
            Self::Sequence(inner) => write!(formatter, "seq({inner})"),
            Self::Map { key, value } => write!(formatter, "map({},{value})", name(*key)),
            Self::Optional(inner) => write!(formatter, "optional({inner})"),
            Self::SparseTensor => formatter.write_str("sparse_tensor"),
            Self::Opaque => formatter.write_str("opaque"),
            Self::Missing => formatter.write_str("no type"),
        }
    }
}

fn check_element(element: u64) -> Result<(), String> {
    if value::dtype_of_number(element).is_some() {
        return Ok(());
    }
    Err(unserved(name(element)))
}

/// Why tensors of elements called `name` are refused.
pub(super) fn unserved(name: &str) -> String {
    let served: Vec<_> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
    format!(
        "is of {name}, which is not served: cast it inside the graph, to one of {}",
        served.join(", ")
    )
}

fn check_rank(rank: Option<usize>) -> Result<(), String> {
    match rank {
        Some(rank) if rank > MAX_RANK => Err(too_many_axes(rank)),
        _ => Ok(()),
    }
}

/// Why tensors of so many axes are refused.
pub(super) fn too_many_axes(rank: usize) -> String {
    format!("has {rank} axes, the most are {MAX_RANK}: reshape it inside the graph")
}

/// What ONNX calls an element type.
fn name(element: u64) -> &'static str {
    const NAMES: [&str; 27] = [
        "undefined",
        "float",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "double",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
    ];
    let index = usize::try_from(element).ok();
    index
        .and_then(|index| NAMES.get(index))
        .unwrap_or(&"an unknown element type")
}

struct Reader<R> {
    walker: Walker<R>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// Names.
    initializers: HashSet<String>,
}

/// Field numbers are those of `onnx.proto`.
impl<R: BufRead + Seek> Reader<R> {
    fn model(&mut self, end: u64) -> Result<(), WireError> {
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (7, Content::Until(end)) => self.graph(end)?,
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(())
    }

    fn graph(&mut self, end: u64) -> Result<(), WireError> {
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (11, Content::Until(end)) => {
                    let value = self.value(end)?;
                    self.inputs.push(value);
                }
                (12, Content::Until(end)) => {
                    let value = self.value(end)?;
                    self.outputs.push(value);
                }
                (5, Content::Until(end)) => self.initializer(end)?,
                (15, Content::Until(end)) => self.sparse_initializer(end)?,
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(())
    }

    fn initializer(&mut self, end: u64) -> Result<(), WireError> {
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (8, Content::Until(end)) => {
                    let name = self.walker.bytes(end, MAX_INITIALIZER_NAME)?;
                    let name = String::from_utf8_lossy(&name).into_owned();
                    self.initializers.insert(name);
                }
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(())
    }

    /// A sparse initializer has the name of its values.
    fn sparse_initializer(&mut self, end: u64) -> Result<(), WireError> {
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (1, Content::Until(end)) => self.initializer(end)?,
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(())
    }

    fn value(&mut self, end: u64) -> Result<Value, WireError> {
        let (mut name, mut kind) = (None, None);
        while let Some(field) = self.walker.next_field(end)? {
            let is_repeated = match (field.number, field.content) {
                (1, Content::Until(end)) => name.replace(self.name(end)?).is_some(),
                (2, Content::Until(end)) => kind.replace(self.kind(end, 0)?).is_some(),
                (_, content) => {
                    self.walker.skip(content)?;
                    false
                }
            };
            self.only_once(is_repeated)?;
        }
        Ok(Value {
            name: name.unwrap_or_default(),
            kind: kind.unwrap_or(Type::Missing),
        })
    }

    fn name(&mut self, end: u64) -> Result<String, WireError> {
        let bytes = self.walker.bytes(end, MAX_NAME)?;
        String::from_utf8(bytes).map_err(|_| self.walker.malformed("a name that is no UTF-8"))
    }

    fn kind(&mut self, end: u64, depth: usize) -> Result<Type, WireError> {
        if depth == MAX_DEPTH {
            return Err(self.walker.malformed("types nested too deeply"));
        }
        let mut kind = None;
        while let Some(field) = self.walker.next_field(end)? {
            let member = match (field.number, field.content) {
                (1, Content::Until(end)) => self.tensor(end)?,
                (4, Content::Until(end)) => Type::Sequence(Box::new(self.inner(end, depth)?)),
                (5, Content::Until(end)) => self.map(end, depth)?,
                (7, content) => self.skipped(content, Type::Opaque)?,
                (8, content) => self.skipped(content, Type::SparseTensor)?,
                (9, Content::Until(end)) => Type::Optional(Box::new(self.inner(end, depth)?)),
                (_, content) => {
                    self.walker.skip(content)?;
                    continue;
                }
            };
            self.only_once(kind.replace(member).is_some())?;
        }
        Ok(kind.unwrap_or(Type::Missing))
    }

    fn skipped(&mut self, content: Content, kind: Type) -> Result<Type, WireError> {
        self.walker.skip(content)?;
        Ok(kind)
    }

    fn tensor(&mut self, end: u64) -> Result<Type, WireError> {
        let (mut element, mut shape) = (0, None);
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (1, Content::Number(number)) => element = number,
                (2, Content::Until(end)) => {
                    let is_repeated = shape.replace(self.shape(end)?).is_some();
                    self.only_once(is_repeated)?;
                }
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(Type::Tensor { element, shape })
    }

    fn shape(&mut self, end: u64) -> Result<Shape, WireError> {
        let mut shape = Shape::default();
        while let Some(field) = self.walker.next_field(end)? {
            let size = match (field.number, field.content) {
                (1, Content::Until(end)) => self.size(end)?,
                (number, content) => {
                    self.walker.skip(content)?;
                    if number != 1 {
                        continue;
                    }
                    None
                }
            };
            shape.rank += 1;
            if shape.rank <= MAX_RANK {
                shape.sizes.push(size);
            }
        }
        Ok(shape)
    }

    /// The size of an axis; `None` if it varies.
    fn size(&mut self, end: u64) -> Result<Option<usize>, WireError> {
        let mut size = None;
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (1, Content::Number(number)) => size = i64::try_from(number).ok(),
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(size.and_then(|size| usize::try_from(size).ok()))
    }

    /// The type in field 1 of a sequence or an optional.
    fn inner(&mut self, end: u64, depth: usize) -> Result<Type, WireError> {
        let mut inner = None;
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (1, Content::Until(end)) => {
                    let is_repeated = inner.replace(self.kind(end, depth + 1)?).is_some();
                    self.only_once(is_repeated)?;
                }
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(inner.unwrap_or(Type::Missing))
    }

    fn map(&mut self, end: u64, depth: usize) -> Result<Type, WireError> {
        let (mut key, mut value) = (0, None);
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (1, Content::Number(number)) => key = number,
                (2, Content::Until(end)) => {
                    let is_repeated = value.replace(self.kind(end, depth + 1)?).is_some();
                    self.only_once(is_repeated)?;
                }
                (_, content) => self.walker.skip(content)?,
            }
        }
        Ok(Type::Map {
            key,
            value: Box::new(value.unwrap_or(Type::Missing)),
        })
    }

    /// Readers of protobuf merge a message that comes twice; none that is meant to be read has one.
    fn only_once(&self, is_repeated: bool) -> Result<(), WireError> {
        if is_repeated {
            return Err(self.walker.malformed("a field that came twice"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
