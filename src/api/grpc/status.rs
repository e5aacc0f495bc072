//! The one way from a failure to a gRPC status. Codes are chosen by the wire table of [`crate::error`] alone.

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::proto::rpc;
use crate::error::{self, Error, Kind};
use crate::payload;

/// Characters of a description that are sent: it travels in a header, which clients limit to some kilobytes.
const DESCRIPTION_LIMIT: usize = 1024;
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// Metadata in which gRPC's clients are told how long to wait before they try again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The status of a failure.
pub(super) fn of(error: &Error) -> Status {
    with_pushback(error, error.kind().wire().grpc, description(error))
}

/// The status of a call that may not be made: TorchServe's text and nothing else.
pub(super) fn of_refusal(error: &Error) -> Status {
    let text = match error.kind() {
        Kind::ModelApiDisabled => "Model API disabled",
        _ => error.message(),
    };
    Status::new(code(error.kind().wire().grpc), text)
}

/// The status of a failed prediction.
pub(super) fn of_prediction(error: &Error) -> Status {
    with_pushback(error, error.kind().prediction_code(), description(error))
}

/// The status of a failure in Open Inference Protocol, whose clients show the whole description.
pub(super) fn of_open_inference(error: &Error) -> Status {
    let code = error.kind().open_inference().grpc;
    with_pushback(error, code, limited(error.message()))
}

/// A status that says when to try again, where REST says it in `Retry-After`.
fn with_pushback(error: &Error, number: u8, text: impl Into<String>) -> Status {
    let mut metadata = MetadataMap::new();
    if let Some(wait) = error.retry_after() {
        let milliseconds = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        metadata.insert(PUSHBACK, milliseconds.into());
    }
    if error.kind() != Kind::Throttled {
        return Status::with_metadata(code(number), text, metadata);
    }
    let text = text.into();
    let details = retry_info(error, number, &text);
    Status::with_details_and_metadata(code(number), text, details.into(), metadata)
}

/// What clients of Google's find beside a status: how long to wait.
fn retry_info(error: &Error, number: u8, text: &str) -> Vec<u8> {
    let wait = error.retry_after().unwrap_or_default();
    let info = rpc::RetryInfo {
        retry_delay: prost_types::Duration::try_from(wait).ok(),
    };
    let status = rpc::Status {
        code: number.into(),
        message: text.to_owned(),
        details: vec![prost_types::Any {
            type_url: RETRY_INFO.to_owned(),
            value: prost::Message::encode_to_vec(&info),
        }],
    };
    prost::Message::encode_to_vec(&status)
}

/// The same, inside a message of a stream that goes on.
pub(super) fn inside(error: &Error) -> rpc::Status {
    in_message(
        error.kind().prediction_code().into(),
        error.message(),
        error.kind().wire().exception,
    )
}

/// A failure inside a message, with the name of its exception.
pub(super) fn in_message(code: i32, message: &str, reason: &str) -> rpc::Status {
    let info = rpc::ErrorInfo {
        reason: reason.to_owned(),
        ..rpc::ErrorInfo::default()
    };
    rpc::Status {
        code,
        message: limited(message).to_owned(),
        details: vec![prost_types::Any {
            type_url: ERROR_INFO.to_owned(),
            value: prost::Message::encode_to_vec(&info),
        }],
    }
}

/// The status that a handler's response has where its own is a failure: its body is the description.
pub(super) fn of_response(response: &payload::Response) -> Option<Status> {
    let code = code(error::handler_code(response.status())?);
    let text = String::from_utf8_lossy(response.body());
    Some(Status::new(code, limited(&text)))
}

/// The failure of a call to what is not in the table.
pub(super) fn no_such_method(path: &str) -> Error {
    let name = path.strip_prefix('/').unwrap_or(path);
    Error::new(Kind::ResourceNotFound, format!("Method not found: {name}"))
}

/// The failure of a call whose message is over the limit.
pub(super) fn too_large(limit: usize) -> Error {
    let message = format!("The message is larger than {limit} bytes");
    Error::new(Kind::TooLarge, message)
}

/// What ended a stream of messages. tonic's code for one over the limit is `OUT_OF_RANGE`; gRPC's own is another.
pub(super) fn of_broken(broken: Status, limit: usize) -> Status {
    match broken.code() {
        Code::OutOfRange => of(&too_large(limit)),
        _ => broken,
    }
}

/// The message and, in a line of its own, the name of TorchServe's exception. Clients may rely on the first line.
fn description(error: &Error) -> String {
    let exception = error.kind().wire().exception;
    format!("{}\n{exception}", limited(error.message()))
}

fn limited(text: &str) -> &str {
    let end = text.char_indices().nth(DESCRIPTION_LIMIT);
    end.map_or(text, |(end, _)| &text[..end])
}

fn code(number: u8) -> Code {
    Code::from_i32(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_the_message_and_the_exception() {
        let status = of(&Error::new(Kind::ModelNotFound, "Model not found: m"));
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(
            status.message(),
            "Model not found: m\nModelNotFoundException"
        );
    }

    #[test]
    fn predictions_have_torchserves_codes() {
        for (kind, expected) in [
            (Kind::ModelNotFound, Code::Internal),
            (Kind::NoWorker, Code::Internal),
            (Kind::HandlerPanicked, Code::Unavailable),
            (Kind::BadRequest, Code::InvalidArgument),
            (Kind::Expired, Code::DeadlineExceeded),
        ] {
            assert_eq!(of_prediction(&Error::new(kind, "")).code(), expected);
        }
    }

    #[test]
    fn clients_are_told_when_to_try_again() {
        let wait = std::time::Duration::from_millis(1500);
        let crash_loop = Error::new(Kind::CrashLoop, "").with_retry_after(wait);
        for status in [
            of(&crash_loop),
            of_prediction(&crash_loop),
            of_open_inference(&crash_loop),
        ] {
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.metadata().get(PUSHBACK).unwrap(), "2000");
        }
        let for_good = of(&Error::new(Kind::ModelNotFound, ""));
        assert!(for_good.metadata().is_empty());
    }

    #[test]
    fn long_descriptions_are_cut_between_characters() {
        let text = "ä".repeat(5000);
        assert_eq!(limited(&text).chars().count(), DESCRIPTION_LIMIT);
        assert_eq!(limited("short"), "short");
    }
}
