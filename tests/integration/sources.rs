//! Registration from URLs: what may be fetched, how it is served, and which files are left in the model store.

use std::fs;

use serde_json::json;

use crate::support::origin::{Origin, header, whole_or_rest};
use crate::support::{Answer, Model, Place, TestServer};

fn raw() -> Model {
    Model::new("passthrough").named("raw").without_workers()
}

/// A server that may fetch from `origin`.
async fn allowing(origin: &Origin) -> TestServer {
    let allowed = format!("allowed_urls={}", origin.url("/models/.*"));
    TestServer::builder().set(&allowed).start().await
}

async fn register(server: &TestServer, url: &str, more: &str) -> Answer {
    let url: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
    server
        .management("POST", &format!("/models?url={url}{more}"))
        .await
}

fn refused(status: u16, kind: &str, message: &str) -> (u16, serde_json::Value) {
    (
        status,
        json!({"code": status, "type": kind, "message": message}),
    )
}

fn seen(answer: &Answer) -> (u16, serde_json::Value) {
    (answer.status, answer.json())
}

fn files(server: &TestServer) -> Vec<String> {
    let mut names = Vec::new();
    for directory in [server.store(), server.store().join(".lantern")] {
        let entries = fs::read_dir(directory).into_iter().flatten();
        names.extend(entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    }
    names.retain(|name| name != ".lantern");
    names.sort();
    names
}

#[tokio::test]
async fn a_fetched_archive_stays_as_long_as_its_version() {
    let origin = Origin::serving(raw().packed()).await;
    let server = allowing(&origin).await;
    let url = origin.url("/models/raw.mar?X-Amz-Signature=secret");
    let answer = register(&server, &url, "&initial_workers=1").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(files(&server), ["raw.mar"]);
    let described = server.management("GET", "/models/raw").await.json();
    assert_eq!(described[0]["modelUrl"], url);
    let again = register(&server, &url, "").await;
    let exists = "Model file already exists raw.mar";
    assert_eq!(
        seen(&again),
        refused(500, "InternalServerException", exists)
    );
    assert_eq!(server.management("DELETE", "/models/raw").await.status, 200);
    assert_eq!(files(&server), Vec::<String>::new());
    assert_eq!(register(&server, "raw.mar", "").await.status, 404);
}

#[tokio::test]
async fn archives_of_the_operators_stay() {
    let server = TestServer::builder().in_store(raw()).start().await;
    assert_eq!(register(&server, &raw().url(), "").await.status, 200);
    assert_eq!(server.management("DELETE", "/models/raw").await.status, 200);
    assert_eq!(files(&server), [raw().url()]);
}

#[tokio::test]
async fn nothing_is_left_of_a_registration_that_is_refused() {
    let origin = Origin::serving(raw().packed()).await;
    let server = allowing(&origin).await;
    assert_eq!(
        register(&server, &origin.url("/models/raw.mar"), "")
            .await
            .status,
        200
    );
    let twice = register(&server, &origin.url("/models/other.mar"), "").await;
    let conflict = "Model version 1.0 is already registered for model raw";
    assert_eq!(
        seen(&twice),
        refused(409, "ConflictStatusException", conflict)
    );
    assert_eq!(files(&server), ["raw.mar"]);
    let misnamed = register(
        &server,
        &origin.url("/models/bad.mar"),
        "&model_name=..%2fx",
    )
    .await;
    assert_eq!(misnamed.status, 400);
    assert_eq!(files(&server), ["raw.mar"]);
}

#[tokio::test]
async fn nothing_is_left_of_what_does_not_load_or_is_no_archive() {
    let broken = Model::linear().named("broken").artifact("broken.onnx");
    for (bytes, status) in [(broken.packed(), 500), (b"junk".to_vec(), 400)] {
        let origin = Origin::serving(bytes).await;
        let server = allowing(&origin).await;
        let answer = register(&server, &origin.url("/models/x.mar"), "&initial_workers=1").await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(files(&server), Vec::<String>::new());
        assert_eq!(register(&server, "x.mar", "").await.status, 404);
    }
}

#[tokio::test]
async fn a_pinned_digest_is_checked_wherever_the_archive_is_from() {
    use sha2::{Digest as _, Sha256};
    let bytes = raw().packed();
    let digest = Sha256::digest(&bytes)
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let origin = Origin::serving(bytes.clone()).await;
    let server = allowing(&origin).await;
    fs::write(server.store().join("local.mar"), &bytes).unwrap();
    for source in [origin.url("/models/raw.mar"), "local.mar".to_owned()] {
        let wrong = register(&server, &format!("{source}#sha256={}", "0".repeat(64)), "").await;
        assert_eq!(wrong.status, 400);
        assert!(
            wrong
                .text()
                .contains("must have the SHA-256 that its URL pins"),
            "{}",
            wrong.text()
        );
        assert_eq!(files(&server), ["local.mar"]);
        let right = register(&server, &format!("{source}#sha256={digest}"), "").await;
        assert_eq!(right.status, 200, "{}", right.text());
        assert_eq!(server.management("DELETE", "/models/raw").await.status, 200);
    }
    let unreadable = register(&server, "local.mar#sha256=abc", "").await;
    assert_eq!(
        (unreadable.status, unreadable.json()["type"].as_str()),
        (400, Some("BadRequestException"))
    );
}

#[tokio::test]
async fn every_refusal_has_torchserves_words() {
    let origin = Origin::start(|_, _| {
        crate::support::origin::reply("404 Not Found", &["content-length: 0"], b"")
    })
    .await;
    let server = allowing(&origin).await;
    let missing = origin.url("/models/x.mar");
    let not_found = "ModelNotFoundException";
    for (url, expected) in [
        ("", refused(404, not_found, "empty url")),
        (
            "../x.mar",
            refused(
                404,
                not_found,
                "Relative path is not allowed in url: ../x.mar",
            ),
        ),
        (
            "nope.mar",
            refused(404, not_found, "Model not found at: nope.mar"),
        ),
        (
            "ftp://h/x.mar",
            refused(404, not_found, "Model not found at: ftp://h/x.mar"),
        ),
        (
            "/etc/passwd",
            refused(404, not_found, "Model not found at: /etc/passwd"),
        ),
        (
            "https://evil.example/x.mar",
            refused(
                404,
                not_found,
                "Given URL https://evil.example/x.mar does not match any allowed URL(s)",
            ),
        ),
        (
            missing.as_str(),
            refused(
                400,
                "DownloadArchiveException",
                &format!("Failed to download archive from: {missing}: its server answered 404"),
            ),
        ),
        (
            "http://localhost:aaaa",
            refused(
                400,
                "DownloadArchiveException",
                "Failed to download archive from: http://localhost:aaaa: it is not a URL",
            ),
        ),
    ] {
        assert_eq!(seen(&register(&server, url, "").await), expected);
        assert_eq!(files(&server), Vec::<String>::new());
    }
    let nothing = server.management("POST", "/models").await;
    let required = "Parameter url is required.";
    assert_eq!(
        seen(&nothing),
        refused(400, "BadRequestException", required)
    );
}

#[tokio::test]
async fn by_default_nothing_is_fetched() {
    let canary = Origin::serving(raw().packed()).await;
    let server = TestServer::builder().start().await;
    let port = canary.address().port();
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0.0.0.0"] {
        for path in ["x.mar", "../x.mar", "x.mar?a=b", "x.mar#sha256=00"] {
            let answer = register(&server, &format!("http://{host}:{port}/{path}"), "").await;
            assert!([400, 404].contains(&answer.status), "{}", answer.text());
        }
    }
    let file = server.store().parent().unwrap().join("secret.mar");
    fs::write(&file, raw().packed()).unwrap();
    let answer = register(&server, &format!("file://{}", file.display()), "").await;
    assert_eq!(answer.status, 404);
    assert_eq!(canary.heads(), Vec::<String>::new());
    assert_eq!(files(&server), Vec::<String>::new());
    assert_eq!(register(&server, "x.mar", "").await.status, 404);
}

#[tokio::test]
async fn certificates_are_those_that_the_machine_trusts() {
    let body = raw().packed();
    let (origin, certificate) =
        Origin::start_tls(move |head, _| whole_or_rest(head, &body, "\"v1\"")).await;
    let register = format!("/models?url={}", origin.secure_url("/models/raw.mar"));
    let place = Place::new(&[]).set(&format!("allowed_urls={}", origin.secure_url("/models/")));
    let trusted = place.directory.path().join("trusted.pem");
    fs::write(&trusted, certificate).unwrap();
    let life = place.start(&["--ncs"]).await;
    let (status, refusal) = life.ask("POST", &register).await;
    assert_eq!(
        (status, refusal["type"].as_str()),
        (400, Some("DownloadArchiveException"))
    );
    assert_eq!(origin.heads(), Vec::<String>::new());
    let place = place.variable("SSL_CERT_FILE", trusted.to_str().unwrap());
    let life = place.start(&["--ncs"]).await;
    let (status, answer) = life.ask("POST", &register).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        header(&origin.heads()[0], "accept-encoding"),
        Some("identity")
    );
}

#[tokio::test]
async fn what_the_operator_lists_is_fetched_at_the_first_start() {
    let origin = Origin::serving(raw().packed()).await;
    let place = Place::new(&[]);
    let listed = format!("named={}", origin.url("/models/raw.mar"));
    for _ in 0..2 {
        let mut life = place.start(&["--ncs", "--models", &listed]).await;
        life.read_until("1 of 1 models loaded").await;
        assert_eq!(life.ask("GET", "/models/named").await.0, 200);
    }
    assert_eq!(origin.heads().len(), 1);
}

#[tokio::test]
async fn links_of_the_store_are_followed_where_allowed_and_named_where_not() {
    let shared = tempfile::TempDir::new().unwrap();
    for name in ["open", "closed"] {
        let directory = shared.path().join(name);
        fs::create_dir(&directory).unwrap();
        Model::new("passthrough").named(name).pack_into(&directory);
    }
    let place = Place::new(&[Model::linear()]);
    for name in ["open.mar", "closed.mar"] {
        let (directory, _) = name.split_once('.').unwrap();
        let target = format!("{directory}/{directory}-1.0.mar");
        let target = shared.path().join(target);
        std::os::unix::fs::symlink(target, place.store().join(name)).unwrap();
    }
    let allowed = format!("allowed_urls=file://{}/open/", shared.path().display());
    let place = place.set(&allowed);
    let mut life = place.start(&["--ncs", "--models", "all"]).await;
    let refused = life.line("Not loaded: ").await;
    for part in [
        "closed.mar",
        "is a symbolic link to",
        "neither in the model store",
        "to allowed_urls",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    life.line("2 of 2 models loaded").await;
    assert_eq!(life.ask("GET", "/models/open").await.0, 200);
    let (status, answer) = life.ask("POST", "/models?url=closed.mar").await;
    let message = answer["message"].as_str().unwrap_or_default();
    assert_eq!(status, 404, "{answer}");
    assert!(
        message.starts_with("Model not found at: closed.mar: a symbolic link"),
        "{message}"
    );
    assert!(
        !message.contains(shared.path().to_str().unwrap()),
        "{message}"
    );
}

#[tokio::test]
async fn torchserves_own_allowed_urls_start_a_server_that_fetches_nothing() {
    let canary = Origin::serving(raw().packed()).await;
    let everything = "allowed_urls=file://.*|http(s)?://.*";
    let place = Place::new(&[]).set(everything);
    let mut life = place.start(&["--ncs"]).await;
    let said = life.line("allowed_urls has the pattern").await;
    assert!(
        said.contains("archives come from the model store alone"),
        "{said}"
    );
    let register = format!("/models?url={}", canary.url("/raw.mar"));
    assert_eq!(life.ask("POST", &register).await.0, 404);
    assert_eq!(canary.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn the_variables_of_the_process_name_the_proxy() {
    let body = raw().packed();
    let proxy = Origin::serving(body).await;
    // A name of a kind that no name server knows.
    let url = "http://models.invalid/raw.mar";
    let place = Place::new(&[])
        .set("allowed_urls=http://models.invalid/")
        .variable("http_proxy", &proxy.url(""));
    let life = place.start(&["--ncs"]).await;
    let (status, answer) = life.ask("POST", &format!("/models?url={url}")).await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        proxy.heads()[0].starts_with(&format!("GET {url} HTTP/1.1")),
        "{:?}",
        proxy.heads()
    );
}
