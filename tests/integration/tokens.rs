//! Tokens and model control: what each key may do, on every route.

use std::time::Duration;

use lantern::api::Listener;
use lantern::api::routes::grpc::{GrpcRoute, GrpcTable, Messages};
use lantern::api::routes::{Permission, Route, RouteTable, Surface, Verbs};
use serde_json::Value;
use tonic::Code;

use crate::support::{Answer, Builder, Model, ROW, TestServer};

pub const REFUSED: &str =
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly";
const NOT_ROTATED: &str =
    "Token Authentication failed. Token either incorrect, expired, or not provided correctly";

/// The key that a request sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    Wrong,
    Inference,
    Management,
    Api,
}

const ALL: [Shown; 5] = [
    Shown::Nothing,
    Shown::Wrong,
    Shown::Inference,
    Shown::Management,
    Shown::Api,
];

fn builder() -> Builder {
    TestServer::builder().set("disable_token_authorization=false")
}

/// A server whose keys have expired at once.
async fn expired() -> TestServer {
    builder()
        .set("token_expiration_min=0.0000001")
        .start()
        .await
}

fn key(server: &TestServer, scope: &str) -> String {
    let text = std::fs::read(server.directory().join("key_file.json")).unwrap();
    let keys: Value = serde_json::from_slice(&text).unwrap();
    keys[scope]["key"].as_str().unwrap().to_owned()
}

fn header(server: &TestServer, shown: Shown) -> Option<String> {
    let key = match shown {
        Shown::Nothing => return None,
        Shown::Wrong => "x".repeat(43),
        Shown::Inference => key(server, "inference"),
        Shown::Management => key(server, "management"),
        Shown::Api => key(server, "API"),
    };
    Some(format!("Bearer {key}"))
}

pub async fn ask(
    server: &TestServer,
    listener: Listener,
    (method, path): (&str, &str),
    authorization: Option<&str>,
) -> Answer {
    let mut request = server.request(listener, method, path);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// Whether the answer is a refusal for want of a key: by its text, in whichever JSON the route's protocol has.
pub fn is_refusal(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    text.contains(REFUSED) || text.contains(NOT_ROTATED)
}

fn opens(shown: Shown, permission: Permission) -> bool {
    match permission {
        Permission::Nothing | Permission::Observe => true,
        Permission::Predict => shown == Shown::Inference,
        Permission::Manage | Permission::Register | Permission::Logs => shown == Shown::Management,
        Permission::Rotate => shown == Shown::Api,
        Permission::Either => matches!(shown, Shown::Inference | Shown::Management),
    }
}

/// A request that the row takes; of a model that does not exist.
fn request(route: &Route) -> (&'static str, String) {
    request_for(route, "nobody")
}

/// A request that the row takes, for that model.
pub fn request_for(route: &Route, model: &str) -> (&'static str, String) {
    let method = match route.verbs {
        Verbs::Any | Verbs::ButOptions | Verbs::Get => "GET",
        Verbs::Post => "POST",
        Verbs::Put => "PUT",
        Verbs::Delete => "DELETE",
        Verbs::Options => "OPTIONS",
        Verbs::Connect => "CONNECT",
    };
    let mut path = route.path.trim_end_matches("/*").to_owned();
    for (name, value) in [
        ("{model}", model),
        ("{workflow}", "nobody"),
        ("{tenant}", model),
        ("{version}", "1.0"),
        ("{any}", "1.0"),
    ] {
        path = path.replace(name, value);
    }
    assert!(
        !path.contains('{'),
        "{path}: the test does not know this parameter"
    );
    (
        method,
        if path.is_empty() {
            "/".to_owned()
        } else {
            path
        },
    )
}

/// Every row of every listener, in the surface that tests serve.
fn rows() -> Vec<(Listener, Route)> {
    rows_with(false)
}

/// The same, with those for tenants.
pub fn rows_with(tenants: bool) -> Vec<(Listener, Route)> {
    let surface = Surface {
        oip: true,
        sagemaker: false,
        kserve: false,
        tenants,
    };
    let listeners = [Listener::Inference, Listener::Management, Listener::Metrics];
    listeners
        .into_iter()
        .flat_map(|listener| {
            let rows = RouteTable::new(&[listener], surface).routes().to_vec();
            rows.into_iter().map(move |route| (listener, route))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_for_its_key() {
    let server = builder().api(|api| api.oip = true).start().await;
    let mut refused = 0;
    for (listener, route) in rows() {
        let (method, path) = request(&route);
        for shown in ALL {
            // With the right key this would replace the key that the test uses.
            if route.permission == Permission::Rotate && shown == Shown::Api {
                continue;
            }
            let authorization = header(&server, shown);
            let answer = ask(&server, listener, (method, &path), authorization.as_deref()).await;
            let case = format!("{} {method} {path} {shown:?}", listener.name());
            assert_eq!(
                !is_refusal(&answer),
                opens(shown, route.permission),
                "{case}: {answer}"
            );
            if is_refusal(&answer) {
                assert_eq!(answer.status, 400, "{case}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_keys_that_have_expired() {
    let server = expired().await;
    for (listener, route) in rows() {
        let (method, path) = request(&route);
        for shown in [Shown::Inference, Shown::Management] {
            let authorization = header(&server, shown);
            let answer = ask(&server, listener, (method, &path), authorization.as_deref()).await;
            let is_free = matches!(route.permission, Permission::Nothing | Permission::Observe);
            assert_eq!(
                is_refusal(&answer),
                !is_free,
                "{method} {path} {shown:?}: {answer}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_torchserves_whatever_the_path() {
    let server = builder().start().await;
    for (listener, target) in [
        (Listener::Inference, ("POST", "/predictions/m")),
        (Listener::Inference, ("GET", "/nowhere")),
        (Listener::Inference, ("GET", "/token?type=inference")),
        (Listener::Management, ("GET", "/models")),
        (Listener::Management, ("PATCH", "/models")),
        (Listener::Management, ("GET", "/nowhere")),
    ] {
        let answer = ask(&server, listener, target, None).await;
        assert_eq!(answer.status, 400, "{target:?}");
        let expected =
            serde_json::json!({"code": 400, "type": "InvalidKeyException", "message": REFUSED});
        assert_eq!(answer.json(), expected, "{target:?}");
    }
    for target in [("GET", "/"), ("PUT", "/")] {
        assert_eq!(
            ask(&server, Listener::Inference, target, None).await.status,
            405
        );
    }
    let known = header(&server, Shown::Inference);
    let answer = ask(
        &server,
        Listener::Inference,
        ("GET", "/token?type=inference"),
        known.as_deref(),
    )
    .await;
    assert_eq!(answer.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_documents_need_no_key() {
    let server = builder().start().await;
    for (listener, target) in [
        (Listener::Inference, ("GET", "/ping")),
        (Listener::Inference, ("OPTIONS", "/")),
        (Listener::Inference, ("GET", "/api-description")),
        (Listener::Management, ("OPTIONS", "/")),
        (Listener::Management, ("GET", "/api-description")),
        (Listener::Metrics, ("GET", "/metrics")),
    ] {
        assert_eq!(
            ask(&server, listener, target, None).await.status,
            200,
            "{target:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_matched_as_torchserve_does() {
    let server = builder().start().await;
    let key = key(&server, "management");
    for (value, expected) in [
        (format!("Bearer {key}"), 200),
        (format!("Bearer    {key}"), 200),
        (format!("bearer {key}"), 400),
        (format!("Bearer{key}"), 400),
        (format!("Bearer {key} x"), 400),
        (format!("Basic {key}"), 400),
        (key.clone(), 400),
        ("Bearer ".to_owned() + &"k".repeat(5000), 400),
    ] {
        let answer = ask(
            &server,
            Listener::Management,
            ("GET", "/models"),
            Some(&value),
        )
        .await;
        assert_eq!(answer.status, expected, "{value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_keys_register_predict_and_unregister() {
    let server = builder().in_store(Model::linear()).start().await;
    let management = header(&server, Shown::Management);
    let inference = header(&server, Shown::Inference);
    let url = format!("/models?url={}&initial_workers=1", Model::linear().url());
    let registered = ask(
        &server,
        Listener::Management,
        ("POST", &url),
        management.as_deref(),
    )
    .await;
    assert_eq!(registered.status, 200, "{registered}");
    let predicted = server
        .request(Listener::Inference, "POST", "/predictions/linear")
        .header("authorization", inference.unwrap())
        .body(ROW);
    assert_eq!(predicted.send().await.unwrap().status(), 200);
    let target = ("DELETE", "/models/linear");
    let gone = ask(&server, Listener::Management, target, management.as_deref()).await;
    assert_eq!(gone.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_ends_the_old_one_at_once() {
    let server = builder().start().await;
    let api = header(&server, Shown::Api);
    for (kind, shown, probe) in [
        (
            "management",
            Shown::Management,
            (Listener::Management, ("GET", "/models")),
        ),
        (
            "inference",
            Shown::Inference,
            (Listener::Inference, ("GET", "/nowhere")),
        ),
    ] {
        let before = header(&server, shown);
        let target = format!("/token?type={kind}");
        let rotated = ask(
            &server,
            Listener::Management,
            ("POST", &target),
            api.as_deref(),
        )
        .await;
        assert_eq!((rotated.status, rotated.text()), (200, "\n"));
        assert_eq!(rotated.header("content-type"), Some("application/json"));
        let after = header(&server, shown);
        assert_ne!(before, after);
        let (listener, target) = probe;
        assert!(is_refusal(
            &ask(&server, listener, target, before.as_deref()).await
        ));
        assert!(!is_refusal(
            &ask(&server, listener, target, after.as_deref()).await
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_are_for_who_has_the_api_key_and_names_a_kind() {
    let server = builder().start().await;
    let before = [key(&server, "inference"), key(&server, "management")];
    for (target, shown) in [
        ("/token?type=inference", Shown::Nothing),
        ("/token?type=inference", Shown::Wrong),
        ("/token?type=inference", Shown::Inference),
        ("/token?type=management", Shown::Management),
        ("/token", Shown::Api),
        ("/token?type=", Shown::Api),
        ("/token?type=API", Shown::Api),
        ("/token?type=nonsense", Shown::Api),
    ] {
        let authorization = header(&server, shown);
        let answer = ask(
            &server,
            Listener::Management,
            ("GET", target),
            authorization.as_deref(),
        )
        .await;
        let expected =
            serde_json::json!({"code": 400, "type": "InvalidKeyException", "message": NOT_ROTATED});
        assert_eq!(answer.json(), expected, "{target} {shown:?}");
    }
    assert_eq!(
        before,
        [key(&server, "inference"), key(&server, "management")]
    );
    // TorchServe looks for the word in any header; here it has to be in the path.
    let listed = server
        .request(Listener::Management, "GET", "/models")
        .header("authorization", header(&server, Shown::Management).unwrap())
        .header("x-note", "/token");
    assert_eq!(listed.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_there_is_no_token_api_and_no_file() {
    let server = TestServer::builder().start().await;
    let target = ("GET", "/token?type=inference");
    assert_eq!(
        ask(&server, Listener::Management, target, None)
            .await
            .status,
        404
    );
    assert!(!server.directory().join("key_file.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_keys_are_read_again_when_they_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.json");
    let write = |key: &str| {
        let text = format!(r#"{{"keys": [{{"key": "{key}", "opens": ["management"]}}]}}"#);
        std::fs::write(&path, text).unwrap();
    };
    write("from-the-vault");
    let setting = format!("lantern_key_file={}", path.display());
    let server = builder().set(&setting).start().await;
    let models = ("GET", "/models");
    let ask = |key: &'static str| ask(&server, Listener::Management, models, Some(key));
    assert_eq!(ask("Bearer from-the-vault").await.status, 200);
    write("the-next-of-them");
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while ask("Bearer the-next-of-them").await.status != 200 {
        assert!(tokio::time::Instant::now() < until, "the keys are old");
        tokio::task::yield_now().await;
    }
    assert_eq!(ask("Bearer from-the-vault").await.status, 400);
    assert!(!server.directory().join("key_file.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_stay_as_they_are_where_the_model_api_is_off() {
    let server = TestServer::builder().api(|api| {
        api.enable_model_api = false;
        api.oip = true;
    });
    let server = server.model(Model::linear()).start().await;
    for (_, route) in rows()
        .iter()
        .filter(|(_, route)| route.permission == Permission::Register)
    {
        let (method, path) = request(route);
        let listener = if path.starts_with("/v2") {
            Listener::Inference
        } else {
            Listener::Management
        };
        let answer = ask(&server, listener, (method, &path), None).await;
        assert_eq!(answer.status, 405, "{method} {path}: {answer}");
        assert!(
            answer
                .text()
                .contains("Requested method is not allowed, please refer to API document.")
        );
    }
    for target in [
        ("PUT", "/models/linear?min_worker=1&synchronous=true"),
        ("PUT", "/models/linear/1.0/set-default"),
        ("GET", "/models/linear"),
        ("GET", "/models"),
    ] {
        assert_eq!(
            ask(&server, Listener::Management, target, None)
                .await
                .status,
            200,
            "{target:?}"
        );
    }
}

/// The code and the text of a call of `row` with an empty message, from the head or from the trailers.
async fn call(
    server: &TestServer,
    listener: Listener,
    row: &GrpcRoute,
    shown: Shown,
) -> (Code, String) {
    let mut client = tonic::client::Grpc::new(server.channel(listener));
    client.ready().await.unwrap();
    let mut request = tonic::Request::new(());
    if let Some(authorization) = header(server, shown) {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", authorization.parse().unwrap());
    }
    let path = format!("/{}/{}", row.service, row.method).parse().unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    match client.unary(request, path, codec).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), status.message().to_owned()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_grpc_method_asks_for_its_key() {
    let server = builder().start().await;
    let dead = expired().await;
    let mut refused = 0;
    for listener in [Listener::GrpcInference, Listener::GrpcManagement] {
        for row in GrpcTable::new(listener, true).routes() {
            // A stream that nobody ends answers nobody who has a key; refusals do not wait for it.
            let answers = row.messages == Messages::One && row.method != "Watch";
            for shown in ALL {
                let opens = opens(shown, row.permission);
                if opens && !answers {
                    continue;
                }
                let (code, text) = call(&server, listener, row, shown).await;
                let case = format!("{}/{} {shown:?}: {code:?} {text}", row.service, row.method);
                assert_eq!(code == Code::PermissionDenied, !opens, "{case}");
                if !opens {
                    assert_eq!(text, REFUSED, "{case}");
                    refused += 1;
                }
                if row.permission != Permission::Nothing && opens {
                    let (code, _) = call(&dead, listener, row, shown).await;
                    assert_eq!(code, Code::PermissionDenied, "expired: {case}");
                }
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_stay_as_they_are_over_grpc_where_the_model_api_is_off() {
    let server = TestServer::builder().api(|api| api.enable_model_api = false);
    let server = server.start().await;
    let listener = Listener::GrpcManagement;
    for row in GrpcTable::new(listener, true).routes() {
        if row.permission == Permission::Register {
            let answer = call(&server, listener, row, Shown::Nothing).await;
            assert_eq!(
                answer,
                (Code::PermissionDenied, "Model API disabled".to_owned())
            );
        }
    }
}
