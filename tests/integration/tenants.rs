//! Tenants: what is there for whom, on every route of every protocol, and how they come and go.

use std::path::Path;
use std::time::Duration;

use lantern::api::Listener;
use lantern::api::grpc::proto::inference::PredictionsRequest;
use lantern::api::grpc::proto::inference::inference_ap_is_service_client::InferenceApIsServiceClient as InferenceClient;
use lantern::api::grpc::proto::rpc;
use lantern::api::routes::grpc::{GrpcRoute, GrpcTable, Messages};
use lantern::api::routes::{Permission, Route};
use lantern::token::KeyDigest;
use prost::Message as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::support::{Answer, Builder, Model, ROW, TestServer};
use crate::tokens::{REFUSED, ask, is_refusal, request_for, rows_with};

/// The model of the tenant `acme`.
pub const LINEAR: &str = "linear";
/// A name that no model has.
const NOBODY: &str = "nobody";

/// The key that a request sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    Wrong,
    Expired,
    /// Of `acme`, for everything but what is asked for.
    WrongScope,
    /// Of `globex`, for everything.
    OtherTenants,
    /// Of `acme`, for everything.
    Right,
}

/// A file of tenants, and where they are at home.
pub struct Place {
    pub directory: TempDir,
}

pub fn key(name: &str, more: &str) -> String {
    let digest = KeyDigest::of(name.as_bytes()).hex();
    format!("      - {{sha256: \"{digest}\", label: {name}, {more}}}\n")
}

pub const EVERYTHING: &str = "scopes: [predict, manage, observe]";

pub fn acme() -> String {
    let keys = [
        key("acme-all", EVERYTHING),
        key("acme-predict", "scopes: [predict]"),
        key("acme-manage", "scopes: [manage]"),
        key("acme-observe", "scopes: [observe]"),
        key(
            "acme-old",
            &format!("{EVERYTHING}, expires: 2020-01-01T00:00:00Z"),
        ),
        key("acme-other", "scopes: [predict, manage], models: [other]"),
    ];
    format!("  acme:\n    keys:\n{}", keys.concat())
}

pub fn globex() -> String {
    format!("  globex:\n    keys:\n{}", key("globex-all", EVERYTHING))
}

impl Place {
    /// With the tenants `acme`, whose archive of `linear` is in its store, and `globex`.
    pub fn new() -> Self {
        let place = Self {
            directory: TempDir::new().unwrap(),
        };
        place.write(&[acme(), globex()]);
        let archives = place.home("acme").join("archives");
        std::fs::create_dir_all(&archives).unwrap();
        Model::linear().in_process().pack_into(&archives);
        place
    }

    pub fn write(&self, tenants: &[String]) {
        let text = format!("tenants:\n{}", tenants.concat());
        std::fs::write(self.file(), text).unwrap();
    }

    pub fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("tenants.yaml")
    }

    pub fn home(&self, tenant: &str) -> std::path::PathBuf {
        self.directory.path().join("tenants").join(tenant)
    }

    pub fn builder(&self) -> Builder {
        TestServer::builder()
            .set("disable_token_authorization=false")
            .set(&format!("lantern_tenants={}", self.file().display()))
            .api(|api| api.oip = true)
    }

    /// A server where `acme` has registered `linear`.
    pub async fn server(&self) -> TestServer {
        let server = self.builder().start().await;
        let registered = register(&server, "acme-all").await;
        assert_eq!(registered.status, 200, "{registered}");
        server
    }
}

pub fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

pub async fn register(server: &TestServer, key: &str) -> Answer {
    let url = format!("/models?url={}&initial_workers=1", Model::linear().url());
    let target = ("POST", url.as_str());
    ask(server, Listener::Management, target, Some(&bearer(key))).await
}

/// The status of a prediction, and its text.
pub async fn predict(server: &TestServer, key: &str) -> (u16, String) {
    let request = server
        .request(Listener::Inference, "POST", "/predictions/linear")
        .header("authorization", bearer(key))
        .body(ROW);
    let answer = Answer::of(request.send().await.unwrap()).await;
    (answer.status, answer.text().to_owned())
}

/// What the key of a case opens, and what it is called.
pub fn authorization(shown: Shown, permission: Permission) -> Option<String> {
    Some(bearer(match shown {
        Shown::Nothing => return None,
        Shown::Wrong => "x-x-x-x-x",
        Shown::Expired => "acme-old",
        Shown::WrongScope => match permission {
            Permission::Predict | Permission::Observe | Permission::Logs => "acme-manage",
            Permission::Manage | Permission::Register => "acme-predict",
            Permission::Either | Permission::Nothing | Permission::Rotate => "acme-observe",
        },
        Shown::OtherTenants => "globex-all",
        Shown::Right => "acme-all",
    }))
}

const REFUSED_KEYS: [Shown; 4] = [
    Shown::Nothing,
    Shown::Wrong,
    Shown::Expired,
    Shown::WrongScope,
];

fn names_a_model(route: &Route) -> bool {
    route.path.contains("{model}")
}

async fn answer(
    server: &TestServer,
    listener: Listener,
    route: &Route,
    model: &str,
    shown: Shown,
) -> Answer {
    let (method, path) = request_for(route, model);
    let authorization = authorization(shown, route.permission);
    ask(server, listener, (method, &path), authorization.as_deref()).await
}

/// What an answer says, whichever of the two models it is about.
fn anonymous(answer: &Answer) -> (u16, String) {
    let text = String::from_utf8_lossy(&answer.body);
    (answer.status, text.replace(LINEAR, NOBODY))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_model_is_an_unknown_one_on_every_route() {
    let place = Place::new();
    let server = place.server().await;
    let (mut refused, mut alike) = (0, 0);
    for (listener, route) in rows_with(true) {
        let case = format!("{} {:?} {}", listener.name(), route.verbs, route.path);
        for shown in REFUSED_KEYS {
            if route.permission == Permission::Nothing {
                continue;
            }
            let answer = answer(&server, listener, &route, LINEAR, shown).await;
            assert!(
                is_refusal(&answer) && answer.status == 400,
                "{case} {shown:?}: {answer}"
            );
            refused += 1;
        }
        if route.permission == Permission::Rotate {
            let answer = answer(&server, listener, &route, LINEAR, Shown::Right).await;
            assert!(is_refusal(&answer), "{case}: {answer}");
            continue;
        }
        let foreign = answer(&server, listener, &route, LINEAR, Shown::OtherTenants).await;
        let unknown = answer(&server, listener, &route, NOBODY, Shown::OtherTenants).await;
        assert!(!is_refusal(&foreign), "{case}: {foreign}");
        assert_eq!(anonymous(&foreign), anonymous(&unknown), "{case}");
        alike += 1;
        let is_named_back = names_a_model(&route);
        let text = String::from_utf8_lossy(&foreign.body);
        assert!(is_named_back || !text.contains(LINEAR), "{case}: {foreign}");
        // The operator's own models are others, too.
        let is_of_a_model =
            names_a_model(&route) && !route.path.starts_with("/lantern/v1/archives");
        if is_of_a_model && route.permission != Permission::Register {
            let right = answer(&server, listener, &route, LINEAR, Shown::Right).await;
            assert!(
                !is_refusal(&right) && right.status != 404,
                "{case}: {right}"
            );
        }
    }
    assert!(refused > 200 && alike > 50, "{refused} {alike}");
    assert_eq!(predict(&server, "acme-all").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_is_there_for_whoever_asks() {
    let place = Place::new();
    let server = place.server().await;
    for (listener, target) in [
        (Listener::Management, ("GET", "/models")),
        (Listener::Inference, ("GET", "/v1/models")),
        (Listener::Inference, ("POST", "/v2/repository/index")),
        (Listener::Inference, ("GET", "/v2/models/stats")),
        (Listener::Metrics, ("GET", "/metrics")),
    ] {
        let shows = async |key: &str| {
            let answer = ask(&server, listener, target, Some(&bearer(key))).await;
            assert_eq!(answer.status, 200, "{target:?} {key}: {answer}");
            String::from_utf8_lossy(&answer.body).contains(LINEAR)
        };
        assert!(shows("acme-all").await, "{target:?}");
        assert!(!shows("globex-all").await, "{target:?}");
    }
    for (listener, target) in [
        (Listener::Management, ("GET", "/models")),
        (Listener::Inference, ("GET", "/v2/models/stats")),
    ] {
        let answer = ask(&server, listener, target, Some(&bearer("acme-other"))).await;
        assert_eq!(answer.status, 200, "{answer}");
        assert!(!answer.text().contains(LINEAR), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_certain_models_opens_no_others() {
    let place = Place::new();
    let server = place.server().await;
    let (status, text) = predict(&server, "acme-other").await;
    assert_eq!(
        (status, text.contains("Model not found: linear")),
        (404, true)
    );
    let unregistered = ("DELETE", "/models/linear");
    let other = Some(bearer("acme-other"));
    let answer = ask(
        &server,
        Listener::Management,
        unregistered,
        other.as_deref(),
    )
    .await;
    assert_eq!(answer.status, 404, "{answer}");
    for url in [
        "other2.mar",
        "other-.mar",
        "other-secret.mar",
        "other-1.0.mar/../linear-1.0.mar",
    ] {
        Model::linear()
            .in_process()
            .pack_into(&place.home("acme").join("archives"));
        let _ = std::fs::copy(
            place
                .home("acme")
                .join("archives")
                .join(Model::linear().url()),
            place.home("acme").join("archives").join(url),
        );
        let target = format!("/models?url={url}&model_name=other");
        let answer = ask(
            &server,
            Listener::Management,
            ("POST", &target),
            other.as_deref(),
        )
        .await;
        assert_eq!(answer.status, 404, "{url}: {answer}");
    }
    let refused = register(&server, "acme-other").await;
    assert_eq!(refused.status, 404, "{refused}");
    assert_eq!(predict(&server, "acme-predict").await.0, 200);
}

/// An operator's key of the server's own making.
pub fn operators(server: &TestServer, scope: &str) -> String {
    let text = std::fs::read(server.directory().join("key_file.json")).unwrap();
    let keys: serde_json::Value = serde_json::from_slice(&text).unwrap();
    bearer(keys[scope]["key"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_says_twice_it_does_not_say() {
    let place = Place::new();
    let server = place.server().await;
    let operator = operators(&server, "management");
    let acme = bearer("acme-all");
    let status = async |headers: &[(&str, String)]| {
        let mut request = server.request(Listener::Management, "GET", "/models/linear");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        Answer::of(request.send().await.unwrap()).await.status
    };
    let key = |key: &str| ("authorization", key.to_owned());
    let tenant = |name: &str| ("x-lantern-tenant", name.to_owned());
    assert_eq!(status(&[key(&acme)]).await, 200);
    assert_eq!(status(&[key(&operator), tenant("acme")]).await, 200);
    for headers in [
        &[key(&acme), key("Bearer x-x-x-x-x")][..],
        &[key("Bearer x-x-x-x-x"), key(&acme)],
        &[key(&acme), key(&acme)],
        &[key(&operator), tenant("acme"), tenant("globex")],
        &[key(&operator), tenant("globex"), tenant("acme")],
    ] {
        assert_eq!(status(headers).await, 400, "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_reaches_every_tenant_by_its_name() {
    let place = Place::new();
    let server = place.server().await;
    let asked = async |listener, (method, path): (&str, &str), scope, tenant: Option<&str>| {
        let mut request = server.request(listener, method, path);
        request = request
            .header("authorization", operators(&server, scope))
            .body(ROW);
        if let Some(tenant) = tenant {
            request = request.header("x-lantern-tenant", tenant);
        }
        Answer::of(request.send().await.unwrap()).await
    };
    let describe = (
        Listener::Management,
        ("GET", "/models/linear"),
        "management",
    );
    let run = (
        Listener::Inference,
        ("POST", "/predictions/linear"),
        "inference",
    );
    for (listener, target, scope) in [describe, run] {
        for (tenant, status) in [
            (None, 404),
            (Some("acme"), 200),
            (Some("globex"), 404),
            (Some("initech"), 404),
            (Some(""), 404),
        ] {
            let answer = asked(listener, target, scope, tenant).await;
            assert_eq!(answer.status, status, "{target:?} {tenant:?}: {answer}");
        }
    }
    // Whoever shows a tenant's key may name that tenant, and no other, there or not.
    for (tenant, status) in [("acme", 200), ("globex", 400), ("initech", 400)] {
        let request = server
            .request(Listener::Management, "GET", "/models/linear")
            .header("authorization", bearer("acme-all"))
            .header("x-lantern-tenant", tenant);
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{tenant}: {answer}");
        assert_eq!(is_refusal(&answer), status == 400);
    }
    let scraped = asked(Listener::Metrics, ("GET", "/metrics"), "management", None).await;
    let line = scraped
        .text()
        .lines()
        .find(|line| line.contains(LINEAR))
        .unwrap()
        .to_owned();
    assert!(line.contains("tenant=\"acme\""), "{line}");
    let own = ask(
        &server,
        Listener::Metrics,
        ("GET", "/metrics"),
        Some(&bearer("acme-observe")),
    )
    .await;
    let line = own
        .text()
        .lines()
        .find(|line| line.contains(LINEAR))
        .unwrap()
        .to_owned();
    assert!(!line.contains("tenant"), "{line}");
    assert!(
        !own.text().lines().any(|line| line.starts_with("process_")),
        "the server's own are the operator's"
    );
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    first: String,
    #[prost(string, tag = "2")]
    second: String,
}

/// A message that names `model` where a message of `row` does.
fn message(row: &GrpcRoute, model: &str) -> Named {
    let (first, second) = match row.method {
        // A page's numbers, and what is registered, stand where others have the name.
        "ListModels" | "RegisterModel" | "RepositoryIndex" => ("", ""),
        "RepositoryModelLoad" | "RepositoryModelUnload" => ("", model),
        "SetDefault" => (model, "1.0"),
        _ => (model, ""),
    };
    Named {
        first: first.to_owned(),
        second: second.to_owned(),
    }
}

/// The code and the text of a call, or what it answers.
pub async fn call(
    server: &TestServer,
    listener: Listener,
    row: &GrpcRoute,
    model: &str,
    shown: Shown,
) -> (Code, String) {
    let mut client = tonic::client::Grpc::new(server.channel(listener));
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(message(row, model));
    if let Some(authorization) = authorization(shown, row.permission) {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", authorization.parse().unwrap());
    }
    let path = format!("/{}/{}", row.service, row.method).parse().unwrap();
    let codec = tonic_prost::ProstCodec::<Named, Answered>::default();
    match client.unary(request, path, codec).await {
        Ok(answer) => (Code::Ok, format!("{:?}", answer.into_inner())),
        Err(status) => (status.code(), status.message().replace(LINEAR, NOBODY)),
    }
}

/// Any answer.
#[derive(Clone, PartialEq, prost::Message)]
struct Answered {}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_model_is_an_unknown_one_in_every_grpc_method() {
    let place = Place::new();
    let server = place.server().await;
    let (mut refused, mut alike) = (0, 0);
    for listener in [Listener::GrpcInference, Listener::GrpcManagement] {
        for row in GrpcTable::new(listener, true).routes() {
            let case = format!("{}/{}", row.service, row.method);
            for shown in REFUSED_KEYS {
                if row.permission == Permission::Nothing {
                    continue;
                }
                let (code, text) = call(&server, listener, row, LINEAR, shown).await;
                assert_eq!(
                    (code, text.as_str()),
                    (Code::PermissionDenied, REFUSED),
                    "{case} {shown:?}"
                );
                refused += 1;
            }
            // A stream that nobody ends answers nobody.
            if row.messages != Messages::One || row.method == "Watch" {
                continue;
            }
            let foreign = call(&server, listener, row, LINEAR, Shown::OtherTenants).await;
            let unknown = call(&server, listener, row, NOBODY, Shown::OtherTenants).await;
            assert_eq!(foreign, unknown, "{case}");
            alike += 1;
            if row.permission != Permission::Register {
                let right = call(&server, listener, row, LINEAR, Shown::Right).await;
                assert_ne!(right.0, Code::NotFound, "{case}: {right:?}");
                assert!(!right.1.contains("Model not found"), "{case}: {right:?}");
            }
        }
    }
    assert!(refused > 100 && alike > 30, "{refused} {alike}");
}

/// Asks again and again until it `is_so`.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let asked = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(30), asked).await;
    assert!(asked.is_ok(), "not so after 30 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_come_change_and_go_without_a_restart() {
    let place = Place::new();
    let server = place.server().await;
    let status = async |key: &str| predict(&server, key).await.0;
    assert_eq!(status("initech-all").await, 400);
    let initech = format!("  initech:\n    keys:\n{}", key("initech-all", EVERYTHING));
    place.write(&[acme(), globex(), initech.clone()]);
    until("initech is there", async || {
        status("initech-all").await == 404
    })
    .await;
    assert_eq!(status("acme-all").await, 200);

    let rotated = format!(
        "  acme:\n    keys:\n{}{}",
        key("acme-all", EVERYTHING),
        key("acme-new", EVERYTHING)
    );
    place.write(&[rotated.clone(), globex(), initech]);
    until("the new key opens", async || {
        status("acme-new").await == 200
    })
    .await;
    assert_eq!(
        (status("acme-all").await, status("acme-predict").await),
        (200, 400)
    );

    place.write(&[
        rotated.replace("  acme:\n", "  acme:\n    suspended: true\n"),
        globex(),
    ]);
    until("acme is suspended", async || {
        status("acme-new").await == 503
    })
    .await;
    assert_eq!(status("initech-all").await, 400);
    place.write(&[rotated, globex()]);
    until("acme is back", async || status("acme-new").await == 200).await;

    place.write(&[globex()]);
    until("acme is gone", async || status("acme-new").await == 400).await;
    until("and what it had", async || !place.home("acme").exists()).await;
    assert!(place.home("globex").exists());
    place.write(&[acme(), globex()]);
    until("another acme is there", async || {
        status("acme-all").await == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_leaves_the_old_one_in_force() {
    let place = Place::new();
    let server = place.server().await;
    let broken = acme().replace("label: acme-predict", "labl: acme-predict");
    let is_refused = async || {
        let target = ("GET", "/metrics");
        let key = operators(&server, "management");
        let scraped = ask(&server, Listener::Metrics, target, Some(&key)).await;
        scraped
            .text()
            .contains("\nlantern_tenants_file_refused 1.0\n")
    };
    assert!(!is_refused().await);
    place.write(&[broken]);
    until("it is read and refused", is_refused).await;
    assert_eq!(predict(&server, "acme-all").await.0, 200);
    let added = format!("  initech:\n    keys:\n{}", key("initech-all", EVERYTHING));
    place.write(&[acme(), globex(), added]);
    until("a later file holds", async || {
        predict(&server, "initech-all").await.0 == 404
    })
    .await;
    assert!(!is_refused().await);
    assert_eq!(predict(&server, "acme-all").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_of_a_tenant_that_goes_is_answered() {
    let place = Place::new();
    let archives = place.home("globex").join("archives");
    std::fs::create_dir_all(&archives).unwrap();
    let slow = Model::new("hostile")
        .artifact("linear.onnx")
        .named(LINEAR)
        .in_process();
    slow.pack_into(&archives);
    let server = place.builder().start().await;
    let registered = register(&server, "globex-all").await;
    assert_eq!(registered.status, 200, "{registered}");
    let request = server
        .request(Listener::Inference, "POST", "/predictions/linear")
        .header("authorization", bearer("globex-all"))
        .body("loop");
    let answer = tokio::spawn(request.send());
    let in_flight = async || {
        let shown = ask(
            &server,
            Listener::Metrics,
            ("GET", "/metrics"),
            Some(&bearer("globex-all")),
        )
        .await;
        let text = shown.text().to_owned();
        text.lines()
            .any(|line| line.starts_with("lantern_requests_in_flight{") && line.ends_with(" 1.0"))
    };
    until("the request is in flight", in_flight).await;
    place.write(&[acme()]);
    until("globex is gone", async || {
        predict(&server, "globex-all").await.0 == 400
    })
    .await;
    let answer = answer.await.unwrap().unwrap();
    assert_ne!(answer.status(), 503);
    until("and what it had", async || !place.home("globex").exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_registered_is_there_after_a_restart() {
    let place = Place::new();
    let mut server = place.server().await;
    assert_eq!(predict(&server, "acme-all").await.0, 200);
    server.stop().await;
    let mut server = place.builder().start().await;
    until("it serves again", async || {
        predict(&server, "acme-all").await.0 == 200
    })
    .await;
    assert_eq!(predict(&server, "globex-all").await.0, 404);
    // A tenant that went while no server ran leaves nothing.
    server.stop().await;
    place.write(&[globex()]);
    let _server = place.builder().start().await;
    until("it is gone", async || !place.home("acme").exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_refuse_with_the_numbers() {
    let place = Place::new();
    let quotas = "    quotas: {models: 1, versions: 1, workers: 2, requests_in_flight: 0}\n";
    place.write(&[format!("{}{quotas}", acme()), globex()]);
    let archives = place.home("acme").join("archives");
    Model::linear()
        .in_process()
        .named("other")
        .pack_into(&archives);
    let server = place.server().await;
    let management = async |method: &str, path: &str| {
        ask(
            &server,
            Listener::Management,
            (method, path),
            Some(&bearer("acme-all")),
        )
        .await
    };
    for (method, path, says) in [
        (
            "POST",
            "/models?url=other-1.0.mar",
            "quota is 1 models: it has 1, and this asks for 1 more",
        ),
        (
            "PUT",
            "/models/linear?min_worker=3",
            "quota is 2 workers: it has 1, and this asks for 2 more",
        ),
        (
            "PUT",
            "/models/linear?min_worker=3&synchronous=true",
            "quota is 2 workers: it has 1, and this asks for 2 more",
        ),
    ] {
        let refused = management(method, path).await;
        assert_eq!(refused.status, 403, "{refused}");
        assert!(refused.text().contains(says), "{refused}");
    }
    assert_eq!(
        management("PUT", "/models/linear?min_worker=2&synchronous=true")
            .await
            .status,
        200
    );
    let (status, text) = predict(&server, "acme-all").await;
    assert_eq!(status, 429, "{text}");
    assert!(
        text.contains("0 requests in flight, which is its quota"),
        "{text}"
    );
    let mut request = tonic::Request::new(PredictionsRequest {
        model_name: LINEAR.to_owned(),
        ..PredictionsRequest::default()
    });
    let key = bearer("acme-all").parse().unwrap();
    request.metadata_mut().insert("authorization", key);
    let mut client = InferenceClient::new(server.channel(Listener::GrpcInference));
    let status = client.predictions(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let details = rpc::Status::decode(status.details()).unwrap();
    let info = rpc::RetryInfo::decode(&*details.details[0].value).unwrap();
    assert_eq!(info.retry_delay.unwrap().seconds, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_archives_are_its_own() {
    let place = Place::new();
    let server = place.builder().in_store(Model::linear()).start().await;
    let globex = bearer("globex-all");
    let whole = place
        .home("acme")
        .join("archives")
        .join(Model::linear().url());
    let above = format!("../../acme/archives/{}", Model::linear().url());
    for url in [
        Model::linear().url(),
        whole.display().to_string(),
        format!("file://{}", whole.display()),
        above,
    ] {
        let target = format!("/models?url={url}");
        let answer = ask(
            &server,
            Listener::Management,
            ("POST", &target),
            Some(&globex),
        )
        .await;
        assert!(
            answer.status == 404 || answer.status == 400,
            "{url}: {answer}"
        );
    }
    assert_eq!(register(&server, "acme-all").await.status, 200);
}

#[test]
fn tenants_need_tokens() {
    let place = Place::new();
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
        .args(["config", "--disable-token-auth", "--set"])
        .arg(format!("lantern_tenants={}", place.file().display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&started.stderr);
    assert!(
        !started.status.success() && text.contains("needs tokens"),
        "{text}"
    );
}

#[test]
fn the_file_is_checked_as_a_server_would() {
    let place = Place::new();
    let check = |file: &Path| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"));
        command
            .args(["tenants", "check"])
            .arg(file)
            .output()
            .unwrap()
    };
    let sound = check(&place.file());
    assert!(sound.status.success());
    assert_eq!(
        String::from_utf8_lossy(&sound.stdout),
        "acme: keys 6\nglobex: keys 1\n"
    );
    place.write(&[acme().replace("scopes: [observe]", "scopes: [watch]")]);
    let wrong = check(&place.file());
    let text = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success());
    assert!(
        text.contains("tenants.yaml:7: tenants.acme.keys[3].scopes must be of predict"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_scalings_at_once_do_not_exceed_the_quota() {
    let place = Place::new();
    place.write(&[format!("{}    quotas: {{workers: 4}}\n", acme()), globex()]);
    Model::linear()
        .in_process()
        .named("other")
        .pack_into(&place.home("acme").join("archives"));
    let server = place.server().await;
    let management = async |method: &str, path: &str| {
        let key = bearer("acme-all");
        ask(&server, Listener::Management, (method, path), Some(&key)).await
    };
    let registered = management("POST", "/models?url=other-1.0.mar&initial_workers=1").await;
    assert_eq!(registered.status, 200, "{registered}");
    for _ in 0..5 {
        for path in [
            "/models/other?min_worker=2",
            "/models/other?min_worker=3",
            "/models/linear?min_worker=2",
            "/models/linear?min_worker=1",
            "/models/other?min_worker=1",
            "/models/linear?min_worker=3",
        ] {
            management("PUT", path).await;
            let mut most = 0;
            for model in ["linear", "other"] {
                let shown = management("GET", &format!("/models/{model}")).await;
                most += shown.json()[0]["maxWorkers"].as_u64().unwrap();
            }
            assert!(most <= 4, "{path}: {most}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_was_lowered_keeps_nobody_from_giving_workers_back() {
    let place = Place::new();
    let server = place.server().await;
    let scaled = async |workers: usize| {
        let path = format!("/models/linear?min_worker={workers}&synchronous=true");
        let target = ("PUT", path.as_str());
        let key = bearer("acme-all");
        ask(&server, Listener::Management, target, Some(&key))
            .await
            .status
    };
    assert_eq!(scaled(3).await, 200);
    place.write(&[format!("{}    quotas: {{workers: 1}}\n", acme()), globex()]);
    // Until the quota holds it gets one more each time.
    let asked = std::sync::atomic::AtomicUsize::new(4);
    let more = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    until("the quota holds", async || scaled(more()).await == 403).await;
    assert_eq!(scaled(2).await, 200);
    assert_eq!(scaled(3).await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_key_opens_no_more() {
    for (after, code) in [
        (
            acme().replace("  acme:\n", "  acme:\n    suspended: true\n"),
            Code::Unavailable,
        ),
        (
            acme()
                .replace("label: acme-all", "label: x")
                .replace(&KeyDigest::of(b"acme-all").hex(), &"0".repeat(64)),
            Code::PermissionDenied,
        ),
    ] {
        let place = Place::new();
        let server = place.server().await;
        let (send, requests) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        let mut request = tonic::Request::new(requests);
        let key = bearer("acme-all").parse().unwrap();
        request.metadata_mut().insert("authorization", key);
        let one = || PredictionsRequest {
            model_name: LINEAR.to_owned(),
            sequence_id: Some("s".to_owned()),
            input: [("body".to_owned(), ROW.into())].into(),
            ..PredictionsRequest::default()
        };
        let mut client = InferenceClient::new(server.channel(Listener::GrpcInference));
        let answers = client.stream_predictions2(request);
        send.send(one()).await.unwrap();
        let mut answers = answers.await.unwrap().into_inner();
        let first = answers.message().await.unwrap().unwrap();
        assert!(first.status.is_none_or(|status| status.code == 0));
        place.write(&[after, globex()]);
        until("the key opens nothing", async || {
            predict(&server, "acme-all").await.0 != 200
        })
        .await;
        send.send(one()).await.unwrap();
        let ended = answers.message().await.unwrap_err();
        assert_eq!(ended.code(), code, "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_changes_nothing() {
    let place = Place::new();
    let mut server = place.server().await;
    let other = place.directory.path().join("other.yaml");
    std::fs::write(&other, format!("tenants:\n{}", globex())).unwrap();
    let directory = place.directory.path().join("tenants");
    for file in [place.file(), other.clone()] {
        let second = std::process::Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args([
                "serve",
                "--ncs",
                "--set",
                "inference_address=http://127.0.0.1:0",
            ])
            .arg("--set")
            .arg(format!("lantern_tenants={}", file.display()))
            .arg("--set")
            .arg(format!("lantern_tenants_dir={}", directory.display()))
            .current_dir(server.directory())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(
            !second.status.success() && text.contains("another server"),
            "{text}"
        );
    }
    assert_eq!(predict(&server, "acme-all").await.0, 200);
    assert!(place.home("acme").exists());
    server.stop().await;
    // Nor does one with another file take what is not its own.
    let _server = TestServer::builder()
        .set("disable_token_authorization=false")
        .set(&format!("lantern_tenants={}", other.display()))
        .set(&format!("lantern_tenants_dir={}", directory.display()))
        .start()
        .await;
    assert!(place.home("acme").join("archives").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_removes_nobody() {
    let place = Place::new();
    let server = place.server().await;
    let whole = std::fs::read(place.file()).unwrap();
    for (index, length) in [0, 8, 9, 15, 30].into_iter().enumerate() {
        std::fs::write(place.file(), &whole[..length]).unwrap();
        let name = format!("initech-{index}");
        place.write(&[
            acme(),
            globex(),
            format!("  {name}:\n    keys:\n{}", key(&name, EVERYTHING)),
        ]);
        let is_there = async || predict(&server, &name).await.0 == 404;
        until("the whole one holds", is_there).await;
        assert_eq!(predict(&server, "acme-all").await.0, 200, "{length}");
    }
    assert!(place.home("acme").join("archives").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_others_can_write_to_is_nobodys_home() {
    use std::os::unix::fs::PermissionsExt as _;

    let place = Place::new();
    let open = std::fs::Permissions::from_mode(0o775);
    std::fs::set_permissions(place.home("acme"), open).unwrap();
    let server = place.builder().start().await;
    assert_eq!(predict(&server, "acme-all").await.0, 400);
    assert_eq!(predict(&server, "globex-all").await.0, 404);
    let closed = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(place.home("acme"), closed).unwrap();
    until("acme is served", async || {
        predict(&server, "acme-all").await.0 == 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_tenant_still_asks_for_changes_nothing() {
    let place = Place::new();
    let server = place.server().await;
    let archives = place.home("acme").join("archives");
    Model::linear()
        .in_process()
        .named("other")
        .pack_into(&archives);
    let body = r#"{"url": "other-1.0.mar", "initial_workers": 1}"#;
    let (begun, rest) = body.split_at(10);
    let mut client = server.connect(Listener::Management).await;
    let head = format!(
        "POST /models HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{begun}",
        bearer("acme-all"),
        body.len()
    );
    client.write_all(head.as_bytes()).await.unwrap();
    place.write(&[globex()]);
    until("acme is gone", async || !place.home("acme").exists()).await;
    place.write(&[acme(), globex()]);
    until("another acme is there", async || {
        predict(&server, "acme-all").await.0 == 404
    })
    .await;
    Model::linear()
        .in_process()
        .named("other")
        .pack_into(&archives);
    client.write_all(rest.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    assert_ne!(&status, b"HTTP/1.1 200");
    let listed = ask(
        &server,
        Listener::Management,
        ("GET", "/models"),
        Some(&bearer("acme-all")),
    )
    .await;
    assert!(!listed.text().contains("other"), "{listed}");
    drop(client);
    let aside = std::fs::read_dir(place.directory.path().join("tenants/.removed")).unwrap();
    assert_eq!(aside.count(), 1, "what the first had is put aside");
}

/// Sends an archive, or the rest of one.
pub async fn send(
    server: &TestServer,
    key: &str,
    name: &str,
    more: &str,
    bytes: Vec<u8>,
) -> Answer {
    let path = format!("/lantern/v1/archives/{name}?{more}");
    let request = server
        .request(Listener::Management, "PUT", &path)
        .header("authorization", bearer(key))
        .body(bytes);
    Answer::of(request.send().await.unwrap()).await
}

pub fn sha256(bytes: &[u8]) -> String {
    KeyDigest::of(bytes).hex()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_was_sent_is_served() {
    let place = Place::new();
    let server = place.builder().api(|api| api.max_request_size = 1000);
    let server = server.start().await;
    let packed = Model::linear().in_process().packed();
    assert!(packed.len() > 1000);
    let digest = format!("sha256={}", sha256(&packed));
    let name = Model::linear().url();
    let sent = send(&server, "globex-all", &name, &digest, packed.clone()).await;
    assert_eq!(sent.status, 201, "{sent}");
    assert_eq!(sent.json()["bytes"], packed.len());
    assert_eq!(register(&server, "globex-all").await.status, 200);
    assert_eq!(predict(&server, "globex-all").await.0, 200);
    let key = bearer("globex-all");
    let asked = async |method: &str, path: &str| {
        ask(&server, Listener::Management, (method, path), Some(&key)).await
    };
    let listed = asked("GET", "/lantern/v1/archives").await;
    assert_eq!(listed.json()["archives"][0]["name"], name.as_str());
    let path = format!("/lantern/v1/archives/{name}");
    assert_eq!(asked("GET", &path).await.json()["bytes"], packed.len());
    let again = send(&server, "globex-all", &name, &digest, packed.clone()).await;
    assert_eq!(again.status, 409, "{again}");
    let used = asked("DELETE", &path).await;
    assert_eq!(used.status, 409, "{used}");
    assert_eq!(asked("DELETE", "/models/linear").await.status, 200);
    assert_eq!(asked("DELETE", &path).await.status, 200);
    assert_eq!(asked("DELETE", &path).await.status, 404);
    let others = ask(
        &server,
        Listener::Management,
        ("GET", "/lantern/v1/archives"),
        Some(&bearer("acme-all")),
    )
    .await;
    assert_eq!(
        others.json()["archives"].as_array().unwrap().len(),
        1,
        "{others}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_broke_off_is_gone_on_with() {
    let place = Place::new();
    let server = place.builder().start().await;
    let packed = Model::linear().in_process().packed();
    let (digest, name) = (sha256(&packed), Model::linear().url());
    let half = packed.len() / 2;
    let mut client = server.connect(Listener::Management).await;
    let head = format!(
        "PUT /lantern/v1/archives/{name}?sha256={digest} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n",
        bearer("acme-all"),
        packed.len()
    );
    // The archive that acme has from the start is called so.
    let name = format!("again-{name}");
    let head = head.replace(&Model::linear().url(), &name);
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&packed[..half]).await.unwrap();
    let key = bearer("acme-all");
    let path = format!("/lantern/v1/archives/{name}?sha256={digest}");
    let arrived = async || {
        let answer = ask(&server, Listener::Management, ("GET", &path), Some(&key)).await;
        answer.json()["arrived"].as_u64().unwrap()
    };
    until("half of it is there", async || {
        arrived().await == half as u64
    })
    .await;
    // One at a time.
    let other = send(
        &server,
        "acme-all",
        "x.mar",
        &format!("sha256={}", sha256(b"")),
        Vec::new(),
    )
    .await;
    assert_eq!(other.status, 409, "{other}");
    drop(client);
    let more = |offset: usize| format!("sha256={digest}&offset={offset}");
    let wrong = async || {
        send(
            &server,
            "acme-all",
            &name,
            &more(half - 1),
            packed[half..].to_vec(),
        )
        .await
    };
    until("the first is over", async || {
        wrong().await.text().contains("offset must be")
    })
    .await;
    let rest = send(
        &server,
        "acme-all",
        &name,
        &more(half),
        packed[half..].to_vec(),
    )
    .await;
    assert_eq!(rest.status, 201, "{rest}");
    let stored = std::fs::read(place.home("acme").join("archives").join(&name)).unwrap();
    assert!(stored == packed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_it_should_be_gets_no_name() {
    let place = Place::new();
    let packed = Model::linear().in_process().packed();
    let quota = format!("    quotas: {{archive_bytes: {}}}\n", packed.len());
    place.write(&[acme(), format!("{}{quota}", globex())]);
    let server = place.builder().start().await;
    let digest = format!("sha256={}", sha256(&packed));
    for (name, more, bytes, status) in [
        ("a.mar", digest.clone(), b"another".to_vec(), 400),
        (
            "a.mar",
            format!("sha256={}", sha256(b"no archive")),
            b"no archive".to_vec(),
            400,
        ),
        ("a.mar", format!("sha256={}", sha256(b"")), Vec::new(), 400),
        ("a.mar", String::new(), packed.clone(), 400),
        ("a.mar", "sha256=abc".to_owned(), packed.clone(), 400),
        ("a.zip", digest.clone(), packed.clone(), 400),
        (".a.mar", digest.clone(), packed.clone(), 400),
        ("a..b.mar", digest.clone(), packed.clone(), 400),
        ("..%2fa.mar", digest.clone(), packed.clone(), 404),
        ("a%0a.mar", digest.clone(), packed.clone(), 400),
        ("a.mar", digest.clone(), vec![0; packed.len() + 1], 403),
        ("a.mar", format!("{digest}&offset=abc"), packed.clone(), 400),
        ("a.mar", format!("{digest}&offset=1"), packed.clone(), 409),
    ] {
        let sent = send(&server, "globex-all", name, &more, bytes).await;
        assert_eq!(sent.status, status, "{name} {more}: {sent}");
    }
    let listed = ask(
        &server,
        Listener::Management,
        ("GET", "/lantern/v1/archives"),
        Some(&bearer("globex-all")),
    )
    .await;
    assert_eq!(
        listed.json()["archives"].as_array().unwrap().len(),
        0,
        "{listed}"
    );
    let whole = send(&server, "globex-all", "a.mar", &digest, packed.clone()).await;
    assert_eq!(whole.status, 201, "as many bytes as the quota: {whole}");
    let one_more = send(&server, "globex-all", "b.mar", &digest, packed.clone()).await;
    assert_eq!(one_more.status, 403, "{one_more}");
    // Nobody else's store is open, and the operator's own is not one of these.
    for key in ["acme-other", "acme-predict", "acme-observe"] {
        let sent = send(&server, key, "a.mar", &digest, packed.clone()).await;
        assert!(sent.status == 404 || sent.status == 400, "{key}: {sent}");
    }
    let own = server
        .request(
            Listener::Management,
            "PUT",
            &format!("/lantern/v1/archives/a.mar?{digest}"),
        )
        .header("authorization", operators(&server, "management"))
        .body(packed.clone());
    assert_eq!(own.send().await.unwrap().status(), 404);
    let for_acme = server
        .request(
            Listener::Management,
            "PUT",
            &format!("/lantern/v1/archives/a.mar?{digest}"),
        )
        .header("authorization", operators(&server, "management"))
        .header("x-lantern-tenant", "acme")
        .body(packed);
    assert_eq!(for_acme.send().await.unwrap().status(), 201);
}

/// The commands of a document, in order.
fn commands(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap());
    blocks.collect()
}

/// A port that is free now.
fn free_port() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port().to_string()
}

#[test]
fn the_document_can_be_followed() {
    // What its commands need beside ours; the Makefile asks for Python alone.
    let is_there = |program: &&str| {
        let found = std::process::Command::new(program)
            .arg("--version")
            .output();
        found.is_ok_and(|found| found.status.success())
    };
    if !["bash", "curl", "sha256sum", "python3"]
        .iter()
        .all(is_there)
    {
        eprintln!(
            "SKIPPED: docs/tenants.md is not followed without bash, curl, sha256sum and python3"
        );
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/tenants.md")).unwrap();
    let directory = TempDir::new().unwrap();
    Model::linear().in_process().pack_into(directory.path());
    let packed = directory.path().join(Model::linear().url());
    std::fs::rename(packed, directory.path().join("linear.mar")).unwrap();
    let [inference, management] = [free_port(), free_port()];
    let addresses = format!(
        "lantern serve --set inference_address=http://127.0.0.1:{inference} --set management_address=http://127.0.0.1:{management} \
         --set metrics_address=http://127.0.0.1:0 --set grpc_inference_port=0 --set grpc_management_port=0 "
    );
    let commands = commands(&document)
        .replace("lantern serve ", &addresses)
        .replace(":8080/", &format!(":{inference}/"))
        .replace(":8081/", &format!(":{management}/"));
    let program = Path::new(env!("CARGO_BIN_EXE_lantern")).parent().unwrap();
    let script = format!(
        "set -eu\nPATH={}:$PATH\n{commands}\nkill %1\nwait",
        program.display()
    );
    let followed = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(directory.path())
        .env("HOME", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&followed.stderr);
    let log = std::fs::read_to_string(directory.path().join("serve.log")).unwrap_or_default();
    assert!(
        followed.status.success(),
        "{said}\n{}\n{log}",
        String::from_utf8_lossy(&followed.stdout)
    );
}
