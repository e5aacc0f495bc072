//! Checks that numbers keep their bits, also in JSON: over both transports, in each form, in both hostings.

use lantern::api::Listener;
use lantern::api::grpc::proto::open_inference::model_infer_request::InferInputTensor;
use lantern::api::grpc::proto::open_inference::{InferTensorContents, ModelInferRequest};
use serde_json::{Value, json};
use tonic::Code;

use super::{divided, failure, infer, infer_binary, post};
use crate::support::{Answer, Model, TestServer, fixture};

fn raw(file: &'static str) -> Model {
    let name = file.split('.').next().unwrap();
    Model::new("linear").named(name).artifact(file)
}

/// The model of one fixture, in each host.
async fn in_both_hosts(file: &'static str) -> [TestServer; 2] {
    [
        TestServer::with(raw(file)).await,
        TestServer::with(raw(file).in_process()).await,
    ]
}

/// The doubles of a fixture's only case.
fn doubles() -> Vec<f64> {
    let text = std::fs::read_to_string(fixture("identity_f64.onnx.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let data = json["cases"][0]["inputs"][0]["data"].as_array().unwrap();
    data.iter().map(|value| value.as_f64().unwrap()).collect()
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn floats_of(data: &Value) -> Vec<f64> {
    let data = data.as_array().unwrap().iter();
    data.map(|value| value.as_f64().unwrap()).collect()
}

/// The answer to a request for `model` whose body is written by hand, with values that JSON has no form for.
async fn infer_text(server: &TestServer, model: &str, inputs: &str) -> Answer {
    let path = format!("/v2/models/{model}/infer");
    post(server, &path, format!(r#"{{"inputs": [{inputs}]}}"#)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn doubles_keep_every_bit_in_both_hosts() {
    let sent = doubles();
    let shape = [1, sent.len()];
    for server in in_both_hosts("identity_f64.onnx").await {
        let input = json!({"name": "x", "shape": shape, "datatype": "FP64", "data": sent});
        let mut request = json!({"inputs": [input]});
        let answer = infer(&server, "identity_f64", &request).await.json();
        assert_eq!(bits(&floats_of(&answer["outputs"][0]["data"])), bits(&sent));
        request["parameters"] = json!({"binary_data_output": true});
        let answer = infer(&server, "identity_f64", &request).await;
        let expected: Vec<u8> = sent.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(divided(&answer).1, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doubles_keep_every_bit_through_a_handler() {
    let sent = doubles();
    let tensor = json!({"name": "x", "dtype": "fp64", "shape": [1, sent.len()], "data": sent});
    let body = json!({"inputs": [tensor]}).to_string();
    let model = || {
        Model::new("passthrough")
            .named("doubles")
            .artifact("identity_f64.onnx")
    };
    for model in [model(), model().in_process()] {
        let server = TestServer::with(model).await;
        for path in ["/predictions/doubles", "/v1/models/doubles:predict"] {
            let answer = post(&server, path, body.clone()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let data = &answer.json()["outputs"][0]["data"];
            assert_eq!(bits(&floats_of(data)), bits(&sent));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dtype_keeps_its_bits_in_json_in_both_hosts() {
    let cases = [
        ("boolean", "BOOL", "[true,false]"),
        ("uint8", "UINT8", "[0,255]"),
        ("int8", "INT8", "[-128,127]"),
        ("int16", "INT16", "[-32768,32767]"),
        ("int32", "INT32", "[-2147483648,2147483647]"),
        (
            "int64",
            "INT64",
            "[-9223372036854775808,9223372036854775807]",
        ),
        ("fp16", "FP16", "[NaN,-65504.0]"),
        ("bf16", "BF16", "[-Infinity,-0.0]"),
        ("fp32", "FP32", "[Infinity,0.10000000149011612]"),
        ("fp64", "FP64", "[NaN,0.45914118284447325]"),
    ];
    let inputs = cases.map(|(name, datatype, data)| {
        format!(
            r#"{{"name": "{name}", "shape": [1, 2], "datatype": "{datatype}", "data": {data}}}"#
        )
    });
    for server in in_both_hosts("dtypes.onnx").await {
        let answer = infer_text(&server, "dtypes", &inputs.join(",")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for (name, datatype, data) in cases {
            let output = format!(
                r#"{{"name":"{name}_out","datatype":"{datatype}","shape":[1,2],"data":{data}}}"#
            );
            assert!(
                answer.text().contains(&output),
                "{output}: {}",
                answer.text()
            );
        }
    }
}

/// Name, datatype, bytes of an element, the largest, and one beyond it.
const UNSIGNED: [(&str, &str, usize, u64, &str); 3] = [
    ("uint16", "UINT16", 2, u16::MAX as u64, "65536"),
    ("uint32", "UINT32", 4, u32::MAX as u64, "4294967296"),
    ("uint64", "UINT64", 8, u64::MAX, "18446744073709551616"),
];

/// Inputs of `unsigned`, the largest and 7 each, in JSON or without their data.
fn unsigned(has_data: bool) -> Vec<Value> {
    let input = |(name, datatype, size, largest, _): (&str, &str, usize, u64, &str)| {
        let mut input = json!({"name": name, "shape": [1, 2], "datatype": datatype});
        if has_data {
            input["data"] = json!([largest, 7]);
        } else {
            input["parameters"] = json!({"binary_data_size": 2 * size});
        }
        input
    };
    UNSIGNED.map(input).to_vec()
}

/// The bytes of these inputs.
fn unsigned_bytes() -> [Vec<u8>; 3] {
    UNSIGNED.map(|(_, _, size, largest, _)| {
        let bytes = |value: u64| value.to_le_bytes()[..size].to_vec();
        [bytes(largest), bytes(7)].concat()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn large_unsigned_integers_go_through_rest_in_both_hosts() {
    for server in in_both_hosts("unsigned.onnx").await {
        let answer = infer(&server, "unsigned", &json!({"inputs": unsigned(true)})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for ((name, datatype, _, largest, _), output) in UNSIGNED
            .iter()
            .zip(answer.json()["outputs"].as_array().unwrap())
        {
            let expected = json!({"name": format!("{name}_out"), "datatype": datatype, "shape": [1, 2], "data": [largest, 7]});
            assert_eq!(*output, expected);
        }
        let request =
            json!({"inputs": unsigned(false), "parameters": {"binary_data_output": true}});
        let data = unsigned_bytes().concat();
        let answer = infer_binary(&server, "unsigned", &request, &data).await;
        assert_eq!(divided(&answer).1, data);
        let metadata = super::get(&server, "/v2/models/unsigned").await.json();
        assert_eq!(metadata["inputs"][2]["datatype"], "UINT64");
        let config = super::get(&server, "/v2/models/unsigned/config")
            .await
            .json();
        assert_eq!(config["output"][0]["data_type"], "TYPE_UINT16");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_unsigned_integers_are_classified() {
    let server = TestServer::with(raw("unsigned.onnx")).await;
    let outputs = json!([{"name": "uint64_out", "parameters": {"classification": 1}}]);
    let request = json!({"inputs": unsigned(true), "outputs": outputs});
    let answer = infer(&server, "unsigned", &request).await.json();
    assert_eq!(
        answer["outputs"][0]["data"],
        json!(["18446744073709551615:0"])
    );
}

/// The request over gRPC, with its data in the contents of each datatype or raw.
fn message(is_raw: bool) -> ModelInferRequest {
    let contents = |size: usize, largest: u64| match size {
        8 => InferTensorContents {
            uint64_contents: vec![largest, 7],
            ..InferTensorContents::default()
        },
        _ => InferTensorContents {
            uint_contents: vec![u32::try_from(largest).unwrap(), 7],
            ..InferTensorContents::default()
        },
    };
    let inputs = UNSIGNED.map(|(name, datatype, size, largest, _)| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1, 2],
        contents: (!is_raw).then(|| contents(size, largest)),
        ..InferInputTensor::default()
    });
    let raw = unsigned_bytes().map(Into::into).to_vec();
    ModelInferRequest {
        model_name: "unsigned".to_owned(),
        inputs: inputs.to_vec(),
        raw_input_contents: if is_raw { raw } else { Vec::new() },
        ..ModelInferRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_unsigned_integers_go_through_grpc_in_both_hosts() {
    for server in in_both_hosts("unsigned.onnx").await {
        let mut client = server.grpc_open_inference();
        let answer = client
            .model_infer(message(true))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.raw_output_contents, unsigned_bytes());
        let answer = client
            .model_infer(message(false))
            .await
            .unwrap()
            .into_inner();
        let contents: Vec<_> = answer
            .outputs
            .into_iter()
            .map(|output| output.contents.unwrap())
            .collect();
        assert_eq!(contents[0].uint_contents, [65535, 7]);
        assert_eq!(contents[1].uint_contents, [u32::MAX, 7]);
        assert_eq!(contents[2].uint64_contents, [u64::MAX, 7]);
        let mut beyond = message(false);
        beyond.inputs[0].contents.as_mut().unwrap().uint_contents[0] = 65536;
        let status = client.model_infer(beyond).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("65536 is no UINT16"), "{status}");
        let mut elsewhere = message(false);
        elsewhere.inputs[2].contents = elsewhere.inputs[1].contents.clone();
        let status = client.model_infer(elsewhere).await.unwrap_err();
        assert!(status.message().contains("uint64_contents"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_a_datatype_is_named() {
    let server = TestServer::builder()
        .model(raw("unsigned.onnx"))
        .model(raw("dtypes.onnx"))
        .start()
        .await;
    for (name, datatype, _, largest, beyond) in UNSIGNED {
        let input = format!(
            r#"{{"name": "{name}", "shape": [1, 2], "datatype": "{datatype}", "data": [7, {beyond}]}}"#
        );
        let text = failure(&infer_text(&server, "unsigned", &input).await, 400);
        let says = format!(
            "input \"{name}\": {beyond} is no {datatype}, which is a whole number from 0 to {largest}"
        );
        assert!(text.contains(&says), "{text}");
    }
    for (name, datatype, value) in [
        ("fp16", "FP16", "65520"),
        ("bf16", "BF16", "3.4e38"),
        ("fp32", "FP32", "3.5e38"),
        ("fp64", "FP64", "1.8e308"),
        ("int64", "INT64", "9223372036854775808"),
    ] {
        let input = format!(
            r#"{{"name": "{name}", "shape": [1, 2], "datatype": "{datatype}", "data": [7, {value}]}}"#
        );
        let text = failure(&infer_text(&server, "dtypes", &input).await, 400);
        assert!(
            text.contains(&format!("{value} is no {datatype}")),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_has_no_such_dtype_is_told_in_both_hosts() {
    let takes = || {
        Model::new("passthrough")
            .named("unsigned")
            .artifact("unsigned.onnx")
            .lantern("oip: handler")
    };
    let gives = || {
        Model::new("passthrough")
            .named("gives")
            .artifact("unsigned_output.onnx")
    };
    for (takes, gives) in [
        (takes(), gives()),
        (takes().in_process(), gives().in_process()),
    ] {
        let server = TestServer::builder()
            .model(takes)
            .model(gives)
            .start()
            .await;
        let answer = infer(&server, "unsigned", &json!({"inputs": unsigned(true)})).await;
        let text = failure(&answer, 400);
        assert!(
            text.contains(
                "input \"uint16\" is uint16, which interface 0.1 of handlers has no dtype for"
            ),
            "{text}"
        );
        let tensor = json!({"name": "x", "dtype": "fp32", "shape": [1, 2], "data": [0, 7]});
        let body = json!({"inputs": [tensor]}).to_string();
        let answer = server
            .request(Listener::Inference, "POST", "/predictions/gives")
            .body(body);
        let answer = Answer::of(answer.send().await.unwrap()).await;
        assert!(answer.status >= 500, "{}", answer.text());
        assert!(
            answer.text().contains(
                "output \\\"y\\\" is uint32, which interface 0.1 of handlers has no dtype for"
            ),
            "{}",
            answer.text()
        );
        // Clients of Open Inference Protocol get its outputs.
        let request = json!({"inputs": [super::floats("x", &json!([1, 2]), &json!([0, 7]))]});
        let answer = infer(&server, "gives", &request).await;
        assert_eq!(
            answer.json()["outputs"][0]["data"],
            json!([0, 7]),
            "{}",
            answer.text()
        );
    }
}
