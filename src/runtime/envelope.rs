//! Envelopes: how a platform wraps requests. They are taken off before the handler, and put on its answers again.
//!
//! TorchServe's envelopes make rows of a body, call the handler with all of them and wrap what it returns. A handler here
//! sees one request at a time: each row is a call of its own, and the batcher stacks rows of one request as it stacks
//! those of several. What differs from one envelope to the next is a row of [`Rules`]. It knows neither handlers nor batches.

use std::fmt::Display;

use bytes::Bytes;

use crate::error::{Error, Fault, Kind};
use crate::model::{Envelope, ModelSpec};
use crate::payload::{Body, Part, Request, Response};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod instances;
mod tensors;

/// Rows that one request may have: as many as a batch.
const ROWS_LIMIT: usize = 65_536;
/// Bodies of more bytes are parsed on a thread that may block.
const LARGE: usize = 256 << 10;
const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

/// What stands in an envelope.
pub(super) enum Opened {
    /// One request, whose answer is sent as it is.
    Whole(Request),
    /// Any number of rows, whose answers are wrapped together.
    Wrapped(Wrapped, Vec<Row>),
}

/// An envelope whose rows were taken out.
pub(super) struct Wrapped {
    envelope: Envelope,
    rules: &'static Rules,
    /// What the rows have in common: the request without its body.
    request: Request,
    /// The client's name for the request, where the envelope has room for one.
    id: Option<String>,
    /// Names of the rows, where they have some.
    names: Vec<String>,
}

/// One row of a request: what the handler gets as a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    content_type: Option<String>,
    body: Body,
    name: String,
}

type Wrap = fn(&Wrapped, &ModelSpec, &[Response]) -> Result<Vec<u8>, String>;

/// What an envelope that holds rows looks like.
struct Rules {
    /// The member that holds the rows.
    member: &'static str,
    /// Reads one row, or says what is wrong with it.
    read: fn(serde_json::Value) -> Result<Row, String>,
    /// Wraps the answers, one for each row, or says what is wrong with one.
    wrap: Wrap,
}

const INSTANCES: Rules = Rules {
    member: "instances",
    read: instances::read,
    wrap: instances::wrap,
};
const INPUTS: Rules = Rules {
    member: "inputs",
    read: tensors::read,
    wrap: tensors::wrap,
};

/// The rules of an envelope that holds rows.
const fn rules(envelope: Envelope) -> Option<&'static Rules> {
    match envelope {
        Envelope::None | Envelope::Body => None,
        Envelope::Json | Envelope::KServe => Some(&INSTANCES),
        Envelope::KServeV2 => Some(&INPUTS),
    }
}

impl Row {
    fn new(content_type: Option<&str>, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: content_type.map(str::to_owned),
            body: Body::Raw(body.into()),
            name: String::new(),
        }
    }

    fn form(parts: Vec<Part>) -> Self {
        Self {
            content_type: None,
            body: Body::Form(parts),
            name: String::new(),
        }
    }
}

/// Takes the envelope off a request.
pub(super) async fn open(envelope: Envelope, request: Request) -> Result<Opened, Error> {
    let request = match envelope {
        Envelope::None => return Ok(Opened::Whole(request)),
        _ => reduced(request),
    };
    let Some(rules) = rules(envelope) else {
        return Ok(Opened::Whole(request));
    };
    if !matches!(&request.body, Body::Raw(bytes) if bytes.len() > LARGE) {
        return opened(envelope, rules, request);
    }
    let opening = tokio::task::spawn_blocking(move || opened(envelope, rules, request));
    opening
        .await
        .map_err(|panic| Error::new(Kind::Internal, "Reading the body failed").with_detail(panic))?
}

/// A form's field `data`, or else its `body`, in place of the form. Of fields with one name the last counts.
fn reduced(mut request: Request) -> Request {
    if let Body::Form(parts) = &mut request.body
        && let Some(index) = payload(parts)
    {
        let part = parts.swap_remove(index);
        request.content_type = part.content_type;
        request.body = Body::Raw(part.body);
    }
    request
}

fn payload(parts: &[Part]) -> Option<usize> {
    let last = |name| {
        let is_it = |part: &Part| part.name == name && !part.body.is_empty();
        parts.iter().rposition(is_it)
    };
    last("data").or_else(|| last("body"))
}

fn opened(
    envelope: Envelope,
    rules: &'static Rules,
    mut request: Request,
) -> Result<Opened, Error> {
    let body = std::mem::replace(&mut request.body, Body::Raw(Bytes::new()));
    let read = read(rules, &body);
    let (id, rows) = read.map_err(|rule| unreadable(envelope, rules, &rule))?;
    let wrapped = Wrapped {
        envelope,
        rules,
        request,
        id,
        names: rows.iter().map(|row| row.name.clone()).collect(),
    };
    Ok(Opened::Wrapped(wrapped, rows))
}

/// The client's name for the request, if it gave one, and the rows.
fn read(rules: &Rules, body: &Body) -> Result<(Option<String>, Vec<Row>), String> {
    let Body::Raw(bytes) = body else {
        return Err("the body is a form without a field data or body".to_owned());
    };
    let document = serde_json::from_slice(bytes)
        .map_err(|error| format!("the body is no JSON that can be read: {error}"))?;
    let serde_json::Value::Object(mut members) = document else {
        return Err("got JSON that is no object".to_owned());
    };
    let rows = match members.remove(rules.member) {
        Some(serde_json::Value::Array(rows)) => rows,
        Some(_) => return Err(format!("{:?} is no list", rules.member)),
        None => return Err(format!("the object has no {:?}", rules.member)),
    };
    if rows.len() > ROWS_LIMIT {
        return Err(format!("at most {ROWS_LIMIT} of them, got {}", rows.len()));
    }
    let id = members.get("id").and_then(serde_json::Value::as_str);
    let id = id.filter(|id| !id.trim().is_empty()).map(str::to_owned);
    let rows = rows.into_iter().enumerate().map(|(place, row)| {
        (rules.read)(row).map_err(|rule| format!("{}[{place}] {rule}", rules.member))
    });
    Ok((id, rows.collect::<Result<_, _>>()?))
}

fn unreadable(envelope: Envelope, rules: &Rules, rule: &str) -> Error {
    let (name, member) = (envelope.name(), rules.member);
    let text =
        format!("service_envelope={name} takes a JSON object with a list {member:?}: {rule}");
    Error::new(Kind::BadRequest, text)
}

impl Wrapped {
    /// The request that a row is to the handler.
    pub(super) fn request(&self, row: Row) -> Request {
        Request {
            content_type: row.content_type,
            body: row.body,
            ..self.request.clone()
        }
    }

    /// The failure of the row at `place`, which is that of the whole request. Where it is about the row, it names it.
    pub(super) fn failed(&self, place: usize, error: Error) -> Error {
        if !matches!(error.kind().fault(), Fault::Client | Fault::Handler) {
            return error;
        }
        let text = format!("{}[{place}]: {}", self.rules.member, error.message());
        let named = Error::new(error.kind(), text);
        match error.detail() {
            Some(detail) => named.with_detail(detail),
            None => named,
        }
    }

    /// The answer to the request, from those to its rows. It has status and headers of the first that is not 200.
    pub(super) fn close(
        &self,
        model: &ModelSpec,
        responses: &[Response],
    ) -> Result<Response, Error> {
        let body = (self.rules.wrap)(self, model, responses).map_err(|rule| self.broken(rule))?;
        let limit = model.limits.response;
        if body.len() > limit {
            let length = body.len();
            return Err(self.broken(format!(
                "the answers have {length} bytes together, the limit is {limit} (max_response_size, lantern.limits.response)"
            )));
        }
        let mut all = responses.iter();
        let leading = all.find(|response| response.status() != 200);
        let leading = leading.or(responses.first());
        let (status, headers) = leading.map_or((200, Vec::new()), |response| {
            (response.status(), response.headers().to_vec())
        });
        Response::new(status, JSON.to_owned(), headers, body.into())
            .map_err(|error| self.broken(error))
    }

    fn broken(&self, rule: impl Display) -> Error {
        let name = self.envelope.name();
        let text = format!("Prediction failed: service_envelope={name}: {rule}");
        Error::new(Kind::HandlerOutput, text)
    }
}

/// A handler's answer.
#[derive(Clone, Copy)]
enum Answer<'a> {
    /// JSON, as it was written.
    Json(&'a [u8]),
    /// Text that is no JSON, or is not labelled so.
    Text(&'a str),
}

impl<'a> Answer<'a> {
    /// JSON is what is labelled so, or what is not labelled and can be read so. Fails if it is neither that nor text.
    fn of(response: &'a Response) -> Result<Self, String> {
        let body = response.body().as_ref();
        let media = response.content_type().split(';').next().unwrap_or("");
        let media = media.trim().to_ascii_lowercase();
        let is_labelled = media == JSON || media.ends_with("+json");
        let text = std::str::from_utf8(body).map_err(|_| "is neither JSON nor text")?;
        let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        if (is_labelled || media.is_empty()) && is_json() {
            return Ok(Self::Json(body.trim_ascii()));
        }
        if is_labelled {
            return Err(format!("is labelled {media} and is no JSON"));
        }
        Ok(Self::Text(text))
    }
}

/// Each answer with its place, for those who wrap them.
fn answers(responses: &[Response]) -> impl Iterator<Item = Result<(usize, Answer<'_>), String>> {
    responses.iter().enumerate().map(|(place, response)| {
        let answer = Answer::of(response);
        let answer = answer.map_err(|rule| format!("the answer to row {place} {rule}"))?;
        Ok((place, answer))
    })
}

#[cfg(test)]
mod tests;
