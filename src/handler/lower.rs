//! Makes values for the guest. They are borrowed where they lie, so that wasmtime copies them once, into its memory.

use crate::error::{Error, Kind, truncated};
use crate::payload;
use crate::tensor::{DType, NamedTensor, Tensor};

use super::bindings::lantern::handler::types::{
    Body, Dtype, FieldParam, Part, Request, TensorDataParam, TensorParam,
};
use super::tensors::{TensorTable, Unnamed};

/// A tensor of more bytes than this stays on the host, and the guest gets a handle.
pub(super) const INLINE_LIMIT: usize = 1 << 20;

/// Most bytes of a tensor's name that a message shows.
const NAME_SHOWN: usize = 100;

/// The shapes of several tensors in the interface's 32-bit form, one after the other in one list.
pub(super) struct Shapes {
    axes: Vec<u32>,
}

impl Shapes {
    /// Fails if an axis does not fit into 32 bits.
    pub fn of(tensors: &[NamedTensor], role: Role) -> Result<Self, Error> {
        let axes = tensors.iter().flat_map(|named| named.tensor.shape());
        let axes = axes.map(|&axis| u32::try_from(axis).map_err(|_| too_long(axis, role)));
        Ok(Self {
            axes: axes.collect::<Result<_, _>>()?,
        })
    }
}

fn too_long(axis: usize, role: Role) -> Error {
    let text = format!(
        "A tensor's axis of {axis} is more than handlers can take: {}",
        u32::MAX
    );
    Error::new(role.fault(), text)
}

/// Where tensors for a guest come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A client sent them, as Open Inference Protocol does.
    Input,
    /// The model gave them.
    Output,
}

impl Role {
    /// The kind of a failure that such a tensor causes.
    const fn fault(self) -> Kind {
        match self {
            Self::Input => Kind::InvalidInput,
            Self::Output => Kind::InferenceFailed,
        }
    }
}

/// The tensors for the guest; large ones get handles in `table`.
pub(super) fn tensors<'a>(
    tensors: &'a [NamedTensor],
    role: Role,
    shapes: &'a Shapes,
    table: &mut TensorTable,
) -> Result<Vec<TensorParam<'a>>, Error> {
    // Checked before any handle is made: no handle may be left behind by a call that is not made.
    for named in tensors {
        dtype(named, role)?;
    }
    let mut axes = shapes.axes.as_slice();
    let lowered = tensors.iter().map(|named| {
        let (shape, rest) = axes.split_at(named.tensor.shape().len());
        axes = rest;
        Ok(TensorParam {
            name: &named.name,
            dtype: dtype(named, role)?,
            shape,
            data: data(&named.tensor, table)?,
        })
    });
    lowered.collect()
}

fn dtype(named: &NamedTensor, role: Role) -> Result<Dtype, Error> {
    let dtype = named.tensor.dtype().try_into();
    dtype.map_err(|Unnamed(dtype)| unnamed(&named.name, dtype, role))
}

/// The error for a tensor whose dtype the handler's interface does not have. For an input it is the client's fault, for
/// an output the archive's.
fn unnamed(name: &str, dtype: DType, role: Role) -> Error {
    let name = truncated(name, NAME_SHOWN);
    let (what, remedy) = match role {
        Role::Input => (
            "input",
            "without `oip: handler` it goes straight to the model",
        ),
        Role::Output => (
            "output",
            "cast it in the model, to int64 for example, or ask for it over Open Inference Protocol",
        ),
    };
    let text = format!(
        "{what} {name:?} is {dtype}, which interface 0.1 of handlers has no dtype for: {remedy}"
    );
    Error::new(role.fault(), text)
}

fn data<'a>(tensor: &'a Tensor, table: &mut TensorTable) -> Result<TensorDataParam<'a>, Error> {
    if tensor.data().len() <= INLINE_LIMIT {
        return Ok(TensorDataParam::Inline(tensor.data()));
    }
    let handle = table.push(tensor.clone());
    let exhausted = || {
        Error::new(
            Kind::Internal,
            "A handler's instance has run out of tensor handles",
        )
    };
    handle.map(TensorDataParam::Handle).ok_or_else(exhausted)
}

pub(super) fn headers(headers: &[payload::Field]) -> Vec<FieldParam<'_>> {
    let fields = headers
        .iter()
        .map(|(name, value)| FieldParam { name, value });
    fields.collect()
}

pub(super) fn parts(body: &payload::Body) -> Vec<Part<'_>> {
    let payload::Body::Form(parts) = body else {
        return Vec::new();
    };
    let parts = parts.iter().map(|part| Part {
        name: &part.name,
        filename: part.filename.as_deref(),
        content_type: part.content_type.as_deref(),
        body: &part.body,
    });
    parts.collect()
}

/// The request for the guest, put together from what the functions above made.
pub(super) fn request<'a>(
    request: &'a payload::Request,
    headers: &'a [FieldParam<'a>],
    parts: &'a [Part<'a>],
    tensors: &'a [TensorParam<'a>],
) -> Request<'a> {
    let body = match &request.body {
        payload::Body::Raw(bytes) => Body::Raw(bytes),
        payload::Body::Form(_) => Body::Form(parts),
        payload::Body::Tensors(_) => Body::Tensors(tensors),
    };
    Request {
        id: &request.id,
        content_type: request.content_type.as_deref(),
        headers,
        body,
    }
}
