//! KServe's first protocol: envelopes, in both hostings, and what its container answers beside predictions.

use std::fs;

use lantern::api::Listener;
use serde_json::{Value, json};

use crate::support::{Answer, Model, Place, ROW, TestServer, prediction};

/// `model` in the server's process and in one of its own.
fn hosted(model: &Model) -> [Model; 2] {
    [model.clone(), model.clone().in_process()]
}

/// Requests that named no version.
const REQUESTS: &str =
    "ts_inference_requests_total{model_name=\"linear\",model_version=\"default\"";

async fn post(server: &TestServer, path: &str, body: &Value) -> Answer {
    let request = server.request(Listener::Inference, "POST", path).json(body);
    Answer::of(request.send().await.unwrap()).await
}

/// What the model makes of [`ROW`], without an envelope.
async fn plain(model: Model) -> Value {
    let model = model.lantern("serviceEnvelope: none");
    let server = TestServer::with(model).await;
    server.predict("linear", ROW).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_instance_is_a_prediction_of_its_own() {
    for model in hosted(&Model::linear()) {
        let single = plain(model.clone()).await;
        for envelope in ["json", "kserve"] {
            let builder = TestServer::builder().model(model.clone());
            let server = builder
                .set(&format!("service_envelope={envelope}"))
                .start()
                .await;
            let row: Value = serde_json::from_str(ROW).unwrap();
            let body = json!({"instances": [row, row["x"], row]});
            for path in ["/v1/models/linear:predict", "/predictions/linear"] {
                let answer = post(&server, path, &body).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.header("content-type"), Some("application/json"));
                let expected = json!({"predictions": [single, single, single]});
                assert_eq!(answer.json(), expected, "{envelope} {path}");
            }
            let counted = server.sample(REQUESTS).await;
            assert_eq!(counted, Some(2.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_request_share_a_run() {
    let fake = Model::fake()
        .with("batchSize: 8")
        .with("maxBatchDelay: 60000");
    let fake = fake
        .lantern("batching: on")
        .lantern("waitForFullBatches: true")
        .lantern("serviceEnvelope: kserve");
    let server = TestServer::with(fake).await;
    let before = server.fake_runs();
    let tensor = |value: u32| json!({"inputs": [{"name": "x", "dtype": "fp32", "shape": [1, 1], "data": [value]}]});
    let body = json!({"instances": (0..8).map(tensor).collect::<Vec<_>>()});
    let answer = post(&server, "/v1/models/fake:predict", &body).await;
    let predictions = answer.json()["predictions"].as_array().unwrap().len();
    assert_eq!((answer.status, predictions), (200, 8), "{}", answer.text());
    assert_eq!(server.fake_runs(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_reach_the_handler_as_requests_would() {
    for model in hosted(&Model::new("mirror").lantern("serviceEnvelope: kserve")) {
        let server = TestServer::with(model).await;
        let body = json!({"instances": [
            {"x": 1}, "text", {"b64": "aGk="}, {"data": "aGk="}, {"image": {"b64": "aGk="}, "top": 3},
        ]});
        let answer = post(&server, "/v1/models/mirror:predict", &body)
            .await
            .json();
        let seen = answer["predictions"].as_array().unwrap().iter();
        let seen: Vec<_> = seen
            .map(|seen| json!([seen["content_type"], seen["body"]]))
            .collect();
        let expected = [
            json!(["application/json", {"raw": r#"{"x":1}"#}]),
            json!(["text/plain", {"raw": "text"}]),
            json!([null, {"raw": "hi"}]),
            json!([null, {"form": [["data", "text/plain", "aGk="]]}]),
            json!([null, {"form": [["image", null, "hi"], ["top", "application/json", "3"]]}]),
        ];
        assert_eq!(seen, expected);
        let headers = &answer["predictions"][0]["headers"];
        assert_eq!(headers["explain"], "False");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_envelope_takes_the_payload_out_of_a_form() {
    for model in hosted(&Model::new("mirror").lantern("serviceEnvelope: body")) {
        let server = TestServer::with(model).await;
        let request = server.request(Listener::Inference, "POST", "/predictions/mirror");
        let request = request.form(&[("target", "1"), ("data", "payload")]);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.json()["body"], json!({"raw": "payload"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_protocol_goes_through_the_handler_where_it_is_the_envelope() {
    for model in hosted(&Model::new("mirror")) {
        for oip in ["true", "false"] {
            let builder = TestServer::builder().model(model.clone());
            let builder = builder
                .set("service_envelope=kservev2")
                .api(|api| api.oip = oip == "true");
            let server = builder.start().await;
            let input =
                json!({"name": "input-0", "shape": [2], "datatype": "INT64", "data": [1, 2]});
            let body = json!({"id": "q-7", "inputs": [input]});
            for path in ["/v2/models/mirror/infer", "/predictions/mirror"] {
                let answer = post(&server, path, &body).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let answer = answer.json();
                assert_eq!(
                    [
                        &answer["id"],
                        &answer["model_name"],
                        &answer["model_version"]
                    ],
                    ["q-7", "mirror", "1.0"]
                );
                let output = &answer["outputs"][0];
                assert_eq!([&output["name"], &output["datatype"]], ["input-0", "BYTES"]);
                let seen: Value =
                    serde_json::from_str(output["data"][0]["body"]["raw"].as_str().unwrap())
                        .unwrap();
                assert_eq!(seen, input);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_predictions_come_in_the_same_envelope() {
    for model in hosted(&Model::linear().lantern("serviceEnvelope: kserve")) {
        let server = TestServer::with(model).await;
        let body = format!("{{\"instances\": [{ROW}]}}");
        let rest = server.predict("linear", body.clone()).await;
        let answer = server
            .grpc_inference()
            .predictions(prediction("linear", body))
            .await;
        assert_eq!(answer.unwrap().into_inner().prediction, rest.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_instance_is_named_and_fails_its_request_alone() {
    for model in hosted(&Model::linear().lantern("serviceEnvelope: kserve")) {
        let server = TestServer::with(model).await;
        let row: Value = serde_json::from_str(ROW).unwrap();
        let bad = post(
            &server,
            "/predictions/linear",
            &json!({"instances": [row, {"x": 1}]}),
        )
        .await;
        assert_eq!(bad.status, 400);
        let message = bad.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("instances[1]: "), "{message}");
        for (body, says) in [
            (json!({"x": 1}), "the object has no \"instances\""),
            (json!([1]), "got JSON that is no object"),
        ] {
            let answer = post(&server, "/predictions/linear", &body).await;
            assert_eq!(answer.status, 400);
            assert!(
                answer
                    .text()
                    .contains("service_envelope=kserve takes a JSON object")
            );
            assert!(
                answer.text().contains(&says.replace('"', "\\\"")),
                "{}",
                answer.text()
            );
        }
        let good = post(&server, "/predictions/linear", &json!({"instances": [row]})).await;
        assert_eq!(good.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_may_be_asked_for_at_registration_and_is_described() {
    let server = TestServer::builder()
        .in_store(Model::linear())
        .start()
        .await;
    let register = async |envelope: &str| {
        let path = format!("/models?url=linear-1.0.mar&service_envelope={envelope}");
        server.management("POST", &path).await
    };
    let refused = register("seldon").await;
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .text()
            .contains("service_envelope must be one of none"),
        "{}",
        refused.text()
    );
    assert_eq!(register("kserve").await.status, 200);
    let described = server.management("GET", "/models/linear").await.json();
    assert_eq!(described[0]["lantern"]["serviceEnvelope"], "kserve");
    let body = json!({"instances": [serde_json::from_str::<Value>(ROW).unwrap()]});
    let answer = post(&server, "/v1/models/linear:predict", &body).await;
    assert_eq!(answer.json()["predictions"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_their_readiness_are_told_where_predictions_are() {
    let idle = Model::new("echo").named("idle").without_workers();
    let builder = TestServer::builder().model(Model::linear()).in_store(idle);
    let server = builder.start().await;
    let registered = server.management("POST", "/models?url=idle-1.0.mar").await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    let names = server.inference("GET", "/v1/models").await;
    assert_eq!(
        (names.status, names.json()),
        (200, json!({"models": ["idle", "linear"]}))
    );
    for (model, status, ready) in [("linear", 200, true), ("idle", 503, false)] {
        let answer = server
            .inference("GET", &format!("/v1/models/{model}"))
            .await;
        let expected = json!({"name": model, "ready": ready});
        assert_eq!((answer.status, answer.json()), (status, expected));
    }
    let unknown = server.inference("GET", "/v1/models/nobody").await;
    assert_eq!(
        (unknown.status, &unknown.json()["type"]),
        (404, &json!("ModelNotFoundException"))
    );
    let torchserves = server.management("GET", "/v1/models/idle").await;
    assert_eq!(
        (torchserves.status, torchserves.json()),
        (200, json!({"name": "idle", "ready": false}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_alive_under_kserves_envelopes_alone() {
    for (envelope, expected) in [
        ("kserve", Some(json!({"status": "alive"}))),
        ("kservev2", Some(json!({"status": "alive"}))),
        ("json", None),
        ("none", None),
    ] {
        let setting = format!("service_envelope={envelope}");
        let server = TestServer::builder().set(&setting).start().await;
        let answer = server.inference("GET", "/").await;
        assert_eq!(
            answer.status,
            if expected.is_some() { 200 } else { 405 },
            "{envelope}"
        );
        if let Some(expected) = expected {
            assert_eq!(answer.json(), expected);
        }
        assert_eq!(server.management("GET", "/").await.status, 405);
    }
}

/// The configuration of KServe's documents, with the environment that its controller sets, but for addresses.
#[tokio::test]
async fn kserves_configuration_serves_its_first_protocol() {
    let place = Place::new(&[Model::linear().in_process()]);
    let place = place.variable("TS_SERVICE_ENVELOPE", "kserve");
    let config = place.directory.path().join("config.properties");
    let text = r#"grpc_inference_port=7070
grpc_management_port=7071
enable_envvars_config=true
install_py_dep_per_model=true
enable_metrics_api=true
metrics_mode=prometheus
NUM_WORKERS=1
number_of_netty_threads=4
job_queue_size=10
model_store=/mnt/models/model-store
model_snapshot={"name":"startup.cfg","modelCount":1,"models":{"linear":{"1.0":{"defaultVersion":true,"marName":"linear-1.0.mar","minWorkers":1,"maxWorkers":5,"batchSize":5,"maxBatchDelay":200,"responseTimeout":60}}}}
"#;
    fs::write(&config, text).unwrap();
    let mut life = place
        .start(&["--ts-config", config.to_str().unwrap()])
        .await;
    life.read_until("1 of 1 models loaded").await;
    let (_, described) = life.ask("GET", "/models/linear").await;
    assert_eq!(described[0]["lantern"]["serviceEnvelope"], "kserve");
    assert_eq!(described[0]["batchSize"], 5);
}
