//! HTTP over TLS and Unix sockets, and several APIs on one address.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use lantern::api::Listener;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;

use crate::support::{Answer, Builder, Model, ROW, TestServer};

const PING: &str = "GET /ping HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Certificate and key in files of a directory.
struct Identity {
    directory: TempDir,
}

impl Identity {
    fn new() -> Self {
        let identity = Self {
            directory: TempDir::new().unwrap(),
        };
        identity.renew();
        identity
    }

    /// Writes another certificate to the same files, and returns it.
    fn renew(&self) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let path = |file| self.directory.path().join(file);
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("certificate.pem"), made.cert.pem()).unwrap();
        made.cert.der().to_vec()
    }

    /// What a client that trusts it trusts.
    fn roots(&self) -> RootCertStore {
        let file = self.directory.path().join("certificate.pem");
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(file).unwrap();
        roots.add(certificate).unwrap();
        roots
    }

    fn settings(&self) -> [String; 2] {
        let directory = self.directory.path().display();
        [
            format!("certificate_file={directory}/certificate.pem"),
            format!("private_key_file={directory}/key.pem"),
        ]
    }
}

async fn https(settings: &[String]) -> TestServer {
    let mut builder = TestServer::builder().model(Model::linear());
    for listener in ["inference", "management", "metrics"] {
        builder = builder.set(&format!("{listener}_address=https://127.0.0.1:0"));
    }
    for setting in settings {
        builder = builder.set(setting);
    }
    builder.start().await
}

/// The certificate that the server shows to a new client.
async fn shown(server: &TestServer) -> Vec<u8> {
    let url = format!("https://{}/ping", server.address(Listener::Inference));
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .tls_info(true);
    let answer = client.build().unwrap().get(url).send().await.unwrap();
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
    info.peer_certificate().unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_speaks_tls() {
    let server = https(&Identity::new().settings()).await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
    assert_eq!(server.management("GET", "/models").await.status, 200);
    assert!(server.sample("Requests2XX{").await.is_some());
}

/// More bodies at a time than there are threads, each larger than a connection moves at once then.
async fn bodies_beside_one_another(builder: Builder, scheme: &str, client: reqwest::ClientBuilder) {
    let server = builder.start().await;
    let url = format!(
        "{scheme}://{}/predictions/echo",
        server.address(Listener::Inference)
    );
    let client = client.danger_accept_invalid_certs(true).build().unwrap();
    let bodies = (0..8u8).map(|number| {
        let body = (0..3_000_001u32)
            .map(|at| (at % 251) as u8 ^ number)
            .collect::<Vec<_>>();
        let request = client.post(&url).header("content-type", "text/plain");
        let request = request.body(body.clone()).send();
        async move {
            let answer = Answer::of(request.await.unwrap()).await;
            assert_eq!(answer.status, 200, "{number}: {}", answer.text());
            assert!(answer.body == body, "{number}: {} bytes", answer.body.len());
        }
    });
    futures_util::future::join_all(bodies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_beside_one_another_arrive_whole() {
    let echo = |model: Model| TestServer::builder().model(model);
    let secure = "inference_address=https://127.0.0.1:0";
    for is_in_process in [false, true] {
        let model = || {
            let model = Model::new("echo");
            if is_in_process {
                model.in_process()
            } else {
                model
            }
        };
        let client = reqwest::Client::builder;
        bodies_beside_one_another(echo(model()), "http", client()).await;
        bodies_beside_one_another(echo(model()), "http", client().http2_prior_knowledge()).await;
        bodies_beside_one_another(echo(model()).set(secure), "https", client().http1_only()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_one_is_made() {
    let server = https(&[]).await;
    assert_eq!(server.predict("linear", ROW).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_told_to_use_tls() {
    let server = https(&[]).await;
    for request in [
        PING,
        "POST /predictions/linear HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n{",
    ] {
        let answer = server
            .raw_and_no_more(Listener::Inference, request.as_bytes())
            .await;
        insta::assert_snapshot!("plain_http_on_tls", answer.replace('\r', ""));
    }
    assert_eq!(server.inference("GET", "/ping").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_under_way_are_shown() {
    let server = https(&[]).await;
    let until = async |count: f64| {
        let shown = async {
            while server.sample("lantern_tls_handshakes").await != Some(count) {
                tokio::task::yield_now().await;
            }
        };
        let shown = tokio::time::timeout(Duration::from_secs(20), shown).await;
        assert!(shown.is_ok(), "there are not {count}");
    };
    until(0.0).await;
    let mut client = server.connect(Listener::Inference).await;
    // The first byte of a record, of which no more comes.
    client.write_all(&[22]).await.unwrap();
    until(1.0).await;
    drop(client);
    until(0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let identity = Identity::new();
    let server = https(&identity.settings()).await;
    let before = shown(&server).await;
    let renewed = identity.renew();
    assert_ne!(before, renewed);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while shown(&server).await != renewed {
        assert!(
            tokio::time::Instant::now() < until,
            "the certificate is old"
        );
        tokio::task::yield_now().await;
    }
    std::fs::write(identity.directory.path().join("key.pem"), "broken").unwrap();
    assert_eq!(shown(&server).await, renewed);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_are_spoken_and_a_version_of_http_is_agreed_on() {
    let identity = Identity::new();
    let server = https(&identity.settings()).await;
    for version in [&TLS12, &TLS13] {
        for (offered, expected) in [
            (vec!["http/1.1", "h2"], Some(Some("h2".to_owned()))),
            (vec!["http/1.1"], Some(Some("http/1.1".to_owned()))),
            (vec![], Some(None)),
            (vec!["h2"], Some(Some("h2".to_owned()))),
            (vec!["spdy/3"], None),
        ] {
            let agreed = agreed(&server, &identity, version, &offered).await;
            assert_eq!(agreed, expected, "{version:?} {offered:?}");
        }
    }
}

/// The protocol that the server agrees on with a client that offers `protocols`; `None` if it ends the handshake.
async fn agreed(
    server: &TestServer,
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> Option<Option<String>> {
    let mut cfg = ClientConfig::builder_with_protocol_versions(&[version])
        .with_root_certificates(identity.roots())
        .with_no_client_auth();
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    cfg.alpn_protocols = protocols.collect();
    let stream = server.connect(Listener::Inference).await;
    let connector = TlsConnector::from(Arc::new(cfg));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name, stream).await.ok()?;
    let protocol = stream.get_ref().1.alpn_protocol();
    Some(protocol.map(|name| String::from_utf8(name.to_vec()).unwrap()))
}

/// An authority, and the certificate of a client by it.
struct Authority {
    certificate: String,
    client: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let client = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let client = client.signed_by(&key, &issuer).unwrap().pem();
        Self {
            certificate,
            client: format!("{client}{}", key.serialize_pem()),
        }
    }

    /// A client that shows its certificate.
    fn client(&self) -> reqwest::Client {
        let identity = reqwest::Identity::from_pem(self.client.as_bytes()).unwrap();
        anonymous().identity(identity).build().unwrap()
    }
}

/// A client without a certificate, which makes a connection for each request.
fn anonymous() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .pool_max_idle_per_host(0)
}

/// Whether the server answers `client`.
async fn is_answered(server: &TestServer, listener: Listener, client: &reqwest::Client) -> bool {
    let url = format!("https://{}/nowhere", server.address(listener));
    client.get(url).send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_a_certificate_of_the_authority_are_refused_in_the_handshake() {
    let (identity, known, stranger) = (Identity::new(), Authority::new(), Authority::new());
    let file = identity.directory.path().join("clients.pem");
    std::fs::write(&file, &known.certificate).unwrap();
    let mut settings = identity.settings().to_vec();
    settings.push(format!("lantern_client_ca={}", file.display()));
    settings.push("enable_grpc_ssl=true".to_owned());
    let server = https(&settings).await;
    let (known_client, stranger_client) = (known.client(), stranger.client());
    let nobody = anonymous().build().unwrap();
    for listener in [Listener::Inference, Listener::Management, Listener::Metrics] {
        assert!(is_answered(&server, listener, &known_client).await);
        assert!(!is_answered(&server, listener, &stranger_client).await);
        assert!(!is_answered(&server, listener, &nobody).await);
    }
    // Over gRPC, which is HTTP/2 on its own socket.
    for (authority, is_served) in [
        (Some(&known), true),
        (Some(&stranger), false),
        (None, false),
    ] {
        let has_met = grpc_handshake(&server, &identity, authority).await;
        assert_eq!(has_met, is_served);
    }
    // The authority is replaced while the server runs.
    std::fs::write(&file, &stranger.certificate).unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_answered(&server, Listener::Inference, &stranger_client).await {
        assert!(tokio::time::Instant::now() < until, "the authority is old");
        tokio::task::yield_now().await;
    }
    assert!(!is_answered(&server, Listener::Inference, &known_client).await);
    // A file that is broken changes nothing.
    std::fs::write(&file, "broken").unwrap();
    assert!(is_answered(&server, Listener::Inference, &stranger_client).await);
}

/// Whether the gRPC listener goes on after the handshake with a client of `authority`. In TLS 1.3 a client learns that it was
/// refused when it reads.
async fn grpc_handshake(
    server: &TestServer,
    identity: &Identity,
    authority: Option<&Authority>,
) -> bool {
    let builder = ClientConfig::builder().with_root_certificates(identity.roots());
    let mut cfg = match authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let pem = authority.client.as_bytes();
            let chain = CertificateDer::pem_slice_iter(pem)
                .map(Result::unwrap)
                .collect();
            let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    cfg.alpn_protocols = vec![b"h2".to_vec()];
    let stream = server.connect(Listener::GrpcInference).await;
    let connector = TlsConnector::from(Arc::new(cfg));
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(mut stream) = connector.connect(name, stream).await else {
        return false;
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    // The server answers with its settings.
    stream.write_all(preface).await.is_ok() && stream.read_exact(&mut [0; 9]).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_serve_http_and_go_with_the_server() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("inference.sock");
    let mut server = TestServer::builder()
        .set(&format!("inference_address=unix:{}", path.display()))
        .set("lantern_socket_mode=0660")
        .start()
        .await;
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(PING.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        server.access_log().contains("/unix \"GET /ping"),
        "{}",
        server.access_log()
    );
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_serves_predictions_models_and_metrics() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("all.sock");
    let server = TestServer::builder()
        .model(Model::linear())
        .set(&format!("inference_address=unix:{}", path.display()))
        .set(&format!("management_address=unix:{}", path.display()))
        .start()
        .await;
    let client = reqwest::Client::builder().unix_socket(path.clone());
    let client = client.build().unwrap();
    for (method, target, expected) in [
        ("GET", "/ping", 200),
        ("POST", "/predictions/linear", 200),
        ("GET", "/models/linear/1.0", 200),
        ("GET", "/models/linear/all", 200),
        ("PUT", "/models/linear/1.0/set-default", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nowhere", 404),
    ] {
        let request = client.request(method.parse().unwrap(), format!("http://x{target}"));
        let answer = Answer::of(request.body(ROW).send().await.unwrap()).await;
        assert_eq!(
            answer.status,
            expected,
            "{method} {target}: {}",
            answer.text()
        );
    }
    // Metrics still have an address of their own.
    assert!(server.sample("Requests2XX{").await.is_some());
}
