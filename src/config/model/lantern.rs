//! Our keys, under `lantern:`. They are strict: a wrong value is a problem, never a guess.

use crate::model::{
    BackendKind, BatchingMode, DType, Hosting, StateSharing, TensorSpec, TensorsTo,
};
use crate::tensor::{MAX_RANK, MAX_TENSORS};

use super::super::yaml::{Node, Value};
use super::fields::Fields;
use super::{LimitOptions, Options};

const KEYS: [&str; 13] = [
    "handler",
    "backend",
    "inputs",
    "outputs",
    "hosting",
    "intraOpThreads",
    "freshInstances",
    "oip",
    "waitForFullBatches",
    "state",
    "batching",
    "samples",
    "limits",
];

const LIMIT_KEYS: [&str; 9] = [
    "memory",
    "cpu",
    "initCpu",
    "output",
    "response",
    "hostCalls",
    "logLinesPerSecond",
    "metricSeries",
    "instances",
];

const SPEC_KEYS: [&str; 3] = ["name", "dtype", "shape"];
const MOST_AXIS: i128 = 1 << 31;
const LONGEST_NAME: usize = 255;

/// Reads the mapping under `lantern:`.
pub fn read(fields: &mut Fields, node: &Node, options: &mut Options) {
    for (name, value) in fields.map("lantern", node) {
        let key = format!("lantern.{name}");
        match name.as_str() {
            "handler" => options.handler = handler(fields, &key, value),
            "backend" => options.backend = backend(fields, &key, value),
            "inputs" => options.declared.inputs = specs(fields, &key, value),
            "outputs" => options.declared.outputs = specs(fields, &key, value),
            "hosting" => options.hosting = hosting(fields, &key, value),
            "intraOpThreads" => options.intra_op_threads = fields.number(&key, value, 1, 1024),
            "freshInstances" => options.fresh_instances = fields.truth(&key, value),
            "oip" => options.tensors_to = tensors_to(fields, &key, value),
            "waitForFullBatches" => options.wait_for_full_batches = fields.truth(&key, value),
            "state" => options.state = state(fields, &key, value),
            "batching" => options.batching = batching(fields, &key, value),
            "samples" => options.samples = fields.text(&key, value),
            "limits" => limits(fields, &key, value, &mut options.limits),
            _ => fields.unknown(&key, value, name, KEYS),
        }
    }
}

fn limits(fields: &mut Fields, at: &str, node: &Node, limits: &mut LimitOptions) {
    for (name, value) in fields.map(at, node) {
        let key = format!("{at}.{name}");
        match name.as_str() {
            "memory" => limits.memory = fields.size(&key, value),
            "cpu" => limits.cpu = fields.duration(&key, value),
            "initCpu" => limits.init_cpu = fields.duration(&key, value),
            "output" => limits.output = fields.size(&key, value),
            "response" => limits.response = fields.size(&key, value),
            "hostCalls" => limits.host_calls = fields.number(&key, value, 1, i128::from(u64::MAX)),
            "logLinesPerSecond" => {
                limits.log_lines_per_second = fields.number(&key, value, 0, i128::from(u32::MAX));
            }
            "metricSeries" => limits.metric_series = fields.number(&key, value, 0, 1 << 32),
            "instances" => limits.instances = fields.number(&key, value, 1, 65_536),
            _ => fields.unknown(&key, value, name, LIMIT_KEYS),
        }
    }
}

fn handler(fields: &mut Fields, key: &str, node: &Node) -> Option<String> {
    let name = fields.text(key, node)?;
    let is_component = std::path::Path::new(&name)
        .extension()
        .is_some_and(|extension| extension == "wasm");
    if !is_component {
        fields.problem(key, node, "must name a .wasm file in the archive");
    }
    is_component.then_some(name)
}

fn backend(fields: &mut Fields, key: &str, node: &Node) -> Option<BackendKind> {
    let name = fields.text(key, node)?;
    let kind = BackendKind::named(&name);
    if kind.is_none() {
        fields.problem(key, node, format!("must be {}", BackendKind::choices()));
    }
    kind
}

fn hosting(fields: &mut Fields, key: &str, node: &Node) -> Option<Hosting> {
    match fields.text(key, node)?.as_str() {
        "process" => Some(Hosting::Process),
        "inline" => Some(Hosting::Inline),
        _ => {
            fields.problem(key, node, "must be process or inline");
            None
        }
    }
}

fn tensors_to(fields: &mut Fields, key: &str, node: &Node) -> Option<TensorsTo> {
    match fields.text(key, node)?.as_str() {
        "model" => Some(TensorsTo::Model),
        "handler" => Some(TensorsTo::Handler),
        _ => {
            fields.problem(key, node, "must be model or handler");
            None
        }
    }
}

fn state(fields: &mut Fields, key: &str, node: &Node) -> Option<StateSharing> {
    match fields.text(key, node)?.as_str() {
        "shared" => Some(StateSharing::Shared),
        "copies" => Some(StateSharing::Copies),
        _ => {
            fields.problem(key, node, "must be shared or copies");
            None
        }
    }
}

fn batching(fields: &mut Fields, key: &str, node: &Node) -> Option<BatchingMode> {
    // YAML reads `on` and `off` as true and false.
    if let Value::Bool(is_on) = node.value {
        return Some(if is_on {
            BatchingMode::On
        } else {
            BatchingMode::Off
        });
    }
    match fields.text(key, node)?.as_str() {
        "auto" => Some(BatchingMode::Auto),
        "on" => Some(BatchingMode::On),
        "off" => Some(BatchingMode::Off),
        _ => {
            fields.problem(key, node, "must be auto, on or off");
            None
        }
    }
}

fn specs(fields: &mut Fields, key: &str, node: &Node) -> Vec<TensorSpec> {
    let items = fields.list(key, node);
    if items.len() > MAX_TENSORS {
        fields.problem(
            key,
            node,
            format!("must have at most {MAX_TENSORS} tensors"),
        );
        return Vec::new();
    }
    let mut specs: Vec<TensorSpec> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(spec) = spec(fields, &format!("{key}[{index}]"), item) else {
            continue;
        };
        if specs.iter().any(|other| other.name == spec.name) {
            fields.key_problem(key, item, format!("has the name {:?} twice", spec.name));
        }
        specs.push(spec);
    }
    specs
}

fn spec(fields: &mut Fields, at: &str, node: &Node) -> Option<TensorSpec> {
    let Value::Map(entries) = &node.value else {
        fields.problem(at, node, "must be a mapping of name, dtype and shape");
        return None;
    };
    let (mut name, mut dtype, mut shape) = (None, None, None);
    for (member, value) in entries {
        let key = format!("{at}.{member}");
        match member.as_str() {
            "name" => name = tensor_name(fields, &key, value),
            "dtype" => dtype = tensor_dtype(fields, &key, value),
            "shape" => shape = tensor_shape(fields, &key, value),
            _ => fields.unknown(&key, value, member, SPEC_KEYS),
        }
    }
    for required in SPEC_KEYS {
        if !entries.iter().any(|(member, _)| member == required) {
            fields.key_problem(&format!("{at}.{required}"), node, "is missing");
        }
    }
    Some(TensorSpec::new(name?, dtype?, shape?))
}

fn tensor_name(fields: &mut Fields, key: &str, node: &Node) -> Option<String> {
    let name = fields.text(key, node)?;
    if name.len() > LONGEST_NAME {
        fields.problem(key, node, format!("must be at most {LONGEST_NAME} bytes"));
        return None;
    }
    Some(name)
}

fn tensor_dtype(fields: &mut Fields, key: &str, node: &Node) -> Option<DType> {
    let dtype = DType::from_name(&fields.text(key, node)?);
    if dtype.is_none() {
        let names = DType::ALL.map(DType::name).join(", ");
        fields.problem(key, node, format!("must be one of {names}"));
    }
    dtype
}

fn tensor_shape(fields: &mut Fields, key: &str, node: &Node) -> Option<Vec<Option<usize>>> {
    let Value::List(axes) = &node.value else {
        fields.problem(key, node, "must be a list of sizes, -1 for one that varies");
        return None;
    };
    if axes.len() > MAX_RANK {
        fields.problem(key, node, format!("must have at most {MAX_RANK} axes"));
        return None;
    }
    axes.iter()
        .map(|axis| match axis.value {
            Value::Integer(-1) => Some(None),
            _ => fields.number(key, axis, 0, MOST_AXIS).map(Some),
        })
        .collect()
}
