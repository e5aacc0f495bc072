//! Registering, unregistering and swapping versions while requests are under way: no request is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Answer, Model, TestServer, tensor};

async fn get(server: &TestServer, path: &str) -> Answer {
    server.management("GET", path).await
}

/// Sends requests until it is told to end, and returns how many. Any answer but 200 is a failure.
async fn call_on(server: Arc<TestServer>, is_over: Arc<AtomicBool>, calls: Arc<AtomicUsize>) {
    while !is_over.load(Ordering::Relaxed) {
        let answer = server.predict("echo", "hi").await;
        assert_eq!((answer.status, answer.text()), (200, "hi"));
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until `calls` has grown by `more`.
async fn wait_for_calls(calls: &AtomicUsize, more: usize) {
    let goal = calls.load(Ordering::Relaxed) + more;
    while calls.load(Ordering::Relaxed) < goal {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_over_and_no_request_is_lost() {
    for in_process in [false, true] {
        let host = |model: Model| {
            if in_process {
                model.in_process()
            } else {
                model
            }
        };
        let builder = TestServer::builder()
            .model(host(Model::new("echo")))
            .in_store(host(Model::new("echo").version("2.0")));
        let server = Arc::new(builder.start().await);
        let (is_over, calls) = (Arc::default(), Arc::default());
        let callers = (0..4).map(|_| {
            let (is_over, calls) = (Arc::clone(&is_over), Arc::clone(&calls));
            tokio::spawn(call_on(Arc::clone(&server), is_over, calls))
        });
        let callers: Vec<_> = callers.collect();
        for (new, old) in [("2.0", "1.0"), ("1.0", "2.0"), ("2.0", "1.0")] {
            wait_for_calls(&calls, 20).await;
            for (method, path) in [
                ("POST", format!("/models?url=echo-{new}.mar")),
                ("PUT", format!("/models/echo/{new}/set-default")),
                ("DELETE", format!("/models/echo/{old}")),
            ] {
                let answer = server.management(method, &path).await;
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            }
        }
        wait_for_calls(&calls, 20).await;
        is_over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.unwrap();
        }
    }
}

/// A server with a model whose runs are held, and one request in it.
async fn held(builder: crate::support::Builder) -> (Arc<TestServer>, tokio::task::JoinHandle<u16>) {
    let server = Arc::new(builder.start().await);
    server.gate().shut();
    let asked = Arc::clone(&server);
    let request = tokio::spawn(async move { asked.predict("fake", tensor(1.0)).await.status });
    server.wait_for_held(1).await;
    (server, request)
}

async fn wait_until_draining(server: &TestServer, path: &str) {
    while get(server, path).await.json()[0]["lantern"]["state"] != "draining" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_unregister_one_succeeds() {
    let (server, request) = held(TestServer::builder().model(Model::fake())).await;
    let delete = || {
        let server = Arc::clone(&server);
        tokio::spawn(async move { server.management("DELETE", "/models/fake").await.status })
    };
    let deletes: Vec<_> = (0..4).map(|_| delete()).collect();
    wait_until_draining(&server, "/models/fake").await;
    server.gate().open();
    let mut statuses: Vec<u16> = join_all(deletes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404, 404, 404]);
    assert_eq!(request.await.unwrap(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_goes_though_its_client_left() {
    let (server, request) = held(TestServer::builder().model(Model::fake())).await;
    let asked = Arc::clone(&server);
    let delete =
        tokio::spawn(async move { asked.management("DELETE", "/models/fake").await.status });
    wait_until_draining(&server, "/models/fake").await;
    delete.abort();
    assert!(delete.await.unwrap_err().is_cancelled());
    server.gate().open();
    assert_eq!(request.await.unwrap(), 200);
    while get(&server, "/models/fake").await.status != 404 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_leaves_does_not_become_the_default() {
    let builder = TestServer::builder()
        .model(Model::fake())
        .in_store(Model::fake().version("2.0"));
    let (server, request) = held(builder).await;
    let added = server.management("POST", "/models?url=fake-2.0.mar").await;
    assert_eq!(added.status, 200);
    let default = get(&server, "/models/fake").await.json()[0]["modelVersion"].clone();
    assert_eq!(default, "1.0");
    // The default version cannot be unregistered, so the other one becomes the default first.
    let set = server
        .management("PUT", "/models/fake/2.0/set-default")
        .await;
    assert_eq!(set.status, 200);
    let asked = Arc::clone(&server);
    let delete =
        tokio::spawn(async move { asked.management("DELETE", "/models/fake/1.0").await.status });
    wait_until_draining(&server, "/models/fake/1.0").await;
    let set = server
        .management("PUT", "/models/fake/1.0/set-default")
        .await;
    assert_eq!(set.status, 404, "{}", set.text());
    let again = server.management("POST", "/models?url=fake-1.0.mar").await;
    assert_eq!(again.status, 409, "it is registered until it is gone");
    assert_eq!(server.predict("fake/1.0", tensor(1.0)).await.status, 503);
    server.gate().open();
    assert_eq!((request.await.unwrap(), delete.await.unwrap()), (200, 200));
    let again = server.management("POST", "/models?url=fake-1.0.mar").await;
    assert_eq!(again.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unregistration_that_times_out_leaves_nothing_half_done() {
    let builder = TestServer::builder()
        .model(Model::fake())
        .unregister_timeout(Duration::from_millis(20));
    let (server, request) = held(builder).await;
    let deletes = (0..3).map(|_| server.management("DELETE", "/models/fake"));
    for answer in join_all(deletes).await {
        assert_eq!(answer.status, 408, "{}", answer.text());
    }
    let state = get(&server, "/models/fake").await.json()[0]["lantern"]["state"].clone();
    assert_eq!(state, "ready");
    server.gate().open();
    assert_eq!(request.await.unwrap(), 200);
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 200);
}

async fn queue(server: &TestServer) -> serde_json::Value {
    get(server, "/models/fake").await.json()[0]["jobQueueStatus"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_queue_status_counts_those_that_wait() {
    let model = Model::fake().with("jobQueueSize: 4");
    let (server, request) = held(TestServer::builder().model(model)).await;
    assert_eq!(
        queue(&server).await,
        json!({ "remainingCapacity": 4, "pendingRequests": 0 })
    );
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let asked = Arc::clone(&server);
            tokio::spawn(async move { asked.predict("fake", tensor(1.0)).await.status })
        })
        .collect();
    let expected = json!({ "remainingCapacity": 1, "pendingRequests": 3 });
    while queue(&server).await != expected {
        tokio::task::yield_now().await;
    }
    server.gate().open();
    assert_eq!(request.await.unwrap(), 200);
    for one in waiting {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(
        queue(&server).await,
        json!({ "remainingCapacity": 4, "pendingRequests": 0 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_demand_brought_let_more_requests_in() {
    let model = Model::fake()
        .without_workers()
        .with("minWorkers: 1")
        .with("maxWorkers: 2")
        .with("jobQueueSize: 1");
    let (server, first) = held(TestServer::builder().model(model)).await;
    let ask = || {
        let asked = Arc::clone(&server);
        tokio::spawn(async move { asked.predict("fake", tensor(1.0)).await.status })
    };
    let second = ask();
    // The request waits, so another worker is started, which takes it.
    server.wait_for_held(2).await;
    let third = ask();
    let expected = json!({ "remainingCapacity": 0, "pendingRequests": 1 });
    while queue(&server).await != expected {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.predict("fake", tensor(1.0)).await.status, 503);
    server.gate().open();
    for one in [first, second, third] {
        assert_eq!(one.await.unwrap(), 200);
    }
}

/// What a registration that waits for its workers was told, and an unregistration at the same time.
async fn race(server: &Arc<TestServer>, url: &str, model: &str) -> Vec<String> {
    let register = format!("/models?url={url}&initial_workers=1&synchronous=true");
    let unregister = format!("/models/{model}");
    let calls = [("POST", register), ("DELETE", unregister)].map(|(method, path)| {
        let server = Arc::clone(server);
        tokio::spawn(async move { server.management(method, &path).await })
    });
    let answers = join_all(calls).await.into_iter();
    answers
        .map(|answer| {
            let answer = answer.unwrap();
            let json = answer.json();
            let text = json["message"].as_str().or(json["status"].as_str());
            format!("{} {}", answer.status, text.unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_called_off_says_so() {
    let builder = TestServer::builder().in_store(Model::fake());
    let server = Arc::new(builder.start().await);
    let gate = server.load_gate();
    gate.shut();
    let asked = Arc::clone(&server);
    let path = "/models?url=fake-1.0.mar&initial_workers=1&synchronous=true";
    let registering = tokio::spawn(async move { asked.management("POST", path).await });
    let held = gate.clone();
    tokio::task::spawn_blocking(move || held.wait_for(1))
        .await
        .unwrap();
    let gone = server.management("DELETE", "/models/fake").await;
    assert_eq!(gone.status, 200, "{gone}");
    let answer = registering.await.unwrap();
    gate.open();
    let json = answer.json();
    assert_eq!(
        (answer.status, &json["type"], &json["message"]),
        (
            409,
            &json!("ConflictStatusException"),
            &json!(
                "Failed to start workers for model fake version: 1.0: model \"fake\" version 1.0 was unregistered, or the \
                 server was stopped, before its workers were ready"
            )
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_registers_and_unregisters_one_name_at_a_time_is_told_what_happened() {
    const CALLED_OFF: &str = "409 Failed to start workers for model echo version: 1.0: model \"echo\" version 1.0 was \
                              unregistered, or the server was stopped, before its workers were ready";
    let known = [
        "200 Model \"echo\" Version: 1.0 registered with 1 initial workers",
        "200 Model \"echo\" unregistered",
        "404 Model not found: echo",
        "409 Model version 1.0 is already registered for model echo",
        CALLED_OFF,
    ];
    for (model, rounds) in [
        (Model::new("echo"), 30),
        (Model::new("echo").in_process(), 6),
    ] {
        let builder = TestServer::builder().in_store(model);
        let server = Arc::new(builder.start().await);
        let callers = (0..4).map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut told = Vec::new();
                for _ in 0..rounds {
                    told.extend(race(&server, "echo-1.0.mar", "echo").await);
                }
                told
            })
        });
        for caller in join_all(callers).await {
            for told in caller.unwrap() {
                assert!(known.contains(&&*told), "{told}");
            }
        }
    }
}
