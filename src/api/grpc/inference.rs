//! TorchServe's `InferenceAPIsService`: health and predictions.
//!
//! A handler sees a request as it would over REST: one input that is called `data` or `body` is a raw body, others are
//! the fields of a form. Metadata stay outside, as TorchServe's do.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::call::Caller;
use super::proto::inference::inference_ap_is_service_server::InferenceApIsService;
use super::proto::inference::{PredictionResponse, PredictionsRequest, TorchServeHealthResponse};
use super::proto::rpc;
use super::status;
use crate::api::Config;
use crate::error::{Error, Kind};
use crate::payload::{self, Body, Meter, Part, Schedule, request_span};

/// Fields that a request may have, as many as a form.
const FIELDS_LIMIT: usize = 1024;
/// The header that names to a handler the sequence that a request belongs to.
const SEQUENCE_HEADER: &str = "ts_request_sequence_id";
/// INTERNAL, which TorchServe answers where a parameter is missing.
const MISSING_CODE: i32 = 13;
const MISSING_SEQUENCE: &str = "Parameter sequenceId is required.";

type Responses = Pin<Box<dyn Stream<Item = Result<PredictionResponse, Status>> + Send>>;

/// The inference service.
pub(super) struct InferenceService {
    predictor: Predictor,
}

/// Makes predictions. Cheap to clone.
#[derive(Clone)]
struct Predictor {
    max_request_size: usize,
}

impl InferenceService {
    /// The service with the limits of `cfg`.
    pub(super) const fn new(cfg: &Config) -> Self {
        Self {
            predictor: Predictor {
                max_request_size: cfg.max_request_size,
            },
        }
    }

    async fn predict(
        &self,
        request: Request<PredictionsRequest>,
    ) -> Result<PredictionResponse, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let sequence_id = request.sequence_id.clone();
        let call = Call {
            id: caller.id().to_owned(),
            arrival: caller.arrival(),
        };
        let predicted = self.predictor.predict(&caller, call, request).await;
        let predicted = predicted.map_err(|error| caller.fail_prediction(&error))?;
        if let Some(failure) = status::of_response(&predicted) {
            caller.record_status(predicted.status());
            return Err(failure);
        }
        Ok(prediction(predicted.into_body(), sequence_id))
    }
}

#[tonic::async_trait]
impl InferenceApIsService for InferenceService {
    type StreamPredictionsStream = Responses;
    type StreamPredictions2Stream = Responses;

    async fn ping(
        &self,
        request: Request<()>,
    ) -> Result<Response<TorchServeHealthResponse>, Status> {
        let is_healthy = Caller::of(&request)?.catalog().is_healthy();
        let status = if is_healthy { "Healthy" } else { "Unhealthy" };
        Ok(Response::new(TorchServeHealthResponse {
            health: format!("{{\n  \"status\": \"{status}\"\n}}"),
        }))
    }

    async fn predictions(
        &self,
        request: Request<PredictionsRequest>,
    ) -> Result<Response<PredictionResponse>, Status> {
        self.predict(request).await.map(Response::new)
    }

    /// A handler answers once: the stream has one message.
    async fn stream_predictions(
        &self,
        request: Request<PredictionsRequest>,
    ) -> Result<Response<Responses>, Status> {
        let prediction = self.predict(request).await?;
        Ok(Response::new(Box::pin(stream::iter([Ok(prediction)]))))
    }

    async fn stream_predictions2(
        &self,
        request: Request<Streaming<PredictionsRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let sequence = Sequence {
            caller: Caller::of(&request)?,
            predictor: self.predictor.clone(),
            requests: request.into_inner(),
            answered: 0,
            has_ended: false,
        };
        let responses = stream::unfold(sequence, Sequence::next);
        Ok(Response::new(Box::pin(responses)))
    }
}

/// What tells one request from another.
struct Call {
    id: String,
    arrival: Instant,
}

impl Predictor {
    async fn predict(
        &self,
        caller: &Caller,
        call: Call,
        request: PredictionsRequest,
    ) -> Result<payload::Response, Error> {
        let name = request.model_name;
        if name.is_empty() {
            let message = "Parameter model_name is required.";
            return Err(Error::new(Kind::ModelNotFound, message));
        }
        let version = Some(&*request.model_version).filter(|version| !version.is_empty());
        let entry = caller
            .catalog()
            .awaited(&name, version, call.arrival, caller.own_deadline());
        let entry = entry.await?;
        let sequence = request.sequence_id;
        let request = payload::Request {
            id: call.id,
            content_type: None,
            headers: sequence
                .map(|id| (SEQUENCE_HEADER.to_owned(), id))
                .into_iter()
                .collect(),
            body: body(request.input)?,
            arrival: call.arrival,
            deadline: caller.deadline(entry.deadline(call.arrival)),
            schedule: Schedule::default(),
            account: caller.account().clone(),
            passes_tensors_on: false,
            meter: Meter::default(),
        };
        let reply = entry.call(request, version.is_some()).await?;
        reply.into_response()
    }
}

/// The requests of one stream, taken one after the other. TorchServe loses answers when the client ends its side early;
/// here every request is answered. There is no state of a sequence beyond its id, which the handler sees.
struct Sequence {
    caller: Caller,
    predictor: Predictor,
    requests: Streaming<PredictionsRequest>,
    answered: u64,
    has_ended: bool,
}

impl Sequence {
    /// The answer to the next request.
    async fn next(mut self) -> Option<(Result<PredictionResponse, Status>, Self)> {
        if self.has_ended {
            return None;
        }
        let answer = match self.requests.message().await {
            Ok(Some(request)) => match self.caller.check_access() {
                Ok(()) => Ok(self.answer(request).await),
                Err(error) => {
                    self.has_ended = true;
                    Err(self.caller.fail_prediction(&error))
                }
            },
            Ok(None) => return None,
            Err(broken) => {
                self.has_ended = true;
                Err(status::of_broken(broken, self.predictor.max_request_size))
            }
        };
        Some((answer, self))
    }

    /// Failures travel in the message: the stream goes on.
    async fn answer(&mut self, request: PredictionsRequest) -> PredictionResponse {
        let Some(sequence_id) = request.sequence_id.clone() else {
            self.has_ended = true;
            let failure =
                status::in_message(MISSING_CODE, MISSING_SEQUENCE, "BadRequestException.()");
            return failed(failure, None);
        };
        let _charges = self.caller.take_kept();
        self.answered += 1;
        let call = Call {
            id: format!("{}-{}", self.caller.id(), self.answered),
            arrival: Instant::now(),
        };
        let span = request_span(&call.id);
        let predicted = self.predictor.predict(&self.caller, call, request);
        match predicted.instrument(span).await {
            Ok(predicted) => match status::of_response(&predicted) {
                None => prediction(predicted.into_body(), Some(sequence_id)),
                Some(status) => {
                    let code = i32::from(status.code());
                    let failure =
                        status::in_message(code, status.message(), "InternalServerException");
                    failed(failure, Some(sequence_id))
                }
            },
            Err(error) => {
                self.caller.record(&error);
                failed(status::inside(&error), Some(sequence_id))
            }
        }
    }
}

fn prediction(prediction: Bytes, sequence_id: Option<String>) -> PredictionResponse {
    PredictionResponse {
        prediction,
        sequence_id,
        status: None,
    }
}

fn failed(status: rpc::Status, sequence_id: Option<String>) -> PredictionResponse {
    PredictionResponse {
        prediction: Bytes::new(),
        sequence_id,
        status: Some(status),
    }
}

/// One input that is called as a raw body is one; others are a form, in the order of their names.
fn body(mut input: BTreeMap<String, Bytes>) -> Result<Body, Error> {
    if input.len() > FIELDS_LIMIT {
        let message = format!(
            "A request must have at most {FIELDS_LIMIT} inputs, got {}",
            input.len()
        );
        return Err(Error::new(Kind::BadRequest, message));
    }
    if input.len() == 1
        && let Some(raw) = input.remove("data").or_else(|| input.remove("body"))
    {
        return Ok(Body::Raw(raw));
    }
    let parts = input.into_iter().map(|(name, body)| Part {
        name,
        filename: None,
        content_type: None,
        body,
    });
    Ok(Body::Form(parts.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(entries: &[(&str, &'static str)]) -> BTreeMap<String, Bytes> {
        let entries = entries.iter();
        entries
            .map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes())))
            .collect()
    }

    #[test]
    fn one_input_is_a_raw_body_if_it_is_called_like_one() {
        for name in ["data", "body"] {
            let body = body(input(&[(name, "x")])).unwrap();
            assert_eq!(body, Body::Raw(Bytes::from_static(b"x")));
        }
        let Body::Form(parts) = body(input(&[("image", "x")])).unwrap() else {
            panic!("not a form");
        };
        assert_eq!((parts.len(), &*parts[0].name), (1, "image"));
    }

    #[test]
    fn several_inputs_are_a_form() {
        let Body::Form(parts) = body(input(&[("data", "x"), ("target", "1")])).unwrap() else {
            panic!("not a form");
        };
        let names: Vec<_> = parts.iter().map(|part| &*part.name).collect();
        assert_eq!(names, ["data", "target"]);
        assert_eq!(body(input(&[])).unwrap(), Body::Form(Vec::new()));
    }

    #[test]
    fn too_many_inputs_are_refused() {
        let many = (0..=FIELDS_LIMIT).map(|index| (index.to_string(), Bytes::new()));
        let error = body(many.collect()).unwrap_err();
        assert_eq!(
            error.message(),
            "A request must have at most 1024 inputs, got 1025"
        );
    }
}
