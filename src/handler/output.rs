//! Checks values that come back from the guest, before any other module gets them.
//!
//! No shape, length, name, status or header is trusted. A broken rule is the handler's fault, and the message names what
//! broke it, the rule and the value.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Kind, truncated};
use crate::model::HandlerHeaders;
use crate::payload;
use crate::tensor::{MAX_NAME, MAX_TENSORS, NamedTensor, Tensor};

use super::bindings::exports::lantern::handler::pipeline;
use super::bindings::lantern::handler::types::{self, TensorDataResult, TensorResult};
use super::fault::{self, Function};
use super::tensors::TensorTable;
use super::{Prepared, Step};

/// Most bytes of a description. People read it, and it is parsed where it is shown.
const DESCRIPTION_LIMIT: usize = 256 << 10;
/// Most bytes of a handler's error text that the client gets.
const TEXT_LIMIT: usize = 4 << 10;
/// Most bytes of a value that a message shows.
const SHOWN: usize = 100;

/// What a response may have.
#[derive(Clone, Copy)]
pub(super) struct ResponseRules<'a> {
    /// Bytes of its body.
    pub body_limit: usize,
    /// Headers that act on more than the response.
    pub headers: &'a HandlerHeaders,
}

/// What `preprocess` returned.
pub(super) fn step(
    step: pipeline::Step,
    table: &mut TensorTable,
    rules: ResponseRules<'_>,
) -> Result<Step, Error> {
    match step {
        pipeline::Step::Infer(prepared) => self::prepared(prepared, table).map(Step::Infer),
        pipeline::Step::Done(response) => {
            self::response(response, Function::Preprocess, rules).map(Step::Done)
        }
    }
}

/// A response of `function`.
pub(super) fn response(
    response: types::Response,
    function: Function,
    rules: ResponseRules<'_>,
) -> Result<payload::Response, Error> {
    let (length, body_limit) = (response.body.len(), rules.body_limit);
    if length > body_limit {
        let rule = format!(
            "a body of {length} bytes, the limit is {body_limit} (max_response_size, lantern.limits.response)"
        );
        return Err(broken(function, &rule));
    }
    let headers = response.headers.into_iter();
    let headers = headers.map(|field| (field.name, field.value)).collect();
    let body = Bytes::from(response.body);
    let response = payload::Response::new(response.status, response.content_type, headers, body)
        .map_err(|error| broken(function, &error.to_string()))?;
    let names = response.headers().iter().map(|(name, _)| name.as_str());
    let allowed = rules.headers.check(names);
    allowed.map_err(|error| broken(function, &error.to_string()))?;
    Ok(response)
}

/// A description, which may have as many bytes as a response's body, and [`DESCRIPTION_LIMIT`] at most. Whether it is
/// JSON is checked where it is shown.
pub(super) fn description(text: String, body_limit: usize) -> Result<String, Error> {
    let limit = body_limit.min(DESCRIPTION_LIMIT);
    if text.len() <= limit {
        return Ok(text);
    }
    let length = text.len();
    Err(broken(
        Function::Describe,
        &format!("a text of {length} bytes, the limit is {limit}"),
    ))
}

/// An error that the handler returned, with the text that its author gave it.
pub(super) fn failure(error: &types::Error) -> Error {
    let (kind, text) = match error {
        types::Error::BadRequest(text) => (Kind::BadRequest, text),
        types::Error::TooLarge(text) => (Kind::TooLarge, text),
        types::Error::UnsupportedMediaType(text) => (Kind::UnsupportedMediaType, text),
        types::Error::Unavailable(text) => (Kind::HandlerUnavailable, text),
        types::Error::Internal(text) => (Kind::HandlerFailed, text),
    };
    Error::new(kind, truncated(text, TEXT_LIMIT))
}

fn prepared(prepared: pipeline::Prepared, table: &mut TensorTable) -> Result<Prepared, Error> {
    let broken = |rule: String| broken(Function::Preprocess, &rule);
    let count = prepared.inputs.len();
    if count == 0 || count > MAX_TENSORS {
        return Err(broken(format!(
            "{count} inputs, between 1 and {MAX_TENSORS} are taken"
        )));
    }
    let mut inputs: Vec<NamedTensor> = Vec::with_capacity(count);
    let mut taken = HashSet::with_capacity(count);
    for input in prepared.inputs {
        let named = input_tensor(input, table).map_err(broken)?;
        if !taken.insert(Arc::clone(&named.name)) {
            return Err(broken(format!("two inputs named {:?}", shown(&named.name))));
        }
        inputs.push(named);
    }
    Ok(Prepared {
        inputs,
        carry: prepared.carry.into(),
    })
}

fn input_tensor(input: TensorResult, table: &mut TensorTable) -> Result<NamedTensor, String> {
    let name = shown(&input.name).to_owned();
    if input.name.is_empty() || input.name.len() > MAX_NAME {
        return Err(format!(
            "an input named {name:?}, names have 1 to {MAX_NAME} bytes"
        ));
    }
    let fail = |reason: &dyn Display| format!("input {name:?}: {reason}");
    let dtype = input.dtype.into();
    let shape = input.shape.iter().map(|&axis| axis as usize).collect();
    let data = match input.data {
        TensorDataResult::Inline(data) => Bytes::from(data),
        TensorDataResult::Handle(handle) => {
            let tensor = table.take(&handle);
            let tensor = tensor.ok_or_else(|| fail(&"a tensor handle of an earlier request"))?;
            tensor.into_data()
        }
    };
    let tensor = Tensor::new(dtype, shape, data).map_err(|error| fail(&error))?;
    Ok(NamedTensor::new(input.name, tensor))
}

fn broken(function: Function, rule: &str) -> Error {
    let begin = fault::begin(function);
    let text = format!("{begin} handler's {function} returned {rule}");
    Error::new(Kind::HandlerOutput, text)
}

fn shown(text: &str) -> &str {
    truncated(text, SHOWN)
}

#[cfg(test)]
mod tests {
    use super::super::bindings::lantern::handler::types::Dtype;
    use super::*;

    fn field(name: &str, value: &str) -> types::FieldResult {
        types::FieldResult {
            name: name.to_owned(),
            value: value.to_owned(),
        }
    }

    fn answer(status: u16, headers: Vec<types::FieldResult>, body: &[u8]) -> types::Response {
        types::Response {
            status,
            content_type: String::new(),
            headers,
            body: body.to_vec(),
        }
    }

    fn checked(answer: types::Response) -> Result<payload::Response, Error> {
        let rules = ResponseRules {
            body_limit: 2,
            headers: &HandlerHeaders::parse("via").unwrap(),
        };
        response(answer, Function::Postprocess, rules)
    }

    fn input(name: &str, shape: &[u32], bytes: usize) -> TensorResult {
        TensorResult {
            name: name.to_owned(),
            dtype: Dtype::Uint8,
            shape: shape.to_vec(),
            data: TensorDataResult::Inline(vec![0; bytes]),
        }
    }

    fn prepare(inputs: Vec<TensorResult>) -> Result<Prepared, Error> {
        let prepared = pipeline::Prepared {
            inputs,
            carry: vec![7],
        };
        super::prepared(prepared, &mut TensorTable::default())
    }

    #[test]
    fn a_legal_response_passes() {
        let headers = vec![field("X-A", "b"), field("Via", "c")];
        let response = checked(answer(201, headers, b"ab")).unwrap();
        let expected = [("x-a", "b"), ("via", "c")];
        assert_eq!(
            response.headers(),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(
            (response.status(), response.body().as_ref()),
            (201, &b"ab"[..])
        );
    }

    #[test]
    fn responses_that_break_a_rule_are_the_handlers_fault() {
        for (answer, says) in [
            (
                answer(99, vec![], b""),
                "Prediction failed: the handler's postprocess returned status 99, statuses are 200 to 999",
            ),
            (
                answer(200, vec![field("content-length", "3")], b""),
                "returned header \"content-length\", which only the server sets",
            ),
            (
                answer(200, vec![field("Set-Cookie", "a=b")], b""),
                "returned header \"set-cookie\", which acts on more than the response: the operator may allow it (lantern_handler_headers)",
            ),
            (
                answer(200, vec![], b"abc"),
                "a body of 3 bytes, the limit is 2",
            ),
        ] {
            let error = checked(answer).unwrap_err();
            assert_eq!(error.kind(), Kind::HandlerOutput);
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn inputs_may_differ_on_axis_0_and_have_none() {
        let inputs = vec![
            input("a", &[2, 3], 6),
            input("b", &[], 1),
            input("c", &[0], 0),
        ];
        let prepared = prepare(inputs).unwrap();
        assert_eq!(prepared.inputs.len(), 3);
        assert_eq!(prepared.carry.as_ref(), [7]);
    }

    #[test]
    fn inputs_that_break_a_rule_are_refused_with_rule_and_value() {
        let max = u32::MAX;
        for (inputs, says) in [
            (vec![], "0 inputs"),
            (vec![input("", &[1], 1)], "an input named \"\""),
            (
                vec![input(&"n".repeat(MAX_NAME + 1), &[1], 1)],
                "names have 1 to 1024 bytes",
            ),
            (
                (0..=MAX_TENSORS)
                    .map(|index| input(&index.to_string(), &[1], 1))
                    .collect(),
                "1025 inputs, between 1 and 1024 are taken",
            ),
            (
                vec![input("a", &[2], 1)],
                "input \"a\": uint8 of shape [2] takes 2 bytes, got 1",
            ),
            (
                vec![input("a", &[max, max, max], 1)],
                "more elements than can be addressed",
            ),
            (vec![input("a", &[1; 65], 1)], "65 axes are more than"),
            (
                vec![input("a", &[1], 1), input("a", &[1], 1)],
                "two inputs named \"a\"",
            ),
        ] {
            let error = prepare(inputs).unwrap_err();
            assert_eq!(error.kind(), Kind::HandlerOutput);
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn a_handle_gives_back_the_tensor_itself() {
        let mut table = TensorTable::default();
        let data = Bytes::from(vec![1, 2]);
        let tensor = Tensor::new(crate::tensor::DType::U8, vec![2], data.clone()).unwrap();
        let handle = table.push(tensor).unwrap();
        let mut by_handle = input("a", &[2], 0);
        by_handle.data = TensorDataResult::Handle(handle);
        let named = input_tensor(by_handle, &mut table).unwrap();
        assert_eq!(named.tensor.data().as_ptr(), data.as_ptr());
    }

    #[test]
    fn an_authors_error_keeps_kind_and_bounded_text() {
        let error = failure(&types::Error::BadRequest("ä".repeat(TEXT_LIMIT)));
        assert_eq!(error.kind(), Kind::BadRequest);
        assert_eq!(error.message().len(), TEXT_LIMIT);
    }
}
