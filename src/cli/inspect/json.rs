//! The report on an archive as JSON, for programs.

use serde_json::{Value, json};

use super::{Report, Tensors, signer};
use crate::handler::ComponentInfo;
use crate::model::{Arity, DType, TensorSpec};

/// The report as JSON.
pub fn render(report: &Report) -> Value {
    let manifest: Value = serde_json::from_str(&report.archive.manifest.text).unwrap_or_default();
    let contents = report.archive.contents.as_ref().ok();
    let files: Vec<_> = report
        .archive
        .files
        .iter()
        .map(|(name, size)| json!({"name": name, "size": size}))
        .collect();
    let warnings = contents
        .iter()
        .flat_map(|contents| &contents.config.warnings);
    json!({
        "digest": report.archive.digest,
        "archiveDigest": report.archive.contents_digest.to_string(),
        "signer": signer(report).map(|signer| signer.to_string()),
        "manifest": manifest,
        "files": files,
        "backend": contents.map(|contents| contents.backend.name()),
        "config": contents.and_then(|contents| serde_json::from_str::<Value>(&contents.config.json).ok()),
        "handler": handler(report),
        "model": tensors(&report.tensors),
        "warnings": warnings.map(ToString::to_string).collect::<Vec<_>>(),
        "servable": report.refusal.is_none(),
        "reason": report.refusal,
    })
}

fn handler(report: &Report) -> Value {
    let Ok(contents) = &report.archive.contents else {
        return Value::Null;
    };
    let info = report.handler.as_ref().map(component);
    json!({"file": contents.handler.as_str(), "component": info})
}

const fn arity(arity: Arity) -> &'static str {
    match arity {
        Arity::One => "one",
        Arity::Optional => "optional",
        Arity::Many => "list",
    }
}

fn component(info: &ComponentInfo) -> Value {
    json!({
        "world": info.world,
        "imports": info.imports,
        "exports": info.exports,
        "forbidden": info.forbidden,
        "size": info.size,
        "functions": info.functions,
        "modules": info.modules,
    })
}

fn tensors(tensors: &Tensors) -> Value {
    let (source, signature, batching) = match tensors {
        Tensors::Known(signature, batching) => ("model", signature, Some(batching)),
        Tensors::Declared(signature) => ("declared", signature, None),
        Tensors::Unknown(reason) => return json!({"source": null, "reason": reason}),
    };
    json!({
        "source": source,
        "inputs": specs(&signature.inputs),
        "outputs": specs(&signature.outputs),
        "batching": batching,
    })
}

/// Inputs or outputs. An axis that varies is -1, as in a declaration, and what is not known is null.
fn specs(specs: &[TensorSpec]) -> Vec<Value> {
    let axis = |size: &Option<usize>| size.map_or(json!(-1), |size| json!(size));
    specs
        .iter()
        .map(|spec| {
            let shape = |axes: &Vec<Option<usize>>| axes.iter().map(axis).collect::<Vec<_>>();
            json!({
                "name": *spec.name,
                "dtype": spec.dtype.map(DType::name),
                "shape": spec.shape.as_ref().map(shape),
                "arity": arity(spec.arity),
            })
        })
        .collect()
}
