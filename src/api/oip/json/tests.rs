//! Requests as clients write them, well and badly.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::oip::InferResponse;
use crate::tensor::DType;

/// The request in `document`, its data included.
fn read(document: &str) -> Result<Vec<Option<NamedTensor>>, Error> {
    let head = Head::parse(document.as_bytes())?;
    inputs(document.as_bytes(), &head.inputs)
}

/// One input.
fn input(datatype: &str, shape: &Value, data: &Value) -> String {
    let input = json!({"name": "x", "datatype": datatype, "shape": shape, "data": data});
    json!({"inputs": [input]}).to_string()
}

fn one(datatype: &str, shape: &Value, data: &Value) -> Result<Tensor, Error> {
    let mut read = read(&input(datatype, shape, data))?;
    Ok(read.remove(0).unwrap().tensor)
}

/// `tensor` as a response writes it.
fn written(tensor: Tensor) -> Result<Value, Error> {
    let response = InferResponse {
        model_name: "m".to_owned(),
        model_version: "1".to_owned(),
        id: None,
        outputs: vec![NamedTensor::new("y", tensor)],
    };
    let encoded = encode(&response, &Form::default())?;
    let mut document: Value = serde_json::from_slice(&encoded.body).unwrap();
    Ok(document["outputs"][0]["data"].take())
}

#[test]
fn every_datatype_is_read_and_written() {
    for (datatype, data) in [
        ("BOOL", json!([true, false])),
        ("UINT8", json!([0, 255])),
        ("INT8", json!([-128, 127])),
        ("INT16", json!([-32768, 32767])),
        ("INT32", json!([i32::MIN, i32::MAX])),
        ("INT64", json!([i64::MIN, i64::MAX])),
        ("FP32", json!([f64::from(0.1f32), -1.5])),
        ("FP64", json!([0.1, -1e300])),
        ("BYTES", json!(["", "é\u{0}"])),
    ] {
        let tensor = one(datatype, &json!([1, 2]), &data).unwrap();
        assert_eq!(tensor.shape(), [1, 2]);
        assert_eq!(written(tensor).unwrap(), data, "{datatype}");
    }
}

#[test]
fn data_is_flat_or_nested_and_may_come_before_its_type() {
    let flat = one("FP32", &json!([2, 2]), &json!([1, 2, 3, 4])).unwrap();
    for data in [json!([[1, 2], [3, 4]]), json!([[[1], [2, 3]], 4])] {
        assert_eq!(one("FP32", &json!([2, 2]), &data).unwrap(), flat);
    }
    let early =
        r#"{"inputs": [{"data": [1, 2, 3, 4], "shape": [2, 2], "name": "x", "datatype": "FP32"}]}"#;
    assert_eq!(read(early).unwrap()[0].as_ref().unwrap().tensor, flat);
    let empty = one("FP32", &json!([1, 0]), &json!([])).unwrap();
    assert_eq!(empty.elements(), 0);
}

#[test]
fn the_rest_of_a_request_is_read() {
    let document = r#"{"id": "", "unknown": {"a": [1]}, "parameters": {"priority": 1, "x": 0.5, "s": "t", "b": true},
        "inputs": [{"name": "x", "shape": [1], "datatype": "FP16", "parameters": {"binary_data_size": 2}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": true}}, {"name": "z"}]}"#;
    let head = Head::parse(document.as_bytes()).unwrap();
    assert_eq!(head.id.as_deref(), Some(""));
    assert!(!head.inputs[0].has_data);
    assert_eq!(head.inputs[0].dtype, DType::F16);
    assert_eq!(head.outputs[0].1.flag("binary_data").unwrap(), Some(true));
    assert_eq!(head.outputs[1].0, "z");
}

#[test]
fn wrong_elements_are_named() {
    for (datatype, shape, data, says) in [
        ("INT8", json!([1]), json!([128]), "128 is no INT8"),
        ("UINT8", json!([1]), json!([-1]), "-1 is no UINT8"),
        ("INT64", json!([1]), json!([u64::MAX]), "is no INT64"),
        ("INT32", json!([1]), json!([1.5]), "1.5 is no INT32"),
        ("FP32", json!([1]), json!([1e39]), "is no FP32"),
        ("FP32", json!([1]), json!(["1"]), "\"1\" is no FP32"),
        ("FP32", json!([1]), json!([true]), "true is no FP32"),
        ("FP32", json!([1]), json!([null]), "null"),
        ("BOOL", json!([1]), json!([1]), "1 is no BOOL"),
        ("BYTES", json!([1]), json!([1]), "1 is no BYTES"),
        ("FP16", json!([1]), json!([1.0]), "binary data format"),
        ("BF16", json!([1]), json!([1.0]), "binary data format"),
        ("FP32", json!([2]), json!([1.0]), "takes 2 elements, got 1"),
        (
            "FP32",
            json!([1]),
            json!([1.0, 2.0]),
            "takes 1 elements, got more",
        ),
        ("FP32", json!([1]), json!(5), "expected a list"),
        ("FP32", json!([1]), json!({"a": 1}), "expected a list"),
        ("FP32", json!([1]), json!([{"a": 1}]), "expected an element"),
        ("UINT64", json!([1]), json!([1]), "must be one of"),
        ("FP128", json!([1]), json!([1]), "got \"FP128\""),
    ] {
        let error = one(datatype, &shape, &data).unwrap_err();
        assert!(error.message().contains(says), "{datatype} {data}: {error}");
        assert_eq!(error.kind().wire().status, 400);
    }
}

#[test]
fn shapes_that_cannot_be_are_refused_before_anything_is_made_of_them() {
    let billion = 1u64 << 60;
    for shape in [
        json!([-1]),
        json!([1.5]),
        json!(["1"]),
        json!([1u64 << 4, billion + 2]),
        json!([1u64 << 2, billion + 2]),
        json!([1u64 << 31, 1]),
        json!([u64::MAX]),
        json!([0, u64::MAX, u64::MAX]),
        json!(vec![1; 1_000_000]),
        json!(vec![1; 65]),
        json!(3),
        json!(null),
    ] {
        for datatype in ["FP64", "BYTES", "BOOL"] {
            let error = one(datatype, &shape, &json!([1])).unwrap_err();
            assert_eq!(error.kind().wire().status, 400);
            assert!(error.message().len() < 700, "{error}");
        }
    }
}

#[test]
fn documents_that_are_no_requests_are_refused() {
    let many_inputs = format!(
        "{{\"inputs\": [{}]}}",
        vec![r#"{"name": "x", "datatype": "BOOL", "shape": [1], "data": [true]}"#; 1025].join(",")
    );
    let many_outputs = format!(
        "{{\"inputs\": [], \"outputs\": [{}]}}",
        vec![r#"{"name": "y"}"#; 1025].join(",")
    );
    for document in [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        r#"{"inputs": {}}"#,
        r#"{"inputs": [1]}"#,
        r#"{"inputs": [{}]}"#,
        r#"{"inputs": [], "inputs": []}"#,
        r#"{"inputs": [], "id": 3}"#,
        r#"{"inputs": [], "parameters": {"a": {"b": 1}}}"#,
        r#"{"inputs": [], "parameters": {"a": [1]}}"#,
        r#"{"inputs": [], "parameters": {"a": 1, "a": 2}}"#,
        r#"{"inputs": [], "parameters": []}"#,
        r#"{"inputs": []} x"#,
        r#"{"inputs": [{"name": "x", "datatype": "BOOL", "shape": [1], "data": [true], "data": [true]}]}"#,
        r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1],
            "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4}}]}"#,
        "{\"inputs\": [], \"id\": \"\u{1}\"}",
        &many_inputs,
        &many_outputs,
    ] {
        let error = read(document).unwrap_err();
        assert_eq!(error.kind().wire().status, 400, "{document}");
    }
    assert_eq!(
        Head::parse(b"{\"inputs\": [], \"id\": \"\xff\"}")
            .unwrap_err()
            .kind(),
        Kind::BadRequest
    );
}

#[test]
fn depth_is_limited_and_texts_do_not_count() {
    let nested = |depth: usize| {
        let data = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        format!(
            r#"{{"inputs": [{{"name": "x", "datatype": "INT8", "shape": [1], "data": {data}}}]}}"#
        )
    };
    // The document, the list of inputs and the input take three.
    read(&nested(97)).unwrap();
    let error = read(&nested(98)).unwrap_err();
    assert_eq!(error.message(), "JSON may nest 100 deep, this nests deeper");
    for open in ["[", "{\"a\":", "{\"a\":["] {
        assert!(parse::<Value>(open.repeat(1_000_000).as_bytes()).is_err());
    }
    let text = json!({"a": "\"\\[".repeat(200)}).to_string();
    parse::<Value>(text.as_bytes()).unwrap();
}

#[test]
fn what_json_cannot_say_is_not_said_wrong() {
    let tensor = |dtype, data: &[u8]| Tensor::new(dtype, vec![1], data.to_vec().into()).unwrap();
    for (tensor, says) in [
        (
            tensor(DType::F32, &f32::NAN.to_le_bytes()),
            "no finite numbers",
        ),
        (
            tensor(DType::F64, &f64::INFINITY.to_le_bytes()),
            "no finite numbers",
        ),
        (tensor(DType::F16, &[0, 0]), "FP16"),
        (tensor(DType::Bf16, &[0, 0]), "BF16"),
        (tensor(DType::Bytes, &[1, 0, 0, 0, 0xff]), "no UTF-8"),
    ] {
        let message = written(tensor).unwrap_err().message().to_owned();
        assert!(
            message.contains(says) && message.contains("binary_data"),
            "{message}"
        );
    }
}

proptest! {
    #[test]
    fn floats_keep_every_bit(values in prop::collection::vec(any::<f32>().prop_filter("finite", |v| v.is_finite()), 1..50)) {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DType::F32, vec![values.len()], data.into()).unwrap();
        let again = one("FP32", &json!([values.len()]), &written(tensor.clone()).unwrap()).unwrap();
        prop_assert_eq!(again, tensor);
    }

    #[test]
    fn nothing_makes_it_panic(document: Vec<u8>) {
        let _ = Head::parse(&document);
    }

    #[test]
    fn whatever_is_like_a_request_ends(
        shape in prop::collection::vec(any::<i64>(), 0..4),
        data in r#"[\[\]1-9,.e"truefals-]{0,30}"#,
    ) {
        let shape = serde_json::to_string(&shape).unwrap();
        let document = format!(r#"{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": {data}}}]}}"#);
        let _ = read(&document);
    }
}
