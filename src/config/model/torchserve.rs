//! Values of TorchServe's keys, which follow its rules: a value that breaks one is ignored with a warning.
//!
//! `sequenceBatching` is refused when it is on: without sequences, a handler that keeps state between requests would
//! answer otherwise than its author promised. Every other key is the handler's, with a warning, unless it looks like a
//! setting misspelt: that is refused.

use std::time::Duration;

use super::super::spelling;
use super::super::yaml::{Node, Value};
use super::fields::Fields;
use super::keys::{IGNORED, OptionKind, names};
use super::{DeviceType, Options, VersionLimits};

const MOST_SECONDS: usize = 31_536_000;
const MOST_DEVICES: usize = 256;

/// Reads one key at the top of the document.
pub fn read(fields: &mut Fields, key: &str, node: &Node, options: &mut Options) {
    // A dot is part of a name here, and no level.
    if key.contains('.') || !options.read(fields, key, node) {
        not_honored(fields, key, node);
    }
}

/// The entries at the top, with TorchServe's keys as they are written there, whatever their capitals.
pub fn recapitalized(fields: &mut Fields, entries: &[(String, Node)]) -> Vec<(String, Node)> {
    let theirs = || {
        let ignored = IGNORED.iter().map(|(name, _)| *name);
        names("").chain(ignored).chain(["sequenceBatching"])
    };
    let mut named = Vec::new();
    for (key, node) in entries {
        let is_plain = theirs().any(|name| name == key)
            || !theirs().any(|name| name.eq_ignore_ascii_case(key));
        let name = if is_plain {
            Some(key.as_str())
        } else {
            fields.recapitalized((key.as_str(), node), key, theirs(), entries)
        };
        named.extend(name.map(|name| (name.to_owned(), node.clone())));
    }
    named
}

/// Workers. They only count as a pair, which [`check_workers`] reads at the end.
pub fn workers() -> OptionKind<usize> {
    OptionKind::new("a whole number", |_, _, _| None)
}

/// The pair of worker counts: ignored unless it makes sense as a pair.
pub fn check_workers(fields: &mut Fields, entries: &[(String, Node)], options: &mut Options) {
    let find = |name: &str| entries.iter().find(|(key, _)| key == name);
    let (Some((_, min_node)), max) = (find("minWorkers"), find("maxWorkers")) else {
        if let Some((key, node)) = find("maxWorkers") {
            fields.warn(key, node, "is ignored without minWorkers");
        }
        return;
    };
    let Some(min) = integer(fields, "minWorkers", min_node, VersionLimits::WORKERS) else {
        return;
    };
    if min < 1 {
        fields.warn("minWorkers", min_node, "becomes 1: it must be at least 1");
    }
    let min = min.max(1);
    let max = match max {
        Some((key, node)) => integer(fields, key, node, VersionLimits::WORKERS),
        None => Some(0),
    };
    let usable = max.filter(|max| *max >= min);
    if usable.is_none() {
        let rule = "is ignored: it counts only with a maxWorkers that is no smaller";
        fields.warn("minWorkers", min_node, rule);
        return;
    }
    options.min_workers = usize::try_from(min).ok();
    options.max_workers = usable.and_then(|max| usize::try_from(max).ok());
}

/// TorchServe logs a value of the wrong type and goes on without it. Numbers that no machine could serve are
/// refused: there they end in a crash.
fn integer(fields: &mut Fields, key: &str, node: &Node, most: usize) -> Option<i128> {
    match &node.value {
        Value::Null => None,
        Value::Integer(value) if *value <= most as i128 => Some(*value),
        value if is_number(value) => {
            fields.problem(key, node, range(most));
            None
        }
        _ => {
            fields.warn(key, node, "is ignored: it must be a whole number");
            None
        }
    }
}

/// Whether a value is a whole number, however long: what is too long for a number comes as something else.
fn is_number(value: &Value) -> bool {
    match value {
        Value::Integer(_) => true,
        Value::Float(value) => value.abs() > 1e15,
        Value::Text(text) => text.len() > 18 && text.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

fn range(most: usize) -> String {
    format!("must be a whole number from 1 to {most}")
}

/// A number that is at least 1. TorchServe takes less for 1.
pub fn at_least_one(most: usize) -> OptionKind<usize> {
    let shape = format!("a whole number from 1 to {most}");
    OptionKind::new(shape, move |fields, key, node| {
        let value = integer(fields, key, node, most)?;
        if value < 1 {
            fields.problem(key, node, range(most));
            return None;
        }
        usize::try_from(value).ok()
    })
}

/// A number that does not count unless it is above 0.
pub fn above_zero<T: TryFrom<i128>>(most: usize) -> OptionKind<T> {
    let shape = format!("a whole number from 1 to {most}");
    OptionKind::new(shape, move |fields, key, node| {
        positive(fields, key, node, most).and_then(|value| T::try_from(value).ok())
    })
}

/// Whole seconds.
pub fn seconds() -> OptionKind<Duration> {
    time(Duration::from_secs)
}

/// Whole milliseconds.
pub fn milliseconds() -> OptionKind<Duration> {
    time(Duration::from_millis)
}

fn time(unit: fn(u64) -> Duration) -> OptionKind<Duration> {
    let shape = format!("a whole number from 1 to {MOST_SECONDS}");
    OptionKind::new(shape, move |fields, key, node| {
        let value = positive(fields, key, node, MOST_SECONDS)?;
        u64::try_from(value).ok().map(unit)
    })
}

/// Whole seconds, of which less than 0 means 0.
pub fn retry_seconds() -> OptionKind<Duration> {
    let shape = format!("a whole number from 0 to {MOST_SECONDS}");
    OptionKind::new(shape, |fields, key, node| {
        let value = integer(fields, key, node, MOST_SECONDS)?;
        u64::try_from(value.max(0)).ok().map(Duration::from_secs)
    })
}

fn positive(fields: &mut Fields, key: &str, node: &Node, most: usize) -> Option<i128> {
    let value = integer(fields, key, node, most)?;
    if value <= 0 {
        fields.warn(key, node, "is ignored: it must be above 0");
    }
    (value > 0).then_some(value)
}

/// The processor, or GPUs.
pub fn device_type() -> OptionKind<DeviceType> {
    OptionKind::new("cpu or gpu", |fields, key, node| {
        match &node.value {
            Value::Text(text) if text == "cpu" => return Some(DeviceType::Cpu),
            Value::Text(text) if text == "gpu" => return Some(DeviceType::Gpu),
            Value::Null => {}
            _ => fields.warn(key, node, "is ignored: it must be cpu or gpu"),
        }
        None
    })
}

/// Numbers of GPUs.
pub fn device_ids() -> OptionKind<Vec<u32>> {
    OptionKind::new("a list of device numbers", read_device_ids)
}

/// One bad id discards the list.
fn read_device_ids(fields: &mut Fields, key: &str, node: &Node) -> Option<Vec<u32>> {
    let ids: Option<Vec<u32>> = match &node.value {
        Value::Null => return None,
        Value::List(items) if items.len() <= MOST_DEVICES => items
            .iter()
            .map(|item| match item.value {
                Value::Integer(id) => u32::try_from(id).ok(),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    if ids.is_none() {
        fields.warn(key, node, "is ignored: it must be a list of device numbers");
    }
    ids.filter(|ids| !ids.is_empty())
}

/// A truth value; TorchServe ignores what is none.
pub fn truth() -> OptionKind<bool> {
    OptionKind::new("true or false", Fields::truth)
}

fn not_honored(fields: &mut Fields, key: &str, node: &Node) {
    // Whoever writes down what holds anyway misses nothing.
    let is_nothing = matches!(node.value, Value::Null | Value::Integer(0));
    let is_off = is_nothing || node.value.truth() == Some(false);
    let ignored = IGNORED.iter().find(|(name, _)| *name == key);
    match (key, ignored) {
        ("sequenceBatching", _) if is_off => {}
        ("sequenceBatching", _) => {
            let rule = "is not supported: requests are independent of each other, and a handler keeps nothing \
                        between them";
            fields.problem(key, node, rule);
        }
        (_, Some(_)) if is_off => {}
        (_, Some((_, why))) => fields.key_warning(key, node, *why),
        (_, None) => free(fields, key, node),
    }
}

/// A key that TorchServe does not know either is for the handler, which gets the whole document. One that looks like
/// a misspelt setting is refused: serving without it would not be what its author meant.
fn free(fields: &mut Fields, key: &str, node: &Node) {
    let others = ["sequenceBatching", "lantern", "handler"];
    let ignored = || IGNORED.iter().map(|(name, _)| *name);
    let known = || names("").chain(ignored()).chain(others);
    if spelling::nearest(key, known()).is_some() {
        return fields.unknown(key, node, key, known());
    }
    fields.key_warning(
        key,
        node,
        "is no setting of the server, and left to the handler",
    );
}
