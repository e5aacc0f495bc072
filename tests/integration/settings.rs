//! Settings of a model whose effect a client sees.

use lantern::api::Listener;

use crate::support::{Model, TestServer, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn with_job_tickets_a_request_is_let_in_only_while_a_worker_is_idle() {
    let server = TestServer::with(Model::fake().with("useJobTicket: true")).await;
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
    server.gate().shut();
    let request = server
        .request(Listener::Inference, "POST", "/predictions/fake")
        .header("content-type", "application/json")
        .body(tensor(1.0));
    let first = tokio::spawn(request.send());
    server.wait_for_held(1).await;
    for _ in 0..2 {
        let refused = server.predict("fake", tensor(1.0)).await;
        assert_eq!(refused.status, 503, "{refused}");
    }
    server.gate().open();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
    let described = server.management("GET", "/models/fake").await.to_string();
    assert!(described.contains("\"useJobTicket\": true"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_beyond_the_limit_is_an_error_that_names_it() {
    let server = TestServer::builder()
        .set("max_response_size=100")
        .model(Model::new("echo"))
        .start()
        .await;
    let small = server.predict("echo", "x".repeat(10)).await;
    assert_eq!(small.status, 200, "{small}");
    let large = server.predict("echo", "x".repeat(1000)).await.to_string();
    assert!(
        large.contains("the limit is 100 (max_response_size"),
        "{large}"
    );
    assert_eq!(server.predict("echo", "x").await.status, 200);
}
