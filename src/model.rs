//! What a model version is: names, versions, devices, settings and limits, parsed once into types.
//!
//! Everything here is plain data that was checked when it was made. `config` knows where settings come from; `runtime` and
//! `handler` do what they say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tensor::Tensor;

pub use crate::tensor::DType;

mod backend;
mod headers;
mod tenant;
mod unserved;

pub use backend::{BackendInfo, BackendKind, Program};
pub use headers::{ForbiddenHeader, HandlerHeaders};
pub use tenant::TenantName;
pub use unserved::{Glimpse, UNSERVED, Unserved};

const NAME_LIMIT: usize = 255;

const MODEL_NAME_RULE: &str = "must be 1 to 255 bytes of text, not of blanks alone, without '/', control characters and line separators, and neither '.' nor '..'";
const VERSION_RULE: &str = "must start with a letter or digit, hold only letters, digits, '_', '-' and '.', and be at most 255 bytes";

/// The error for a name or version that breaks the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} {rule}")]
pub struct InvalidName {
    what: &'static str,
    value: String,
    rule: &'static str,
}

/// Name of a model. As TorchServe takes it, it is any text, blanks and letters of all scripts included, but for what no
/// path of a URL can hold, what would break a line of a log, and more than 255 bytes. No file is named by it as it is.
/// Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName(Arc<str>);

/// Version of a model: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 255 bytes. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(Arc<str>);

impl ModelName {
    /// Checks the rule for names.
    pub fn new(value: &str) -> Result<Self, InvalidName> {
        let is_sound = is_name_length(value)
            && !value.trim().is_empty()
            && !matches!(value, "." | "..")
            && !value.chars().any(breaks_names);
        check(is_sound, "model name", value, MODEL_NAME_RULE).map(Self)
    }

    /// Whether it follows the narrower rule of `torch-model-archiver`, which is that for versions.
    pub fn is_plain(&self) -> bool {
        is_plain(&self.0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lets a map with names as keys be searched with a text from a request.
impl std::borrow::Borrow<str> for ModelName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Version {
    /// Checks the rule for versions.
    pub fn new(value: &str) -> Result<Self, InvalidName> {
        check(is_plain(value), "model version", value, VERSION_RULE).map(Self)
    }

    /// The version.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn check(
    is_sound: bool,
    what: &'static str,
    value: &str,
    rule: &'static str,
) -> Result<Arc<str>, InvalidName> {
    if is_sound {
        return Ok(value.into());
    }
    Err(InvalidName {
        what,
        value: value.chars().take(NAME_LIMIT).collect(),
        rule,
    })
}

fn is_name_length(value: &str) -> bool {
    (1..=NAME_LIMIT).contains(&value.len())
}

fn is_plain(value: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let starts_well = value.starts_with(|first: char| first.is_ascii_alphanumeric());
    starts_well && is_name_length(value) && value.bytes().all(allowed)
}

/// Characters that end a line or a segment of a path, that change the direction of what follows, and U+FFFF, which is no
/// character and stands for what is missing.
fn breaks_names(character: char) -> bool {
    character.is_control()
        || matches!(character, '/' | '\u{2028}' | '\u{2029}' | '\u{FFFF}')
        || matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A device that a worker computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A CUDA device by its index.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

/// Where a version's runtime is hosted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Hosting {
    /// In a worker process of its own.
    #[default]
    Process,
    /// In the server's process.
    Inline,
}

/// What takes the tensors of clients of Open Inference Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TensorsTo {
    /// The model, without the handler. A version without a model has its handler take them.
    #[default]
    Model,
    /// The handler, as for other requests.
    Handler,
}

/// What workers do with a model whose runs change it. A model that keeps no state is shared either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum StateSharing {
    /// Workers of a device call one copy in turn, so that answers do not depend on which worker gives them.
    #[default]
    Shared,
    /// Each worker has a copy of its own, with state of its own.
    Copies,
}

/// How requests are wrapped by the platform that sends them, and answers for it: TorchServe's `service_envelope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Envelope {
    /// They are not: a handler gets each body as it was sent.
    #[default]
    None,
    /// A form's field `data`, or else its `body`, is the body.
    Body,
    /// TensorFlow Serving's `{"instances": […]}`, answered by `{"predictions": […]}`.
    Json,
    /// The same, as KServe's first protocol.
    KServe,
    /// KServe's second protocol: `{"inputs": […]}`, answered by `{"outputs": […]}`.
    KServeV2,
}

impl Envelope {
    /// Every envelope by its name, and two by the names they had while `KServe` was `KFServing`.
    pub const NAMES: [(&str, Self); 7] = [
        ("none", Self::None),
        ("body", Self::Body),
        ("json", Self::Json),
        ("kserve", Self::KServe),
        ("kservev2", Self::KServeV2),
        ("kfserving", Self::KServe),
        ("kfservingv2", Self::KServeV2),
    ];

    /// The envelope of that name; an empty one means none.
    pub fn named(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::None);
        }
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, envelope)| *envelope)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Body => "body",
            Self::Json => "json",
            Self::KServe => "kserve",
            Self::KServeV2 => "kservev2",
        }
    }

    /// The names, for messages.
    pub fn choices() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }

    /// Whether it is one of KServe's.
    pub const fn is_kserves(self) -> bool {
        matches!(self, Self::KServe | Self::KServeV2)
    }
}

/// Whether requests may be stacked along axis 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum BatchingMode {
    /// They are, once samples or requests have shown that it changes no answer.
    #[default]
    Auto,
    /// They are from the start, unless samples or requests show that it changes answers.
    On,
    /// They are not.
    Off,
}

/// One input or output of a model, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in the graph, or the declared one.
    pub name: Arc<str>,
    /// Element type; `None` where the model does not say.
    pub dtype: Option<DType>,
    /// Size of each axis; `None` for an axis that varies, as the batch axis does. All of it is `None` where the
    /// model does not say how many axes there are.
    pub shape: Option<Vec<Option<usize>>>,
    /// How many tensors it stands for.
    pub arity: Arity,
}

/// How many tensors an input or output stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arity {
    /// Exactly one tensor.
    #[default]
    One,
    /// One tensor or none. An input has a default then, and an output is left out.
    Optional,
    /// Any number of tensors, also none: a list named `x` is the tensors `x.0`, `x.1` and so on.
    Many,
}

impl TensorSpec {
    /// One tensor whose dtype and rank are known.
    pub fn new(name: impl Into<Arc<str>>, dtype: DType, shape: Vec<Option<usize>>) -> Self {
        Self {
            name: name.into(),
            dtype: Some(dtype),
            shape: Some(shape),
            arity: Arity::One,
        }
    }

    /// Whether a tensor of this name belongs to it.
    pub fn is_named(&self, name: &str) -> bool {
        if self.arity == Arity::Many {
            return self.member(name).is_some();
        }
        *self.name == *name
    }

    /// The index in a list of the tensor named `name`; `None` if it is no member.
    pub fn member(&self, name: &str) -> Option<usize> {
        let index = name.strip_prefix(&*self.name)?.strip_prefix('.')?;
        let is_canonical = index == "0" || !index.starts_with('0');
        let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
        (is_canonical && is_number)
            .then(|| index.parse().ok())
            .flatten()
    }

    /// Whether a tensor has the dtype and the shape that are said of it.
    pub fn fits(&self, tensor: &Tensor) -> bool {
        let fits = |axes: &Vec<Option<usize>>| {
            let mut pairs = axes.iter().zip(tensor.shape());
            axes.len() == tensor.shape().len()
                && pairs.all(|(said, actual)| said.is_none_or(|said| said == *actual))
        };
        self.dtype.is_none_or(|dtype| dtype == tensor.dtype())
            && self.shape.as_ref().is_none_or(fits)
    }

    /// Whether axis 0 is there and varies, as the batch axis does.
    pub fn has_free_rows(&self) -> bool {
        let axes = self.shape.as_ref();
        axes.is_some_and(|axes| matches!(axes.first(), Some(None)))
    }
}

/// Written as `image: fp32[?, 28, 28]`, with `any` for an unknown dtype and `[...]` for an unknown rank.
impl fmt::Display for TensorSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype.map_or("any", DType::name);
        let suffix = match self.arity {
            Arity::One => "",
            Arity::Optional => " (optional)",
            Arity::Many => " (list)",
        };
        let size = |axis: &Option<usize>| axis.map_or("?".to_owned(), |size| size.to_string());
        let sizes = |axes: &Vec<Option<usize>>| axes.iter().map(size).collect::<Vec<_>>();
        let axes = self.shape.as_ref().map(|axes| sizes(axes).join(", "));
        let axes = axes.as_deref().unwrap_or("...");
        write!(formatter, "{}: {dtype}[{axes}]{suffix}", self.name)
    }
}

/// Inputs and outputs that the version's owner declared, in order. Empty without a declaration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// Inputs, by the names that the model gives them.
    pub inputs: Vec<TensorSpec>,
    /// Outputs; for TorchScript also names for a tuple's or list's members, in their order.
    pub outputs: Vec<TensorSpec>,
}

/// How a version is served: TorchServe's settings and Lantern's own. Units are in the types.
///
/// They cross to a worker process as they are, without those that are skipped: the front alone applies them, and a worker
/// process has their defaults. Both ends are of one build, so the encoding needs no versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Workers to start with; 0 registers the version without any.
    pub min_workers: usize,
    /// Most workers that it may have.
    pub max_workers: usize,
    /// Most rows of a batch; at least 1.
    pub batch_size: usize,
    /// Most elements of all inputs together that a batch may have; a request with more runs by itself.
    pub max_batch_elements: Option<usize>,
    /// How long the oldest job may wait for a fuller batch while every worker is busy.
    pub max_batch_delay: Duration,
    /// Wait for fuller batches even while a worker is idle.
    pub wait_for_full_batches: bool,
    /// Whether requests may be stacked at all.
    pub batching: BatchingMode,
    /// Most requests that may wait, beyond those being run.
    #[serde(skip)]
    pub job_queue_size: usize,
    /// Whether a request is admitted only while a worker is idle, even if the queue has room.
    #[serde(skip)]
    pub job_tickets: bool,
    /// How long a request may take, from its arrival until its answer.
    pub response_timeout: Duration,
    /// How long clients wait for an answer, from the request's arrival; it counts where it is shorter than the response
    /// timeout.
    #[serde(skip)]
    pub client_timeout: Option<Duration>,
    /// How long loading may take, until the first worker is ready.
    pub startup_timeout: Duration,
    /// For how long a version that keeps failing is started again.
    pub max_retry_timeout: Duration,
    /// Devices the workers go to, round robin; never empty.
    pub devices: Vec<Device>,
    /// Threads that one worker uses inside one operator; `None` chooses them so that all workers together fit the machine.
    pub intra_op_threads: Option<usize>,
    /// Where the runtime is hosted.
    #[serde(skip)]
    pub hosting: Hosting,
    /// Whether each request gets a new handler instance.
    pub fresh_instances: bool,
    /// What takes the tensors of clients of Open Inference Protocol.
    pub tensors_to: TensorsTo,
    /// How requests are wrapped.
    pub envelope: Envelope,
    /// What workers do with a model that keeps state.
    pub state: StateSharing,
    /// Headers that act on more than a response and that the handler may set all the same.
    pub handler_headers: HandlerHeaders,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_workers: 1,
            max_workers: 1,
            batch_size: 1,
            max_batch_elements: None,
            max_batch_delay: Duration::from_millis(100),
            wait_for_full_batches: false,
            batching: BatchingMode::default(),
            job_queue_size: 100,
            job_tickets: false,
            response_timeout: Duration::from_mins(2),
            client_timeout: None,
            startup_timeout: Duration::from_mins(2),
            max_retry_timeout: Duration::from_mins(5),
            devices: vec![Device::Cpu],
            intra_op_threads: None,
            hosting: Hosting::default(),
            fresh_instances: false,
            tensors_to: TensorsTo::default(),
            envelope: Envelope::default(),
            state: StateSharing::default(),
            handler_headers: HandlerHeaders::default(),
        }
    }
}

impl Settings {
    /// How long after its arrival a request expires.
    pub fn answer_timeout(&self) -> Duration {
        let client = self.client_timeout.unwrap_or(Duration::MAX);
        client.min(self.response_timeout)
    }
}

/// How much a handler may use, and the worker process around it. Each limit has a default, a key under `lantern: limits:` and
/// a ceiling. Limits cross to a worker process as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of all linear memories of one instance.
    pub memory: usize,
    /// CPU time of one call to `preprocess` or `postprocess`.
    pub cpu: Duration,
    /// CPU time of `init`.
    pub init_cpu: Duration,
    /// Bytes of tensors and payload that one call may hand to the host.
    pub output: usize,
    /// Bytes of one response's body.
    pub response: usize,
    /// Calls to the host that one call may make.
    pub host_calls: u64,
    /// Log lines a second, of all instances of a version together.
    pub log_lines_per_second: u32,
    /// Bytes of those lines a second.
    pub log_bytes_per_second: usize,
    /// Observations of the handler's own metrics a second, of all instances of a version together.
    pub observations_per_second: u32,
    /// Series that the handler's own metrics may have.
    pub metric_series: usize,
    /// Instances that may exist at a time.
    pub instances: usize,
    /// Bytes of memory that the version's worker process may have; `usize::MAX` for no limit. It means nothing to a version
    /// that is hosted inline.
    pub process_memory: usize,
    /// Threads that the version's worker process may have; `usize::MAX` for no limit. It means nothing to a version that is
    /// hosted inline.
    pub threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 128 << 20,
            cpu: Duration::from_millis(250),
            init_cpu: Duration::from_secs(10),
            output: 64 << 20,
            response: 10 << 20,
            host_calls: 100_000,
            log_lines_per_second: 1000,
            log_bytes_per_second: 1 << 20,
            observations_per_second: 100_000,
            metric_series: 1000,
            instances: 32,
            process_memory: usize::MAX,
            threads: usize::MAX,
        }
    }
}

/// Everything that is needed to load one model version.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Name of the model, as it is registered.
    pub name: ModelName,
    /// Version of the model, as it is registered.
    pub version: Version,
    /// The directory that the archive was unpacked into.
    pub directory: PathBuf,
    /// Weights, relative to `directory`; empty with [`BackendKind::None`].
    pub artifact: PathBuf,
    /// The handler's component, relative to `directory`.
    pub handler: PathBuf,
    /// Which framework runs the artifact.
    pub backend: BackendKind,
    /// SHA-256 of the archive in hexadecimal digits; empty where there is no archive.
    pub digest: String,
    /// Inputs and outputs as declared.
    pub declared: Declared,
    /// File of sample requests to try the model with, relative to `directory`.
    pub samples: Option<PathBuf>,
    /// The text of `MANIFEST.json`.
    pub manifest: String,
    /// `model-config.yaml` as JSON.
    pub config: String,
    /// Properties that the handler gets beside manifest and config.
    pub properties: BTreeMap<String, String>,
    /// How it is served.
    pub settings: Settings,
    /// How much its handler may use.
    pub limits: Limits,
}

impl ModelSpec {
    /// What takes the tensors of clients of Open Inference Protocol: without a model it is always the handler.
    pub fn tensors_to(&self) -> TensorsTo {
        if self.backend == BackendKind::None {
            TensorsTo::Handler
        } else {
            self.settings.tensors_to
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for plain in ["a", "resnet-18", "9.x_y", &"n".repeat(255)] {
            assert!(ModelName::new(plain).unwrap().is_plain(), "{plain}");
            assert!(Version::new(plain).is_ok(), "{plain}");
        }
        for wide in [
            "-a", "_a", "a b", "a+b", "ä", "模型", "%2e", "a\"b", "...", " a ",
        ] {
            assert!(!ModelName::new(wide).unwrap().is_plain(), "{wide}");
            assert!(Version::new(wide).is_err(), "{wide}");
        }
        for bad in [
            "",
            ".",
            "..",
            " ",
            "\u{3000}",
            "a/b",
            "a\0",
            "a\nb",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202E}b",
            "\u{FFFF}",
            &"n".repeat(256),
            &"ä".repeat(128),
        ] {
            assert!(ModelName::new(bad).is_err(), "{bad:?}");
            assert!(Version::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn specs_print_as_an_author_would_write_them() {
        let spec = TensorSpec::new("image", DType::F32, vec![None, Some(1), Some(28)]);
        assert_eq!(spec.to_string(), "image: fp32[?, 1, 28]");
        let unknown = TensorSpec {
            dtype: None,
            shape: None,
            arity: Arity::Many,
            ..spec
        };
        assert_eq!(unknown.to_string(), "image: any[...] (list)");
    }

    #[test]
    fn members_of_a_list_are_numbered_in_one_way() {
        let list = TensorSpec {
            arity: Arity::Many,
            ..TensorSpec::new("x", DType::F32, vec![])
        };
        assert_eq!(list.member("x.0"), Some(0));
        assert_eq!(list.member("x.12"), Some(12));
        for name in [
            "x",
            "x.",
            "x.01",
            "x.+1",
            "x.-1",
            "y.0",
            "x.0.0",
            "x.99999999999999999999999",
        ] {
            assert_eq!(list.member(name), None, "{name}");
        }
    }
}
