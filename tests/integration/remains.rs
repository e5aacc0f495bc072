//! What a handler's memory held is nowhere in the memory of the next: neither of another model, nor of a fresh instance.

use crate::support::{Model, TestServer};

/// Names the mark; what is left is its complement.
const MARK: &str = "what one tenant wrote";

fn hostile(name: &str) -> Model {
    Model::new("hostile").named(name).artifact("linear.onnx")
}

async fn fill(server: &TestServer, model: &str) {
    let answer = server.predict(model, format!("fill {MARK}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// How often the mark is found.
async fn found(server: &TestServer, model: &str) -> usize {
    let answer = server.predict(model, format!("search {MARK}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().parse().unwrap()
}

async fn load(server: &TestServer, name: &str) {
    let path = format!("/models?url={name}-1.0.mar&initial_workers=1&synchronous=true");
    let answer = server.management("POST", &path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_of_memory_finds_nothing_of_the_one_before() {
    // Scanning takes longer than calls may otherwise.
    let slow = "limits: {cpu: 2s, instances: 1}";
    let server = TestServer::builder()
        .in_store(hostile("first").lantern(slow))
        .in_store(hostile("second").lantern(slow))
        .in_store(
            hostile("third")
                .lantern(slow)
                .lantern("freshInstances: true"),
        )
        .start()
        .await;
    for name in ["first", "second", "third"] {
        load(&server, name).await;
    }
    fill(&server, "first").await;
    // The same instance finds it, so that others would.
    assert!(found(&server, "first").await > 1000);
    assert_eq!(found(&server, "second").await, 0);
    for _ in 0..3 {
        fill(&server, "third").await;
        assert_eq!(found(&server, "third").await, 0);
    }
    let unregistered = server.management("DELETE", "/models/first").await;
    assert_eq!(unregistered.status, 200, "{}", unregistered.text());
    load(&server, "first").await;
    for name in ["first", "second", "third"] {
        assert_eq!(found(&server, name).await, 0, "{name}");
    }
}
