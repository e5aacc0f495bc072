//! What tenants use of the server, and how it is shared among them.

use std::path::Path;

use lantern::api::Listener;
use serde_json::Value;

use crate::logs::Program;
use crate::support::origin::Origin;
use crate::support::{Answer, Model, TestServer};
use crate::tenants::{LINEAR, Place, acme, bearer, globex, operators, predict, register, until};
use crate::tokens::ask;

/// What `target` of the management address shows to whoever has `authorization`.
async fn shown(server: &TestServer, target: &str, authorization: &str) -> Answer {
    let target = ("GET", target);
    ask(server, Listener::Management, target, Some(authorization)).await
}

async fn usage(server: &TestServer, tenant: &str) -> Value {
    let target = format!("/lantern/v1/tenants/{tenant}/usage");
    let shown = shown(server, &target, &operators(server, "management")).await;
    assert_eq!(shown.status, 200, "{shown}");
    shown.json()["usage"].take()
}

/// Waits until that is known of a tenant's processes.
async fn has_used(server: &TestServer, tenant: &str, key: &str) {
    until("worker processes were looked at", async || {
        usage(server, tenant).await[key].as_f64().unwrap() > 0.0
    })
    .await;
}

/// All lines that are written down, by tenant.
fn lines(directory: &Path) -> Vec<Value> {
    let files = std::fs::read_dir(directory).into_iter().flatten();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let texts: Vec<_> = texts.collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn sum_of_answered(lines: &[Value], tenant: &str) -> u64 {
    let own = lines.iter().filter(|line| line["tenant"] == tenant);
    own.map(|line| line["requests"]["answered"].as_u64().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_uses_is_counted_shown_and_written_down() {
    let place = Place::new();
    let mut server = place.server().await;
    for _ in 0..3 {
        assert_eq!(predict(&server, "acme-all").await.0, 200);
    }
    let used = usage(&server, "acme").await;
    assert_eq!(used["requests"]["answered"], 3, "{used}");
    assert_eq!(
        used["request_bytes"],
        3 * crate::support::ROW.len(),
        "{used}"
    );
    for key in ["response_bytes", "handler_seconds", "inference_seconds"] {
        assert!(used[key].as_f64().unwrap() > 0.0, "{key}: {used}");
    }
    for key in ["cpu_seconds", "memory_gib_seconds"] {
        has_used(&server, "acme", key).await;
    }
    assert_eq!(usage(&server, "globex").await["requests"]["answered"], 0);
    for (key, label) in [
        (operators(&server, "management"), "{tenant=\"acme\",}"),
        (bearer("acme-observe"), ""),
    ] {
        let target = ("GET", "/metrics");
        let scraped = ask(&server, Listener::Metrics, target, Some(&key)).await;
        let name = format!("lantern_tenant_handler_seconds_total{label} ");
        let mut lines = scraped.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(&name)).unwrap();
        assert!(value.parse::<f64>().unwrap() > 0.0, "{value}");
    }
    let ledger = place.home(".usage");
    until("what was used is written down", async || {
        sum_of_answered(&lines(&ledger), "acme") == 3
    })
    .await;
    assert_eq!(predict(&server, "acme-all").await.0, 200);
    server.stop().await;
    let lines = lines(&ledger);
    assert_eq!(sum_of_answered(&lines, "acme"), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line["tenant"] == "acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_no_line_of_a_bill() {
    let program = Program::start().await;
    let ledger = program.root().join("tenants/.usage");
    assert_eq!(program.register("acme-all").await, 200);
    for _ in 0..3 {
        assert_eq!(program.say("acme-all", 1).await, 200);
    }
    until("what was used is written down", async || {
        sum_of_answered(&lines(&ledger), "acme") == 3
    })
    .await;
    let program = program.killed().await;
    assert_eq!(sum_of_answered(&lines(&ledger), "acme"), 3);
    // What was registered is saved, and loads again.
    until("the model is there", async || {
        program.say("acme-all", 1).await == 200
    })
    .await;
    until("what comes is written down behind it", async || {
        sum_of_answered(&lines(&ledger), "acme") == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_itself_and_the_operator_all() {
    let place = Place::new();
    let heavy = format!("{}    weight: 3\n    quotas: {{models: 5}}\n", acme());
    place.write(&[heavy, globex()]);
    let server = place.server().await;
    let names = |answer: &Answer| -> Vec<String> {
        let json = answer.json();
        let tenants = json["tenants"].as_array().unwrap().iter();
        tenants
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = shown(
        &server,
        "/lantern/v1/tenants",
        &operators(&server, "management"),
    )
    .await;
    assert_eq!(names(&all), ["acme", "globex"]);
    let first = &all.json()["tenants"][0];
    let expected = [
        ("weight", 3),
        ("models", 1),
        ("versions", 1),
        ("workers", 1),
    ];
    for (key, value) in expected {
        assert_eq!(first[key], value, "{key}: {first}");
    }
    assert_eq!(first["quotas"]["models"], 5);
    let own = shown(&server, "/lantern/v1/tenants", &bearer("acme-observe")).await;
    assert_eq!(names(&own), ["acme"]);
    let own = shown(
        &server,
        "/lantern/v1/tenants/acme/usage",
        &bearer("acme-observe"),
    )
    .await;
    assert_eq!(own.status, 200, "{own}");
    let key = bearer("acme-observe");
    let foreign = shown(&server, "/lantern/v1/tenants/globex/usage", &key).await;
    let unknown = shown(&server, "/lantern/v1/tenants/nobody/usage", &key).await;
    assert_eq!((foreign.status, foreign.text()), (404, unknown.text()));
}

/// A place where `globex` has a model whose handler spins for as long as it may.
fn with_spinning(more: &str) -> Place {
    let place = Place::new();
    place.write(&[acme(), format!("{}{more}", globex())]);
    let archives = place.home("globex").join("archives");
    std::fs::create_dir_all(&archives).unwrap();
    Model::new("hostile")
        .artifact("linear.onnx")
        .named(LINEAR)
        .in_process()
        .pack_into(&archives);
    place
}

fn spin(server: &TestServer) -> tokio::task::JoinHandle<Answer> {
    let request = server
        .request(Listener::Inference, "POST", "/predictions/linear")
        .header("authorization", bearer("globex-all"))
        .body("loop");
    tokio::spawn(async move { Answer::of(request.send().await.unwrap()).await })
}

async fn in_flight(server: &TestServer, tenant: usize) -> (u64, u64) {
    let key = operators(server, "management");
    let shown = shown(server, "/lantern/v1/tenants", &key).await;
    let tenant = &shown.json()["tenants"][tenant];
    let count = |key: &str| tenant[key].as_u64().unwrap();
    (count("requests_in_flight"), count("requests_queued"))
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_spin_keep_no_other_tenant_waiting() {
    let place = with_spinning("");
    let server = place.server().await;
    let registered = register(&server, "globex-all").await;
    assert_eq!(registered.status, 200, "{registered}");
    let spinning: Vec<_> = (0..8).map(|_| spin(&server)).collect();
    until("some wait for the turn of their owner", async || {
        in_flight(&server, 1).await.1 > 0
    })
    .await;
    for _ in 0..5 {
        assert_eq!(predict(&server, "acme-all").await.0, 200);
    }
    assert!(in_flight(&server, 1).await.0 > 0, "they spin still");
    for spun in spinning {
        let spun = spun.await.unwrap();
        assert_eq!(spun.status, 500, "{spun}");
    }
    assert_eq!(in_flight(&server, 1).await, (0, 0));
    let used = usage(&server, "globex").await;
    assert_eq!(used["requests"]["failed"], 8, "{used}");
    // Failed calls are counted as well: each has used what it may.
    assert!(used["handler_seconds"].as_f64().unwrap() > 1.0, "{used}");
    assert!(used["cpu_seconds"].as_f64().unwrap() > 1.0, "{used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_tenants_requests_wait_than_may_and_time_is_limited() {
    let quotas = "    quotas: {requests_queued: 0, handler_time_per_second: 1ms}\n";
    let place = with_spinning(quotas);
    let server = place.server().await;
    let registered = register(&server, "globex-all").await;
    assert_eq!(registered.status, 200, "{registered}");
    let spinning: Vec<_> = (0..8).map(|_| spin(&server)).collect();
    let (mut waited, mut late) = (0, 0);
    for spun in spinning {
        let spun = spun.await.unwrap();
        let is_refused = |text| spun.status == 429 && spun.text().contains(text);
        let (waits, has_used) = (
            is_refused("0 requests waiting"),
            is_refused("handlers' time"),
        );
        assert!(waits || has_used || spun.status == 500, "{spun}");
        waited += u64::from(waits);
        late += u64::from(has_used);
    }
    assert!(waited > 0);
    let (status, text) = predict(&server, "globex-all").await;
    assert_eq!(status, 429, "{text}");
    assert!(text.contains("1ms of its handlers' time"), "{text}");
    let used = usage(&server, "globex").await;
    assert_eq!(used["refusals"]["requests_queued"], waited, "{used}");
    assert_eq!(
        used["refusals"]["handler_time_per_second"],
        late + 1,
        "{used}"
    );
    assert_eq!(predict(&server, "acme-all").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loads_needs_memory_within_the_quota() {
    let place = Place::new();
    place.write(&[
        acme(),
        format!("{}    quotas: {{worker_memory: 1GiB}}\n", globex()),
    ]);
    let archives = place.home("globex").join("archives");
    std::fs::create_dir_all(&archives).unwrap();
    Model::linear().in_process().pack_into(&archives);
    let server = place.server().await;
    let registered = register(&server, "globex-all").await;
    assert_eq!(registered.status, 200, "{registered}");
    // How much it needs is known from now on.
    has_used(&server, "globex", "cpu_seconds").await;
    place.write(&[
        acme(),
        format!("{}    quotas: {{worker_memory: 1MiB}}\n", globex()),
    ]);
    let gone = ("DELETE", "/models/linear");
    let key = bearer("globex-all");
    let gone = ask(&server, Listener::Management, gone, Some(&key)).await;
    assert_eq!(gone.status, 200, "{gone}");
    let quota = async || {
        let key = operators(&server, "management");
        let shown = shown(&server, "/lantern/v1/tenants", &key).await;
        shown.json()["tenants"][1]["quotas"]["worker_memory"] == 1 << 20
    };
    until("the quota is lowered", quota).await;
    let refused = register(&server, "globex-all").await;
    assert_eq!(refused.status, 403, "{refused}");
    let says =
        "The tenant's quota is 1048576 bytes of worker memory: it has 0, and this needs about";
    assert!(refused.text().contains(says), "{refused}");
    assert_eq!(predict(&server, "acme-all").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_handlers_may_be_given_less_than_others() {
    let place = with_spinning("    limits: {cpu: 20ms}\n");
    let server = place.server().await;
    let registered = register(&server, "globex-all").await;
    // What an archive does not ask for is lowered; what it asks for beyond is refused.
    assert_eq!(registered.status, 200, "{registered}");
    let spun = spin(&server).await.unwrap();
    assert!(
        spun.text().contains("more than 20 ms of CPU time"),
        "{spun}"
    );
    let archives = place.home("globex").join("archives");
    Model::linear()
        .in_process()
        .named("asks")
        .lantern("limits: {cpu: 100ms}")
        .pack_into(&archives);
    let key = bearer("globex-all");
    let target = ("POST", "/models?url=asks-1.0.mar");
    let refused = ask(&server, Listener::Management, target, Some(&key)).await;
    assert_eq!(refused.status, 400, "{refused}");
    assert!(refused.text().contains("must be at most 20ms"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_archives_come_from_its_sources_alone() {
    let origin = Origin::serving(Model::new("passthrough").named("raw").packed()).await;
    let place = Place::new();
    let sources = format!("    sources: ['{}']\n", origin.url("/models/.*"));
    let narrow = format!("{sources}    quotas: {{archive_bytes: 100B}}\n");
    place.write(&[
        format!("{}{sources}", acme()),
        format!("{}{narrow}", globex()),
    ]);
    let server = place.server().await;
    let fetched = async |tenant: &str, path: &str| {
        let url = origin.url(path);
        let url: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
        let target = format!("/models?url={url}");
        let key = bearer(tenant);
        ask(&server, Listener::Management, ("POST", &target), Some(&key)).await
    };
    let answer = fetched("acme-all", "/elsewhere/raw.mar").await;
    assert_eq!(answer.status, 404, "{answer}");
    let answer = fetched("globex-all", "/models/raw.mar").await;
    assert!(answer.text().contains("larger than 100 B"), "{answer}");
    let answer = fetched("acme-all", "/models/raw.mar").await;
    assert_eq!(answer.status, 200, "{answer}");
    assert!(place.home("acme").join("archives/raw.mar").exists());
    let gone = ("DELETE", "/models/raw");
    let key = bearer("acme-all");
    let gone = ask(&server, Listener::Management, gone, Some(&key)).await;
    assert_eq!(gone.status, 200, "{gone}");
    place.write(&[acme(), globex()]);
    until("nothing may be fetched any more", async || {
        let answer = fetched("acme-all", "/models/raw.mar").await;
        if answer.status == 200 {
            let gone = ("DELETE", "/models/raw");
            ask(&server, Listener::Management, gone, Some(&key)).await;
        }
        answer.status == 404
    })
    .await;
}
