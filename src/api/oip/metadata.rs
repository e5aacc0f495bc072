//! What the server is and what its models take and give.

use serde::Serialize;

use super::{Target, datatype};
use crate::catalog::{Catalog, Which};
use crate::error::Error;
use crate::model::TensorSpec;

/// Extensions of the protocol that are spoken.
const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

/// The server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ServerMetadata {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Extensions that it speaks.
    pub extensions: &'static [&'static str],
}

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// All its versions.
    pub versions: Vec<String>,
    /// What its weights are for, and their format.
    pub platform: &'static str,
    /// Inputs; none where they are not known.
    pub inputs: Vec<TensorMetadata>,
    /// Outputs; none where they are not known.
    pub outputs: Vec<TensorMetadata>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// Its element type; empty where that is not known.
    pub datatype: &'static str,
    /// Its shape; -1 for an axis that varies.
    pub shape: Vec<i64>,
}

/// What the server is.
pub(in crate::api) const fn server() -> ServerMetadata {
    ServerMetadata {
        name: "lantern",
        version: env!("CARGO_PKG_VERSION"),
        extensions: &EXTENSIONS,
    }
}

/// What a version takes and gives.
pub(in crate::api) fn model(catalog: &Catalog, target: Target<'_>) -> Result<ModelMetadata, Error> {
    let entry = target.find(catalog)?;
    let versions = catalog.select(target.model, Which::All)?;
    let signature = entry.signature();
    Ok(ModelMetadata {
        name: entry.spec().name.to_string(),
        versions: versions
            .iter()
            .map(|one| one.spec().version.to_string())
            .collect(),
        platform: entry.spec().backend.info().platform,
        inputs: signature.inputs.iter().map(TensorMetadata::of).collect(),
        outputs: signature.outputs.iter().map(TensorMetadata::of).collect(),
    })
}

impl TensorMetadata {
    fn of(spec: &TensorSpec) -> Self {
        Self {
            name: spec.name.to_string(),
            datatype: spec.dtype.map_or("", datatype::name),
            shape: dims(spec.shape.as_deref()),
        }
    }
}

/// A shape as the protocol writes it. It has no form for an unknown rank: one axis that varies stands for that.
pub(super) fn dims(shape: Option<&[Option<usize>]>) -> Vec<i64> {
    let dim = |axis: &Option<usize>| axis.map_or(-1, |axis| i64::try_from(axis).unwrap_or(-1));
    shape.unwrap_or(&[None]).iter().map(dim).collect()
}
