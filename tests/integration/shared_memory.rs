//! Large bodies between the server and worker processes: in shared memory, beside it where there is no room, and after a
//! process died.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use lantern::api::Listener;
use serde_json::json;

use super::oip::{bytes, divided, infer_binary, multi, values};
use super::support::{Builder, Model, TestServer};

/// Bodies that are just too small to be shared, the smallest that is, and larger ones.
const LENGTHS: [usize; 5] = [0, (32 << 10) - 1, 32 << 10, 600_000, 3 << 20];

fn server(model: Model) -> Builder {
    Builder::default().model(model)
}

/// A body of which no two pages are alike.
fn body(length: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| (at / 1024 + seed).to_le_bytes()[0] ^ at.to_le_bytes()[0];
    (0..length).map(byte).collect()
}

/// Answers as they have to be, for each length.
async fn echoes(server: &TestServer) {
    for length in LENGTHS {
        let sent = body(length, length);
        let answer = server.predict("echo", sent.clone()).await;
        assert_eq!(answer.status, 200, "{length}");
        assert!(answer.body == sent, "{length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_back_as_they_were_sent_however_much_is_shared() {
    let inline = TestServer::with(Model::new("echo")).await;
    echoes(&inline).await;
    for size in ["0", "1MiB", "64MiB"] {
        let shared = format!("lantern_shared_memory={size}");
        let server = server(Model::new("echo").in_process()).set(&shared).start();
        echoes(&server.await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_at_the_same_time_are_not_mixed_up_where_there_is_room_for_a_few() {
    let model = Model::new("echo").in_process().with("jobQueueSize: 1000");
    let server = server(model)
        .set("lantern_shared_memory=2MiB")
        .start()
        .await;
    for round in 0..4 {
        let sent: Vec<_> = (0..12)
            .map(|seed| body(500_000, 12 * round + seed))
            .collect();
        let answers = sent.iter().map(|sent| server.predict("echo", sent.clone()));
        let answers = join_all(answers).await;
        for (answer, sent) in answers.into_iter().zip(sent) {
            assert_eq!(answer.status, 200);
            assert!(answer.body == sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_and_tensors_are_shared_too() {
    const ROWS: usize = 20_000;
    for model in [multi(), multi().in_process()] {
        let server = server(model)
            .model(Model::new("echo").in_process())
            .start()
            .await;
        let (a, b): (Vec<_>, Vec<_>) = (0u16..)
            .map(|at| (f32::from(at), 1.0))
            .take(3 * ROWS)
            .unzip();
        let input = |name: &str| {
            json!({"name": name, "shape": [ROWS, 3], "datatype": "FP32",
                "parameters": {"binary_data_size": 12 * ROWS}})
        };
        for binary in [true, false] {
            let request = json!({"inputs": [input("a"), input("b")],
                "outputs": [{"name": "sum", "parameters": {"binary_data": binary}}]});
            let data = [bytes(&a), bytes(&b)].concat();
            let answer = infer_binary(&server, "multi", &request, &data).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let sums: Vec<f32> = if binary {
                values(divided(&answer).1)
            } else {
                let json = answer.json();
                serde_json::from_value(json["outputs"][0]["data"].clone()).unwrap()
            };
            let expected: Vec<_> = a.iter().map(|a| a + 1.0).collect();
            assert!(sums == expected);
        }
        let file = body(400_000, 7);
        let part = reqwest::multipart::Part::bytes(file.clone()).file_name("f");
        let form = reqwest::multipart::Form::new()
            .text("note", "n")
            .part("data", part);
        let request = server.request(Listener::Inference, "POST", "/predictions/echo");
        let answer = request.multipart(form).send().await.unwrap();
        assert!(answer.bytes().await.unwrap() == file);
    }
}

/// Regions that this process has mapped.
fn regions() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let names = maps.lines().filter(|line| line.contains("lantern-shared"));
    names.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_the_memory_of_a_version_that_is_gone() {
    let server = server(Model::new("echo").in_process()).start().await;
    assert_eq!(regions(), 2);
    let sent = body(600_000, 1);
    assert!(server.predict("echo", sent.clone()).await.body == sent);
    let answer = server.management("DELETE", "/models/echo").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let is_gone = async {
        while regions() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), is_gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_died_leaves_its_memory_and_the_next_one_has_its_own() {
    let server = server(Model::new("echo").in_process()).start().await;
    let sent = body(600_000, 2);
    for _ in 0..3 {
        assert!(server.predict("echo", sent.clone()).await.body == sent);
        let described = server.management("GET", "/models/echo").await.json();
        let pid = described[0]["workers"][0]["pid"].as_i64().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // It waits for the next process.
        assert!(server.predict("echo", sent.clone()).await.body == sent);
        assert!(regions() <= 4);
    }
}
