//! Models whose inputs and outputs are sequences, maps, optional, or of unknown rank.

use lantern::api::grpc::proto::open_inference::model_infer_request::InferInputTensor;
use lantern::api::grpc::proto::open_inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
};
use lantern::model::{Declared, TensorSpec};
use lantern::tensor::{DType, NamedTensor, Tensor};
use serde_json::{Value, json};

use super::{JSON_LENGTH, failure, get, infer, infer_binary};
use crate::support::{Answer, Model, TestServer};

#[path = "../../support/fixture.rs"]
mod fixture;

use fixture::{Case, Fixture};

/// Files of `tests/fixtures` that `compound.py` writes.
const MODELS: [&str; 14] = [
    "classifier_int64s.onnx",
    "classifier_strings.onnx",
    "initializer.onnx",
    "many_inputs.onnx",
    "many_parts.onnx",
    "map_input.onnx",
    "nine_axes.onnx",
    "norank.onnx",
    "optional.onnx",
    "sequence_input.onnx",
    "sequence_insert.onnx",
    "sequences.onnx",
    "sum_of_series.onnx",
    "two_axes.onnx",
];

fn name(file: &str) -> &str {
    file.strip_suffix(".onnx").unwrap()
}

fn model(file: &'static str) -> Model {
    Model::new("linear").named(name(file)).artifact(file)
}

async fn serving(models: impl IntoIterator<Item = Model>) -> TestServer {
    let mut builder = TestServer::builder();
    for model in models {
        builder = builder.model(model);
    }
    builder.start().await
}

/// The protocol's name of a dtype that the fixtures have.
fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "BOOL",
        DType::I64 => "INT64",
        DType::F32 => "FP32",
        DType::Bytes => "BYTES",
        other => panic!("no fixture has {other}"),
    }
}

fn dtype(datatype: &str) -> DType {
    let mut all = [DType::Bool, DType::I64, DType::F32, DType::Bytes].into_iter();
    all.find(|dtype| self::datatype(*dtype) == datatype)
        .unwrap()
}

async fn over_rest(server: &TestServer, model: &str, case: &Case) -> Vec<NamedTensor> {
    let heads = case.inputs.iter().map(|input| {
        let size = input.tensor.data().len();
        json!({"name": *input.name, "shape": input.tensor.shape(), "datatype": datatype(input.tensor.dtype()),
            "parameters": {"binary_data_size": size}})
    });
    let request =
        json!({"inputs": heads.collect::<Vec<_>>(), "parameters": {"binary_data_output": true}});
    let data = case.inputs.iter().map(|input| &input.tensor.data()[..]);
    let data: Vec<u8> = data.collect::<Vec<_>>().concat();
    outputs(&infer_binary(server, model, &request, &data).await)
}

/// The outputs of a binary response.
fn outputs(answer: &Answer) -> Vec<NamedTensor> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let length = answer.header(JSON_LENGTH).unwrap().parse().unwrap();
    let (document, mut data) = answer.body.split_at(length);
    let document: Value = serde_json::from_slice(document).unwrap();
    let outputs = document["outputs"].as_array().unwrap().iter();
    let outputs = outputs.map(|output| {
        let size = output["parameters"]["binary_data_size"].as_u64().unwrap();
        let (own, rest) = data.split_at(usize::try_from(size).unwrap());
        data = rest;
        let shape = serde_json::from_value(output["shape"].clone()).unwrap();
        let dtype = dtype(output["datatype"].as_str().unwrap());
        let tensor = Tensor::new(dtype, shape, own.to_vec().into()).unwrap();
        NamedTensor::new(output["name"].as_str().unwrap(), tensor)
    });
    outputs.collect()
}

async fn over_grpc(server: &TestServer, model: &str, case: &Case) -> Vec<NamedTensor> {
    let heads = case.inputs.iter().map(|input| InferInputTensor {
        name: input.name.to_string(),
        datatype: datatype(input.tensor.dtype()).to_owned(),
        shape: input
            .tensor
            .shape()
            .iter()
            .map(|axis| i64::try_from(*axis).unwrap())
            .collect(),
        ..InferInputTensor::default()
    });
    let request = ModelInferRequest {
        model_name: model.to_owned(),
        inputs: heads.collect(),
        raw_input_contents: case
            .inputs
            .iter()
            .map(|input| input.tensor.data().clone())
            .collect(),
        ..ModelInferRequest::default()
    };
    let mut client = server.grpc_open_inference();
    let answer = client.model_infer(request).await.unwrap().into_inner();
    // The request has no data, so nothing says whether the answer is to be in raw form.
    if case.inputs.is_empty() {
        typed(answer)
    } else {
        raw(answer)
    }
}

fn raw(answer: ModelInferResponse) -> Vec<NamedTensor> {
    let outputs = answer.outputs.into_iter().zip(answer.raw_output_contents);
    let outputs = outputs.map(|(head, data)| {
        let shape = head
            .shape
            .iter()
            .map(|axis| usize::try_from(*axis).unwrap());
        let tensor = Tensor::new(dtype(&head.datatype), shape.collect(), data);
        NamedTensor::new(head.name, tensor.unwrap())
    });
    outputs.collect()
}

/// Outputs that are booleans, integers or floats.
fn typed(answer: ModelInferResponse) -> Vec<NamedTensor> {
    let outputs = answer.outputs.into_iter().map(|head| {
        let shape = head
            .shape
            .iter()
            .map(|axis| usize::try_from(*axis).unwrap());
        let contents = head.contents.unwrap_or_default();
        let data: Vec<u8> = match &*head.datatype {
            "BOOL" => contents
                .bool_contents
                .iter()
                .map(|value| u8::from(*value))
                .collect(),
            "INT64" => contents
                .int64_contents
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            _ => contents
                .fp32_contents
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        };
        let tensor = Tensor::new(dtype(&head.datatype), shape.collect(), data.into());
        NamedTensor::new(head.name, tensor.unwrap())
    });
    outputs.collect()
}

async fn answers_are_right(server: &TestServer) {
    for file in MODELS {
        let fixture = Fixture::read(file);
        for case in &fixture.cases {
            let expected = case.expected.as_ref().unwrap();
            for (way, actual) in [
                ("REST", over_rest(server, name(file), case).await),
                ("gRPC", over_grpc(server, name(file), case).await),
            ] {
                fixture.compare(
                    &format!("{file} {} over {way}", case.name),
                    expected,
                    &actual,
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_onnx_is_served_inline() {
    answers_are_right(&serving(MODELS.map(model)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_onnx_is_served_by_a_worker_process() {
    let models = MODELS.map(|file| model(file).in_process());
    answers_are_right(&serving(models).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_onnx_is_served_with_a_batch_size() {
    let models = MODELS.map(|file| model(file).with("batchSize: 4"));
    answers_are_right(&serving(models).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_classifiers_map_is_json_that_people_can_read() {
    let server = serving([model("classifier_strings.onnx")]).await;
    let request = json!({"inputs": [super::floats("x", &json!([1, 3]), &json!([1, 2, 3]))],
        "outputs": [{"name": "label"}, {"name": "probabilities.keys"}]});
    let answer = infer(&server, "classifier_strings", &request).await;
    assert_eq!(
        answer.json()["outputs"],
        json!([
            {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["versicolor"]},
            {"name": "probabilities.keys", "datatype": "BYTES", "shape": [1, 3],
                "data": ["setosa", "versicolor", "virginica"]},
        ])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_asked_for_by_its_name_and_its_members_by_theirs() {
    let server = serving(["sequences.onnx", "optional.onnx"].map(model)).await;
    let x = super::floats("x", &json!([1, 2]), &json!([1, 2]));
    let asked = async |model, inputs: Value, outputs: Value| {
        let request = json!({"inputs": inputs, "outputs": outputs});
        infer(&server, model, &request).await
    };
    let names = |answer: &Answer| {
        let outputs = answer.json()["outputs"].as_array().unwrap().clone();
        let names = outputs
            .iter()
            .map(|output| output["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    for (output, given) in [
        ("unequal", &["unequal.0", "unequal.1"][..]),
        ("unequal.1", &["unequal.1"]),
        ("equal", &["equal"]),
    ] {
        let answer = asked("sequences", json!([x]), json!([{"name": output}])).await;
        assert_eq!(names(&answer), given, "{}", answer.text());
    }
    for output in ["unequal.2", "equal.0", "unequal.", "other"] {
        let answer = asked("sequences", json!([x]), json!([{"name": output}])).await;
        let text = failure(&answer, 400);
        assert!(text.contains(&format!("no output {output:?}")), "{text}");
    }
    // An empty optional is left out of the answer, and asking for it is no error.
    let both = json!([{"name": "copy"}, {"name": "has_row"}]);
    assert_eq!(
        names(&asked("optional", json!([]), both).await),
        ["has_row"]
    );
    let parameters = json!({"binary_data": true});
    let binary = json!([{"name": "unequal", "parameters": parameters}]);
    let answer = asked("sequences", json!([x]), binary).await;
    assert_eq!(outputs(&answer).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_are_wrong_are_refused_by_name() {
    let files = [
        "sequence_input.onnx",
        "optional.onnx",
        "initializer.onnx",
        "norank.onnx",
    ];
    let server = serving(files.map(model)).await;
    let one = |name: &str| super::floats(name, &json!([1]), &json!([1]));
    for (model, inputs, says) in [
        (
            "sequence_input",
            json!([one("parts")]),
            "no input \"parts\"; it takes parts: fp32[...] (list)",
        ),
        (
            "sequence_input",
            json!([one("parts.0"), one("parts.2")]),
            "input \"parts.1\" is missing",
        ),
        ("optional", json!([one("row"), one("row")]), "came twice"),
        (
            "optional",
            json!([{"name": "row", "shape": [1, 1], "datatype": "FP32", "data": [1]}]),
            "expected row: fp32[?]",
        ),
        (
            "initializer",
            json!([super::floats("scale", &json!([2]), &json!([1, 2]))]),
            "input \"x\" is missing",
        ),
        (
            "norank",
            json!([{"name": "x", "shape": [], "datatype": "FP64", "data": [1]}]),
            "expected x: fp32[...]",
        ),
        ("norank", json!([]), "input \"x\" is missing"),
    ] {
        let text = failure(
            &infer(&server, model, &json!({"inputs": inputs})).await,
            400,
        );
        assert!(text.contains(says), "{model}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_may_be_the_one_input_that_is_needed() {
    let server = serving([model("initializer.onnx")]).await;
    let row = super::bytes(&[1.0, 2.0]);
    let answer = super::infer_with_length(&server, "initializer", "0", row).await;
    let given = outputs(&answer);
    assert_eq!(super::values(given[0].tensor.data()), [2.5, 6.5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_says_what_is_known() {
    for server in [
        serving(MODELS.map(model)).await,
        serving(MODELS.map(|file| model(file).in_process())).await,
    ] {
        let norank = get(&server, "/v2/models/norank").await.json();
        // One axis that varies stands for an unknown rank. An empty shape would mean a scalar.
        assert_eq!(norank["inputs"][0]["shape"], json!([-1]));
        let classifier = get(&server, "/v2/models/classifier_strings").await.json();
        assert_eq!(
            classifier["outputs"],
            json!([{"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probabilities.keys", "datatype": "BYTES", "shape": [-1, -1]},
                {"name": "probabilities.values", "datatype": "FP32", "shape": [-1, -1]}])
        );
        let many = get(&server, "/v2/models/many_inputs").await.json();
        assert_eq!(many["inputs"].as_array().unwrap().len(), 300);
        let config = get(&server, "/v2/models/initializer/config").await.json();
        let optional = |input: usize| config["input"][input].get("optional").cloned();
        assert_eq!((optional(0), optional(1)), (None, Some(json!(true))));
        let request = ModelMetadataRequest {
            name: "norank".to_owned(),
            version: String::new(),
        };
        let mut client = server.grpc_open_inference();
        let norank = client.model_metadata(request).await.unwrap().into_inner();
        assert_eq!(norank.inputs[0].shape, [-1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_are_not_served_are_refused_when_they_are_registered() {
    let cases = [
        (
            "unsupported/sparse.onnx",
            "input \"x\" is a sparse tensor, which is not served",
        ),
        (
            "unsupported/complex64.onnx",
            "input \"x\" is of complex64, which is not served",
        ),
        (
            "unsupported/nested.onnx",
            "input \"x\" is of seq(seq(tensor(float)))",
        ),
    ];
    let hostings: [fn(Model) -> Model; 2] = [|model| model, Model::in_process];
    for hosting in hostings {
        let mut builder = TestServer::builder();
        let models = cases.iter().map(|(file, _)| {
            let name = file.replace(['/', '.'], "-");
            hosting(Model::new("linear").named(&name).artifact(file))
        });
        let models: Vec<_> = models.collect();
        for model in &models {
            builder = builder.in_store(model.clone());
        }
        let server = builder.start().await;
        for (model, (_, says)) in models.iter().zip(&cases) {
            let path = format!(
                "/models?url={}&initial_workers=1&synchronous=true",
                model.url()
            );
            let answer = server.management("POST", &path).await;
            assert!(answer.status >= 400, "{}", answer.text());
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(says), "{message}");
        }
    }
}
