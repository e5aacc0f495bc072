//! `model-config.yaml`: what an archive's author says of how the model is to be served.
//!
//! TorchServe's keys stand at the top and follow its rules: a value that breaks a rule is ignored with a warning, so
//! that archives that load there load here. Ours stand under `lantern:` and are strict. What stands under `handler:`,
//! and at the top without being a setting, is the handler's own. `model/torchserve.rs` and
//! `model/lantern.rs` list the keys; `model/resolve.rs` says which setting wins.

use std::time::Duration;

use crate::model::{BackendKind, BatchingMode, Declared, Hosting, StateSharing, TensorsTo};

use super::yaml::{self, Node, Value};
use super::{Problem, Problems};

mod fields;
mod lantern;
mod resolve;
mod torchserve;

pub(super) use fields::Fields;
pub use resolve::{Defaults, Most, Requested, Resolved, resolve};

/// A `model-config.yaml` that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// What the author said.
    pub options: Options,
    /// Whether TorchServe's `ts_handler_*` metrics are wanted: `handler: {profile: true}`.
    pub is_profiled: bool,
    /// The whole document as JSON, for the handler; `{}` if there is none.
    pub json: String,
    /// What was ignored, and why.
    pub warnings: Vec<Problem>,
}

/// What the author said; `None` where nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// `minWorkers`; at least 1.
    pub min_workers: Option<usize>,
    /// `maxWorkers`; at least `minWorkers`.
    pub max_workers: Option<usize>,
    /// `batchSize`; at least 1.
    pub batch_size: Option<usize>,
    /// `maxBatchDelay`, in the file in ms.
    pub max_batch_delay: Option<Duration>,
    /// `responseTimeout`, in the file in s.
    pub response_timeout: Option<Duration>,
    /// `startupTimeout`, in the file in s.
    pub startup_timeout: Option<Duration>,
    /// `clientTimeoutInMills`: shortens the deadline of every request.
    pub client_timeout: Option<Duration>,
    /// `maxRetryTimeoutInSec`.
    pub max_retry_timeout: Option<Duration>,
    /// `jobQueueSize`; at least 1.
    pub job_queue_size: Option<usize>,
    /// `useJobTicket`.
    pub job_tickets: Option<bool>,
    /// `deviceType`.
    pub device_type: Option<DeviceType>,
    /// `deviceIds`; not empty.
    pub device_ids: Option<Vec<u32>>,
    /// `lantern: handler`: the component, where the manifest does not name it.
    pub handler: Option<String>,
    /// `lantern: backend`.
    pub backend: Option<BackendKind>,
    /// `lantern: inputs` and `lantern: outputs`.
    pub declared: Declared,
    /// `lantern: hosting`.
    pub hosting: Option<Hosting>,
    /// `lantern: intraOpThreads`; at least 1.
    pub intra_op_threads: Option<usize>,
    /// `lantern: freshInstances`.
    pub fresh_instances: Option<bool>,
    /// `lantern: oip`: where requests of Open Inference Protocol go.
    pub tensors_to: Option<TensorsTo>,
    /// `lantern: batching`.
    pub batching: Option<BatchingMode>,
    /// `lantern: samples`: a file in the archive.
    pub samples: Option<String>,
    /// `lantern: waitForFullBatches`.
    pub wait_for_full_batches: Option<bool>,
    /// `lantern: state`: what workers do with a model that keeps state.
    pub state: Option<StateSharing>,
    /// `lantern: limits`.
    pub limits: LimitOptions,
}

/// `deviceType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// The processor.
    Cpu,
    /// GPUs, where there are any.
    Gpu,
}

/// `lantern: limits`; the keys are those of [`crate::model::Limits`] in camel case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitOptions {
    /// `memory`: bytes of one instance.
    pub memory: Option<usize>,
    /// `cpu`: CPU time of one call.
    pub cpu: Option<Duration>,
    /// `initCpu`: CPU time of `init`.
    pub init_cpu: Option<Duration>,
    /// `output`: bytes that one call may hand to the host.
    pub output: Option<usize>,
    /// `response`: bytes of a response's body.
    pub response: Option<usize>,
    /// `hostCalls`: calls to the host that one call may make.
    pub host_calls: Option<u64>,
    /// `logLinesPerSecond`.
    pub log_lines_per_second: Option<u32>,
    /// `metricSeries`.
    pub metric_series: Option<usize>,
    /// `instances`: warm instances.
    pub instances: Option<usize>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            options: Options::default(),
            is_profiled: false,
            json: "{}".to_owned(),
            warnings: Vec::new(),
        }
    }
}

impl ModelConfig {
    /// Reads the document in `bytes`; `origin` is what messages call it, such as its name in the archive.
    pub fn parse(origin: &str, bytes: &[u8]) -> Result<Self, Problems> {
        let document = yaml::parse(origin, bytes)?;
        let mut fields = fields::Fields::new(origin);
        let mut options = Options::default();
        let json = match &document.value {
            Value::Null => "{}".to_owned(),
            Value::Map(entries) => {
                read(&mut fields, entries, &mut options);
                document.to_json().to_string()
            }
            other => {
                let rule = "must be a mapping of keys to values";
                return Err(Problem::new(origin, "", rule, other.describe()).into());
            }
        };
        let (problems, warnings) = fields.finish();
        let config = Self {
            options,
            is_profiled: is_profiled(&document),
            json,
            warnings,
        };
        Problems::or(problems, config)
    }
}

/// Settings under `handler:` are the handler's own; this one TorchServe's workers read as well.
fn is_profiled(document: &Node) -> bool {
    let entry = |node: &Node, key: &str| match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node.clone()),
        _ => None,
    };
    let profile = entry(document, "handler").and_then(|handler| entry(&handler, "profile"));
    profile.is_some_and(|profile| profile.value == Value::Bool(true))
}

fn read(fields: &mut fields::Fields, entries: &[(String, Node)], options: &mut Options) {
    for (key, node) in entries {
        match key.as_str() {
            // Free settings, seen by the handler alone.
            "handler" => {}
            "lantern" => lantern::read(fields, node, options),
            _ => torchserve::read(fields, key, node, options),
        }
    }
    torchserve::check_workers(fields, entries, options);
}

#[cfg(test)]
mod tests;
