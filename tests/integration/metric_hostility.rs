//! Handlers whose metrics break every rule, and scrapes that ask for too much.

use lantern::api::Listener;

use crate::metrics::is_of_the_whole_server;
use crate::support::{Answer, Model, TestServer};

/// What a scrape may consist of.
fn is_sound(line: &str) -> bool {
    let Some((series, value)) = line.rsplit_once(' ') else {
        return false;
    };
    let is_number = matches!(value, "+Inf" | "-Inf" | "NaN") || value.parse::<f64>().is_ok();
    let name = series.split('{').next().unwrap_or_default();
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':');
    is_number && is_name && !name.is_empty() && series.ends_with("\",}")
}

async fn hostile_server(mode: &str) -> TestServer {
    let server = TestServer::builder()
        .model(Model::new("counting").lantern("backend: fake"))
        .model(Model::fake())
        .set("model_metrics_auto_detect=true")
        .set(&format!("metrics_mode={mode}"))
        .start()
        .await;
    for _ in 0..3 {
        let answer = server.predict("counting", "hostile").await;
        assert_eq!((answer.status, answer.text()), (200, "counted"));
    }
    server
}

async fn scrape(server: &TestServer, query: &str) -> Answer {
    let request = server.request(Listener::Metrics, "GET", &format!("/metrics{query}"));
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_handler_cannot_forge_a_scrape() {
    let server = hostile_server("prometheus").await;
    let answer = scrape(&server, "").await;
    let text = answer.text();
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let (process, labelled): (Vec<_>, Vec<_>) = samples
        .iter()
        .partition(|line| is_of_the_whole_server(line));
    assert_eq!(process.len(), 7 + 4, "{process:?}");
    for line in process {
        assert!(is_number_of_the_process(line), "{line:?}");
    }
    for line in labelled {
        assert!(is_sound(line), "{line:?}");
    }
    for line in &samples {
        assert!(!line.ends_with(" 666.0"), "forged, or the server's: {line}");
    }
    assert!(!text.contains("another-model") && !text.contains("another-host"));
    for name in [
        "Fake",
        "9lives",
        "HostileLabelName",
        "HostileBucket",
        "ünïcode",
    ] {
        assert!(!samples.iter().any(|line| line.starts_with(name)), "{name}");
    }
    let labels = samples
        .iter()
        .filter(|line| line.starts_with("HostileLabels{"));
    assert_eq!(labels.count(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_handler_cannot_break_counters_or_fill_memory() {
    let server = hostile_server("prometheus").await;
    assert_eq!(server.sample("HostileCounter{").await, Some(3.0));
    assert_eq!(server.sample("HostileHistogram_count{").await, Some(6.0));
    assert_eq!(server.sample("HostileHistogram_sum{").await, Some(0.0));
    let text = scrape(&server, "").await.text().to_owned();
    let series = text
        .lines()
        .filter(|line| line.contains("ModelName=\"counting\""));
    // The limit, and what the server measures of the model itself; a histogram is one series of many lines.
    assert!(series.count() < 1000 + 20 + 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_handler_cannot_forge_lines_of_a_log() {
    let server = hostile_server("log").await;
    let lines = server.model_metric_lines();
    for line in lines.lines() {
        assert!(
            line.contains("|#hostname:") && line.contains("timestamp:"),
            "{line:?}"
        );
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
    assert!(!lines.contains("666.0|#ModelName"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_measured_goes_with_it() {
    let server = hostile_server("prometheus").await;
    let gone = server.management("DELETE", "/models/counting/1.0").await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    let text = scrape(&server, "").await.text().to_owned();
    let left = text.lines().filter(|line| line.contains("\"counting\""));
    for line in left {
        assert!(line.starts_with("ts_"), "{line}");
    }
    assert!(!text.contains("Hostile"));
    assert!(text.contains("lantern_workers_ready{model_name=\"fake\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn scrapes_that_ask_for_much_are_answered() {
    let server = hostile_server("prometheus").await;
    let none: Vec<_> = (0..180).map(|number| format!("name[]=n{number}")).collect();
    let none = none.join("&");
    let answer = scrape(&server, &format!("?{none}")).await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    let odd = scrape(
        &server,
        "?name[]=&name[]=%22%0a&name[]=Requests2XX&name=x&[]=y",
    )
    .await;
    assert_eq!(odd.text().lines().count(), 3);
    // Longer than a request line may be.
    let names = "name[]=n&".repeat(10_000);
    let head =
        format!("GET /metrics?{names} HTTP/1.1\r\nhost: lantern\r\nconnection: close\r\n\r\n");
    let refused = server.raw(Listener::Metrics, head.as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused:.200}");
    let scrapes = (0..50).map(|_| scrape(&server, ""));
    for answer in futures_util::future::join_all(scrapes).await {
        assert!(answer.text().contains("lantern_request_seconds_count"));
    }
}

/// The process's samples have no labels.
fn is_number_of_the_process(line: &str) -> bool {
    let (name, value) = line.split_once(' ').unwrap();
    let is_name = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name && value.parse::<f64>().is_ok()
}
