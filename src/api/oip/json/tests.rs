//! Requests as clients write them, well and badly.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::oip::InferResponse;
use crate::tensor::{DType, Tensor};

/// The request in `document`, its data included.
fn read(document: &str) -> Result<Vec<Option<NamedTensor>>, Error> {
    request(document.as_bytes()).map(|(_, inputs)| inputs)
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

/// The response whose output is `tensor`.
fn response(tensor: Tensor) -> Result<Vec<u8>, Error> {
    let response = InferResponse {
        model_name: "m".to_owned(),
        model_version: "1".to_owned(),
        id: None,
        outputs: vec![NamedTensor::new("y", tensor)],
    };
    let encoded = encode(&response, &Form::default())?;
    Ok(encoded.first.to_vec())
}

/// `tensor` as a response writes it.
fn written(tensor: Tensor) -> Result<Value, Error> {
    let mut document: Value = serde_json::from_slice(&response(tensor)?).unwrap();
    Ok(document["outputs"][0]["data"].take())
}

/// A tensor of one axis.
fn row(dtype: DType, data: Vec<u8>) -> Tensor {
    let elements = data.len() / dtype.size().unwrap();
    Tensor::new(dtype, vec![elements], data.into()).unwrap()
}

/// `tensor` after it was written and read.
fn there_and_back(tensor: Tensor) -> Tensor {
    let written = response(tensor).unwrap();
    let mut read = handlers_outputs(&written).unwrap().unwrap();
    read.remove(0).tensor
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
        ("UINT16", json!([0, u16::MAX])),
        ("UINT32", json!([0, u32::MAX])),
        ("UINT64", json!([i64::MAX as u64 + 1, u64::MAX])),
        ("FP16", json!([0.5, -65504.0])),
        ("BF16", json!([0.5, -3.0])),
        ("FP32", json!([f64::from(0.1f32), -1.5])),
        ("FP64", json!([0.459_141_182_844_473_25, -1e300])),
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
    let (head, _) = request(document.as_bytes()).unwrap();
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
        (
            "UINT8",
            json!([1]),
            json!([-1]),
            "-1 is no UINT8, which is a whole number from 0 to 255",
        ),
        ("INT32", json!([1]), json!([1.0]), "1.0 is no INT32"),
        ("INT64", json!([1]), json!([u64::MAX]), "is no INT64"),
        ("INT32", json!([1]), json!([1.5]), "1.5 is no INT32"),
        ("FP32", json!([1]), json!([1e39]), "is no FP32"),
        ("FP32", json!([1]), json!(["1"]), "\"1\" is no FP32"),
        ("FP32", json!([1]), json!([true]), "true is no FP32"),
        ("FP32", json!([1]), json!([null]), "null"),
        ("BOOL", json!([1]), json!([1]), "1 is no BOOL"),
        ("BYTES", json!([1]), json!([1]), "1 is no BYTES"),
        (
            "FP16",
            json!([1]),
            json!([65520]),
            "65520 is no FP16, which is a number up to 6.55",
        ),
        (
            "FP16",
            json!([1]),
            json!([-1e9]),
            "-1000000000.0 is no FP16",
        ),
        (
            "BF16",
            json!([1]),
            json!([3.4e38]),
            "e+38 is no BF16, which is",
        ),
        ("BF16", json!([1]), json!(["1"]), "\"1\" is no BF16"),
        (
            "FP64",
            json!([1]),
            json!([[null]]),
            "null is no FP64, which is a number up to",
        ),
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
        (
            "UINT64",
            json!([1]),
            json!([-1]),
            "-1 is no UINT64, which is a whole number from 0 to 18446744073709551615",
        ),
        ("UINT16", json!([1]), json!([65536]), "65536 is no UINT16"),
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
    for document in [
        &b"{\"inputs\": [], \"id\": \"\xff\"}"[..],
        b"{\"inputs\": [{\"name\": \"x\", \"datatype\": \"BYTES\", \"shape\": [1], \"data\": [\"\xff\"]}]}",
        b"{\"inputs\": [{\"name\": \"x\", \"datatype\": \"INT8\", \"shape\": [1], \"data\": [\xff]}]}",
    ] {
        assert_eq!(request(document).unwrap_err().kind(), Kind::BadRequest);
    }
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
    let tensor = Tensor::new(DType::Bytes, vec![1], vec![1, 0, 0, 0, 0xff].into()).unwrap();
    let message = written(tensor).unwrap_err().message().to_owned();
    assert!(
        message.contains("no UTF-8") && message.contains("binary_data"),
        "{message}"
    );
}

#[test]
fn what_is_no_finite_number_has_the_form_that_clients_read() {
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
    let data = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let written = response(row(DType::F64, data)).unwrap();
    let text = String::from_utf8(written).unwrap();
    assert!(
        text.ends_with(r#""data":[NaN,Infinity,-Infinity,-0.0]}]}"#),
        "{text}"
    );
    for datatype in ["FP16", "BF16", "FP32", "FP64"] {
        let document = format!(
            r#"{{"id": "NaN", "inputs": [{{"name": "x", "shape": [2, 2], "data": [[NaN , -0],[Infinity, -Infinity]], "datatype": "{datatype}"}}]}}"#
        );
        let tensor = read(&document).unwrap().remove(0).unwrap().tensor;
        let text = String::from_utf8(response(tensor).unwrap()).unwrap();
        assert!(
            text.ends_with(r#""data":[NaN,-0.0,Infinity,-Infinity]}]}"#),
            "{text}"
        );
    }
    for word in [
        "nan",
        "-NaN",
        "inf",
        "Inf",
        "+Infinity",
        "Infinity1",
        "NaNNaN",
    ] {
        let document = input("FP32", &json!([1]), &json!(["@"])).replace("\"@\"", word);
        let error = read(&document).unwrap_err();
        assert!(
            error.message().contains(&format!("{word} is no FP32")),
            "{error}"
        );
    }
    let whole = input("INT64", &json!([1]), &json!(["@"])).replace("\"@\"", "NaN");
    assert!(
        read(&whole)
            .unwrap_err()
            .message()
            .contains("NaN is no INT64")
    );
    // Elsewhere there are none.
    assert!(read(r#"{"inputs": [], "parameters": {"x": NaN}}"#).is_err());
}

#[test]
fn a_single_is_the_nearest_to_its_text() {
    // By way of a double it would be 1.
    let text = "1.00000005960464477539062500000000001";
    let document = input("FP32", &json!([1]), &json!(["@"])).replace("\"@\"", text);
    let tensor = read(&document).unwrap().remove(0).unwrap().tensor;
    assert_eq!(tensor.data()[..], (1.0 + f32::EPSILON).to_le_bytes());
}

#[test]
fn lists_of_elements_are_json() {
    for data in [
        "[1 2]", "[1,]", "[,1]", "[1", "[1}", "[1]]", "{}", "1", "\"1\"", "true", "[01]", "[1.]",
        "[.5]", "[+1]", "[0x1]", "[1e]", "[-]", "[[1,2]", "[\"1]", "[:]", "[{}]", "[1:2]",
    ] {
        let document = input("FP32", &json!([1]), &json!("@")).replace("\"@\"", data);
        let error = read(&document).unwrap_err();
        assert_eq!(error.kind(), Kind::BadRequest, "{data}: {error}");
    }
    let spaced = "[ \t[ 1 , 2 ]\r\n,[3],[ ] , 4e0 ]";
    let document = input("FP32", &json!([4]), &json!("@")).replace("\"@\"", spaced);
    let tensor = read(&document).unwrap().remove(0).unwrap().tensor;
    assert_eq!(written(tensor).unwrap(), json!([1.0, 2.0, 3.0, 4.0]));
}

#[test]
fn texts_are_read_with_their_escapes() {
    let data = json!(["a\"]\\", "\u{e9}\u{0}\n", "", "]"]);
    let tensor = one("BYTES", &json!([4]), &data).unwrap();
    assert_eq!(written(tensor).unwrap(), data);
    for data in ["[\"\\x\"]", "[\"\\ud800\"]", "[\"\u{1}\"]", "[\"a\"b]"] {
        let document = input("BYTES", &json!([1]), &json!("@")).replace("\"@\"", data);
        assert_eq!(
            read(&document).unwrap_err().kind(),
            Kind::BadRequest,
            "{data}"
        );
    }
}

#[test]
fn names_of_members_may_be_escaped() {
    let document =
        r#"{"\u0069nputs": [{"name": "x", "shape": [1], "datatype": "INT8", "d\u0061ta": [7]}]}"#;
    assert_eq!(
        read(document).unwrap()[0].as_ref().unwrap().tensor.data()[..],
        [7]
    );
    let elsewhere = r#"{"other": {"inputs": [{"data": [1]}], "data": "["}, "inputs": [{"name": "x", "shape": [1],
        "x": {"data": [2]}, "datatype": "INT8", "data": [3]}, {"name": "y", "shape": [1], "datatype": "INT8", "data": null}]}"#;
    let inputs = read(elsewhere).unwrap();
    assert_eq!(inputs[0].as_ref().unwrap().tensor.data()[..], [3]);
    assert!(inputs[1].is_none());
}

#[test]
fn what_is_wrong_is_found_where_it_is() {
    let document = "{\"inputs\": [\n{\"name\": \"x\", \"datatype\": \"FP32\", \"shape\": [2], \"data\": [1,\n 2]},\n{]}";
    let error = read(document).unwrap_err();
    assert!(error.message().ends_with("at line 4 column 2"), "{error}");
    let document = document.replace(" 2]},\n{]", "1, x ]}]");
    let error = read(&document).unwrap_err();
    assert!(error.message().ends_with("at line 3 column 4"), "{error}");
}

/// The dtypes whose elements are numbers.
fn numbers() -> Vec<DType> {
    let all = DType::ALL.into_iter();
    all.filter(|dtype| !matches!(dtype, DType::Bool | DType::Bytes))
        .collect()
}

fn is_nan(dtype: DType, element: &[u8]) -> bool {
    match dtype {
        DType::F16 => half::f16::from_le_bytes(element.try_into().unwrap()).is_nan(),
        DType::Bf16 => half::bf16::from_le_bytes(element.try_into().unwrap()).is_nan(),
        DType::F32 => f32::from_le_bytes(element.try_into().unwrap()).is_nan(),
        DType::F64 => f64::from_le_bytes(element.try_into().unwrap()).is_nan(),
        _ => false,
    }
}

proptest! {
    #[test]
    fn every_element_keeps_every_bit(dtype in prop::sample::select(numbers()), data in prop::collection::vec(any::<u8>(), 0..400)) {
        let size = dtype.size().unwrap();
        let mut data = data;
        data.truncate(data.len() / size * size);
        let tensor = row(dtype, data);
        let back = there_and_back(tensor.clone());
        prop_assert_eq!(back.shape(), tensor.shape());
        let (back, tensor) = (back.data().chunks(size), tensor.data().chunks(size));
        for (back, element) in back.zip(tensor) {
            prop_assert!(back == element || (is_nan(dtype, back) && is_nan(dtype, element)), "{dtype}: {element:?} became {back:?}");
        }
    }

    #[test]
    fn doubles_are_read_as_the_general_parser_reads_them(values in prop::collection::vec(any::<f64>().prop_filter("finite", |v| v.is_finite()), 1..50)) {
        let tensor = one("FP64", &json!([values.len()]), &json!(values)).unwrap();
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        prop_assert_eq!(&tensor.data()[..], &data[..]);
    }

    #[test]
    fn nothing_makes_it_panic(document: Vec<u8>) {
        let _ = request(&document);
    }

    #[test]
    fn whatever_is_like_a_request_ends(
        shape in prop::collection::vec(any::<i64>(), 0..4),
        data in r#"[\[\]1-9,.e"truefalsNIinfy{}: -]{0,30}"#,
    ) {
        let shape = serde_json::to_string(&shape).unwrap();
        let document = format!(r#"{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": {shape}, "data": {data}}}]}}"#);
        let _ = read(&document);
    }
}
