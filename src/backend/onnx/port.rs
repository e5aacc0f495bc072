//! What each input and output of a graph is served as.
//!
//! Clients and handlers know tensors alone. A graph knows sequences and maps as well, and each of them has tensors that
//! stand for it:
//!
//! | in the graph | tensors |
//! |---|---|
//! | tensor `x` | `x` |
//! | optional `x` | what it holds; none where it is empty |
//! | sequence of tensors `x`, taken | `x.0`, `x.1`, … in this order; none for an empty sequence |
//! | sequence of tensors `x`, given | `x`, stacked on a new axis 0, if all have one shape; else `x.0`, `x.1`, …; a `x` of
//! shape `[0]` for an empty sequence |
//! | map `x` | `x.keys` and `x.values`, each of one axis, in the order of the keys |
//! | sequence of maps `x`, given | the sequence of their keys as `x.keys`, that of their values as `x.values` |
//!
//! So a classifier that scikit-learn exported, which gives a map for each row, gives `x.keys` and `x.values` of shape
//! `[rows, classes]`. An initializer that is an input as well is an optional input: the graph has its default.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::sync::Arc;

use ort::session::Session as OrtSession;
use ort::value::{TensorElementType, ValueType};

use super::super::{BackendError, NamedAxis};
use super::interface::{Direction, Interface, too_many_axes, unserved};
use super::value;
use crate::model::{Arity, TensorSpec};
use crate::tensor::{DType, MAX_RANK, MAX_TENSORS};

/// One input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// Its name, as the C API takes it.
    pub(super) name: CString,
    /// Whether it may be left out, or may be empty.
    pub(super) is_optional: bool,
    pub(super) form: Form,
}

/// What it is in the graph, and the tensors that stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// A tensor.
    Tensor(Member),
    /// A sequence of tensors.
    Sequence(Member),
    /// A map.
    Map { keys: Member, values: Member },
    /// A sequence of maps.
    Maps { keys: Member, values: Member },
}

/// A tensor, or tensors of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Arc<str>,
    pub(super) dtype: DType,
}

/// Inputs or outputs of a graph, and the specs of the tensors that stand for them.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) all: Vec<Port>,
    pub(super) specs: Vec<TensorSpec>,
    /// Of each spec, the name of axis 0 in the graph.
    axes: Vec<Option<String>>,
}

/// Inputs, and behind them the initializers that are inputs as well. Initializers are left out if all together are more
/// than are served: some exporters list every weight.
pub(super) fn inputs(session: &OrtSession, interface: &Interface) -> Result<Ports, BackendError> {
    let mut ports = Ports::new();
    let unranked = &interface.unranked_inputs;
    for outlet in session.inputs() {
        ports.add(
            Direction::Input,
            (outlet.name(), outlet.dtype()),
            false,
            unranked,
        )?;
    }
    let initializers = session.overridable_initializers();
    if ports.specs.len() + initializers.len() <= MAX_TENSORS {
        for one in &initializers {
            let added = ports.add(Direction::Input, (one.name(), one.dtype()), true, unranked);
            if let Err(error) = added {
                tracing::debug!(%error, "an initializer is not offered as an input");
            }
        }
    }
    ports.checked(Direction::Input)
}

/// Outputs.
pub(super) fn outputs(session: &OrtSession, interface: &Interface) -> Result<Ports, BackendError> {
    let mut ports = Ports::new();
    let unranked = &interface.unranked_outputs;
    for outlet in session.outputs() {
        ports.add(
            Direction::Output,
            (outlet.name(), outlet.dtype()),
            false,
            unranked,
        )?;
    }
    ports.checked(Direction::Output)
}

impl Ports {
    const fn new() -> Self {
        Self {
            all: Vec::new(),
            specs: Vec::new(),
            axes: Vec::new(),
        }
    }

    /// Each spec and the name of its axis 0, where it has one.
    pub(super) fn named_axes(&self) -> Vec<NamedAxis<'_>> {
        let axes = self.axes.iter().map(Option::as_deref);
        self.specs.iter().zip(axes).collect()
    }

    fn add(
        &mut self,
        what: Direction,
        (name, kind): (&str, &ValueType),
        has_default: bool,
        unranked: &HashSet<String>,
    ) -> Result<(), BackendError> {
        let refused = |reason| BackendError::Refused(format!("{what} {name:?} {reason}"));
        let (kind, is_optional) = match kind {
            ValueType::Optional(inner) => (&**inner, true),
            other => (other, has_default),
        };
        let port = Port {
            name: CString::new(name).map_err(|_| refused("has NUL in its name".to_owned()))?,
            is_optional,
            form: form(name, kind).map_err(refused)?,
        };
        let shape = shape(kind, unranked.contains(name)).map_err(refused)?;
        self.specs.extend(port.specs(shape));
        self.axes.resize(self.specs.len(), axis(kind));
        self.all.push(port);
        Ok(())
    }

    /// Checks that they are not too many, and that each tensor belongs to one of them.
    fn checked(self, what: Direction) -> Result<Self, BackendError> {
        let count = self.specs.len();
        if count > MAX_TENSORS {
            return Err(BackendError::Refused(format!(
                "the model has {count} {what}s, the most are {MAX_TENSORS}"
            )));
        }
        if let Some(name) = self.clash() {
            return Err(BackendError::Refused(format!(
                "two {what}s of the model are served as {name:?}: a sequence x is served as x.0, x.1, …, a map x as \
                 x.keys and x.values; rename one"
            )));
        }
        Ok(self)
    }

    /// A name that two specs have, or may have.
    fn clash(&self) -> Option<&str> {
        let mut arities = HashMap::new();
        for spec in &self.specs {
            if arities.insert(&*spec.name, spec.arity).is_some() {
                return Some(&spec.name);
            }
        }
        let is_element = |spec: &&TensorSpec| {
            let sequence = spec
                .name
                .rsplit_once('.')
                .filter(|(_, place)| place.parse::<usize>().is_ok());
            sequence.is_some_and(|(name, _)| arities.get(name) == Some(&Arity::Many))
        };
        let element = self.specs.iter().find(is_element);
        element.map(|spec| &*spec.name)
    }
}

impl Port {
    /// The specs of the tensors that stand for it; `shape` is that of a tensor.
    fn specs(&self, shape: Option<Vec<Option<usize>>>) -> Vec<TensorSpec> {
        let lone = if self.is_optional {
            Arity::Optional
        } else {
            Arity::One
        };
        let pairs = |keys: &Member, values: &Member, shape: Vec<Option<usize>>, arity| {
            vec![
                keys.spec(Some(shape.clone()), arity),
                values.spec(Some(shape), arity),
            ]
        };
        match &self.form {
            Form::Tensor(tensor) => vec![tensor.spec(shape, lone)],
            Form::Sequence(elements) => vec![elements.spec(None, Arity::Many)],
            Form::Map { keys, values } => pairs(keys, values, vec![None], lone),
            Form::Maps { keys, values } => pairs(keys, values, vec![None, None], Arity::Many),
        }
    }
}

impl Member {
    fn new(name: impl Into<Arc<str>>, element: TensorElementType) -> Result<Self, String> {
        let dtype = value::dtype(element).ok_or_else(|| unserved(&element.to_string()))?;
        Ok(Self {
            name: name.into(),
            dtype,
        })
    }

    fn spec(&self, shape: Option<Vec<Option<usize>>>, arity: Arity) -> TensorSpec {
        TensorSpec {
            name: Arc::clone(&self.name),
            dtype: Some(self.dtype),
            shape,
            arity,
        }
    }
}

/// Types that the file had have been checked; that of an output may have been inferred since.
fn form(name: &str, kind: &ValueType) -> Result<Form, String> {
    let pairs = |key: &TensorElementType, value: &TensorElementType| {
        let keys = Member::new(format!("{name}.keys"), *key)?;
        let values = Member::new(format!("{name}.values"), *value)?;
        Ok::<_, String>((keys, values))
    };
    match kind {
        ValueType::Tensor { ty, .. } => Member::new(name, *ty).map(Form::Tensor),
        ValueType::Map { key, value } => {
            let (keys, values) = pairs(key, value)?;
            Ok(Form::Map { keys, values })
        }
        ValueType::Sequence(inner) => match &**inner {
            ValueType::Tensor { ty, .. } => Member::new(name, *ty).map(Form::Sequence),
            ValueType::Map { key, value } => {
                let (keys, values) = pairs(key, value)?;
                Ok(Form::Maps { keys, values })
            }
            other => Err(unserved(&format!("a sequence of {other}"))),
        },
        ValueType::Optional(inner) => Err(unserved(&format!("an optional {inner}"))),
    }
}

/// The name of a tensor's axis 0.
fn axis(kind: &ValueType) -> Option<String> {
    match kind {
        ValueType::Tensor {
            dimension_symbols, ..
        } => {
            let name = dimension_symbols.first();
            name.filter(|name| !name.is_empty()).cloned()
        }
        ValueType::Sequence(_) | ValueType::Map { .. } | ValueType::Optional(_) => None,
    }
}

/// The shape of a tensor. ONNX Runtime shows an unknown rank as no axes; `is_unranked` if the file has no shape.
fn shape(kind: &ValueType, is_unranked: bool) -> Result<Option<Vec<Option<usize>>>, String> {
    let Some(axes) = kind.tensor_shape() else {
        return Ok(None);
    };
    if axes.len() > MAX_RANK {
        return Err(too_many_axes(axes.len()));
    }
    let size = |axis: &i64| usize::try_from(*axis).ok();
    let is_unknown = axes.is_empty() && is_unranked;
    Ok((!is_unknown).then(|| axes.iter().map(size).collect()))
}
