//! The audit log: a line for each call that manages, whoever makes it and however it ends.

use lantern::api::Listener;
use lantern::api::routes::Permission;
use lantern::api::routes::grpc::{GrpcTable, Messages};
use lantern::token::KeyDigest;
use serde_json::Value;

use crate::support::{Answer, Model, TestServer};
use crate::tenants::{Place, Shown, authorization, bearer, call, operators};
use crate::tokens::{ask, request_for, rows_with};

const SHOWN: [Shown; 6] = [
    Shown::Nothing,
    Shown::Wrong,
    Shown::Expired,
    Shown::WrongScope,
    Shown::OtherTenants,
    Shown::Right,
];

/// The keys of the test, none of which a line has.
const KEYS: [&str; 2] = ["x-x-x-x-x", "Bearer"];

const fn is_audited(permission: Permission) -> bool {
    matches!(
        permission,
        Permission::Manage | Permission::Register | Permission::Rotate | Permission::Logs
    )
}

/// Who a line says made the call, by the key that was shown.
fn check_principal(line: &Value, shown: Shown) {
    let (principal, tenant) = match shown {
        Shown::Nothing | Shown::Wrong => ("nobody", None),
        Shown::Expired | Shown::WrongScope | Shown::Right => ("tenant", Some("acme")),
        Shown::OtherTenants => ("tenant", Some("globex")),
    };
    assert_eq!(line["principal"], principal, "{line}");
    assert_eq!(line["tenant"].as_str(), tenant, "{line}");
    if let Some(label) = line["key"].as_str() {
        // In these tests a key's label is the key.
        let digest = KeyDigest::of(label.as_bytes()).hex();
        assert_eq!(line["key_sha256"], digest[..8], "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_that_manages_leaves_one_line() {
    let place = Place::new();
    let server = place.server().await;
    server.take_audit_log();
    let mut written = 0;
    for (listener, route) in rows_with(true) {
        for shown in SHOWN {
            let (method, path) = request_for(&route, "linear");
            let authorization = authorization(shown, route.permission);
            let answer = ask(&server, listener, (method, &path), authorization.as_deref()).await;
            let case = format!("{method} {path} {shown:?}: {answer}");
            let lines = server.take_audit_log();
            if !is_audited(route.permission) {
                assert_eq!(lines, [Value::Null; 0], "{case}");
                continue;
            }
            assert_eq!(lines.len(), 1, "{case}: {lines:?}");
            let line = &lines[0];
            assert_eq!(line["call"], format!("{method} {}", route.path), "{case}");
            assert_eq!(line["status"], answer.status, "{case}: {line}");
            assert_eq!(line["error"].is_string(), answer.status >= 400, "{line}");
            assert_eq!(
                line["request_id"].as_str(),
                answer.header("x-request-id"),
                "{line}"
            );
            assert!(
                line["client"].as_str().unwrap().starts_with("127.0.0.1:"),
                "{line}"
            );
            check_principal(line, shown);
            let text = line.to_string();
            assert!(!KEYS.iter().any(|key| text.contains(key)), "{line}");
            written += 1;
        }
    }
    assert!(written > 150, "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_does_every_such_method_of_grpc() {
    let place = Place::new();
    let server = place.server().await;
    server.take_audit_log();
    let mut written = 0;
    for listener in [Listener::GrpcInference, Listener::GrpcManagement] {
        for row in GrpcTable::new(listener, true).routes() {
            if row.messages != Messages::One || row.method == "Watch" {
                continue;
            }
            for shown in SHOWN {
                let (code, text) = call(&server, listener, row, "nobody", shown).await;
                let case = format!("{}/{} {shown:?}: {code:?} {text}", row.service, row.method);
                let lines = server.take_audit_log();
                if !is_audited(row.permission) {
                    assert_eq!(lines, [Value::Null; 0], "{case}");
                    continue;
                }
                assert_eq!(lines.len(), 1, "{case}: {lines:?}");
                let line = &lines[0];
                let name = format!("gRPC {}/{}", row.service, row.method);
                assert_eq!(line["call"], name, "{case}");
                let has_failed = code != tonic::Code::Ok;
                assert_eq!(
                    line["status"].as_u64().unwrap() >= 400,
                    has_failed,
                    "{line}"
                );
                assert_eq!(line["error"].is_string(), has_failed, "{line}");
                check_principal(line, shown);
                written += 1;
            }
        }
    }
    assert!(written > 50, "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_say_what_was_done_to_what() {
    let place = Place::new();
    let server = place.builder().start().await;
    let archive = place
        .home("acme")
        .join("archives")
        .join(Model::linear().url());
    let digest = KeyDigest::of(&std::fs::read(archive).unwrap()).hex();
    let all = bearer("acme-all");
    let asked = async |method: &str, path: &str| {
        let answer = ask(&server, Listener::Management, (method, path), Some(&all)).await;
        let mut lines = server.take_audit_log();
        assert_eq!(lines.len(), 1, "{lines:?}");
        (answer, lines.remove(0))
    };
    let (answer, line) = asked("POST", "/models?url=linear-1.0.mar&initial_workers=1").await;
    assert_eq!(answer.status, 200, "{answer}");
    let has = |line: &Value, fields: &[(&str, &str)]| {
        for (name, value) in fields {
            assert_eq!(line[*name], *value, "{line}");
        }
    };
    has(
        &line,
        &[
            ("principal", "tenant"),
            ("key", "acme-all"),
            ("tenant", "acme"),
            ("call", "POST /models"),
            ("model", "linear"),
            ("version", "1.0"),
            ("url", "linear-1.0.mar"),
            ("digest", &digest),
        ],
    );
    let (_, line) = asked("PUT", "/models/linear/1.0?min_worker=2").await;
    has(
        &line,
        &[
            ("call", "PUT /models/{model}/{version}"),
            ("model", "linear"),
            ("version", "1.0"),
        ],
    );
    let hidden = "/models?url=https://user:secret@example.invalid/a.mar?token=secret";
    let (answer, line) = asked("POST", hidden).await;
    assert_eq!(answer.status, 404, "{answer}");
    has(&line, &[("url", "https://example.invalid/a.mar")]);
    assert!(!line.to_string().contains("secret"), "{line}");
    let sha256 = KeyDigest::of(b"no archive").hex();
    let path = format!("/lantern/v1/archives/a.mar?sha256={sha256}");
    let (answer, line) = asked("PUT", &path).await;
    assert_eq!(answer.status, 400, "{answer}");
    has(
        &line,
        &[
            ("call", "PUT /lantern/v1/archives/{model}"),
            ("archive", "a.mar"),
            ("digest", &sha256),
        ],
    );
    // What a client names is a value, whatever it holds.
    let (_, line) = asked("GET", "/models/a%22,%22principal%22:%22operator%0a").await;
    has(
        &line,
        &[
            ("principal", "tenant"),
            ("model", "a\",\"principal\":\"operator\n"),
            ("error", "ModelNotFound"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_calls_name_the_key_and_the_tenant() {
    let place = Place::new();
    let server = place.server().await;
    server.take_audit_log();
    for (tenant, status) in [(Some("acme"), 200), (None, 404), (Some("initech"), 404)] {
        let mut request = server
            .request(Listener::Management, "GET", "/models/linear")
            .header("authorization", operators(&server, "management"));
        if let Some(tenant) = tenant {
            request = request.header("x-lantern-tenant", tenant);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{answer}");
        let lines = server.take_audit_log();
        let line = &lines[0];
        assert_eq!(line["principal"], "operator", "{line}");
        assert_eq!(line["key"], "management", "{line}");
        let named = tenant.filter(|_| status == 200);
        assert_eq!(line["tenant"].as_str(), named, "{line}");
    }
    // Without tokens nobody is known, and calls are written down all the same.
    let open = TestServer::with(Model::linear()).await;
    assert_eq!(open.management("GET", "/models").await.status, 200);
    let lines = open.take_audit_log();
    assert_eq!(lines[0]["principal"], "nobody", "{lines:?}");
}
