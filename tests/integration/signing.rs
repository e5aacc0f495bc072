//! Signed archives: made and verified by the program, asked for by a server for its tenants.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use lantern::api::Listener;
use lantern::signing::{Signer, SigningKey};
use tempfile::TempDir;

use crate::support::{Answer, Model, TestServer, fixture, guest};
use crate::tenants::{EVERYTHING, Place, acme, bearer, globex, key, predict, send, sha256, until};
use crate::tokens::ask;

/// An author's directory, with the keys `key.pem` and `other.pem`.
struct Author {
    directory: TempDir,
    signer: Signer,
    other: Signer,
}

impl Author {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let made = |name| SigningKey::create(&directory.path().join(name)).unwrap();
        let (signer, other) = (made("key.pem").signer(), made("other.pem").signer());
        Self {
            directory,
            signer,
            other,
        }
    }

    fn key(&self) -> SigningKey {
        SigningKey::load(&self.path("key.pem")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lantern(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(arguments)
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn pack(&self, more: &[&str]) -> Output {
        let (handler, weights) = (guest("linear"), fixture("linear.onnx"));
        let (handler, weights) = (handler.display().to_string(), weights.display().to_string());
        let flags = ["archive", "--model-name", "linear", "--version", "1.0"];
        let files = ["--handler", &handler, "--serialized-file", &weights];
        self.lantern(&[&flags[..], &files, more].concat())
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_key_is_made_once_and_shown() {
    let author = Author::new();
    let new = author.lantern(&["signer", "new", "new.pem"]);
    assert!(new.status.success(), "{}", stderr(&new));
    let mode = std::fs::metadata(author.path("new.pem")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let private = std::fs::read_to_string(author.path("new.pem")).unwrap();
    let secret = private.lines().nth(1).unwrap();
    assert!(!stdout(&new).contains(secret));
    let line = stdout(&new).lines().last().unwrap().to_owned();
    let shown = author.lantern(&["signer", "show", "new.pem"]);
    assert_eq!(line, format!("- {}", stdout(&shown).trim_end()));
    let again = author.lantern(&["signer", "new", "new.pem"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("new.pem cannot be made: File exists"));
    let after = std::fs::read_to_string(author.path("new.pem")).unwrap();
    assert_eq!(after, private);
}

#[test]
fn openssl_and_lantern_read_each_others_keys() {
    let openssl = |author: &Author, arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(author.directory.path());
        command
            .output()
            .ok()
            .filter(|output| output.status.success())
    };
    let author = Author::new();
    let made = ["genpkey", "-algorithm", "ed25519", "-out", "openssl.pem"];
    if openssl(&author, &made).is_none() {
        eprintln!("SKIPPED: keys are not compared without an openssl that knows ed25519");
        return;
    }
    let shown = author.lantern(&["signer", "show", "openssl.pem"]);
    assert!(stdout(&shown).starts_with("ed25519:"), "{}", stderr(&shown));
    let public = openssl(
        &author,
        &["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"],
    );
    let public = public.expect("openssl reads a key of lantern's").stdout;
    let key = <[u8; 32]>::try_from(&public[public.len() - 32..]).unwrap();
    assert_eq!(Signer::new(key), Ok(author.signer));
}

#[test]
fn archives_of_every_form_are_signed_and_verified() {
    let author = Author::new();
    for (format, name) in [
        ("default", "linear.mar"),
        ("tgz", "linear.tar.gz"),
        ("no-archive", "linear"),
    ] {
        let packed = author.pack(&["--sign", "key.pem", "--archive-format", format]);
        let text = stdout(&packed);
        assert!(
            text.contains(&format!("signer {}", author.signer)),
            "{text}{}",
            stderr(&packed)
        );
        assert!(author.path(name).exists());
    }
    let signer = author.signer.to_string();
    let archives = ["verify", "linear.mar", "linear.tar.gz", "linear"];
    for more in [&[][..], &["--signer", &signer]] {
        let verified = author.lantern(&[&archives[..], more].concat());
        assert_eq!(verified.status.code(), Some(0), "{}", stdout(&verified));
        let text = stdout(&verified);
        assert_eq!(text.matches("signature  good").count(), 3, "{text}");
        assert_eq!(text.matches(&signer).count(), 3, "{text}");
        let contents = text.lines().filter(|line| line.contains("contents"));
        let contents: std::collections::BTreeSet<_> = contents.collect();
        assert_eq!(contents.len(), 1, "{text}");
    }
    let inspected = stdout(&author.lantern(&["inspect", "linear.mar"]));
    assert!(
        inspected.contains(&format!("signer        {signer}")),
        "{inspected}"
    );
    let json = stdout(&author.lantern(&["inspect", "linear.mar", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["signer"], signer);
    assert_eq!(json["archiveDigest"].as_str().unwrap().len(), 64);
}

#[test]
fn the_same_key_and_files_make_the_same_bytes() {
    let author = Author::new();
    for (format, name) in [
        ("default", "linear.mar"),
        ("zip-store", "linear.mar"),
        ("tgz", "linear.tar.gz"),
    ] {
        let packed = || {
            let flags = ["--sign", "key.pem", "--archive-format", format, "--force"];
            let packed = author.pack(&flags);
            assert!(packed.status.success(), "{}", stderr(&packed));
            std::fs::read(author.path(name)).unwrap()
        };
        assert!(packed() == packed(), "{format}");
    }
}

#[test]
fn what_is_not_good_is_said_and_fails() {
    let author = Author::new();
    author.pack(&["--sign", "key.pem", "--archive-format", "no-archive"]);
    author.pack(&[]);
    let signature = author.path("linear/MAR-INF/SIGNATURE.json");
    let whole = std::fs::read_to_string(&signature).unwrap();
    let other = author.other.to_string();
    let verify = |arguments: &[&str], code: i32| {
        let verified = author.lantern(&[&["verify"], arguments].concat());
        let text = stdout(&verified) + &stderr(&verified);
        assert_eq!(verified.status.code(), Some(code), "{arguments:?}: {text}");
        text
    };
    assert!(verify(&["linear", "linear.mar"], 1).contains("NOT GOOD: nobody signed it"));
    let text = verify(&["linear", "--signer", &other], 1);
    assert!(
        text.contains("NOT GOOD: another signer signed it"),
        "{text}"
    );
    verify(
        &[
            "linear",
            "--signer",
            &other,
            "--signer",
            &author.signer.to_string(),
        ],
        0,
    );
    assert!(verify(&["linear", "none.mar"], 1).contains("NOT READ: Model not found at: none.mar"));
    verify(&[], 2);
    let text = verify(&["linear", "--signer", "key.pem"], 2);
    assert!(
        text.contains("must be ed25519: and 44 characters"),
        "{text}"
    );
    for (text, says) in [
        (whole[..100].to_owned(), "must be JSON"),
        (
            whole.replace("\"version\": 1", "\"version\": true"),
            "must be JSON",
        ),
        (
            whole.replace("\"algorithm\": \"", "\"algorithm\": \"x"),
            "of the algorithm ed25519",
        ),
        (whole.replace("==\"", "!!\""), "64 bytes in base64"),
        ("x".repeat(100_000), "is too large"),
    ] {
        std::fs::write(&signature, text).unwrap();
        let text = verify(&["linear"], 1);
        assert!(text.contains(says) && !text.contains("panicked"), "{text}");
        let inspected = author.lantern(&["inspect", "linear"]);
        assert_eq!(inspected.status.code(), Some(1));
        let text = stdout(&inspected) + &stderr(&inspected);
        let is_shown = text.contains("signer        (the signature is not good)");
        assert!(is_shown || says == "is too large", "{text}");
        assert!(text.contains(says), "{text}");
    }
    std::fs::write(&signature, whole).unwrap();
    verify(&["linear"], 0);
    std::fs::write(author.path("linear/more.txt"), "").unwrap();
    assert!(verify(&["linear"], 1).contains("must be as it was signed"));
}

#[test]
fn what_is_no_key_signs_nothing() {
    let author = Author::new();
    std::fs::write(author.path("public.pem"), author.signer.to_string()).unwrap();
    for (key, says) in [
        ("public.pem", "public.pem must hold an Ed25519 private key"),
        ("/dev/zero", "/dev/zero must hold an Ed25519 private key"),
        ("none.pem", "none.pem cannot be read: No such file"),
    ] {
        let refused = author.pack(&["--sign", key]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
        assert!(!author.path("linear.mar").exists());
    }
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(author.path("key.pem"), open).unwrap();
    let packed = author.pack(&["--sign", "key.pem"]);
    assert!(packed.status.success());
    assert!(stderr(&packed).contains("warning: others can read the private key in key.pem"));
}

fn keys() -> (Arc<SigningKey>, Arc<SigningKey>) {
    let directory = TempDir::new().unwrap();
    let made = |name| Arc::new(SigningKey::create(&directory.path().join(name)).unwrap());
    (made("a"), made("b"))
}

/// The tenant `acme`, of whom these signers are asked for.
fn acme_with(signers: &[&SigningKey]) -> String {
    let signers = signers.iter().map(|key| key.signer().to_string());
    let signers: Vec<_> = signers.collect();
    format!("{}    signers: [{}]\n", acme(), signers.join(", "))
}

async fn register(server: &TestServer, archive: &str) -> Answer {
    let url = format!("/models?url={archive}&initial_workers=1");
    let key = bearer("acme-all");
    ask(server, Listener::Management, ("POST", &url), Some(&key)).await
}

/// What Lantern's part of the description of a model says.
async fn described(server: &TestServer, model: &str) -> serde_json::Value {
    let (path, key) = (format!("/models/{model}"), bearer("acme-all"));
    let answer = ask(server, Listener::Management, ("GET", &path), Some(&key)).await;
    answer.json()[0]["lantern"].clone()
}

const REFUSED: &str = "must be signed by one of the tenant's signers, got ";

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_signers_registers_what_they_signed_alone() {
    let (ours, others) = keys();
    let place = Place::new();
    place.write(&[acme_with(&[&ours]), globex()]);
    let archives = place.home("acme").join("archives");
    let linear = Model::linear().in_process();
    let by = |key: &Arc<SigningKey>, name: &str| linear.clone().named(name).signed_with(key);
    let (good, foreign) = (by(&ours, "good"), by(&others, "foreign"));
    good.pack_into(&archives);
    foreign.pack_into(&archives);
    // A signed archive in a directory, of which a file was changed.
    let author = Author::new();
    let export = archives.display().to_string();
    let form = ["--sign", "key.pem", "--archive-format", "no-archive"];
    let packed = author.pack(&[&form[..], &["--export-path", &export]].concat());
    assert!(packed.status.success(), "{}", stderr(&packed));
    std::fs::write(archives.join("linear/linear.onnx"), "others").unwrap();
    place.write(&[acme_with(&[&ours, &author.key()]), globex()]);
    let server = place.builder().start().await;
    for (url, says) in [
        (linear.url().as_str(), format!("{REFUSED}no signature")),
        (
            foreign.url().as_str(),
            format!("{REFUSED}the signature of {}", others.signer()),
        ),
        ("linear", "must be as it was signed".to_owned()),
    ] {
        let refused = register(&server, url).await;
        assert_eq!(refused.status, 400, "{refused}");
        assert!(refused.text().contains(&says), "{refused}");
        assert!(
            refused.text().contains("InvalidModelException"),
            "{refused}"
        );
        assert!(
            !refused.text().contains(&ours.signer().to_string()),
            "{refused}"
        );
    }
    let registered = register(&server, &good.url()).await;
    assert_eq!(registered.status, 200, "{registered}");
    let shown = described(&server, "good").await;
    assert_eq!(shown["signer"], ours.signer().to_string());
    assert_eq!(shown["archiveDigest"].as_str().unwrap().len(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_nobody_asked_for_signed_is_not_taken() {
    let (ours, others) = keys();
    let place = Place::new();
    place.write(&[acme_with(&[&ours]), globex()]);
    let server = place.builder().start().await;
    let linear = Model::linear().in_process();
    for (model, status) in [
        (linear.clone(), 400),
        (linear.clone().signed_with(&others), 400),
        (linear.clone().signed_with(&ours), 201),
    ] {
        let packed = model.packed();
        let digest = format!("sha256={}", sha256(&packed));
        let sent = send(&server, "acme-all", "sent.mar", &digest, packed).await;
        assert_eq!(sent.status, status, "{sent}");
        assert_eq!(sent.text().contains(REFUSED), status == 400, "{sent}");
        let file = place.home("acme").join("archives").join("sent.mar");
        assert_eq!(file.exists(), status == 201);
    }
    // Of another tenant nobody asks for signers.
    let packed = linear.packed();
    let digest = format!("sha256={}", sha256(&packed));
    let sent = send(&server, "globex-all", "sent.mar", &digest, packed).await;
    assert_eq!(sent.status, 201, "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signers_are_asked_for_once_the_file_says_so() {
    let (ours, others) = keys();
    let place = Place::new();
    let mut server = place.builder().start().await;
    let linear = Model::linear().in_process();
    assert_eq!(register(&server, &linear.url()).await.status, 200);
    assert_eq!(
        described(&server, "linear").await["signer"],
        serde_json::Value::Null
    );
    place.write(&[acme_with(&[&ours]), globex()]);
    let unsigned = linear.clone().named("unsigned");
    unsigned.pack_into(&place.home("acme").join("archives"));
    // Until the file is read one is registered, and goes again.
    until("signers are asked for", async || {
        let answer = register(&server, &unsigned.url()).await;
        let path = ("DELETE", "/models/unsigned");
        let key = bearer("acme-all");
        ask(&server, Listener::Management, path, Some(&key)).await;
        answer.status == 400 && answer.text().contains(REFUSED)
    })
    .await;
    // What is registered stays, and may have more workers.
    let scaled = ("PUT", "/models/linear?min_worker=2&synchronous=true");
    let key = bearer("acme-all");
    let scaled = ask(&server, Listener::Management, scaled, Some(&key)).await;
    assert_eq!(scaled.status, 200, "{scaled}");
    assert_eq!(predict(&server, "acme-all").await.0, 200);

    // A server that starts restores what was signed by then.
    server.stop().await;
    let mut server = place.builder().start().await;
    until("it is not restored", async || {
        described(&server, "linear").await["state"] == "failed"
    })
    .await;
    let shown = described(&server, "linear").await;
    assert!(
        shown["reason"].as_str().unwrap().contains(REFUSED),
        "{shown}"
    );
    assert_ne!(predict(&server, "acme-all").await.0, 200);
    server.stop().await;
    let archives = place.home("acme").join("archives");
    linear.signed_with(&others).pack_into(&archives);
    place.write(&[acme_with(&[&ours, &others]), globex()]);
    let server = place.builder().start().await;
    until("it is restored", async || {
        predict(&server, "acme-all").await.0 == 200
    })
    .await;
    assert_eq!(
        described(&server, "linear").await["signer"],
        others.signer().to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_signer_lifts_nothing() {
    let (ours, _) = keys();
    let place = Place::new();
    place.write(&[acme_with(&[&ours]), globex()]);
    let server = place.builder().start().await;
    for signers in ["", "~", "[]", "[~]"] {
        place.write(&[format!("{}    signers: {signers}\n", acme()), globex()]);
        let check = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(["tenants", "check"])
            .arg(place.file())
            .output()
            .unwrap();
        assert_eq!(check.status.code(), Some(1), "{signers}");
        assert!(
            stderr(&check).contains("tenants.acme.signers must"),
            "{}",
            stderr(&check)
        );
    }
    // A file that is right again shows that those were read.
    let initech = format!("  initech:\n    keys:\n{}", key("initech-all", EVERYTHING));
    place.write(&[acme_with(&[&ours]), initech]);
    until("a later file holds", async || {
        predict(&server, "initech-all").await.0 == 404
    })
    .await;
    let refused = register(&server, &Model::linear().url()).await;
    assert_eq!(refused.status, 400, "{refused}");
}
