//! Every key of `model-config.yaml`, TorchServe's at the top and ours under `lantern:`. Each stands here once: the type and
//! the range of its value, its default, what it is for, and the setting or limit of a version that it becomes.
//!
//! From these tables come the fields of [`Options`] and [`LimitOptions`], what is read and refused, and the reference in
//! `docs/settings.md`. To add a key, add a row here, and its field where it has its effect: in [`Settings`] or [`Limits`],
//! which travel to worker processes as they are.

use std::time::Duration;

use crate::model::{
    BackendKind, BatchingMode, Declared, Envelope, Hosting, Limits, Settings, StateSharing,
    TensorSpec, TensorsTo,
};

use Weight::{Light, Needed, Safety};

use super::super::yaml::Node;
use super::super::{Problem, Problems};
use super::fields::Fields;
use super::lantern::{self, duration, number, size, text, truth, word};
use super::torchserve::{self, at_least_one, milliseconds, seconds};
use super::{DeviceType, VersionLimits};

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// From the top of the document, with dots between levels.
    pub name: &'static str,
    /// The value that holds where nothing is set; in parentheses where it is found elsewhere; empty for none.
    pub default: &'static str,
    /// What it is for, in lines.
    pub lines: &'static [&'static str],
    /// What a wrong value does.
    pub weight: Weight,
    /// What its values look like.
    pub shape: fn() -> String,
}

/// What a wrong value of a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// It decides what the archive may do. A wrong value fails the model.
    Safety,
    /// Answers or capacity depend on it. A wrong value fails the model. For TorchServe's keys that is a number out of range; a
    /// value of another type is ignored with a warning, as there.
    Needed,
    /// A wrong value is ignored with a warning.
    Light,
}

type Read<T> = Box<dyn Fn(&mut Fields, &str, &Node) -> Option<T>>;

/// What the values of a key look like, and how they are read.
pub struct OptionKind<T> {
    shape: String,
    read: Read<T>,
}

impl<T> OptionKind<T> {
    /// A kind that `read` reads. It reports what is wrong.
    pub fn new(
        shape: impl Into<String>,
        read: impl Fn(&mut Fields, &str, &Node) -> Option<T> + 'static,
    ) -> Self {
        Self {
            shape: shape.into(),
            read: Box::new(read),
        }
    }

    fn shape(self) -> String {
        self.shape
    }

    fn read(&self, fields: &mut Fields, key: &str, node: &Node) -> Option<T> {
        (self.read)(fields, key, node)
    }
}

/// Makes the field, the key, the reading and the effect of each option from one row:
/// `/// meaning`, `field: type = "key", "default", weight, kind => field of the target;`
macro_rules! options {
    (
        $(#[doc = $about:literal])+
        $options:ident for $target:ident {$(
            $(#[doc = $line:literal])+
            $field:ident: $type:ty = $name:literal, $default:literal, $weight:expr, $kind:expr $(=> $becomes:ident)?;
        )+}
        $($more:ident: $more_type:ty)?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct $options {
            $($(#[doc = $line])+ pub $field: Option<$type>,)+
            $(
                /// Keys one level below.
                pub $more: $more_type,
            )?
        }

        impl $options {
            /// Every key.
            pub const KEYS: &'static [Key] = &[$(Key {
                name: $name,
                default: $default,
                lines: &[$($line),+],
                weight: $weight,
                shape: || OptionKind::<$type>::shape($kind),
            }),+];

            /// Reads one key; `false` if it is none of these.
            pub(super) fn read(&mut self, fields: &mut Fields, key: &str, node: &Node) -> bool {
                match key {
                    $($name => self.$field = fields.weighing($weight, |fields| {
                        OptionKind::<$type>::read(&$kind, fields, key, node)
                    }),)+
                    _ => return false,
                }
                true
            }

            /// Copies the options that are set into `target`.
            pub(super) fn apply_to(self, target: &mut $target) {
                $($(if let Some(value) = self.$field {
                    target.$becomes = value.into();
                })?)+
            }
        }
    };
}

/// Limits of a handler: options, each with a ceiling that is the server's `lantern_max_` and the field's name.
macro_rules! limits {
    ($(
        $(#[doc = $line:literal])+
        $field:ident: $type:ty = $name:literal, $default:literal, $kind:expr;
    )+) => {
        options! {
            /// `lantern: limits`; `None` where nothing is set.
            LimitOptions for Limits {
                $($(#[doc = $line])+ $field: $type = $name, $default, Safety, $kind => $field;)+
            }
        }

        impl LimitOptions {
            /// `ceilings`, lowered to what is said here.
            pub fn lower(&self, ceilings: &Limits) -> Limits {
                Limits {
                    $($field: self.$field.map_or(ceilings.$field, |most| most.min(ceilings.$field)),)+
                }
            }

            /// What the author asks for, else the default; never above the ceiling.
            pub(super) fn within(&self, ceilings: &Limits) -> Result<Limits, Problems> {
                let mut limits = Limits::default();
                self.clone().apply_to(&mut limits);
                let mut problems = Vec::new();
                $(
                    let problem = cap($name, self.$field, &mut limits.$field, ceilings.$field);
                    problems.extend(problem);
                )+
                Problems::or(problems, limits)
            }
        }
    };
}

options! {
    /// Options of the archive; `None` where nothing is set.
    Options for Settings {
        /// Workers to start with; they count as a pair with `maxWorkers`.
        min_workers: usize = "minWorkers", "(default_workers_per_model)", Needed, torchserve::workers();
        /// Workers there may be, up to `lantern_max_workers`.
        max_workers: usize = "maxWorkers", "(minWorkers)", Needed, torchserve::workers();
        /// Rows that a batch may have, up to `lantern_max_batch_size`.
        batch_size: usize = "batchSize", "1", Needed, at_least_one(VersionLimits::BATCH_SIZE) => batch_size;
        /// Time in ms that the oldest request may wait for a fuller batch while every worker is busy, up to `lantern_max_timeout`.
        max_batch_delay: Duration = "maxBatchDelay", "100", Needed, milliseconds() => max_batch_delay;
        /// Time in s from the arrival of a request until its answer, up to `lantern_max_timeout`.
        response_timeout: Duration = "responseTimeout", "(default_response_timeout)", Needed, seconds() => response_timeout;
        /// Time in s from the start of loading until the first worker is ready, up to `lantern_max_timeout`.
        startup_timeout: Duration = "startupTimeout", "(default_startup_timeout)", Needed, seconds() => startup_timeout;
        /// Time in ms after which no client waits any more, if that is sooner than the response timeout.
        client_timeout: Duration = "clientTimeoutInMills", "", Needed, milliseconds() => client_timeout;
        /// Time in s for which a version whose workers do not load is started again, up to `lantern_max_timeout`.
        max_retry_timeout: Duration = "maxRetryTimeoutInSec", "300", Needed, torchserve::retry_seconds() => max_retry_timeout;
        /// Requests that may wait, up to `lantern_max_job_queue_size`.
        job_queue_size: usize = "jobQueueSize", "(job_queue_size)", Needed, torchserve::above_zero(VersionLimits::JOB_QUEUE_SIZE) => job_queue_size;
        /// Whether a request is admitted only while a worker is idle.
        job_tickets: bool = "useJobTicket", "false", Light, torchserve::truth() => job_tickets;
        /// Whether the processor computes, or GPUs where there are any.
        device_type: DeviceType = "deviceType", "gpu", Light, torchserve::device_type();
        /// GPUs that workers go to, in turn.
        device_ids: Vec<u32> = "deviceIds", "(all)", Light, torchserve::device_ids();
        /// The component, where the manifest does not name it.
        handler: String = "lantern.handler", "(the manifest's)", Needed, lantern::handler();
        /// The framework that runs the artifact.
        backend: BackendKind = "lantern.backend", "(by the artifact's name)", Needed, OptionKind::new(BackendKind::choices(), lantern::backend);
        /// Inputs: name, dtype and shape of each, -1 for an axis that varies.
        inputs: Vec<TensorSpec> = "lantern.inputs", "(the model's)", Needed, lantern::specs();
        /// Outputs, in the same way.
        outputs: Vec<TensorSpec> = "lantern.outputs", "(the model's)", Needed, lantern::specs();
        /// Where the model runs: in a worker process of its own, or in the server's (ONNX, and only with `lantern_allow_inline`).
        hosting: Hosting = "lantern.hosting", "(lantern_hosting)", Safety, word(&[("process", Hosting::Process), ("inline", Hosting::Inline)]) => hosting;
        /// Threads of one worker inside one operator.
        intra_op_threads: usize = "lantern.intraOpThreads", "(so that all workers fit the machine)", Needed, number(1, 1024) => intra_op_threads;
        /// Whether each request has a handler instance of its own.
        fresh_instances: bool = "lantern.freshInstances", "false", Safety, truth() => fresh_instances;
        /// Where requests of Open Inference Protocol go: straight to the model, or through the handler.
        tensors_to: TensorsTo = "lantern.oip", "model", Light, word(&[("model", TensorsTo::Model), ("handler", TensorsTo::Handler)]) => tensors_to;
        /// How platforms wrap requests: none, body, json, kserve or kservev2.
        envelope: Envelope = "lantern.serviceEnvelope", "(the manifest's, service_envelope)", Needed, lantern::envelope() => envelope;
        /// Whether requests are stacked: `auto` once samples or requests showed that it changes no answer.
        batching: BatchingMode = "lantern.batching", "auto", Needed, lantern::batching() => batching;
        /// A file of requests in the archive, to try batching out on.
        samples: String = "lantern.samples", "", Needed, text();
        /// Elements of all inputs together that a batch may have, beside `batchSize` rows: what fits the memory of a model whose inputs have many
        /// lengths. A request with more runs by itself.
        max_batch_elements: usize = "lantern.maxBatchElements", "(any number)", Needed, number(1, 1 << 40) => max_batch_elements;
        /// Whether a fuller batch is waited for even while a worker is idle.
        wait_for_full_batches: bool = "lantern.waitForFullBatches", "false", Light, truth() => wait_for_full_batches;
        /// Whether workers share a TorchScript model that its runs change, or have a copy each.
        state: StateSharing = "lantern.state", "shared", Needed, word(&[("shared", StateSharing::Shared), ("copies", StateSharing::Copies)]) => state;
    }
    limits: LimitOptions
}

limits! {
    /// Linear memory and tables of one handler instance, in total; `lantern_max_handler_memory` is another ceiling.
    memory: usize = "lantern.limits.memory", "128MiB", size();
    /// CPU time of one call to `preprocess` or `postprocess`.
    cpu: Duration = "lantern.limits.cpu", "250ms", duration();
    /// CPU time of `init`.
    init_cpu: Duration = "lantern.limits.initCpu", "10s", duration();
    /// Bytes of tensors and payload that one call may hand to the host.
    output: usize = "lantern.limits.output", "64MiB", size();
    /// Bytes of a response's body; `max_response_size` is another ceiling.
    response: usize = "lantern.limits.response", "(max_response_size)", size();
    /// Calls to the host that one call may make.
    host_calls: u64 = "lantern.limits.hostCalls", "100000", number(1, i128::from(u64::MAX));
    /// Log lines a second, over all instances of a version.
    log_lines_per_second: u32 = "lantern.limits.logLinesPerSecond", "1000", number(0, i128::from(u32::MAX));
    /// Bytes of log lines a second, over all instances of a version.
    log_bytes_per_second: usize = "lantern.limits.logBytesPerSecond", "1MiB", size();
    /// Observations of the handler's own metrics a second, over all instances of a version.
    observations_per_second: u32 = "lantern.limits.observationsPerSecond", "100000", number(0, i128::from(u32::MAX));
    /// Series of the handler's own metrics.
    metric_series: usize = "lantern.limits.metricSeries", "1000", number(0, 1 << 32);
    /// Handler instances that may exist at a time: fewer if their memory together would be above `lantern_max_handler_memory`.
    instances: usize = "lantern.limits.instances", "32", number(1, 65_536);
    /// Memory that the model's worker process may have. It means nothing to a model that is hosted inline.
    process_memory: usize = "lantern.limits.processMemory", "(lantern_max_process_memory)", size();
    /// Threads that the model's worker process may have, its own included. It means nothing to a model that is hosted inline.
    threads: usize = "lantern.limits.threads", "(lantern_max_threads)", number(1, 65_536);
}

const ONE_DEVICE: &str = "has no effect: a worker computes on one device, in one process";
const BY_ITSELF: &str = "has no effect: the server overlaps phases by itself";
const NO_SEQUENCES: &str = "has no effect without sequenceBatching";

/// Keys of TorchServe's that do nothing here, and why. They change how fast answers come, never which: so a version that
/// has them is served, with a warning.
pub const IGNORED: [(&str, &str); 12] = [
    ("parallelType", ONE_DEVICE),
    ("parallelLevel", ONE_DEVICE),
    ("torchrun", ONE_DEVICE),
    (
        "continuousBatching",
        "has no effect: whatever waits is taken whenever a worker is free, and a request is answered at once",
    ),
    ("asyncCommunication", BY_ITSELF),
    ("micro_batching", BY_ITSELF),
    ("useVenv", "has no effect: no Python is run"),
    ("pt2", "has no effect: models are run as exported"),
    ("sequenceMaxIdleMSec", NO_SEQUENCES),
    ("sequenceTimeoutMSec", NO_SEQUENCES),
    ("maxNumSequence", NO_SEQUENCES),
    ("maxSequenceJobQueueSize", NO_SEQUENCES),
];

impl Options {
    /// Inputs and outputs as declared.
    pub fn declared(&self) -> Declared {
        Declared {
            inputs: self.inputs.clone().unwrap_or_default(),
            outputs: self.outputs.clone().unwrap_or_default(),
        }
    }
}

/// Every key that has a value.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    Options::KEYS.iter().chain(LimitOptions::KEYS)
}

/// Names of the keys right below `section`.
pub(super) fn names(section: &str) -> impl Iterator<Item = &'static str> {
    let below = keys().filter_map(move |key| key.name.strip_prefix(section));
    below.filter(|name| !name.contains('.'))
}

/// Lowers `limit` to `ceiling`. To ask for more is a problem.
fn cap<T: Ord + Copy + std::fmt::Debug>(
    key: &str,
    asked: Option<T>,
    limit: &mut T,
    ceiling: T,
) -> Option<Problem> {
    *limit = ceiling.min(*limit);
    let asked = asked.filter(|asked| *asked > ceiling)?;
    let rule = format!("must be at most {ceiling:?}, which is what this server allows");
    Some(Problem::new("model configuration", key, rule, asked))
}
