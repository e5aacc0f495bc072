//! Values of our keys, under `lantern:`. They are strict: a wrong value is a problem, never a guess.

use std::time::Duration;

use crate::model::{BackendKind, BatchingMode, DType, Envelope, TensorSpec};
use crate::tensor::{MAX_RANK, MAX_TENSORS};

use super::super::units;
use super::super::yaml::{Node, Value};
use super::fields::Fields;
use super::keys::{OptionKind, names};
use super::{LimitOptions, Options, Weight};

const SPEC_KEYS: [&str; 3] = ["name", "dtype", "shape"];
const MOST_AXIS: i128 = 1 << 31;
const LONGEST_NAME: usize = 255;

/// Reads the mapping under `lantern:`.
pub fn read(fields: &mut Fields, node: &Node, options: &mut Options) {
    let entries = fields.map("lantern", node);
    for (name, value) in entries {
        let key = format!("lantern.{name}");
        if name == "limits" {
            limits(fields, &key, value, &mut options.limits);
        } else if !options.read(fields, &key, value) {
            in_other_capitals(fields, (name.as_str(), value), entries, options);
        }
    }
}

/// A key that is known in other capitals is taken, unless safety hangs on it.
fn in_other_capitals(
    fields: &mut Fields,
    (name, value): (&str, &Node),
    entries: &[(String, Node)],
    options: &mut Options,
) {
    let key = format!("lantern.{name}");
    let plain = Options::KEYS
        .iter()
        .filter(|key| key.weight != Weight::Safety);
    let mut plain = plain.filter_map(|key| key.name.strip_prefix("lantern."));
    if !plain.clone().any(|known| known.eq_ignore_ascii_case(name)) {
        let known = names("lantern.").chain(["limits"]);
        return fields.unknown(&key, value, name, known);
    }
    if let Some(known) = fields.recapitalized((key.as_str(), value), name, &mut plain, entries) {
        options.read(fields, &format!("lantern.{known}"), value);
    }
}

/// Limits in a file of another kind, where they are at `path`, by the names that they have in an archive's.
pub fn limits_of(fields: &mut Fields, path: &str, node: &Node) -> LimitOptions {
    const NAME: &str = "lantern.limits";
    let mut read = LimitOptions::default();
    fields.renaming(NAME, path, |fields| limits(fields, NAME, node, &mut read));
    read
}

fn limits(fields: &mut Fields, at: &str, node: &Node, limits: &mut LimitOptions) {
    for (name, value) in fields.map(at, node) {
        let key = format!("{at}.{name}");
        if !limits.read(fields, &key, value) {
            fields.unknown(&key, value, name, names("lantern.limits."));
        }
    }
}

/// A whole number.
pub fn number<T: TryFrom<i128>>(least: i128, most: i128) -> OptionKind<T> {
    let shape = format!("a whole number from {least} to {most}");
    OptionKind::new(shape, move |fields, key, node| {
        fields.number(key, node, least, most)
    })
}

/// A size in bytes.
pub fn size() -> OptionKind<usize> {
    OptionKind::new(units::SIZE, Fields::size)
}

/// A duration with its unit.
pub fn duration() -> OptionKind<Duration> {
    OptionKind::new(units::DURATION, Fields::duration)
}

/// A text that is not empty.
pub fn text() -> OptionKind<String> {
    OptionKind::new("a text", Fields::text)
}

/// A truth value.
pub fn truth() -> OptionKind<bool> {
    OptionKind::new("true or false", Fields::truth)
}

/// One of two words.
pub fn word<T: Copy + 'static>(words: &'static [(&'static str, T); 2]) -> OptionKind<T> {
    let [(first, _), (second, _)] = words;
    let shape = format!("{first} or {second}");
    let rule = format!("must be {shape}");
    OptionKind::new(shape, move |fields, key, node| {
        let text = fields.text(key, node)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            fields.problem(key, node, rule.clone());
        }
        found.map(|(_, value)| *value)
    })
}

/// The name of an envelope.
pub fn envelope() -> OptionKind<Envelope> {
    let shape = format!("one of {}", Envelope::choices());
    let rule = format!("must be {shape}");
    OptionKind::new(shape, move |fields, key, node| {
        let found = Envelope::named(&fields.text(key, node)?);
        if found.is_none() {
            fields.problem(key, node, rule.clone());
        }
        found
    })
}

/// The component.
pub fn handler() -> OptionKind<String> {
    OptionKind::new("a .wasm file in the archive", |fields, key, node| {
        let name = fields.text(key, node)?;
        let extension = std::path::Path::new(&name).extension();
        let is_component = extension.is_some_and(|extension| extension == "wasm");
        if !is_component {
            fields.problem(key, node, "must name a .wasm file in the archive");
        }
        is_component.then_some(name)
    })
}

/// The framework that runs the artifact.
pub fn backend(fields: &mut Fields, key: &str, node: &Node) -> Option<BackendKind> {
    let name = fields.text(key, node)?;
    let kind = BackendKind::named(&name);
    if kind.is_none() {
        fields.problem(key, node, format!("must be {}", BackendKind::choices()));
    }
    kind
}

/// Whether requests may be stacked. YAML reads `on` and `off` as true and false.
pub fn batching() -> OptionKind<BatchingMode> {
    OptionKind::new("auto, on or off", |fields, key, node| {
        let mode = match &node.value {
            Value::Bool(true) => Some(BatchingMode::On),
            Value::Bool(false) => Some(BatchingMode::Off),
            _ => match fields.text(key, node)?.as_str() {
                "auto" => Some(BatchingMode::Auto),
                "on" => Some(BatchingMode::On),
                "off" => Some(BatchingMode::Off),
                _ => None,
            },
        };
        if mode.is_none() {
            fields.problem(key, node, "must be auto, on or off");
        }
        mode
    })
}

/// Inputs or outputs.
pub fn specs() -> OptionKind<Vec<TensorSpec>> {
    OptionKind::new("a list of name, dtype and shape", |fields, key, node| {
        Some(read_specs(fields, key, node))
    })
}

fn read_specs(fields: &mut Fields, key: &str, node: &Node) -> Vec<TensorSpec> {
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
