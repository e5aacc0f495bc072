//! Real guests, loaded from files and called through [`Handler`], as a runtime does.

mod description;
pub(super) mod fixture;
mod hostile;
mod lifetime;

use std::time::Duration;

use super::*;
use crate::payload::{Body, Meter};
use crate::tensor::{DType, Tensor};
use fixture::{Fixture, raw};

const ROW: &str = r#"{"x": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]}"#;

fn output(values: &[f32]) -> NamedTensor {
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let tensor = Tensor::new(DType::F32, vec![1, values.len()], data.into()).unwrap();
    NamedTensor::new("y", tensor)
}

async fn infer(handler: &Handler, body: &str) -> Prepared {
    match handler.preprocess(&raw(body)).await.unwrap() {
        Step::Infer(prepared) => prepared,
        Step::Done(response) => panic!("answered {response:?}"),
    }
}

#[tokio::test]
async fn a_request_becomes_tensors_and_outputs_become_a_response() {
    let handler = Fixture::new("linear").load().await.unwrap();
    let prepared = infer(&handler, ROW).await;
    assert_eq!(prepared.inputs[0].tensor.rows(), Some(1));
    let x = &prepared.inputs[0];
    assert_eq!(
        (x.name.as_ref(), x.tensor.dtype(), x.tensor.shape()),
        ("x", DType::F32, &[1, 16][..])
    );
    let outputs = vec![output(&[0.5, 2.0])];
    let response = handler
        .postprocess("r", &Meter::default(), outputs, prepared.carry)
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.content_type(), "application/json");
    assert_eq!(response.body().as_ref(), br#"{"y":[0.5,2.0]}"#);
}

#[tokio::test]
async fn the_clients_fault_is_the_clients_error() {
    let handler = Fixture::new("linear").load().await.unwrap();
    let error = handler.preprocess(&raw("{}")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BadRequest);
    assert!(error.message().contains("missing field `x`"), "{error}");
    infer(&handler, ROW).await;
}
