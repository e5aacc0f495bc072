//! TorchServe's keys, and what becomes of each here.
//!
//! | standing | keys |
//! |---|---|
//! | honored | `minWorkers`, `maxWorkers`, `batchSize`, `maxBatchDelay`, `responseTimeout`, `startupTimeout`, `clientTimeoutInMills`, `maxRetryTimeoutInSec`, `jobQueueSize`, `useJobTicket`, `deviceType`, `deviceIds` |
//! | no effect, with a warning | `parallelType`, `parallelLevel`, `torchrun`, `continuousBatching`, `asyncCommunication`, `micro_batching`, `pt2`, `useVenv`, `sequenceMaxIdleMSec`, `sequenceTimeoutMSec`, `maxNumSequence`, `maxSequenceJobQueueSize` |
//! | refused when on | `sequenceBatching` |
//! | the handler's, with a warning | every other key, unless it looks like one of these misspelt: that is refused |
//!
//! What a warning is said of changes how fast answers come, never which: so the version is served. Without sequences,
//! a handler that keeps state between requests would answer otherwise than its author promised: that is refused.

use std::time::Duration;

use super::super::nearest;
use super::super::yaml::{Node, Value};
use super::fields::Fields;
use super::{DeviceType, Options};

/// More than any machine has use for, and little enough to count with.
const MOST_WORKERS: i128 = 1024;
const MOST_ROWS: i128 = 65_536;
const MOST_JOBS: i128 = 1_000_000;
const MOST_SECONDS: i128 = 31_536_000;
const MOST_DEVICES: usize = 256;

const KEYS: [&str; 26] = [
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
    "clientTimeoutInMills",
    "maxRetryTimeoutInSec",
    "jobQueueSize",
    "deviceType",
    "deviceIds",
    "parallelType",
    "parallelLevel",
    "torchrun",
    "useJobTicket",
    "continuousBatching",
    "sequenceBatching",
    "sequenceMaxIdleMSec",
    "sequenceTimeoutMSec",
    "maxNumSequence",
    "maxSequenceJobQueueSize",
    "asyncCommunication",
    "useVenv",
    "pt2",
    "micro_batching",
    "lantern",
];

/// Reads one key at the top of the document.
pub fn read(fields: &mut Fields, key: &str, node: &Node, options: &mut Options) {
    let seconds = |n: i128| Duration::from_secs(u64::try_from(n).unwrap_or(0));
    let millis = |n: i128| Duration::from_millis(u64::try_from(n).unwrap_or(0));
    match key {
        // Read together at the end: they only count as a pair.
        "minWorkers" | "maxWorkers" => {}
        "batchSize" => options.batch_size = at_least_one(fields, key, node, MOST_ROWS),
        "maxBatchDelay" => options.max_batch_delay = positive(fields, key, node).map(millis),
        "responseTimeout" => options.response_timeout = positive(fields, key, node).map(seconds),
        "startupTimeout" => options.startup_timeout = positive(fields, key, node).map(seconds),
        "clientTimeoutInMills" => options.client_timeout = positive(fields, key, node).map(millis),
        "maxRetryTimeoutInSec" => {
            options.max_retry_timeout =
                integer(fields, key, node, MOST_SECONDS).map(|n| seconds(n.max(0)));
        }
        "jobQueueSize" => {
            let size = above_zero(fields, key, node, MOST_JOBS);
            options.job_queue_size = size.and_then(|size| usize::try_from(size).ok());
        }
        "useJobTicket" => options.job_tickets = truth(fields, key, node),
        "deviceType" => options.device_type = device_type(fields, key, node),
        "deviceIds" => options.device_ids = device_ids(fields, key, node),
        _ => not_honored(fields, key, node),
    }
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
    let Some(min) = integer(fields, "minWorkers", min_node, MOST_WORKERS).map(|n| n.max(1)) else {
        return;
    };
    let max = match max {
        Some((key, node)) => integer(fields, key, node, MOST_WORKERS),
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
fn integer(fields: &mut Fields, key: &str, node: &Node, most: i128) -> Option<i128> {
    match node.value {
        Value::Null => None,
        Value::Integer(value) if value > most => {
            fields.problem(key, node, format!("must be at most {most}"));
            None
        }
        Value::Integer(value) => Some(value),
        _ => {
            fields.warn(key, node, "is ignored: it must be a whole number");
            None
        }
    }
}

fn at_least_one(fields: &mut Fields, key: &str, node: &Node, most: i128) -> Option<usize> {
    let value = integer(fields, key, node, most)?;
    if value < 1 {
        fields.warn(key, node, "becomes 1: it must be at least 1");
    }
    usize::try_from(value.max(1)).ok()
}

fn positive(fields: &mut Fields, key: &str, node: &Node) -> Option<i128> {
    above_zero(fields, key, node, MOST_SECONDS)
}

fn above_zero(fields: &mut Fields, key: &str, node: &Node, most: i128) -> Option<i128> {
    let value = integer(fields, key, node, most)?;
    if value <= 0 {
        fields.warn(key, node, "is ignored: it must be above 0");
    }
    (value > 0).then_some(value)
}

fn device_type(fields: &mut Fields, key: &str, node: &Node) -> Option<DeviceType> {
    match &node.value {
        Value::Text(text) if text == "cpu" => Some(DeviceType::Cpu),
        Value::Text(text) if text == "gpu" => Some(DeviceType::Gpu),
        Value::Null => None,
        _ => {
            fields.warn(key, node, "is ignored: it must be cpu or gpu");
            None
        }
    }
}

/// One bad id discards the list.
fn device_ids(fields: &mut Fields, key: &str, node: &Node) -> Option<Vec<u32>> {
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

/// TorchServe ignores what is no truth value.
fn truth(fields: &mut Fields, key: &str, node: &Node) -> Option<bool> {
    match &node.value {
        Value::Bool(value) => Some(*value),
        Value::Null => None,
        _ => {
            fields.warn(key, node, "is ignored: it must be true or false");
            None
        }
    }
}

fn not_honored(fields: &mut Fields, key: &str, node: &Node) {
    // Whoever writes down what holds anyway misses nothing.
    let is_off = matches!(
        node.value,
        Value::Null | Value::Bool(false) | Value::Integer(0)
    );
    match (key, without_effect(key)) {
        ("sequenceBatching", _) if is_off => {}
        ("sequenceBatching", _) => {
            let rule = "is not supported: requests are independent of each other, and a handler keeps nothing \
                        between them";
            fields.problem(key, node, rule);
        }
        (_, Some(_)) if is_off => {}
        (_, Some(why)) => fields.key_warning(key, node, why),
        (_, None) => free(fields, key, node),
    }
}

/// Why a key of TorchServe does nothing here; `None` if it is none.
fn without_effect(key: &str) -> Option<&'static str> {
    Some(match key {
        "parallelType" | "parallelLevel" | "torchrun" => {
            "has no effect: a worker computes on one device, in one process"
        }
        "continuousBatching" => {
            "has no effect: whatever waits is taken whenever a worker is free, and a request is answered at once"
        }
        "asyncCommunication" | "micro_batching" => {
            "has no effect: the server overlaps phases by itself"
        }
        "useVenv" => "has no effect: no Python is run",
        "pt2" => "has no effect: models are run as exported",
        "sequenceMaxIdleMSec"
        | "sequenceTimeoutMSec"
        | "maxNumSequence"
        | "maxSequenceJobQueueSize" => "has no effect without sequenceBatching",
        _ => return None,
    })
}

/// A key that TorchServe does not know either is for the handler, which gets the whole document. One that looks like
/// a misspelt setting is refused: serving without it would not be what its author meant.
fn free(fields: &mut Fields, key: &str, node: &Node) {
    let known = || KEYS.into_iter().chain(["handler"]);
    if nearest::nearest(key, known()).is_some() {
        return fields.unknown(key, node, key, known());
    }
    fields.key_warning(
        key,
        node,
        "is no setting of the server, and left to the handler",
    );
}
