//! A module that attacks whoever runs it: what is others' stays theirs, its own process alone pays, and others are answered.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern::error::{Error, Kind};
use lantern::model::{Limits, Settings, StateSharing};
use lantern::payload::{Output, Request};
use lantern::runtime::Bounds;
use lantern::runtime::process::{ProcessRuntime, SandboxConfig};
use lantern::sandbox::{Demand, Demands, Outcome, Wall};
use lantern::tensor::{DType, NamedTensor, Tensor};
use tempfile::TempDir;

use super::{Silence, columns, hosts, outputs, request_of, undeclared};

/// What the module does, as `tests/fixtures/attack.py` numbers it.
#[derive(Clone, Copy)]
enum Attack {
    Read = 0,
    Map = 1,
    Save = 2,
    Allocate = 3,
    Spin = 4,
    Crash = 5,
    Print = 6,
}

/// What the file of others holds.
const SECRET: &str = "a key that is nobody's business";

/// The module in a process, a neighbor in another, and files of others that every user may read and write.
struct Scene {
    attacker: ProcessRuntime,
    neighbor: ProcessRuntime,
    directory: TempDir,
}

impl Scene {
    async fn new(settings: impl FnOnce(&mut Settings), limits: Limits) -> Self {
        Self::behind(SandboxConfig::default(), settings, limits).await
    }

    async fn behind(
        walls: SandboxConfig,
        settings: impl FnOnce(&mut Settings),
        limits: Limits,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        for name in ["", "store", "archive"] {
            let path = place(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        fs::write(place("store/key_file.json"), SECRET).unwrap();
        fs::set_permissions(
            place("store/key_file.json"),
            fs::Permissions::from_mode(0o666),
        )
        .unwrap();
        let mut model = undeclared("unused", StateSharing::Shared);
        let fixtures = model.directory.clone();
        fs::copy(
            fixtures.join("attack/attacks.pt"),
            place("archive/attacks.pt"),
        )
        .unwrap();
        model.directory = place("archive");
        model.artifact = "attacks.pt".into();
        settings(&mut model.settings);
        model.limits = limits;
        let start = |model| {
            let mut hosts = hosts();
            hosts.processes.sandbox = walls.clone();
            async move {
                let bounds = Bounds::exactly(1);
                ProcessRuntime::start(&hosts, Arc::new(model), bounds, Arc::new(Silence)).await
            }
        };
        let mut neighbor = undeclared("unused", StateSharing::Shared);
        neighbor.artifact = "linear.pt".into();
        Self {
            attacker: start(model).await.unwrap(),
            neighbor: start(neighbor).await.unwrap(),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The module's answer: the bytes of its output.
    async fn attack(&self, attack: Attack, path: &Path, number: i64) -> Result<Vec<u8>, Error> {
        self.send(attack_on(attack, path, number)).await
    }

    async fn send(&self, request: Request) -> Result<Vec<u8>, Error> {
        match self.attacker.call(request).await?.output {
            Output::Tensors(tensors) => Ok(tensors[0].tensor.data().to_vec()),
            Output::Response(response) => panic!("no tensors, but {response:?}"),
        }
    }

    async fn neighbor_answers(&self) {
        let answered = outputs(&self.neighbor, columns(1.0)).await;
        assert_eq!(answered.unwrap().len(), 1);
    }

    /// Whether the walls are up that keep the module from files of everybody's.
    fn guards_files(&self) -> bool {
        let walls = self.attacker.status().walls;
        let is_up = walls
            .iter()
            .any(|(wall, outcome)| *wall == Wall::Landlock && matches!(outcome, Outcome::Up(_)));
        if !is_up {
            eprintln!("skipped: the wall landlock is not up");
        }
        is_up
    }

    /// Whether all is as it was.
    fn is_untouched(&self) -> bool {
        let names = |directory: &str| {
            let entries = fs::read_dir(self.path(directory)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        fs::read_to_string(self.path("store/key_file.json")).unwrap() == SECRET
            && names("store") == ["key_file.json"]
            && names("archive") == ["attacks.pt"]
    }
}

fn attack_on(attack: Attack, path: &Path, number: i64) -> Request {
    let numbers = |name: &str, values: &[i64]| {
        let data = values.iter().flat_map(|value| value.to_le_bytes());
        let data = data.collect::<Vec<_>>().into();
        let tensor = Tensor::new(DType::I64, vec![1, values.len()], data).unwrap();
        NamedTensor::new(name, tensor)
    };
    let path: Vec<_> = path.to_str().unwrap().bytes().map(i64::from).collect();
    request_of(vec![
        numbers("op", &[attack as i64]),
        numbers("path", &path),
        numbers("n", &[number]),
    ])
}

#[tokio::test]
async fn files_of_others_are_neither_read_nor_written() {
    let scene = Scene::new(|_| (), Limits::default()).await;
    if !scene.guards_files() {
        return;
    }
    let key = scene.path("store/key_file.json");
    let length = i64::try_from(SECRET.len()).unwrap();
    for (attack, path) in [
        (Attack::Read, key.clone()),
        (Attack::Read, "/etc/passwd".into()),
        (
            Attack::Read,
            format!("/proc/{}/environ", std::process::id()).into(),
        ),
        (Attack::Map, key.clone()),
        (Attack::Map, scene.path("store/made")),
        (Attack::Map, scene.path("archive/attacks.pt")),
        (Attack::Save, scene.path("store/saved")),
        (Attack::Save, scene.path("archive/saved")),
    ] {
        let answered = scene.attack(attack, &path, length).await;
        // Some of libtorch's calls say nothing of a file that they could not write.
        if let Err(error) = answered {
            assert_eq!(error.kind(), Kind::InferenceFailed, "{error}");
            assert!(!error.message().contains('/'), "{error}");
        } else {
            assert!(matches!(attack, Attack::Save), "{}", path.display());
        }
        assert!(scene.is_untouched(), "{}", path.display());
        scene.neighbor_answers().await;
    }
}

/// Otherwise the test above would say nothing.
#[tokio::test]
async fn without_walls_files_of_others_are_read_and_written() {
    let walls = SandboxConfig::new(Demands::all(Demand::Off));
    let scene = Scene::behind(walls, |_| (), Limits::default()).await;
    let key = scene.path("store/key_file.json");
    let length = i64::try_from(SECRET.len()).unwrap();
    let read = scene.attack(Attack::Read, &key, length).await.unwrap();
    assert_eq!(read, SECRET.as_bytes());
    for (attack, file) in [(Attack::Map, "store/made"), (Attack::Save, "store/saved")] {
        scene
            .attack(attack, &scene.path(file), length)
            .await
            .unwrap();
        assert!(scene.path(file).exists(), "{file}");
    }
    assert!(!scene.is_untouched());
}

#[tokio::test]
async fn memory_without_end_costs_the_process_or_the_request() {
    let limits = Limits {
        process_memory: 1 << 30,
        ..Limits::default()
    };
    let scene = Scene::new(|_| (), limits).await;
    let (error, ()) = tokio::join!(
        scene.attack(Attack::Allocate, Path::new("-"), 5000),
        scene.neighbor_answers()
    );
    let error = error.unwrap_err();
    // The wall has libtorch get no more; without it the server ends the process.
    assert!(
        matches!(error.kind(), Kind::OutOfMemory | Kind::WorkerDied),
        "{error}"
    );
    // Whether the process or the request was ended, the next is answered.
    assert!(
        scene
            .attack(Attack::Allocate, Path::new("-"), 1)
            .await
            .is_ok()
    );
    scene.neighbor_answers().await;
}

#[tokio::test]
async fn a_run_without_end_costs_its_own_request() {
    let timeout = Duration::from_millis(300);
    let scene = Scene::new(
        |settings| settings.response_timeout = timeout,
        Limits::default(),
    )
    .await;
    let mut request = attack_on(Attack::Spin, Path::new("-"), 0);
    request.deadline = Instant::now() + timeout;
    let (error, ()) = tokio::join!(scene.send(request), scene.neighbor_answers());
    assert_eq!(error.unwrap_err().kind(), Kind::Expired);
    assert!(scene.attack(Attack::Print, Path::new("-"), 1).await.is_ok());
}

#[tokio::test]
async fn a_native_fault_costs_its_own_process() {
    let scene = Scene::new(|_| (), Limits::default()).await;
    let (error, ()) = tokio::join!(
        scene.attack(Attack::Crash, Path::new("-"), 1_000_000_000_000),
        scene.neighbor_answers()
    );
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::WorkerDied);
    assert_eq!(error.message(), "Worker died: killed by signal 11");
    assert!(scene.attack(Attack::Print, Path::new("-"), 1).await.is_ok());
    scene.neighbor_answers().await;
}

#[tokio::test]
async fn a_flood_of_lines_keeps_nobody_waiting() {
    let scene = Scene::new(|_| (), Limits::default()).await;
    let (answer, ()) = tokio::join!(
        scene.attack(Attack::Print, Path::new("-"), 20_000),
        scene.neighbor_answers()
    );
    assert!(answer.is_ok(), "{answer:?}");
}
