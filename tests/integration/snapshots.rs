//! Snapshots: what is registered is restored after the process has ended, in whatever way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::origin::Origin;
use crate::support::{Life, Model, Place};

fn plain() -> Model {
    Model::new("passthrough").named("plain").without_workers()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A snapshot's `model_snapshot`.
fn model_snapshot(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("model_snapshot="))
        .unwrap();
    let value = line["model_snapshot=".len()..].replace("\\n", "\n");
    let value = value
        .replace("\\\\", "\u{0}")
        .replace('\\', "")
        .replace('\u{0}', "\\");
    serde_json::from_str(&value).unwrap()
}

#[tokio::test]
async fn every_change_is_saved_and_restored() {
    let place = Place::new(&[plain(), plain().version("2.0")]);
    let life = place.settled(&[]).await;
    life.ask(
        "POST",
        "/models?url=plain-1.0.mar&initial_workers=1&batch_size=3&max_batch_delay=7",
    )
    .await;
    assert_eq!(place.moments(), ["startup.cfg", "snapshot.cfg"]);
    life.ask("POST", "/models?url=plain-2.0.mar&model_name=plain")
        .await;
    life.ask(
        "PUT",
        "/models/plain/2.0?min_worker=2&max_worker=3&synchronous=true",
    )
    .await;
    life.ask("PUT", "/models/plain/2.0/set-default").await;
    life.ask("POST", "/models?url=plain-1.0.mar&model_name=gone")
        .await;
    life.ask("DELETE", "/models/gone").await;
    let expected = set(&["plain 1.0 1..1", "plain 2.0* 2..3"]);
    assert_eq!(life.versions().await, expected);
    let (status, _) = life.end(Signal::TERM).await;
    assert!(status.success());
    assert_eq!(place.moments().last().unwrap(), "shutdown.cfg");
    for more in [
        vec![],
        vec!["--models", "all"],
        vec!["--ts-config", place.newest().to_str().unwrap()],
    ] {
        let mut life = place.settled(&more).await;
        life.read_until("2 of 2 models loaded").await;
        assert_eq!(life.versions().await, expected);
        let (_, described) = life.ask("GET", "/models/plain/1.0").await;
        assert_eq!(
            (&described[0]["batchSize"], &described[0]["maxBatchDelay"]),
            (&json!(3), &json!(7))
        );
        life.end(Signal::KILL).await;
    }
    let life = place.start(&["--ncs"]).await;
    assert_eq!(life.versions().await, set(&[]));
    let before = place.snapshots();
    life.ask("POST", "/models?url=plain-1.0.mar").await;
    life.end(Signal::TERM).await;
    assert_eq!(place.snapshots(), before);
}

#[tokio::test]
async fn what_is_restored_is_there_from_the_first_moment_on() {
    let place = Place::new(&[plain(), plain().version("2.0"), plain().named("other")]);
    let life = place.settled(&[]).await;
    for (method, path) in [
        ("POST", "/models?url=plain-1.0.mar&initial_workers=1"),
        ("POST", "/models?url=plain-2.0.mar"),
        ("POST", "/models?url=other-1.0.mar&model_name=third"),
        (
            "PUT",
            "/models/plain/2.0?min_worker=1&max_worker=3&synchronous=true",
        ),
        ("PUT", "/models/plain/2.0/set-default"),
    ] {
        assert_eq!(life.ask(method, path).await.0, 200, "{path}");
    }
    let expected = set(&["plain 1.0 1..1", "plain 2.0* 1..3", "third 1.0* 0..0"]);
    life.end(Signal::KILL).await;
    let mut life = place.start(&[]).await;
    // It may be in any state of loading.
    assert_eq!(life.versions().await, expected);
    life.read_until("3 of 3 models loaded").await;
    assert_eq!(life.versions().await, expected);
}

#[tokio::test]
async fn failed_calls_and_readers_save_nothing() {
    let broken = Model::linear().named("broken").artifact("broken.onnx");
    let place = Place::new(&[plain(), broken]);
    let life = place.settled(&[]).await;
    life.ask("POST", "/models?url=plain-1.0.mar").await;
    let before = place.snapshots();
    for (method, path) in [
        ("POST", "/models?url=plain-1.0.mar"),
        ("POST", "/models?url=nope.mar"),
        ("POST", "/models?url=broken-1.0.mar&initial_workers=1"),
        ("PUT", "/models/nope?min_worker=1&synchronous=true"),
        ("PUT", "/models/plain?min_worker=2&max_worker=1"),
        ("PUT", "/models/plain/9/set-default"),
        ("DELETE", "/models/nope"),
        ("GET", "/models"),
        ("GET", "/models/plain"),
    ] {
        life.try_ask(method, path).await.unwrap();
    }
    assert_eq!(place.snapshots(), before);
    assert_eq!(life.versions().await, set(&["plain 1.0* 0..0"]));
}

#[tokio::test]
async fn a_snapshot_holds_what_torchserve_reads_and_no_secret() {
    let origin = Origin::serving(plain().packed()).await;
    let place = Place::new(&[])
        .set(&format!("allowed_urls={}", origin.url("/")))
        .variable("SECRET", "hidden2")
        .variable("A", "hidden4");
    let config = place.directory.path().join("config.properties");
    fs::write(
        config,
        "keystore_pass=hidden1\ncors_allowed_origin=$$SECRET$$\njob_queue_size=7\n",
    )
    .unwrap();
    let life = place.settled(&[]).await;
    let url = format!("{}?X-Amz-Signature=hidden3", origin.url("/$$A$$/plain.mar"));
    let url: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
    assert_eq!(
        life.ask("POST", &format!("/models?url={url}&initial_workers=1"))
            .await
            .0,
        200
    );
    let text = fs::read_to_string(place.newest()).unwrap();
    for secret in ["hidden1", "hidden2", "hidden3", "hidden4"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(
        text.contains("job_queue_size=7\n") && text.contains("cors_allowed_origin=$$SECRET$$\n"),
        "{text}"
    );
    let models = model_snapshot(&place.newest());
    assert_eq!(models["modelCount"], 1);
    assert_eq!(models["name"], place.snapshots().last().unwrap().as_str());
    let saved = &models["models"]["plain"]["1.0"];
    for (member, value) in [
        ("defaultVersion", json!(true)),
        ("marName", json!("plain.mar")),
        ("minWorkers", json!(1)),
        ("maxWorkers", json!(1)),
        ("batchSize", json!(1)),
        ("maxBatchDelay", json!(100)),
        ("responseTimeout", json!(120)),
        ("startupTimeout", json!(120)),
        ("runtimeType", json!("python")),
    ] {
        assert_eq!(saved[member], value, "{member}");
    }
    life.end(Signal::KILL).await;
    let mut life = place.settled(&[]).await;
    life.read_until("1 of 1 models loaded").await;
    // A `$$NAME$$` from a client must not be replaced by a variable of the server when the snapshot is read.
    let (_, restored) = life.ask("GET", "/models/plain").await;
    assert_eq!(restored[0]["modelUrl"], origin.url("/$$A$$/plain.mar"));
    assert_eq!(restored[0]["loadedAtStartup"], false);
    // An earlier server downloaded the file for this version, and it is still removed with the version.
    assert_eq!(life.ask("DELETE", "/models/plain").await.0, 200);
    assert!(!place.store().join("plain.mar").exists());
}

#[tokio::test]
async fn what_cannot_be_restored_is_one_failed_model_and_is_not_forgotten() {
    let place = Place::new(&[plain(), plain().named("lost"), plain().named("junk")]);
    let life = place.settled(&[]).await;
    for model in ["plain", "lost", "junk"] {
        life.ask(
            "POST",
            &format!("/models?url={model}-1.0.mar&model_name={model}"),
        )
        .await;
    }
    life.end(Signal::TERM).await;
    let lost = place.store().join("lost-1.0.mar");
    fs::rename(&lost, place.directory.path().join("away.mar")).unwrap();
    fs::write(place.store().join("junk-1.0.mar"), "junk").unwrap();
    let mut life = place.settled(&[]).await;
    life.read_until("1 of 3 models loaded").await;
    for line in [
        "Failed to load model: lost-1.0.mar: Model not found at: lost-1.0.mar",
        "Failed to load model: junk-1.0.mar: the archive is not a readable zip",
    ] {
        assert!(life.output.contains(line), "{}", life.output);
    }
    assert_eq!(life.versions().await, set(&["plain 1.0* 0..0"]));
    assert_eq!(life.ask("DELETE", "/models/junk").await.0, 200);
    assert_eq!(life.ask("DELETE", "/models/junk").await.0, 404);
    life.end(Signal::KILL).await;
    fs::rename(place.directory.path().join("away.mar"), lost).unwrap();
    let mut life = place.settled(&[]).await;
    life.read_until("2 of 2 models loaded").await;
    assert_eq!(
        life.versions().await,
        set(&["lost 1.0* 0..0", "plain 1.0* 0..0"])
    );
}

#[tokio::test]
async fn the_newest_whole_snapshot_is_restored_and_said_to_be() {
    let place = Place::new(&[plain()]);
    let life = place.settled(&[]).await;
    life.ask("POST", "/models?url=plain-1.0.mar").await;
    let good = place.newest();
    life.end(Signal::KILL).await;
    let text = fs::read_to_string(&good).unwrap();
    let directory = place.snapshot_directory();
    let half = &text[..text.len() / 2];
    let whole = "29991231235959993-snapshot.cfg";
    let zeros = "\0".repeat(4096);
    let later = text.replace(
        &format!("version={}\n", env!("CARGO_PKG_VERSION")),
        "version=999.0.0\n",
    );
    for (name, content) in [
        ("29991231235959994-snapshot.cfg", zeros.as_str()),
        (
            "29991231235959995-snapshot.cfg",
            "Dear Sir,\nthis is a text.\n",
        ),
        ("29991231235959996-snapshot.cfg", "app.name=shop\n"),
        ("29991231235959997-snapshot.cfg", &later),
        ("zz-notes.cfg", "job_queue_size=many"),
        ("29991231235959990-snapshot.cfg", half),
        ("29991231235959991-snapshot.cfg", ""),
        ("29991231235959992-snapshot.cfg", "model_snapshot={"),
        (whole, &text[..text.len() - "#end\n".len()]),
    ] {
        fs::write(directory.join(name), content).unwrap();
    }
    let mut life = place.start(&[]).await;
    life.read_until("1 of 1 models loaded").await;
    let good = format!("Config file: {}", good.display());
    for line in [
        good.as_str(),
        "is empty and is passed over",
        "is not whole and is passed over",
        "its model_snapshot must be JSON",
        "holds zero bytes and is passed over",
        "is no snapshot and is passed over",
        "was saved by the later version 999.0.0 and is passed over",
    ] {
        assert!(life.output.contains(line), "{line}: {}", life.output);
    }
    assert_eq!(life.versions().await, set(&["plain 1.0* 0..0"]));
}

#[tokio::test]
async fn a_server_that_was_open_is_closed_when_the_next_start_does_not_open_it() {
    let place = Place::new(&[plain()]);
    let life = place.settled(&["--models", "all"]).await;
    let versions = life.versions().await;
    life.end(Signal::TERM).await;
    let text = fs::read_to_string(place.newest()).unwrap();
    assert!(
        text.contains("disable_token_authorization=true\n"),
        "{text}"
    );
    let place = place.with_tokens();
    let life = place.settled(&[]).await;
    let withheld = "disable_token_authorization is not restored from the snapshot";
    assert!(life.output.contains(withheld), "{}", life.output);
    let (status, _) = life.ask("GET", "/models").await;
    assert_eq!(status, 400, "the management API asks for a token");
    life.end(Signal::TERM).await;
    // The file of this start may open it.
    let config = place.directory.path().join("config.properties");
    fs::write(config, "disable_token_authorization=true\n").unwrap();
    let life = place.settled(&[]).await;
    assert_eq!(life.versions().await, versions);
}

#[tokio::test]
async fn what_kserve_mounts_is_restored_as_it_is() {
    let place = Place::new(&[plain().named("mnist")]);
    let config = place.directory.path().join("kserve.properties");
    let text = r#"enable_metrics_api=true
install_py_dep_per_model=true
NUM_WORKERS=1
number_of_netty_threads=4
job_queue_size=10
model_snapshot={"name":"startup.cfg","modelCount":1,"models":{"mnist":{"1.0":{"defaultVersion":true,"marName":"mnist-1.0.mar","minWorkers":1,"maxWorkers":5,"batchSize":5,"maxBatchDelay":200}}}}
"#;
    fs::write(&config, text).unwrap();
    let mut permissions = fs::metadata(&config).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&config, permissions).unwrap();
    let mut life = place
        .start(&["--ts-config", config.to_str().unwrap()])
        .await;
    life.read_until("1 of 1 models loaded").await;
    assert_eq!(life.versions().await, set(&["mnist 1.0* 1..5"]));
    let (_, described) = life.ask("GET", "/models/mnist").await;
    assert_eq!(
        (&described[0]["batchSize"], &described[0]["maxBatchDelay"]),
        (&json!(5), &json!(200))
    );
}

/// A directory beside the model store, with the archive of a model in it.
fn elsewhere(place: &Place, name: &str, model: &Model) -> (PathBuf, PathBuf) {
    let directory = place.directory.path().canonicalize().unwrap().join(name);
    fs::create_dir(&directory).unwrap();
    model.pack_into(&directory);
    let archive = directory.join(model.url());
    (directory, archive)
}

async fn register(life: &Life, url: &str) {
    let url: String = form_urlencoded::byte_serialize(url.as_bytes()).collect();
    let (status, answer) = life.ask("POST", &format!("/models?url={url}")).await;
    assert_eq!(status, 200, "{answer}");
}

/// Puts a link in the place of a file.
fn replace_with_link(file: &Path, target: &Path) {
    fs::remove_file(file).unwrap();
    std::os::unix::fs::symlink(target, file).unwrap();
}

#[tokio::test]
async fn what_a_client_registered_by_its_path_is_restored_with_the_clients_rights() {
    let place = Place::new(&[]);
    let (directory, archive) = elsewhere(&place, "shared", &plain());
    let (_, secret) = elsewhere(&place, "private", &plain());
    let place = place.set(&format!("allowed_urls=file://{}/", directory.display()));
    let life = place.settled(&[]).await;
    register(&life, archive.to_str().unwrap()).await;
    life.end(Signal::TERM).await;
    let mut life = place.settled(&[]).await;
    life.read_until("1 of 1 models loaded").await;
    assert_eq!(life.versions().await, set(&["plain 1.0* 0..0"]));
    life.end(Signal::TERM).await;
    replace_with_link(&archive, &secret);
    let mut life = place.settled(&[]).await;
    life.read_until("0 of 1 models loaded").await;
    let says = format!("Model not found at: {}", archive.display());
    assert!(life.output.contains(&says), "{}", life.output);
    assert_eq!(life.versions().await, set(&[]));
}

#[tokio::test]
async fn what_the_operator_listed_by_its_path_is_restored_with_the_operators_rights() {
    let place = Place::new(&[]);
    let (_, archive) = elsewhere(&place, "shared", &plain());
    let (_, other) = elsewhere(&place, "private", &plain());
    let life = place
        .settled(&["--models", archive.to_str().unwrap()])
        .await;
    let versions = life.versions().await;
    assert_eq!(versions.len(), 1, "{versions:?}");
    life.end(Signal::TERM).await;
    replace_with_link(&archive, &other);
    let mut life = place.settled(&[]).await;
    life.read_until("1 of 1 models loaded").await;
    assert_eq!(life.versions().await, versions);
}

fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(bytes);
    digest
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// What a restart says of an archive that has changed since the snapshot was saved.
async fn restarted(place: &Place, loaded: usize) -> String {
    let mut life = place.settled(&[]).await;
    life.read_until(&format!("{loaded} of 1 models loaded"))
        .await;
    let output = life.output.clone();
    life.end(Signal::KILL).await;
    output
}

const CHANGED: &str = "the archive has changed since the snapshot was saved";
const PINNED: &str = "must have the SHA-256 that its URL pins";

#[tokio::test]
async fn a_pin_of_a_registration_holds_after_restarts() {
    let place = Place::new(&[plain()]);
    let archive = place.store().join(plain().url());
    let bytes = fs::read(&archive).unwrap();
    let life = place.settled(&[]).await;
    let url = format!("{}#sha256={}", plain().url(), digest(&bytes).to_uppercase());
    register(&life, &url).await;
    life.end(Signal::TERM).await;
    let saved = &model_snapshot(&place.newest())["models"]["plain"]["1.0"]["lantern"];
    assert_eq!(saved["pinnedSha256"], digest(&bytes));
    assert!(!restarted(&place, 1).await.contains(CHANGED));
    plain().with("batchSize: 2").pack_into(&place.store());
    // The second restart reads what the first one saved.
    for _ in 0..2 {
        let output = restarted(&place, 0).await;
        assert!(output.contains(PINNED), "{output}");
    }
    fs::write(&archive, &bytes).unwrap();
    let output = restarted(&place, 1).await;
    assert!(!output.contains(CHANGED), "{output}");
}

#[tokio::test]
async fn without_a_pin_a_changed_archive_is_a_warning_as_in_older_snapshots() {
    for is_pinned in [false, true] {
        let place = Place::new(&[plain()]);
        let bytes = fs::read(place.store().join(plain().url())).unwrap();
        let pin = format!("#sha256={}", digest(&bytes));
        let life = place.settled(&[]).await;
        let pin = if is_pinned { pin.as_str() } else { "" };
        register(&life, &format!("{}{pin}", plain().url())).await;
        life.end(Signal::TERM).await;
        // Earlier versions of the server wrote no such member.
        let newest = place.newest();
        let text = fs::read_to_string(&newest).unwrap();
        assert!(text.contains("pinnedSha256"), "{text}");
        fs::write(&newest, text.replace("pinnedSha256", "unknown")).unwrap();
        plain().with("batchSize: 2").pack_into(&place.store());
        let output = restarted(&place, 1).await;
        assert!(output.contains(CHANGED), "{output}");
    }
}

#[tokio::test]
async fn a_version_is_restored_with_no_more_workers_than_the_operator_allows_by_now() {
    let place = Place::new(&[plain()]);
    let life = place.settled(&[]).await;
    register(&life, &plain().url()).await;
    let scaling = "/models/plain?min_worker=3&max_worker=4&synchronous=true";
    assert_eq!(life.ask("PUT", scaling).await.0, 200);
    life.end(Signal::TERM).await;
    for (most, expected) in [(4, "plain 1.0* 3..4"), (2, "plain 1.0* 2..2")] {
        let most = format!("lantern_max_workers={most}");
        let mut life = place.settled(&["--set", &most]).await;
        life.read_until("1 of 1 models loaded").await;
        assert_eq!(life.versions().await, set(&[expected]));
        let says = "maxWorkers becomes 2, which is lantern_max_workers of this server, got 4";
        assert_eq!(life.output.contains(says), expected.ends_with("2..2"));
        life.end(Signal::KILL).await;
    }
}
