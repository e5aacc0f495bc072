//! Directories of the server's own that cannot be used, that others use too, or that other programs clean: a warning, and a
//! server that serves.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lantern::place;
use serde_json::Value;

use crate::support::{Life, Model, Place, TestServer};

/// A directory in which not even root can make anything.
const UNWRITABLE: &str = "/proc";

/// The same model in both hostings.
fn both() -> [Model; 2] {
    let model = || Model::new("echo");
    [
        model().named("inline"),
        model().named("hosted").in_process(),
    ]
}

async fn serve_all(place: &Place) -> Life {
    let mut life = place.start(&["--models", "all"]).await;
    life.read_until("2 of 2 models loaded").await;
    life
}

#[tokio::test]
async fn a_server_whose_directories_cannot_be_written_to_serves() {
    let place = Place::new(&both())
        .set("lantern_cache_dir=/proc/cache")
        .set("lantern_temp_dir=/proc/unpacked")
        .variable("LOG_LOCATION", "/proc/logs")
        .variable("METRICS_LOCATION", "/proc/metrics")
        .variable("HOME", "/")
        .in_directory(UNWRITABLE)
        .with_tokens();
    let mut life = serve_all(&place).await;
    // Before or after the models have loaded.
    if !life.output.contains("A snapshot was not saved") {
        life.read_until("A snapshot was not saved").await;
    }
    let keys = place.directory.path().join(place::own_name());
    let keys = keys.join("key_file.json");
    for line in [
        "lantern_cache_dir /proc/cache cannot be used",
        "not to /proc/unpacked: ",
        "cannot write the log /proc/logs/ts_log.log",
        "cannot write the log /proc/metrics/ts_metrics.log",
        &format!(
            "/proc/key_file.json cannot be written: the keys are in {}",
            keys.display()
        ),
    ] {
        assert!(life.output.contains(line), "{line}: {}", life.output);
    }
    let keys: Value = serde_json::from_slice(&fs::read(keys).unwrap()).unwrap();
    let key = keys["inference"]["key"].as_str();
    for model in ["inline", "hosted"] {
        assert_eq!(life.predict(model, key).await, 200, "{model}");
    }
}

fn shared(path: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// What is in a directory, with permissions.
fn listed(directory: &Path) -> Vec<(String, u32)> {
    let entries = fs::read_dir(directory).unwrap();
    let entries = entries.map(|entry| {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        (entry.file_name().into_string().unwrap(), mode & 0o777)
    });
    entries.collect()
}

#[tokio::test]
async fn in_volumes_that_everybody_can_write_to_the_server_has_directories_of_its_own() {
    let place = Place::new(&both());
    let [cache, temp, logs] = ["cache", "temp", "shared-logs"]
        .map(|name| shared(place.directory.path().join(name), 0o1777));
    let place = place
        .set(&format!("lantern_cache_dir={}", cache.display()))
        .set(&format!("lantern_temp_dir={}", temp.display()))
        .variable("LOG_LOCATION", logs.to_str().unwrap());
    let life = serve_all(&place).await;
    for model in ["inline", "hosted"] {
        assert_eq!(life.predict(model, None).await, 200, "{model}");
    }
    for directory in [cache, temp] {
        assert_eq!(listed(&directory), [(place::own_name(), 0o700)]);
        let warning = format!("{} belongs to another user", directory.display());
        assert!(life.output.contains(&warning), "{warning}: {}", life.output);
    }
    assert!(logs.join("ts_log.log").exists());
}

#[tokio::test]
async fn where_others_could_rename_its_directories_the_server_goes_elsewhere() {
    let place = Place::new(&both());
    let open = shared(place.directory.path().join("open"), 0o777);
    let place = place
        .set(&format!("lantern_cache_dir={}/cache", open.display()))
        .set(&format!("lantern_temp_dir={}/temp", open.display()));
    let life = serve_all(&place).await;
    for model in ["inline", "hosted"] {
        assert_eq!(life.predict(model, None).await, 200, "{model}");
    }
    assert_eq!(listed(&open), []);
    let rule = "each directory above it must belong to this user or to root";
    for line in [
        format!("{}/cache cannot be used ({rule}", open.display()),
        format!("not to {}/temp: ", open.display()),
    ] {
        assert!(life.output.contains(&line), "{line}: {}", life.output);
    }
}

fn process_of(described: &Value) -> u64 {
    described[0]["workers"][0]["pid"].as_u64().unwrap()
}

fn kill(pid: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn predict_until(server: &TestServer, model: &str, status: u16) {
    while server.predict(model, "ping").await.status != status {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_files_are_unpacked_again_for_a_process_that_is_restarted() {
    let server = TestServer::with(Model::linear().in_process()).await;
    let body = crate::support::ROW;
    let (archive, away) = (
        server.store().join("linear-1.0.mar"),
        server.directory().join("away"),
    );
    fs::rename(&archive, &away).unwrap();
    server.lose_unpacked();
    assert_eq!(
        server.predict("linear", body).await.status,
        200,
        "the process has it all"
    );
    let described = server.management("GET", "/models/linear").await.json();
    kill(process_of(&described));
    // Nobody waits for files of which it is not known when they come back.
    predict_until(&server, "linear", 503).await;
    fs::rename(&away, &archive).unwrap();
    while server.predict("linear", body).await.status != 200 {
        tokio::task::yield_now().await;
    }
    let again = server.management("GET", "/models/linear").await.json();
    assert_ne!(process_of(&again), process_of(&described));
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_files_are_unpacked_again_for_workers_that_are_started() {
    for model in [Model::linear(), Model::linear().in_process()] {
        let server = TestServer::with(model).await;
        for workers in [0, 1, 2] {
            server.lose_unpacked();
            let path = format!(
                "/models/linear?min_worker={workers}&max_worker={workers}&synchronous=true"
            );
            let scaled = server.management("PUT", &path).await;
            assert_eq!(scaled.status, 200, "{}", scaled.text());
            let expected = if workers == 0 { 503 } else { 200 };
            let answer = server.predict("linear", crate::support::ROW).await;
            assert_eq!(answer.status, expected, "{workers} workers");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_files_are_unpacked_again_for_a_second_registration() {
    let builder = TestServer::builder().model(Model::linear().in_process());
    let server = builder.start().await;
    server.lose_unpacked();
    let path = "/models?url=linear-1.0.mar&model_name=second&initial_workers=1&synchronous=true";
    let registered = server.management("POST", path).await;
    assert_eq!(registered.status, 200, "{}", registered.text());
    assert_eq!(
        server.predict("second", crate::support::ROW).await.status,
        200
    );
}
