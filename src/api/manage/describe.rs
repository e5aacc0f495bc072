//! A model version as `describe` shows it: TorchServe's members in TorchServe's order, then ours.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::Serialize;

use super::Operations;
use crate::catalog::{
    Condition, Description, Entry, ModelState, Which, WorkerState, WorkerStatus, cannot_describe,
};
use crate::error::{Error, truncated};
use crate::model::{BackendKind, Device, Envelope, Hosting, TensorSpec};

/// Bytes that are shown of what became of a wall.
const LONGEST_OUTCOME: usize = 300;

/// A JSON object that a handler made.
type Metadata = serde_json::Map<String, serde_json::Value>;

/// Whose description is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::api) struct DescribeParams {
    /// The model.
    pub model: String,
    /// The version, or `all`; the default version if not given.
    pub version: Option<String>,
    /// Whether the handler is asked, too; not if not given, and never for `all`.
    pub customized: Option<bool>,
    /// Id of the request, for the handler's log.
    pub request: String,
}

/// One version, as JSON shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the members are TorchServe's"
)]
pub(in crate::api) struct Described {
    model_name: String,
    model_version: String,
    model_url: String,
    runtime: &'static str,
    min_workers: usize,
    max_workers: usize,
    batch_size: usize,
    max_batch_delay: u128,
    response_timeout: u64,
    startup_timeout: u64,
    max_retry_timeout_in_sec: u64,
    client_timeout_in_mills: u128,
    parallel_type: &'static str,
    parallel_level: u32,
    device_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    device_ids: Vec<u32>,
    continuous_batching: bool,
    use_job_ticket: bool,
    use_venv: bool,
    stateful: bool,
    #[serde(rename = "sequenceMaxIdleMSec")]
    sequence_max_idle: u64,
    #[serde(rename = "sequenceTimeoutMSec")]
    sequence_timeout: u64,
    max_num_sequence: u32,
    max_sequence_job_queue_size: u32,
    loaded_at_startup: bool,
    workers: Vec<Worker>,
    job_queue_status: JobQueue,
    #[serde(skip_serializing_if = "Option::is_none")]
    customized_metadata: Option<Metadata>,
    lantern: Lantern,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    id: String,
    start_time: String,
    status: &'static str,
    memory_usage: u64,
    pid: u32,
    gpu: bool,
    gpu_usage: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobQueue {
    remaining_capacity: usize,
    pending_requests: usize,
}

/// What TorchServe has no member for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lantern {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'static str>,
    hosting: &'static str,
    /// What became of each wall around the worker process.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sandbox: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_envelope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batching: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keeps_state: Option<&'static str>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    last_words: Vec<String>,
    /// Of an archive that was opened.
    #[serde(flatten)]
    origin: Option<Origin>,
}

/// What the archive holds, and whose it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Origin {
    /// Digest of the contents.
    archive_digest: String,
    /// Whoever signed it; null if nobody did.
    signer: Option<String>,
}

/// Whether a model takes requests, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct Readiness {
    name: String,
    ready: bool,
    /// Said of a version whose worker processes keep dying.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

impl Readiness {
    /// Whether it takes them.
    pub(in crate::api) const fn is_ready(&self) -> bool {
        self.ready
    }
}

impl Operations {
    /// Whether the default version of a model has a worker that takes jobs.
    pub(in crate::api) fn readiness(&self, model: &str) -> Result<Readiness, Error> {
        Ok(Readiness {
            name: model.to_owned(),
            ready: self.catalog.is_version_ready(model, None)?,
            state: self
                .catalog
                .is_version_degraded(model)
                .then_some(Condition::Degraded.name()),
        })
    }

    /// Describes one version of a model, or all of them.
    pub(in crate::api) async fn describe(
        &self,
        params: DescribeParams,
    ) -> Result<Vec<Described>, Error> {
        self.note_model(&params.model, params.version.as_deref());
        let which = match params.version.as_deref() {
            None => Which::Default,
            Some("all") => Which::All,
            Some(version) => Which::Version(version),
        };
        let expected = self.catalog.describe_expected(&params.model, which);
        let is_one = which != Which::All;
        let (entries, others) = match self.catalog.select(&params.model, which) {
            _ if is_one && !expected.is_empty() => (Vec::new(), expected),
            Ok(entries) if is_one => (entries, Vec::new()),
            selected => {
                let failed = self.catalog.describe_failed(&params.model, which);
                let others = [expected, failed].concat();
                match selected {
                    Err(error) if others.is_empty() => return Err(error),
                    selected => (selected.unwrap_or_default(), others),
                }
            }
        };
        let is_customized = params.customized == Some(true) && is_one;
        if let Some(other) = others.first().filter(|_| is_customized) {
            return Err(cannot_describe(&other.spec.name));
        }
        let described = entries.iter().map(|entry| entry.describe());
        let described = described.chain(others);
        let mut described: Vec<Described> = described.map(|one| describe(&one)).collect();
        if is_customized {
            for (one, entry) in described.iter_mut().zip(&entries) {
                one.customized_metadata = Some(customized_metadata(entry, &params.request).await?);
            }
        }
        Ok(described)
    }
}

/// What the handler says of its model; `{}` if that is no JSON object.
async fn customized_metadata(entry: &Entry, request_id: &str) -> Result<Metadata, Error> {
    let text = entry.ask_description(request_id).await?;
    Ok(serde_json::from_slice(&text).unwrap_or_else(|error| {
        let (model, version) = (&entry.spec().name, &entry.spec().version);
        tracing::warn!(%model, %version, "the handler's description is no JSON object: {error}");
        Metadata::new()
    }))
}

/// What the API says of a version.
fn describe(description: &Description) -> Described {
    let (spec, settings) = (&description.spec, &description.spec.settings);
    // What the archive's author said, in TorchServe's words; `config` checked it.
    let said: serde_json::Value = serde_json::from_str(&spec.config).unwrap_or_default();
    let gpus: Vec<u32> = settings
        .devices
        .iter()
        .filter_map(|device| gpu(*device))
        .collect();
    Described {
        model_name: spec.name.to_string(),
        model_version: spec.version.to_string(),
        model_url: description.url.clone(),
        runtime: description.runtime,
        min_workers: description.bounds.min,
        max_workers: description.bounds.max,
        batch_size: settings.batch_size,
        max_batch_delay: settings.max_batch_delay.as_millis(),
        response_timeout: whole_seconds(settings.response_timeout),
        startup_timeout: whole_seconds(settings.startup_timeout),
        max_retry_timeout_in_sec: whole_seconds(settings.max_retry_timeout),
        client_timeout_in_mills: settings.client_timeout.map_or(0, |time| time.as_millis()),
        parallel_type: "",
        parallel_level: 0,
        device_type: if gpus.is_empty() { "cpu" } else { "gpu" },
        device_ids: if said["deviceIds"].is_array() {
            gpus
        } else {
            Vec::new()
        },
        continuous_batching: false,
        use_job_ticket: settings.job_tickets,
        use_venv: false,
        stateful: false,
        sequence_max_idle: 0,
        sequence_timeout: 0,
        max_num_sequence: 0,
        max_sequence_job_queue_size: 0,
        loaded_at_startup: description.loaded_at_startup,
        workers: description.workers.iter().map(worker).collect(),
        job_queue_status: JobQueue {
            remaining_capacity: description.queue_remaining,
            pending_requests: description.queue_pending,
        },
        customized_metadata: None,
        lantern: lantern(description),
    }
}

fn worker(status: &WorkerStatus) -> Worker {
    let gpu = gpu(status.device);
    Worker {
        id: status.id.to_string(),
        start_time: timestamp(status.started),
        status: match status.state {
            WorkerState::Ready => "READY",
            WorkerState::Loading | WorkerState::Failed => "UNLOADING",
        },
        memory_usage: status.memory(),
        pid: status.pid,
        gpu: gpu.is_some(),
        gpu_usage: gpu.map_or_else(|| "N/A".to_owned(), |index| format!("gpuId::{index}")),
    }
}

fn lantern(description: &Description) -> Lantern {
    let reason = match &description.condition {
        Condition::Failed(error) => Some(error),
        _ => description.last_error.as_ref(),
    };
    Lantern {
        state: description.condition.name(),
        reason: reason.map(|error| error.message().to_owned()),
        backend: description.backend.map(BackendKind::name),
        hosting: match description.spec.settings.hosting {
            Hosting::Inline => "inline",
            Hosting::Process => "process",
        },
        sandbox: (description.walls.iter())
            .map(|(wall, outcome)| {
                let text = outcome.to_string();
                (wall.name(), truncated(&text, LONGEST_OUTCOME).to_owned())
            })
            .collect(),
        service_envelope: match description.spec.settings.envelope {
            Envelope::None => None,
            envelope => Some(envelope.name()),
        },
        batching: description.batching.as_ref().map(ToString::to_string),
        keeps_state: keeps_state(description.signature.state),
        inputs: specs(&description.signature.inputs),
        outputs: specs(&description.signature.outputs),
        last_words: description.last_output.clone(),
        origin: description.origin.map(|origin| Origin {
            archive_digest: origin.digest.to_string(),
            signer: origin.signer.map(|signer| signer.to_string()),
        }),
    }
}

/// What is done about a model that changes in a run.
const fn keeps_state(state: ModelState) -> Option<&'static str> {
    match state {
        ModelState::Stateless => None,
        ModelState::Locked => Some("shared by all workers, which run one after the other"),
        ModelState::Copied => Some("a copy for each worker"),
    }
}

fn specs(specs: &[TensorSpec]) -> Vec<String> {
    specs.iter().map(ToString::to_string).collect()
}

/// A time that no calendar has is a clock's mistake, and not worth a failure.
fn timestamp(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

const fn gpu(device: Device) -> Option<u32> {
    match device {
        Device::Cpu => None,
        Device::Cuda(index) => Some(index),
    }
}

const fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_follow_the_calendar() {
        for (milliseconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_007, "2000-02-28T23:59:59.007Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
            assert_eq!(timestamp(time), expected);
        }
    }
}
