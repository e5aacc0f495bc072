//! Starts a release server for a bench, tells when it is ready and what memory it takes, and ends it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program;

/// A model to pack and serve.
pub struct Model<'a> {
    /// Name; the archive is `NAME.mar`.
    pub name: &'a str,
    /// Weights.
    pub artifact: &'a Path,
    /// Handler.
    pub handler: &'a Path,
    /// `model-config.yaml`.
    pub config: String,
    /// Further files of the archive.
    pub extra_files: Vec<&'a Path>,
}

/// A directory with archives and a configuration.
pub struct Setup {
    directory: tempfile::TempDir,
    /// Where inference listens.
    pub inference: SocketAddr,
    /// Where models are managed.
    pub management: SocketAddr,
    /// Where metrics are scraped.
    pub metrics: SocketAddr,
    /// Where gRPC inference listens.
    pub grpc: SocketAddr,
}

/// A running server; ended when dropped.
pub struct Server {
    child: Child,
}

impl Setup {
    /// Packs `models` and writes a configuration with free ports and `extra` lines.
    pub fn new(models: &[Model], extra: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let [inference, management, metrics, grpc, grpc_management] = free_addresses();
        let store = directory.path().join("store");
        std::fs::create_dir(&store).expect("the model store can be made");
        for model in models {
            pack(&store, model);
        }
        let config = format!(
            "inference_address=http://{inference}\nmanagement_address=http://{management}\nmetrics_address=http://{metrics}\n\
             grpc_inference_port={}\ngrpc_management_port={}\n\
             model_store={}\nload_models=all\njob_queue_size=1000\nlantern_allow_inline=true\ndisable_token_authorization=true\nlantern_cache_dir={}\n{extra}\n",
            grpc.port(),
            grpc_management.port(),
            store.display(),
            directory.path().join("cache").display(),
        );
        let file = directory.path().join("config.properties");
        std::fs::write(file, config).expect("the configuration can be written");
        Self {
            directory,
            inference,
            management,
            metrics,
            grpc,
        }
    }

    /// Starts the server; its log goes to a file in the setup's directory.
    pub fn start(&self) -> Server {
        let log = self.directory.path().join("server.log");
        let log = std::fs::File::create(log).expect("a log can be made");
        let child = Command::new(program())
            .args(["serve", "--ncs", "--ts-config"])
            .arg(self.directory.path().join("config.properties"))
            .current_dir(self.directory.path())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("the server starts");
        Server { child }
    }

    /// Sends `request` again and again until it is answered with 200; returns how long that took from `since`.
    pub fn first_answer(&self, request: &[u8], since: Instant) -> Duration {
        while since.elapsed() < Duration::from_mins(1) {
            if ask(self.inference, request) {
                return since.elapsed();
            }
            std::thread::yield_now();
        }
        panic!(
            "no answer within a minute; the server wrote:\n{}",
            self.log()
        );
    }

    /// The key that a running server made for `scope`.
    pub fn key(&self, scope: &str) -> String {
        let path = self.directory.path().join("key_file.json");
        let text = std::fs::read(path).expect("the server has written its keys");
        let keys: serde_json::Value = serde_json::from_slice(&text).expect("keys are JSON");
        keys[scope]["key"].as_str().unwrap_or_default().to_owned()
    }

    /// What the server wrote.
    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }
}

impl Server {
    /// Private memory in bytes: of the server, and of each worker process.
    pub fn private_memory(&self) -> (u64, Vec<u64>) {
        let front = self.child.id();
        let children = children_of(front);
        (private(front), children.into_iter().map(private).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Packs a model into the directory `store`.
pub fn pack(store: &Path, model: &Model) {
    let config = store.with_file_name(format!("{}.yaml", model.name));
    std::fs::write(&config, &model.config).expect("a model configuration can be written");
    let status = Command::new(program())
        .args([
            "archive",
            "--force",
            "--version",
            "1.0",
            "--model-name",
            model.name,
        ])
        .arg("--serialized-file")
        .arg(model.artifact)
        .arg("--handler")
        .arg(model.handler)
        .arg("--config-file")
        .arg(&config)
        .arg("--export-path")
        .arg(store)
        .args(
            model
                .extra_files
                .iter()
                .flat_map(|file| [Path::new("--extra-files"), file]),
        )
        .stdout(Stdio::null())
        .status()
        .expect("the archiver starts");
    assert!(status.success(), "{} cannot be packed", model.name);
}

fn free_addresses() -> [SocketAddr; 5] {
    let listeners: [TcpListener; 5] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    listeners.map(|listener| listener.local_addr().expect("a listener has an address"))
}

fn ask(address: SocketAddr, request: &[u8]) -> bool {
    use std::io::Read;
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let mut status = [0; 12];
    stream.write_all(request).is_ok()
        && stream.read_exact(&mut status).is_ok()
        && status.ends_with(b"200")
}

fn children_of(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task");
    let Ok(tasks) = std::fs::read_dir(path) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| {
            line.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Private memory of a process in bytes.
pub fn private(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    kib << 10
}
