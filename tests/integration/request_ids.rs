//! A client's `x-request-id`: beside the server's own, or in its place.

use lantern::api::Listener;

use crate::support::{Answer, Model, TestServer, prediction};

/// The `x-request-id` of the answer to a request with `id`, and what the handler had as its own.
async fn asked(server: &TestServer, id: &str) -> (String, String) {
    let request = server.request(Listener::Inference, "POST", "/predictions/mirror");
    let request = request.header("x-request-id", id).body("hi");
    let answer = Answer::of(request.send().await.unwrap()).await;
    let own = answer.header("x-request-id").unwrap().to_owned();
    (own, answer.json()["id"].as_str().unwrap().to_owned())
}

async fn asked_over_grpc(server: &TestServer, id: &str) -> String {
    let mut request = tonic::Request::new(prediction("mirror", "hi"));
    request
        .metadata_mut()
        .insert("x-request-id", id.parse().unwrap());
    let answer = server.grpc_inference().predictions(request).await.unwrap();
    answer
        .metadata()
        .get("x-request-id")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_id_is_logged_beside_the_servers_own() {
    for model in [Model::new("mirror"), Model::new("mirror").in_process()] {
        let server = TestServer::with(model).await;
        let (own, handlers) = asked(&server, "gateway-7").await;
        assert_eq!(own, handlers);
        assert!(uuid::Uuid::parse_str(&own).is_ok(), "{own}");
        let over_grpc = asked_over_grpc(&server, "gateway-8").await;
        assert!(uuid::Uuid::parse_str(&over_grpc).is_ok(), "{over_grpc}");
        let log = server.access_log();
        for id in ["gateway-7", "gateway-8"] {
            assert!(
                log.lines()
                    .any(|line| line.ends_with(&format!(" client {id}"))),
                "{log}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_id_is_adopted_where_the_operator_says_so() {
    for model in [Model::new("mirror"), Model::new("mirror").in_process()] {
        let builder = TestServer::builder().model(model);
        let server = builder.set("lantern_adopt_request_id=true").start().await;
        let id = "Root=1-5759e988-bd862e3fe1be46a994272793";
        assert_eq!(asked(&server, id).await, (id.to_owned(), id.to_owned()));
        assert_eq!(asked_over_grpc(&server, id).await, id);
        assert!(!server.access_log().contains(" client "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_forge_a_line_is_no_id() {
    let builder = TestServer::builder().model(Model::new("mirror"));
    let server = builder.set("lantern_adopt_request_id=true").start().await;
    let long = "x".repeat(129);
    for id in ["a b", "a\" 200 0", "a,requestID=b", "a|#b", &long] {
        let (own, _) = asked(&server, id).await;
        assert!(uuid::Uuid::parse_str(&own).is_ok(), "{own}");
    }
}
