//! What models log: in whose file it is, and who is shown it.

use std::path::Path;
use std::time::Duration;

use lantern::api::Listener;
use reqwest::Response;
use rustix::process::Signal;

use crate::support::{Answer, Life, Model, Place as Directories, TestServer};
use crate::tenants::{EVERYTHING, Place, acme, bearer, globex, key, operators, until};

/// The handler that logs what it is told to.
fn hostile() -> Model {
    Model::new("hostile")
        .artifact("linear.onnx")
        .named("hostile")
}

const LOGS: &str = "/lantern/v1/models/hostile/logs";

async fn say(server: &TestServer, key: Option<&str>, order: &str) -> u16 {
    let mut request = server.request(Listener::Inference, "POST", "/predictions/hostile");
    if let Some(key) = key {
        request = request.header("authorization", bearer(key));
    }
    let answer = request.body(order.to_owned()).send().await.unwrap();
    answer.status().as_u16()
}

async fn show(server: &TestServer, authorization: Option<&str>, path: &str) -> Response {
    let mut request = server.request(Listener::Management, "GET", path);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.send().await.unwrap()
}

async fn shown(server: &TestServer, authorization: Option<&str>, path: &str) -> Answer {
    Answer::of(show(server, authorization, path).await).await
}

/// Reads a log that is followed until a piece of it contains `text`.
async fn read_until(followed: &mut Response, text: &str) -> String {
    let mut read = String::new();
    let reading = async {
        while !read.contains(text) {
            let piece = followed.chunk().await.unwrap();
            let piece = piece.unwrap_or_else(|| panic!("it ends before {text:?}: {read}"));
            read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    let reading = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(reading.is_ok(), "no {text:?} within 30 s in {read}");
    read
}

/// Reads a log that is followed until it ends.
async fn read_to_end(mut followed: Response) {
    let reading = async { while followed.chunk().await.unwrap().is_some() {} };
    let reading = tokio::time::timeout(Duration::from_secs(30), reading).await;
    assert!(reading.is_ok(), "it goes on for 30 s");
}

/// Whether a line begins as every line of a model's log does: with a time.
fn begins_with_a_time(line: &str) -> bool {
    line.len() > 24 && line.is_char_boundary(24) && {
        let time = &line[..24];
        time.ends_with('Z') && time.as_bytes()[10] == b'T'
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_of_a_version_are_shown_wherever_it_is_hosted() {
    for model in [hostile(), hostile().in_process()] {
        let server = TestServer::with(model).await;
        assert_eq!(say(&server, None, "log-breaks").await, 200);
        let escaped = "[ERROR] MODEL_LOG - a\\nb\\u{1b}[31m\\u{7}";
        // A worker process reports beside its answer.
        until("the line is there", async || {
            let answer = shown(&server, None, LOGS).await;
            answer.text().contains(escaped)
        })
        .await;
        let answer = shown(&server, None, LOGS).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        let text = answer.text();
        assert!(text.lines().all(begins_with_a_time), "{text}");
        assert!(text.contains("lantern - Model hostile loaded in"), "{text}");
        assert!(text.contains(" request_id="), "{text}");
        let named = shown(&server, None, "/lantern/v1/models/hostile/1.0/logs?lines=1").await;
        assert_eq!(named.text().lines().count(), 1, "{named}");
        assert_eq!(
            shown(&server, None, &format!("{LOGS}?lines=0"))
                .await
                .text(),
            ""
        );
        for (path, status) in [
            (format!("{LOGS}?lines=201"), 400),
            (format!("{LOGS}?lines=x&follow"), 400),
            (LOGS.replace("hostile", "nobody"), 404),
            (LOGS.replace("hostile", "hostile/9.0"), 404),
        ] {
            let answer = shown(&server, None, &path).await;
            assert_eq!(answer.status, status, "{path}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_followed_until_the_version_goes_or_the_server_stops() {
    let mut server = TestServer::builder()
        .model(hostile())
        .model(Model::linear())
        .start()
        .await;
    let mut followed = show(&server, None, &format!("{LOGS}?follow&lines=0")).await;
    let other = show(&server, None, "/lantern/v1/models/linear/logs?follow=true").await;
    assert_eq!(say(&server, None, "log-breaks").await, 200);
    let read = read_until(&mut followed, "MODEL_LOG - a").await;
    assert!(read.lines().all(begins_with_a_time), "{read}");
    assert_eq!(
        server.management("DELETE", "/models/hostile").await.status,
        200
    );
    read_until(&mut followed, "Model hostile unregistered.").await;
    read_to_end(followed).await;
    let stopping = server.begin_stop();
    read_to_end(other).await;
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_follow_at_a_time_and_no_more() {
    let server = TestServer::with(hostile()).await;
    let path = format!("{LOGS}?follow");
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(show(&server, None, &path).await);
    }
    let refused = shown(&server, None, &path).await;
    assert_eq!(refused.status, 429, "{refused}");
    assert_eq!(shown(&server, None, LOGS).await.status, 200);
    held.pop();
    until("there is room for another", async || {
        show(&server, None, &path).await.status() == 200
    })
    .await;
}

/// A server where both tenants have registered `hostile`.
async fn server_of_two(place: &Place) -> TestServer {
    for tenant in ["acme", "globex"] {
        let archives = place.home(tenant).join("archives");
        std::fs::create_dir_all(&archives).unwrap();
        hostile().in_process().pack_into(&archives);
    }
    let server = place.builder().start().await;
    for key in ["acme-all", "globex-all"] {
        let request = server
            .request(
                Listener::Management,
                "POST",
                "/models?url=hostile-1.0.mar&initial_workers=1",
            )
            .header("authorization", bearer(key));
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_models_lines_alone() {
    let place = Place::new();
    let server = server_of_two(&place).await;
    assert_eq!(say(&server, Some("acme-all"), "log-breaks").await, 200);
    let has = async |authorization: &str| {
        let answer = shown(&server, Some(authorization), LOGS).await;
        assert_eq!(answer.status, 200, "{answer}");
        answer.text().contains("MODEL_LOG - a\\nb")
    };
    until("acme sees it", async || has(&bearer("acme-observe")).await).await;
    assert!(!has(&bearer("globex-all")).await);
    for wrong in ["acme-manage", "acme-predict", "acme-other", "acme-old"] {
        let answer = shown(&server, Some(&bearer(wrong)), LOGS).await;
        assert_eq!(answer.status, 400, "{wrong}: {answer}");
    }
    let operator = operators(&server, "management");
    assert_eq!(shown(&server, Some(&operator), LOGS).await.status, 404);
    let named = server
        .request(Listener::Management, "GET", LOGS)
        .header("authorization", operator)
        .header("x-lantern-tenant", "acme");
    let named = Answer::of(named.send().await.unwrap()).await;
    assert!(named.text().contains("MODEL_LOG - a\\nb"), "{named}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_see_a_log_any_more_follows_it_no_longer() {
    let place = Place::new();
    let server = server_of_two(&place).await;
    let path = format!("{LOGS}?follow");
    let follow = async |key: &str| show(&server, Some(&bearer(key)), &path).await;
    let more = |suspended: &str| {
        format!(
            "  acme:\n{suspended}    keys:\n{}{}",
            key("acme-all", EVERYTHING),
            key("acme-more", EVERYTHING)
        )
    };
    // The key goes.
    let mut revoked = follow("acme-observe").await;
    read_until(&mut revoked, "loaded").await;
    let mut stays = follow("acme-all").await;
    read_until(&mut stays, "loaded").await;
    place.write(&[more(""), globex()]);
    read_to_end(revoked).await;
    say(&server, Some("acme-all"), "log-breaks").await;
    read_until(&mut stays, "MODEL_LOG - a").await;
    // The tenant is suspended.
    place.write(&[more("    suspended: true\n"), globex()]);
    read_to_end(stays).await;
    // The tenant goes; the operator sees what a tenant has as long as there is one.
    let operators = server
        .request(Listener::Management, "GET", &path)
        .header("authorization", operators(&server, "management"))
        .header("x-lantern-tenant", "globex");
    let mut operators = operators.send().await.unwrap();
    read_until(&mut operators, "loaded").await;
    place.write(&[more("")]);
    read_to_end(operators).await;
}

/// The program, with the tenants `acme` and `globex`, each with the archive of `hostile`.
pub struct Program {
    directories: Directories,
    pub life: Life,
}

impl Program {
    pub async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let directories = Directories::new(&[hostile()]).with_tokens();
        let root = directories.directory.path().to_owned();
        for tenant in ["acme", "globex"] {
            let archives = root.join("tenants").join(tenant).join("archives");
            std::fs::create_dir_all(&archives).unwrap();
            hostile().in_process().pack_into(&archives);
        }
        write(&root, &[acme(), globex()]);
        let file = root.join("tenants.yaml");
        let directories = directories.set(&format!("lantern_tenants={}", file.display()));
        let life = directories.start(&["--models", "hostile-1.0.mar"]).await;
        Self { directories, life }
    }

    /// Kills it as the kernel does, and starts it again.
    pub async fn killed(mut self) -> Self {
        self.life.end(Signal::KILL).await;
        self.life = self.directories.start(&[]).await;
        self
    }

    pub fn root(&self) -> &Path {
        self.directories.directory.path()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap_or_default()
    }

    async fn ask(&self, listener: &str, method: &str, path: &str, key: &str, body: &str) -> u16 {
        let url = format!("{}{path}", self.life.address(listener));
        let request = reqwest::Client::new()
            .request(method.parse().unwrap(), url)
            .bearer_auth(key)
            .body(body.to_owned());
        request.send().await.unwrap().status().as_u16()
    }

    pub async fn register(&self, key: &str) -> u16 {
        let path = "/models?url=hostile-1.0.mar&initial_workers=1";
        self.ask("management", "POST", path, key, "").await
    }

    /// Has the handler log a line that is `bytes` long.
    pub async fn say(&self, key: &str, bytes: usize) -> u16 {
        let order = format!("log-bytes {bytes}");
        self.ask("inference", "POST", "/predictions/hostile", key, &order)
            .await
    }

    fn operators_key(&self, name: &str) -> String {
        let keys: serde_json::Value = serde_json::from_str(&self.read("key_file.json")).unwrap();
        keys[name]["key"].as_str().unwrap().to_owned()
    }
}

fn write(root: &Path, tenants: &[String]) {
    let text = format!("tenants:\n{}", tenants.concat());
    std::fs::write(root.join("tenants.yaml"), text).unwrap();
}

/// A line of the handler's with so many bytes.
fn said(text: &str, bytes: usize) -> bool {
    let said = format!(" MODEL_LOG - {} request_id", "x".repeat(bytes));
    text.contains(&said)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_has_a_log_file_and_the_operator_another() {
    let mut program = Program::start().await;
    program.life.line("1 of 1 models loaded").await;
    for key in ["acme-all", "globex-all"] {
        assert_eq!(program.register(key).await, 200);
    }
    let operators = program.operators_key("inference");
    for (key, bytes) in [("acme-all", 11), ("globex-all", 22), (&*operators, 33)] {
        assert_eq!(program.say(key, bytes).await, 200, "{key}");
    }
    let files = [
        ("tenants/acme/logs/model_log.log", 11),
        ("tenants/globex/logs/model_log.log", 22),
        ("logs/model_log.log", 33),
    ];
    for (file, bytes) in files {
        until(file, async || said(&program.read(file), bytes)).await;
        let text = program.read(file);
        for (_, other) in files.iter().filter(|(other, _)| *other != file) {
            assert!(!said(&text, *other), "{file}: {text}");
        }
    }
    let own = program.read("tenants/acme/logs/model_log.log");
    assert!(own.contains("Model hostile loaded in"), "{own}");
    assert!(own.contains(" W-hostile_1.0 MODEL_LOG - "), "{own}");
    let server = program.read("logs/ts_log.log");
    let loaded = |line: &&str| line.contains("Model hostile loaded.");
    let of_acme = server.lines().filter(loaded);
    let of_acme = of_acme.filter(|line| line.contains("tenant=acme"));
    assert_eq!(of_acme.count(), 1, "{server}");

    // What acme had is put aside as a whole, and another one by the name begins anew.
    write(program.root(), &[globex()]);
    let home = program.root().join("tenants/acme");
    until("acme is gone", async || !home.exists()).await;
    write(program.root(), &[acme(), globex()]);
    until("another acme is there", async || {
        program.say("acme-all", 1).await == 404
    })
    .await;
    hostile().in_process().pack_into(&home.join("archives"));
    assert_eq!(program.register("acme-all").await, 200);
    assert_eq!(program.say("acme-all", 44).await, 200);
    let file = "tenants/acme/logs/model_log.log";
    until("the new one logs", async || said(&program.read(file), 44)).await;
    assert!(!said(&program.read(file), 11), "{}", program.read(file));
    let aside = std::fs::read_dir(program.root().join("tenants/.removed")).unwrap();
    let aside: Vec<_> = aside.map(|entry| entry.unwrap().path()).collect();
    let old = std::fs::read_to_string(aside[0].join("logs/model_log.log")).unwrap();
    assert!(said(&old, 11) && !said(&old, 44), "{old}");
    let root = program.root().to_owned();
    let Program { directories, life } = program;
    let (status, output) = life.end(Signal::TERM).await;
    assert!(status.success(), "{output}");
    assert!(said(&output, 33) && !said(&output, 11), "{output}");
    audited(&root);
    drop(directories);
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_version_is_not_restored_is_in_its_owners_log() {
    let program = Program::start().await;
    assert_eq!(program.register("acme-all").await, 200);
    let archive = "tenants/acme/archives/hostile-1.0.mar";
    std::fs::write(program.root().join(archive), "no archive").unwrap();
    let program = program.killed().await;
    let file = "tenants/acme/logs/model_log.log";
    until("its owner is told", async || {
        let text = program.read(file);
        text.contains("Failed to load model hostile: ")
    })
    .await;
}

/// Every line of the file is an object, in order of time, and registrations have what was registered.
fn audited(root: &Path) {
    let text = std::fs::read_to_string(root.join("logs/audit.log")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let registered = |line: &&serde_json::Value| line["call"] == "POST /models";
    let tenants: Vec<_> = lines
        .iter()
        .filter(registered)
        .map(|line| {
            assert_eq!(line["digest"].as_str().unwrap().len(), 64, "{line}");
            assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
            line["tenant"].as_str().unwrap()
        })
        .collect();
    assert_eq!(tenants, ["acme", "globex", "acme"], "{text}");
    assert!(!text.contains("Bearer"), "{text}");
}
