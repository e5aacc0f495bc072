//! Open Inference Protocol v2: clients that speak tensors.
//!
//! The operations here are the same over REST and gRPC and know neither: they take requests as the protocol means them
//! and end in responses or failures. [`rest`] has the JSON form with the binary tensor data extension; the gRPC
//! service is in `grpc/open_inference.rs`. Tensors go straight to the model, in batches with everybody else's, unless the version
//! has its handler take them.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::budget::Account;
use crate::catalog::{Catalog, Entry};
pub(super) use crate::error::quoted as shown;
use crate::error::{Error, Kind};
use crate::payload::{Body, Field, Meter, Output, Request};
use crate::tensor::{DType, NamedTensor};

mod answer;
mod classify;
pub(super) mod config;
pub(super) mod datatype;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod json;
pub(super) mod metadata;
mod outputs;
pub(super) mod parameters;
pub(super) mod repository;
pub(super) mod rest;
pub(super) mod statistics;

pub(super) use outputs::RequestedOutput;
pub(super) use parameters::{Parameter, Parameters};
pub(super) use rest::{failure, owns};

/// The version that a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Name of the model.
    pub model: &'a str,
    /// Its version; the default version if none is named.
    pub version: Option<&'a str>,
}

impl Target<'_> {
    pub(super) fn find(self, catalog: &Catalog) -> Result<Arc<Entry>, Error> {
        catalog.find(self.model, self.version)
    }

    /// The version, once it has loaded or failed to: what it takes and gives is known then. Waits until a request that
    /// arrived at `arrival` is of no use, or until `own`.
    pub(super) async fn loaded(
        self,
        catalog: &Catalog,
        arrival: Instant,
        own: Option<Instant>,
    ) -> Result<Arc<Entry>, Error> {
        let entry = catalog.awaited(self.model, self.version, arrival, own);
        let entry = entry.await?;
        let deadline = entry.deadline(arrival);
        let deadline = own.map_or(deadline, |own| own.min(deadline));
        entry.loaded(deadline).await?;
        Ok(entry)
    }
}

/// What a request brings beside the protocol's own.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The `x-request-id` of the response.
    pub id: String,
    /// Headers a handler may see.
    pub headers: Vec<Field>,
    /// When it arrived.
    pub arrival: Instant,
    /// The client's own deadline.
    pub deadline: Option<Instant>,
    /// Whose bytes in flight it is among.
    pub account: Account,
    /// Whether the client gets the tensors as they are, unless it asked for something else by a parameter of an output.
    pub wants_bytes: bool,
}

/// A request for inference.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InferRequest {
    /// The client's name for it.
    pub id: Option<String>,
    /// Parameters.
    pub parameters: Parameters,
    /// Inputs.
    pub inputs: Vec<NamedTensor>,
    /// Outputs; all if empty.
    pub outputs: Vec<RequestedOutput>,
}

/// What it is answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InferResponse {
    /// Name of the model.
    pub model_name: String,
    /// The version that ran.
    pub model_version: String,
    /// The client's name for the request, if it gave one.
    pub id: Option<String>,
    /// Outputs, in the order they were asked for.
    pub outputs: Vec<NamedTensor>,
}

/// Whether a request for that version would be served now.
pub(super) fn is_ready(catalog: &Catalog, target: Target<'_>) -> Result<bool, Error> {
    catalog.is_version_ready(target.model, target.version)
}

/// Runs a model.
pub(super) async fn infer(
    catalog: &Catalog,
    target: Target<'_>,
    request: InferRequest,
    origin: Origin,
) -> Result<InferResponse, Error> {
    let entry = target.loaded(catalog, origin.arrival, origin.deadline);
    let entry = entry.await?;
    let signature = entry.signature();
    outputs::check(&request.outputs, &signature.outputs)?;
    let schedule = request.parameters.schedule(origin.arrival)?;
    let deadline = entry.deadline(origin.arrival);
    let passes_on = origin.wants_bytes && request.outputs.iter().all(|output| output.classes == 0);
    let account = origin.account.clone();
    let asked = Request {
        id: origin.id,
        content_type: None,
        headers: origin.headers,
        body: Body::Tensors(request.inputs),
        arrival: origin.arrival,
        deadline: origin.deadline.map_or(deadline, |own| own.min(deadline)),
        schedule,
        account: origin.account,
        passes_tensors_on: passes_on,
        meter: Meter::default(),
    };
    let reply = entry.call(asked, target.version.is_some()).await?;
    let tensors = match reply.output {
        Output::Tensors(tensors) => tensors,
        // They take the place of the response, which was charged.
        Output::Response(response) => held(answer::tensors(&response)?, &account),
    };
    Ok(InferResponse {
        model_name: entry.spec().name.to_string(),
        model_version: entry.spec().version.to_string(),
        id: request.id,
        outputs: outputs::select(tensors, &request.outputs, &signature)?,
    })
}

/// The data of a tensor as it came from a client. It may lie where a worker process can write to it: what has to be looked at is copied
/// first.
pub(super) fn readable(dtype: DType, data: Bytes) -> Bytes {
    if dtype.takes_any_bytes() {
        return data;
    }
    Bytes::copy_from_slice(&data)
}

/// The same tensors, charged.
fn held(tensors: Vec<NamedTensor>, account: &Account) -> Vec<NamedTensor> {
    let held = tensors.into_iter().map(|NamedTensor { name, tensor }| {
        let data = account.hold_anyway(tensor.data().clone());
        NamedTensor::new(name, tensor.with_moved_data(data))
    });
    held.collect()
}

/// Bytes of tensors' data.
pub(super) fn size(tensors: &[NamedTensor]) -> usize {
    let lengths = tensors.iter().map(|tensor| tensor.tensor.data().len());
    lengths.sum()
}

pub(super) fn invalid(message: String) -> Error {
    Error::new(Kind::InvalidInput, message)
}
