//! The protocol over gRPC.

use bytes::Bytes;
use futures_util::StreamExt as _;
use lantern::api::Listener;
use lantern::api::grpc::proto::open_inference::infer_parameter::ParameterChoice;
use lantern::api::grpc::proto::open_inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use lantern::api::grpc::proto::open_inference::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelReadyRequest, ModelStatisticsRequest, RepositoryIndexRequest,
    RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest,
};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::{bytes, multi, values};
use crate::support::TestServer;

fn input(name: &str, contents: Option<&[f32]>) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 3],
        contents: contents.map(|values| InferTensorContents {
            fp32_contents: values.to_vec(),
            ..InferTensorContents::default()
        }),
        ..InferInputTensor::default()
    }
}

fn typed() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "multi".to_owned(),
        id: "r-1".to_owned(),
        inputs: vec![
            input("a", Some(&[1.0, 2.0, 3.0])),
            input("b", Some(&[0.5, 0.25, 4.0])),
        ],
        ..ModelInferRequest::default()
    }
}

fn raw() -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![input("a", None), input("b", None)],
        raw_input_contents: vec![
            bytes(&[1.0, 2.0, 3.0]).into(),
            bytes(&[0.5, 0.25, 4.0]).into(),
        ],
        ..typed()
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter {
        parameter_choice: Some(choice),
    }
}

/// The code and text of a request's failure.
async fn refused(server: &TestServer, request: ModelInferRequest) -> (Code, String) {
    let mut client = server.grpc_open_inference();
    let status = client.model_infer(request).await.unwrap_err();
    (status.code(), status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_is_answered_typed_and_raw_is_answered_raw_in_both_hosts() {
    for model in [multi(), multi().in_process()] {
        let server = TestServer::with(model).await;
        let mut client = server.grpc_open_inference();
        let answer = client.model_infer(typed()).await.unwrap().into_inner();
        assert_eq!(
            (&*answer.model_name, &*answer.model_version, &*answer.id),
            ("multi", "1.0", "r-1")
        );
        let contents = answer.outputs[0].contents.as_ref().unwrap();
        assert_eq!(contents.fp32_contents, [1.5, 2.25, 7.0]);
        assert!(answer.raw_output_contents.is_empty());
        let answer = client.model_infer(raw()).await.unwrap().into_inner();
        assert_eq!(
            (&*answer.outputs[1].name, &*answer.outputs[1].shape),
            ("diff", &[1, 3][..])
        );
        assert_eq!(values(&answer.raw_output_contents[1]), [0.5, 1.75, -1.0]);
        assert!(
            answer
                .outputs
                .iter()
                .all(|output| output.contents.is_none())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn torchserves_name_of_the_service_is_answered_too() {
    let server = TestServer::with(multi()).await;
    let mut client = tonic::client::Grpc::new(server.channel(Listener::GrpcInference));
    client.ready().await.unwrap();
    let path = "/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer";
    let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
    let answer = client
        .unary(
            Request::new(typed()),
            PathAndQuery::from_static(path),
            codec,
        )
        .await;
    assert_eq!(answer.unwrap().into_inner().outputs.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_models_say_what_they_are() {
    let server = TestServer::with(multi().with("batchSize: 8")).await;
    let mut client = server.grpc_open_inference();
    assert!(
        client
            .server_live(ServerLiveRequest {})
            .await
            .unwrap()
            .into_inner()
            .live
    );
    assert!(
        client
            .server_ready(ServerReadyRequest {})
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let metadata = client
        .server_metadata(ServerMetadataRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(metadata.name, "lantern");
    let (name, version) = ("multi".to_owned(), "1.0".to_owned());
    let ready = ModelReadyRequest {
        name: name.clone(),
        version: version.clone(),
    };
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    let metadata = ModelMetadataRequest {
        name: name.clone(),
        version: String::new(),
    };
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    assert_eq!(
        (metadata.versions, &*metadata.inputs[0].shape),
        (vec![version.clone()], &[-1, 3][..])
    );
    let config = ModelConfigRequest {
        name: name.clone(),
        version: String::new(),
    };
    let config = client
        .model_config(config)
        .await
        .unwrap()
        .into_inner()
        .config
        .unwrap();
    assert_eq!((config.max_batch_size, config.input[0].data_type), (8, 11));
    client.model_infer(raw()).await.unwrap();
    let statistics = ModelStatisticsRequest { name, version };
    let statistics = client
        .model_statistics(statistics)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(statistics.model_stats[0].inference_count, 1);
    let unknown = ModelReadyRequest {
        name: "nomodel".to_owned(),
        version: String::new(),
    };
    assert_eq!(
        client.model_ready(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_wrong_are_refused_with_the_protocols_codes() {
    let server = TestServer::with(multi()).await;
    let change = |change: fn(&mut ModelInferRequest), request: fn() -> ModelInferRequest| {
        let mut request = request();
        change(&mut request);
        request
    };
    for (request, code, says) in [
        (
            change(|r| r.model_name = "x".into(), raw),
            Code::NotFound,
            "Model not found",
        ),
        (
            change(|r| r.model_version = "7".into(), raw),
            Code::NotFound,
            "does not exist",
        ),
        (
            change(|r| r.model_name.clear(), raw),
            Code::NotFound,
            "Model not found",
        ),
        (
            change(|r| r.inputs.truncate(1), typed),
            Code::InvalidArgument,
            "missing",
        ),
        (
            change(|r| r.raw_input_contents.truncate(1), raw),
            Code::InvalidArgument,
            "each of 2 inputs",
        ),
        (
            change(|r| r.raw_input_contents[0] = Bytes::new(), raw),
            Code::InvalidArgument,
            "takes 12 bytes",
        ),
        (
            change(|r| r.raw_input_contents = vec![Bytes::new(); 2], typed),
            Code::InvalidArgument,
            "exclude",
        ),
        (
            change(|r| r.inputs[0].shape = vec![-1, 3], raw),
            Code::InvalidArgument,
            "from 0 on",
        ),
        (
            change(|r| r.inputs[0].shape = vec![1 << 60, 1 << 60], raw),
            Code::InvalidArgument,
            "elements",
        ),
        (
            change(|r| r.inputs[0].datatype = "FP31".into(), raw),
            Code::InvalidArgument,
            "must be one of",
        ),
        (
            change(
                |r| {
                    r.outputs = vec![InferRequestedOutputTensor {
                        name: "z".into(),
                        ..Default::default()
                    }];
                },
                raw,
            ),
            Code::InvalidArgument,
            "no output",
        ),
        (
            change(
                |r| {
                    drop(r.parameters.insert(
                        "priority".into(),
                        parameter(ParameterChoice::Uint64Param(9)),
                    ));
                },
                raw,
            ),
            Code::InvalidArgument,
            "priority",
        ),
        (
            change(
                |r| {
                    drop(r.inputs[0].parameters.insert(
                        "shared_memory_region".into(),
                        parameter(ParameterChoice::StringParam("r".into())),
                    ));
                },
                raw,
            ),
            Code::InvalidArgument,
            "not supported",
        ),
    ] {
        let (got, text) = refused(&server, request).await;
        assert_eq!(got, code, "{text}");
        assert!(text.contains(says), "{text}");
    }
    server
        .grpc_open_inference()
        .model_infer(raw())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_each_message_and_goes_on_after_a_failure() {
    let server = TestServer::with(multi()).await;
    let messages = || {
        let wrong = ModelInferRequest {
            model_name: "x".into(),
            id: "wrong".into(),
            ..raw()
        };
        futures_util::stream::iter([raw(), wrong, typed()])
    };
    let mut client = server.grpc_open_inference();
    let answers = client
        .model_stream_infer(messages())
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[1].error_message, "Model not found: x");
    assert_eq!(answers[1].infer_response.as_ref().unwrap().id, "wrong");
    assert!(answers[2].error_message.is_empty());
    let mut request = Request::new(messages());
    request
        .metadata_mut()
        .insert("triton_grpc_error", "true".parse().unwrap());
    let answers = client
        .model_stream_infer(request)
        .await
        .unwrap()
        .into_inner();
    let answers: Vec<_> = answers.collect().await;
    assert_eq!(answers[1].as_ref().unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go() {
    let server = TestServer::builder().in_store(multi()).start().await;
    let mut client = server.grpc_open_inference();
    let model_name = "multi-1.0".to_owned();
    let load = RepositoryModelLoadRequest {
        model_name: model_name.clone(),
        ..Default::default()
    };
    client.repository_model_load(load).await.unwrap();
    let index = client
        .repository_index(RepositoryIndexRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (&*index.models[0].state, &*index.models[0].version),
        ("READY", "1.0")
    );
    let unload = RepositoryModelUnloadRequest {
        model_name,
        ..Default::default()
    };
    client.repository_model_unload(unload).await.unwrap();
    let index = client
        .repository_index(RepositoryIndexRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(&*index.models[0].state, "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn switched_off_the_service_is_not_there() {
    let server = TestServer::builder().model(multi());
    let server = server.api(|api| api.oip = false).start().await;
    let (code, text) = refused(&server, raw()).await;
    assert_eq!(code, Code::Unimplemented);
    assert!(
        text.starts_with("Method not found: inference.GRPCInferenceService/ModelInfer"),
        "{text}"
    );
}
