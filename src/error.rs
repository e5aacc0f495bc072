//! Kinds of failure, whose fault each is, and the one table to the wire.
//!
//! Policy. A failure that leaves a module for a client is an [`Error`]: a [`Kind`], a message written for the
//! client, and, kept apart, a detail written for the log. The message never holds a path, an address, a process
//! id or a host's own error text; the detail may. Whose fault a failure is follows from its kind and decides
//! who is told, who is counted, and whether a retry makes sense. The kind alone decides the HTTP status, the
//! `type` in TorchServe's error JSON and the gRPC code, in [`Kind::wire`], and nothing else does.
//!
//! This module knows no protocol library: the table holds plain numbers and names.

use std::fmt;
use std::time::Duration;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod text;

pub use text::{quoted, reason, shortened, truncated, without_frames};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    // The client's.
    /// The request is malformed or a parameter breaks a rule.
    BadRequest,
    /// Tensors whose names, dtypes or shapes are not the model's.
    InvalidInput,
    /// A URI that does not decode.
    BadEncoding,
    /// The body is over the limit.
    TooLarge,
    /// The body was not sent in time.
    BodyTimedOut,
    /// An `Expect` header that is not `100-continue`.
    UnknownExpectation,
    /// A negative number of workers.
    NegativeWorkers,
    /// The handler does not take this content type.
    UnsupportedMediaType,
    /// No route matches.
    ResourceNotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// Models may not be registered and unregistered here.
    ModelApiDisabled,
    /// No key was shown, or one that does not open what was asked for.
    InvalidKey,
    /// No such model, or no such archive.
    ModelNotFound,
    /// The model exists, the version does not.
    VersionNotFound,
    /// No such workflow.
    WorkflowNotFound,
    /// The handler gives no explanations.
    CannotExplain,
    /// The version is registered already.
    Conflict,
    /// The default version cannot go while others exist.
    DefaultVersionInUse,
    /// An archive that breaks a rule.
    InvalidModel,
    /// An archive that cannot be fetched.
    DownloadFailed,
    /// The file that a fetched archive would be exists.
    FileExists,
    /// The tenant has as much as it may have of what was asked for.
    OverQuota,
    /// The tenant sends more requests than it may.
    Throttled,

    // Nobody's: load, time, and clients that left.
    /// The version has no worker.
    NoWorker,
    /// The version's queue is full.
    QueueFull,
    /// There is no room for the bytes of the request, or of its answer.
    Overloaded,
    /// The version is still loading, and the request could not wait any longer.
    Loading,
    /// The version is on its way out.
    Draining,
    /// The operator has suspended the tenant.
    Suspended,
    /// The version's worker processes keep dying: its circuit is open.
    CrashLoop,
    /// The request's deadline passed before an answer was there.
    Expired,
    /// The client left.
    Cancelled,

    // The handler's.
    /// The handler answered `unavailable`.
    HandlerUnavailable,
    /// The handler answered `internal`.
    HandlerFailed,
    /// The handler panicked; its message is in the model's log.
    HandlerPanicked,
    /// The handler trapped.
    HandlerTrapped,
    /// The handler used up its CPU time.
    HandlerTimedOut,
    /// The handler asked for more memory than it may have.
    HandlerOutOfMemory,
    /// The handler returned something that breaks the interface's rules.
    HandlerOutput,

    // The model's.
    /// The backend failed while running the model.
    InferenceFailed,
    /// The backend had no memory left.
    OutOfMemory,
    /// The model, its handler or its library does not load.
    LoadFailed,

    // The server's.
    /// The worker process died with the request in it.
    WorkerDied,
    /// Cleaning up took longer than it may.
    CleanupTimedOut,
    /// A defect of the server.
    Internal,
}

/// Who has to change something for the failure to go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Whoever sent the request.
    Client,
    /// The author of the handler.
    Handler,
    /// The author of the model.
    Model,
    /// Whoever runs the server, or the server itself.
    Server,
}

/// One row of the wire table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// HTTP status.
    pub status: u16,
    /// `type` in TorchServe's error JSON: the simple name of its exception class.
    pub exception: &'static str,
    /// gRPC status code.
    pub grpc: u8,
}

const UNKNOWN: u8 = 2;
const INVALID_ARGUMENT: u8 = 3;
const DEADLINE_EXCEEDED: u8 = 4;
const NOT_FOUND: u8 = 5;
const ALREADY_EXISTS: u8 = 6;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const FAILED_PRECONDITION: u8 = 9;
const ABORTED: u8 = 10;
const OUT_OF_RANGE: u8 = 11;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;
const CANCELLED: u8 = 1;

/// What each protocol makes of a kind.
#[derive(Clone, Copy)]
struct Row {
    /// TorchServe's protocols.
    wire: Wire,
    open_inference: Wire,
    /// gRPC code of TorchServe's predictions.
    prediction: u8,
    is_passing: bool,
}

/// A row that is the same in every protocol.
const fn row(status: u16, exception: &'static str, grpc: u8) -> Row {
    let wire = Wire {
        status,
        exception,
        grpc,
    };
    Row {
        wire,
        open_inference: wire,
        prediction: grpc,
        is_passing: false,
    }
}

impl Row {
    /// Triton's clients expect these of Open Inference Protocol.
    const fn open_inference(self, status: u16, grpc: u8) -> Self {
        Self {
            open_inference: Wire {
                status,
                grpc,
                ..self.wire
            },
            ..self
        }
    }

    /// TorchServe's clients know this code from its predictions.
    const fn prediction(self, grpc: u8) -> Self {
        Self {
            prediction: grpc,
            ..self
        }
    }

    /// The same request may well succeed in a moment.
    const fn passing(self) -> Self {
        Self {
            is_passing: true,
            ..self
        }
    }
}

/// The gRPC code of a status that a handler chose, as TorchServe has them; `None` if it is no failure.
pub const fn handler_code(status: u16) -> Option<u8> {
    Some(match status {
        0..=399 => return None,
        400 => INVALID_ARGUMENT,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => NOT_FOUND,
        409 => ABORTED,
        413 | 429 => RESOURCE_EXHAUSTED,
        416 => OUT_OF_RANGE,
        499 => CANCELLED,
        501 => UNIMPLEMENTED,
        503 => UNAVAILABLE,
        504 => DEADLINE_EXCEEDED,
        402..=498 => FAILED_PRECONDITION,
        500..=599 => INTERNAL,
        600.. => UNKNOWN,
    })
}

impl Kind {
    /// The only place where a failure gets a status, an exception name and gRPC codes.
    const fn row(self) -> Row {
        match self {
            Self::BadRequest | Self::InvalidInput => {
                row(400, "BadRequestException", INVALID_ARGUMENT)
            }
            Self::BadEncoding => row(403, "IllegalArgumentException", INVALID_ARGUMENT)
                .open_inference(400, INVALID_ARGUMENT),
            Self::TooLarge => row(413, "RequestTooLargeException", RESOURCE_EXHAUSTED),
            Self::UnsupportedMediaType => {
                row(415, "UnsupportedMediaTypeException", INVALID_ARGUMENT)
                    .prediction(FAILED_PRECONDITION)
            }
            Self::UnknownExpectation => row(417, "ExpectationFailedException", INVALID_ARGUMENT),
            Self::NegativeWorkers => row(500, "IndexOutOfBoundsException", INTERNAL),
            Self::ResourceNotFound => row(404, "ResourceNotFoundException", UNIMPLEMENTED),
            Self::MethodNotAllowed => row(405, "MethodNotAllowedException", UNIMPLEMENTED),
            Self::ModelApiDisabled => row(405, "MethodNotAllowedException", PERMISSION_DENIED),
            Self::InvalidKey => row(400, "InvalidKeyException", PERMISSION_DENIED),
            Self::ModelNotFound => {
                row(404, "ModelNotFoundException", NOT_FOUND).prediction(INTERNAL)
            }
            Self::VersionNotFound => {
                row(404, "ModelVersionNotFoundException", NOT_FOUND).prediction(INTERNAL)
            }
            Self::WorkflowNotFound => row(404, "WorkflowNotFoundException", NOT_FOUND),
            Self::CannotExplain => row(501, "NotImplementedException", UNIMPLEMENTED),
            Self::Conflict => row(409, "ConflictStatusException", ALREADY_EXISTS),
            Self::DefaultVersionInUse => {
                row(403, "InvalidModelVersionException", FAILED_PRECONDITION)
            }
            Self::InvalidModel => row(400, "InvalidModelException", INVALID_ARGUMENT),
            Self::OverQuota => row(403, "QuotaExceededException", RESOURCE_EXHAUSTED),
            Self::Throttled => row(429, "QuotaExceededException", RESOURCE_EXHAUSTED).passing(),
            Self::DownloadFailed => row(400, "DownloadArchiveException", INVALID_ARGUMENT),
            Self::FileExists | Self::HandlerFailed | Self::LoadFailed | Self::Internal => {
                row(500, "InternalServerException", INTERNAL)
            }
            Self::NoWorker | Self::Draining => {
                row(503, "ServiceUnavailableException", UNAVAILABLE).prediction(INTERNAL)
            }
            Self::HandlerUnavailable | Self::Suspended => {
                row(503, "ServiceUnavailableException", UNAVAILABLE)
            }
            Self::Loading | Self::CrashLoop => {
                row(503, "ServiceUnavailableException", UNAVAILABLE).passing()
            }
            Self::QueueFull => row(503, "ServiceUnavailableException", RESOURCE_EXHAUSTED)
                .open_inference(503, UNAVAILABLE)
                .prediction(INTERNAL)
                .passing(),
            Self::Overloaded => row(503, "ServiceUnavailableException", RESOURCE_EXHAUSTED)
                .open_inference(503, UNAVAILABLE)
                .passing(),
            Self::Expired => row(504, "InternalServerException", DEADLINE_EXCEEDED),
            Self::Cancelled => row(499, "InternalServerException", CANCELLED),
            Self::HandlerTimedOut => row(500, "InternalServerException", DEADLINE_EXCEEDED),
            Self::HandlerOutOfMemory | Self::OutOfMemory => {
                row(507, "InternalServerException", RESOURCE_EXHAUSTED).prediction(INTERNAL)
            }
            Self::HandlerPanicked
            | Self::HandlerTrapped
            | Self::HandlerOutput
            | Self::InferenceFailed => row(503, "InternalServerException", INTERNAL)
                .open_inference(500, INTERNAL)
                .prediction(UNAVAILABLE),
            Self::WorkerDied => {
                row(500, "InternalServerException", UNAVAILABLE).prediction(INTERNAL)
            }
            Self::BodyTimedOut | Self::CleanupTimedOut => {
                row(408, "RequestTimeoutException", DEADLINE_EXCEEDED)
            }
        }
    }

    /// What TorchServe's protocols make of it.
    pub const fn wire(self) -> Wire {
        self.row().wire
    }

    /// What Open Inference Protocol makes of it, where Triton's clients expect something else than TorchServe's.
    pub const fn open_inference(self) -> Wire {
        self.row().open_inference
    }

    /// The gRPC code that TorchServe's predictions have for a failure of this kind.
    pub const fn prediction_code(self) -> u8 {
        self.row().prediction
    }

    /// Whether the same request may well succeed in a moment; clients are told so.
    pub const fn is_passing(self) -> bool {
        self.row().is_passing
    }

    /// Whose fault a failure of this kind is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::BadRequest
            | Self::InvalidInput
            | Self::BadEncoding
            | Self::TooLarge
            | Self::BodyTimedOut
            | Self::WorkflowNotFound
            | Self::CannotExplain
            | Self::UnknownExpectation
            | Self::NegativeWorkers
            | Self::UnsupportedMediaType
            | Self::ResourceNotFound
            | Self::MethodNotAllowed
            | Self::ModelApiDisabled
            | Self::InvalidKey
            | Self::ModelNotFound
            | Self::VersionNotFound
            | Self::Conflict
            | Self::DefaultVersionInUse
            | Self::InvalidModel
            | Self::DownloadFailed
            | Self::FileExists
            | Self::OverQuota
            | Self::Throttled
            | Self::Suspended
            | Self::Cancelled => Fault::Client,
            Self::HandlerUnavailable
            | Self::HandlerFailed
            | Self::HandlerPanicked
            | Self::HandlerTrapped
            | Self::HandlerTimedOut
            | Self::HandlerOutOfMemory
            | Self::HandlerOutput => Fault::Handler,
            Self::InferenceFailed | Self::OutOfMemory | Self::LoadFailed => Fault::Model,
            Self::NoWorker
            | Self::QueueFull
            | Self::Overloaded
            | Self::Loading
            | Self::Draining
            | Self::CrashLoop
            | Self::Expired
            | Self::WorkerDied
            | Self::CleanupTimedOut
            | Self::Internal => Fault::Server,
        }
    }
}

/// A failure on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    detail: Option<String>,
    retry_after: Option<Duration>,
}

/// When a client may try again after a failure that passes, where nobody knows better.
const A_MOMENT: Duration = Duration::from_secs(1);

impl Error {
    /// A failure of `kind` that tells the client `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: None,
            retry_after: None,
        }
    }

    /// Adds what only the log may show: paths, host errors, traces.
    #[must_use]
    pub fn with_detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = Some(detail.to_string());
        self
    }

    /// Says how long it is of no use to try again.
    #[must_use]
    pub const fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// How long a client should wait before it tries again, in whole seconds and at least one; `None` if the failure will not
    /// pass by itself.
    pub fn retry_after(&self) -> Option<Duration> {
        let passes = self.kind.is_passing().then_some(A_MOMENT);
        let wait = self.retry_after.or(passes)?;
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Some(Duration::from_secs(whole.max(1)))
    }

    /// What went wrong.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The text for the log, if there is more to say than [`Self::message`].
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The detail with the frames of a library's code, if it has such: it is for the debug log.
    pub fn frames(&self) -> Option<&str> {
        let detail = self.detail()?;
        (without_frames(detail).len() < detail.trim_end().len()).then_some(detail)
    }
}

/// The text for the log, without the frames of a library's code: [`Error::frames`] has those.
impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        match &self.detail {
            Some(detail) => write!(formatter, " ({})", without_frames(detail)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_faults_are_4xx() {
        for kind in [Kind::BadRequest, Kind::InvalidInput, Kind::ModelNotFound] {
            assert_eq!(kind.fault(), Fault::Client);
            assert!((400..500).contains(&kind.wire().status));
        }
    }

    #[test]
    fn a_failure_that_passes_says_when_in_whole_seconds() {
        let seconds = |error: Error| error.retry_after().map(|wait| wait.as_secs());
        let crash_loop = |millis| {
            Error::new(Kind::CrashLoop, "").with_retry_after(Duration::from_millis(millis))
        };
        assert_eq!(seconds(Error::new(Kind::QueueFull, "")), Some(1));
        assert_eq!(seconds(Error::new(Kind::NoWorker, "")), None);
        assert_eq!(
            [0, 1000, 1001].map(crash_loop).map(seconds),
            [Some(1), Some(1), Some(2)]
        );
    }

    #[test]
    fn detail_is_shown_in_logs_and_kept_from_the_message() {
        let error = Error::new(Kind::LoadFailed, "the model does not load").with_detail("/secret");
        assert_eq!(error.message(), "the model does not load");
        assert_eq!(error.to_string(), "the model does not load (/secret)");
    }
}
