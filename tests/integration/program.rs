//! `lantern serve` as a process: its output, its signals, its exit codes.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use lantern::api::Listener;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::support::{Model, ROW};

/// A server process and its output so far.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    output: String,
    directory: TempDir,
}

impl Program {
    /// Starts a server on free ports with the models in its store.
    fn start(models: &[Model]) -> Self {
        Self::start_with(models, &[])
    }

    /// The same, with more arguments.
    fn start_with(models: &[Model], arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        for model in models {
            model.pack_into(directory.path());
        }
        let mut child = command(directory.path())
            .args(["--models", "all"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            output: String::new(),
            directory,
        }
    }

    /// Reads output until a line contains `text`, and returns that line.
    async fn read_until(&mut self, text: &str) -> String {
        loop {
            let line = self.lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("no {text:?} in {}", self.output));
            self.output.push_str(&line);
            self.output.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The address of a listener, from the output.
    async fn address(&mut self, listener: Listener) -> String {
        let line = self
            .read_until(&format!("{} API listens on", listener.name()))
            .await;
        line.split("http://").nth(1).unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    async fn end(self) -> (ExitStatus, String) {
        let (status, output, _) = self.end_with_files().await;
        (status, output)
    }

    /// The same, with the directory of the server's files.
    async fn end_with_files(mut self) -> (ExitStatus, String, TempDir) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.output.push_str(&line);
            self.output.push('\n');
        }
        (
            self.child.wait().await.unwrap(),
            self.output,
            self.directory,
        )
    }
}

fn command(store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
    command
        .args(["serve", "--disable-token-auth", "--model-store"])
        .arg(store)
        // The names are hidden, so a server that loads everything in its store ignores them.
        .env("XDG_CACHE_HOME", store.join(".cache"))
        .env("LOG_LOCATION", ".logs")
        .env("METRICS_LOCATION", ".logs")
        .current_dir(store)
        .kill_on_drop(true);
    for listener in ["inference", "management", "metrics"] {
        command.args(["--set", &format!("{listener}_address=http://127.0.0.1:0")]);
    }
    command.args([
        "--set",
        "grpc_inference_port=0",
        "--set",
        "grpc_management_port=0",
    ]);
    command
}

async fn ask(address: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /predictions/linear HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn it_says_what_loads_where_it_listens_and_what_failed_and_drains_on_a_signal() {
    let mut program = Program::start(&[
        Model::linear().in_process(),
        Model::linear().named("broken").artifact("broken.onnx"),
    ]);
    let address = program.address(Listener::Inference).await;
    program.read_until("Model server started.").await;
    program.read_until("1 of 2 models loaded").await;
    assert!(
        program.output.contains("Model linear loaded."),
        "{}",
        program.output
    );
    assert!(
        program
            .output
            .contains("Failed to load model: broken-1.0.mar"),
        "{}",
        program.output
    );
    let mut answer = String::new();
    ask(&address, ROW)
        .await
        .read_to_string(&mut answer)
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    program.signal(Signal::TERM);
    let (status, output) = program.end().await;
    assert!(status.success(), "{status} {output}");
    assert!(
        output.contains("\"POST /predictions/linear HTTP/1.1\" 200"),
        "{output}"
    );
    assert!(output.contains("Model server stopped"), "{output}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut program = Program::start(&[Model::linear()]);
    let address = program.address(Listener::Inference).await;
    program.read_until("1 of 1 models loaded").await;
    // A request that never ends delays the end of the server.
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = "POST /predictions/linear HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 25]).await.unwrap();
    program.signal(Signal::INT);
    program.read_until("SIGINT").await;
    program.signal(Signal::INT);
    let (status, output) = program.end().await;
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("abandoned"), "{output}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let store = TempDir::new().unwrap();
    let mut command = command(store.path());
    command.args(["--set", &format!("management_address=http://{address}")]);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(&format!(
            "cannot listen on http://{address} for management: "
        )),
        "{error}"
    );
    assert_eq!(error.matches("in use").count(), 1, "{error}");
}

#[tokio::test]
async fn every_wrong_setting_is_named_at_once() {
    let store = TempDir::new().unwrap();
    let mut command = command(store.path());
    command.args([
        "--set",
        "job_queue_size=many",
        "--set",
        "max_request_size=-1",
        "--set",
        "nonsense=1",
    ]);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    for part in ["job_queue_size", "\"many\"", "max_request_size", "\"-1\""] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn metric_lines_reach_their_files() {
    let mut program = Program::start_with(&[Model::linear()], &["--set", "metrics_mode=log"]);
    let store = program.directory.path().to_owned();
    let address = program.address(Listener::Inference).await;
    program.read_until("1 of 1 models loaded").await;
    let mut answer = String::new();
    let mut stream = ask(&address, ROW).await;
    stream.read_to_string(&mut answer).await.unwrap();
    program.signal(Signal::TERM);
    let (_, output, _directory) = program.end_with_files().await;
    let line = |file: &str, metric: &str| {
        let lines = log_file(&store, file);
        let found = lines
            .lines()
            .find(|line| line.contains(metric))
            .map(str::to_owned);
        let found = found.unwrap_or_else(|| panic!("no {metric} in {lines}"));
        after_time(&found).to_owned()
    };
    let counted = line("ts_metrics.log", "Requests2XX.");
    assert!(
        counted.starts_with(" - Requests2XX.Count:1.0|#Level:Host|#hostname:"),
        "{counted}"
    );
    let predicted = line("model_metrics.log", "PredictionTime.");
    assert!(
        predicted.starts_with(" - PredictionTime.ms:"),
        "{predicted}"
    );
    assert!(
        predicted.contains("|#ModelName:linear,Level:Model|#hostname:"),
        "{predicted}"
    );
    assert!(
        output.contains(" MODEL_METRICS - PredictionTime.ms:"),
        "{output}"
    );
}

/// The content of a log file of the server whose store is `store`.
fn log_file(store: &Path, name: &str) -> String {
    std::fs::read_to_string(store.join(".logs").join(name)).unwrap()
}

/// Whether `line` starts with a time such as `2026-11-20T15:20:39,500`, and what follows it.
fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_at(23);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00,000", "{line}");
    rest
}

#[tokio::test]
async fn each_log_has_a_file_in_torchserves_format() {
    let mut program = Program::start(&[Model::linear()]);
    let store = program.directory.path().to_owned();
    let address = program.address(Listener::Inference).await;
    program.read_until("1 of 1 models loaded").await;
    let mut answer = String::new();
    ask(&address, ROW)
        .await
        .read_to_string(&mut answer)
        .await
        .unwrap();
    program.signal(Signal::TERM);
    let (_, output, directory) = program.end_with_files().await;
    let server = log_file(&store, "ts_log.log");
    let loaded: Vec<_> = server
        .lines()
        .filter(|line| line.contains("Model linear loaded."))
        .collect();
    assert_eq!(loaded.len(), 1, "{server}");
    let rest = after_time(loaded[0]);
    assert!(rest.starts_with(" [INFO ] "), "{rest}");
    assert!(rest.contains(" lantern::catalog"), "{rest}");
    let access = log_file(&store, "access_log.log");
    let (peer, request) = after_time(access.trim_end()).split_once(" \"").unwrap();
    assert!(peer.starts_with(" - /127.0.0.1:"), "{access}");
    assert!(
        request.starts_with("POST /predictions/linear HTTP/1.1\" 200 "),
        "{access}"
    );
    assert!(output.contains(" ACCESS_LOG - /127.0.0.1:"), "{output}");
    for name in ["model_log.log", "ts_metrics.log", "model_metrics.log"] {
        log_file(&store, name);
    }
    drop(directory);
}

#[tokio::test]
async fn a_log_directory_that_cannot_be_made_does_not_stop_the_server() {
    let store = TempDir::new().unwrap();
    std::fs::write(store.path().join("occupied"), "").unwrap();
    let mut command = command(store.path());
    command
        .env("LOG_LOCATION", "occupied")
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut output = String::new();
    while !output.contains("Model server started.") {
        output.push_str(&lines.next_line().await.unwrap().unwrap());
    }
    child.kill().await.unwrap();
}

#[tokio::test]
async fn json_logs_have_the_request_in_each_line() {
    let store = TempDir::new().unwrap();
    let mut command = command(store.path());
    command
        .args(["--log-format", "json"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = None;
    // The connection is kept until the line is written: a client that leaves before the answer gets no line.
    let mut asked = None;
    let access = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        if line == "Model server started." {
            asked = Some(ask(address.as_deref().unwrap(), ROW).await);
            continue;
        }
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if line["logger"] == "ACCESS_LOG" {
            break line;
        }
        assert_eq!(line["level"], "INFO", "{line}");
        let message = line["message"].as_str().unwrap();
        if message.starts_with("inference API listens on") {
            address = message.split("http://").nth(1).map(str::to_owned);
        }
    };
    assert_eq!(access["status"], 404);
    assert_eq!(access["request_id"].as_str().unwrap().len(), 36, "{access}");
    drop(asked);
    child.kill().await.unwrap();
}

#[test]
fn the_front_does_not_link_libtorch() {
    let program = std::fs::read(PathBuf::from(env!("CARGO_BIN_EXE_lantern"))).unwrap();
    let names: [&[u8]; 2] = [b"libtorch_cpu.so", b"libc10.so"];
    for name in names {
        assert!(!program.windows(name.len()).any(|window| window == name));
    }
}
