//! Tensors of any kind from JSON and back, to test backends end to end.
//!
//! `{"inputs": [TENSOR, ..]}` becomes the model's inputs and its outputs become `{"outputs": [TENSOR, ..]}`, where TENSOR
//! is `{"name", "dtype", "shape", "data"}`: `dtype` in the words of `wit/handler.wit`, `data` flat and row-major.
//! Floats are printed as the f64 that they are exactly; `bytes` are UTF-8 text. A client's own tensors pass as they are.

mod json;

use handler_sdk::{Body, Context, Error, Handler, Outputs, Request, Response, Step, Tensor};
use serde::{Deserialize, Serialize};

use json::TensorJson;

/// A handler without state.
pub struct Passthrough;

/// What a client sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Inputs {
    inputs: Vec<TensorJson>,
}

/// What a client gets.
#[derive(Serialize)]
struct Answer {
    outputs: Vec<TensorJson>,
}

impl Handler for Passthrough {
    fn init(_context: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        if matches!(request.body(), Body::Tensors(_)) {
            return Ok(Step::infer(tensors(request)));
        }
        let document: Inputs = request.json()?;
        let inputs: Result<Vec<Tensor>, Error> = document
            .inputs
            .into_iter()
            .map(TensorJson::into_tensor)
            .collect();
        Ok(Step::infer(inputs?))
    }

    fn postprocess(&self, outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        let outputs: Result<_, Error> = outputs.iter().map(TensorJson::of_tensor).collect();
        Response::json(&Answer { outputs: outputs? })
    }
}

fn tensors(request: Request) -> Vec<Tensor> {
    match request.into_body() {
        Body::Tensors(tensors) => tensors,
        Body::Raw(_) | Body::Form(_) => Vec::new(),
    }
}

handler_sdk::export!(Passthrough);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use handler_sdk::testing;
    use serde_json::{Value, json};

    use super::*;

    /// Sends `tensor` as an input and gives it back as an output.
    fn round_trip(tensor: &Value) -> Value {
        let body = json!({"inputs": [tensor]}).to_string();
        let (inputs, _) =
            testing::inferred(Passthrough.preprocess(testing::request(body)).unwrap());
        let response = Passthrough.postprocess(inputs.into(), &[]).unwrap();
        serde_json::from_slice::<Value>(response.body()).unwrap()["outputs"][0].take()
    }

    #[test]
    fn every_dtype_round_trips() {
        for (dtype, data) in [
            ("boolean", json!([true, false])),
            ("uint8", json!([0, 255])),
            ("int8", json!([-128, 127])),
            ("int16", json!([-32768, 32767])),
            ("int32", json!([i32::MIN, i32::MAX])),
            ("int64", json!([i64::MIN, i64::MAX])),
            ("fp16", json!([0.5, 65504.0])),
            ("bf16", json!([-2.0, 1.0])),
            ("fp32", json!([f64::from(0.1f32), -1.5])),
            ("fp64", json!([0.459_141_182_844_473_25, -1e300])),
            ("bytes", json!(["", "é"])),
        ] {
            let tensor = json!({"name": "t", "dtype": dtype, "shape": [1, 2], "data": data});
            assert_eq!(round_trip(&tensor), tensor);
        }
    }

    #[test]
    fn wrong_tensors_say_what_is_wrong() {
        for (tensor, reason) in [
            (
                json!({"name": "t", "dtype": "float", "shape": [1], "data": [1]}),
                "no dtype `float`",
            ),
            (
                json!({"name": "t", "dtype": "int8", "shape": [1], "data": [300]}),
                "tensor `t`",
            ),
            (
                json!({"name": "t", "dtype": "int8", "shape": [2], "data": [3]}),
                "shape [2]",
            ),
        ] {
            let body = json!({"inputs": [tensor]}).to_string();
            let error = Passthrough.preprocess(testing::request(body)).unwrap_err();
            assert!(error.message().contains(reason), "{error}");
        }
    }

    #[test]
    fn tensors_of_a_client_pass() {
        let tensor = Tensor::from_vec("x", [1, 1], [1.0f32]).unwrap();
        let step = Passthrough
            .preprocess(testing::tensors(vec![tensor]))
            .unwrap();
        assert_eq!(testing::inferred(step).0[0].name(), "x");
    }
}
