//! The program under TorchServe's names: its command lines, messages, exit codes and files.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{Model, fixture, guest};

/// A directory with a link called `name` to the program, and directories for everything that the program writes.
struct Called {
    name: &'static str,
    directory: TempDir,
}

impl Called {
    fn new(name: &'static str) -> Self {
        let directory = TempDir::new().unwrap();
        let link = directory.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lantern"), link).unwrap();
        for name in ["tmp", "store"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { name, directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path(self.name));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_CACHE_HOME", self.path("tmp"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output and the exit code.
    fn says(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        (text.trim_end().to_owned(), output.status.code())
    }

    /// Starts in the background with free ports, as KServe does, and waits until the server says that it has started.
    async fn start(&self) {
        let settings = "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n\
                        metrics_address=http://127.0.0.1:0\ngrpc_inference_port=0\ngrpc_management_port=0\n";
        std::fs::write(self.path("config.properties"), settings).unwrap();
        let mut command = tokio::process::Command::from(self.command(&[
            "--start",
            "--model-store=store",
            "--ts-config=config.properties",
            "--models",
            "all",
        ]));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(child.wait().await.unwrap().success());
        // The server in the background has inherited the same pipe.
        let mut output = String::new();
        while !output.contains("Model server started.") {
            let line = lines.next_line().await.unwrap();
            output.push_str(&line.unwrap_or_else(|| panic!("{output}")));
            output.push('\n');
        }
        self.read_on(lines);
    }

    /// Reads the pipe to its end, since the server would block once it is full.
    fn read_on<R: tokio::io::AsyncBufRead + Unpin + Send + 'static>(
        &self,
        mut lines: tokio::io::Lines<R>,
    ) {
        let _ = self;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    }
}

#[tokio::test]
async fn it_starts_where_no_pid_file_can_be_written() {
    let torchserve = Called::new("torchserve");
    // Not even root can make a file there.
    let mut command = torchserve.command(&["--start", "--foreground", "--model-store=store"]);
    command
        .env("TMPDIR", "/proc")
        .env("XDG_STATE_HOME", torchserve.path("tmp"));
    for listener in ["inference", "management", "metrics"] {
        command.args(["--set", &format!("{listener}_address=http://127.0.0.1:0")]);
    }
    command.args([
        "--set",
        "grpc_inference_port=0",
        "--set",
        "grpc_management_port=0",
    ]);
    let mut command = tokio::process::Command::from(command);
    let mut child = command
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut output = String::new();
    while !output.contains("Model server started.") {
        let line = lines.next_line().await.unwrap();
        output.push_str(&line.unwrap_or_else(|| panic!("{output}")));
    }
    assert!(
        output.contains("The pid file cannot be written"),
        "{output}"
    );
    child.kill().await.unwrap();
}

#[tokio::test]
async fn it_starts_in_the_background_and_stops() {
    let torchserve = Called::new("torchserve");
    Model::new("echo").pack_into(&torchserve.path("store"));
    torchserve.start().await;
    let pid = torchserve.path("tmp/.model_server.pid");
    let number: u32 = std::fs::read_to_string(&pid).unwrap().parse().unwrap();
    assert!(Path::new(&format!("/proc/{number}")).exists());
    assert_eq!(
        torchserve.says(&["--start", "--model-store", "store"]),
        (
            "TorchServe is already running, please use torchserve --stop to stop TorchServe."
                .to_owned(),
            Some(1)
        )
    );
    std::fs::write(torchserve.path("key_file.json"), "{}").unwrap();
    assert_eq!(
        torchserve.says(&["--stop", "--foreground"]),
        ("TorchServe has stopped.".to_owned(), Some(0))
    );
    assert!(!pid.exists());
    assert!(!torchserve.path("key_file.json").exists());
    let log = std::fs::read_to_string(torchserve.path("logs/ts_log.log")).unwrap();
    for line in [
        "Torchserve version: 0.12.0",
        "Model Store: ",
        "Model API enabled: false",
        "Max heap size: N/A",
    ] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
}

#[test]
fn without_a_server_there_is_nothing_to_stop() {
    let torchserve = Called::new("torchserve");
    let absent = ("TorchServe is not currently running.".to_owned(), Some(0));
    assert_eq!(torchserve.says(&["--stop"]), absent);
    let pid = torchserve.path("tmp/.model_server.pid");
    std::fs::write(&pid, "4194999").unwrap();
    let stopped = ("TorchServe already stopped.".to_owned(), Some(0));
    assert_eq!(torchserve.says(&["--stop"]), stopped);
    assert!(!pid.exists());
    std::fs::write(&pid, "4194999").unwrap();
    let (text, code) = torchserve.says(&["--start"]);
    assert_eq!(
        text,
        "Removing orphan pid file.\nMissing mandatory parameter --model-store"
    );
    assert_eq!(code, Some(1));
}

#[test]
fn what_is_missing_is_named_in_torchserves_words() {
    let torchserve = Called::new("torchserve");
    let file = torchserve.path("nope").display().to_string();
    for (arguments, message) in [
        (
            vec![],
            "Missing mandatory parameter --model-store".to_owned(),
        ),
        (
            vec!["--model-store", "nope"],
            "--model-store directory not found: nope".to_owned(),
        ),
        (
            vec!["--model-store", "store", "--workflow-store", "nope"],
            "--workflow-store directory not found: nope".to_owned(),
        ),
        (
            vec!["--ts-config", "nope"],
            format!("--ts-config file not found: {file}"),
        ),
        (
            vec!["--log-config", "nope"],
            format!("--log-config file not found: {file}"),
        ),
    ] {
        assert_eq!(torchserve.says(&arguments), (message, Some(1)));
    }
}

#[test]
fn wrong_settings_are_said_before_anything_starts() {
    let torchserve = Called::new("torchserve");
    let output = torchserve
        .command(&[
            "--model-store",
            "store",
            "--set",
            "enable_envvars_config=true",
        ])
        .env("TS_INFERENCE_ADDRESS", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    for part in ["Invalid configuration: ", "Invalid binding address: "] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!torchserve.path("tmp/.model_server.pid").exists());
}

#[test]
fn versions_are_printed() {
    let (text, code) = Called::new("torchserve").says(&["--version"]);
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("TorchServe Version is 0.12.0"));
    assert!(lines.next().unwrap().starts_with("Lantern Version is "));
    assert_eq!(code, Some(0));
}

#[test]
fn unknown_and_contrary_flags_are_a_usage_error() {
    let torchserve = Called::new("torchserve");
    for arguments in [
        vec!["--nonsense"],
        vec!["--start", "--stop"],
        vec!["-v", "--stop"],
    ] {
        let output = torchserve.run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("Usage: torchserve"), "{error}");
    }
}

#[test]
fn the_archiver_packs_under_its_name() {
    let archiver = Called::new("torch-model-archiver");
    let (handler, weights) = (guest("linear"), fixture("linear.onnx"));
    let arguments = [
        "--model-name",
        "linear",
        "-v",
        "1.0",
        "--handler",
        handler.to_str().unwrap(),
        "--serialized-file",
        weights.to_str().unwrap(),
        "--export-path",
        "store",
    ];
    assert_eq!(archiver.says(&arguments).1, Some(0));
    assert!(archiver.path("store/linear.mar").is_file());
    let again = archiver.run(&arguments);
    assert_eq!(again.status.code(), Some(1));
    let error = String::from_utf8(again.stderr).unwrap();
    let expected = "already exists.\nPlease specify --force/-f option to overwrite the model archive output file.\n\
                    See -h/--help for more details.";
    assert!(error.contains(expected), "{error}");
    assert_eq!(archiver.run(&["--model-name", "x"]).status.code(), Some(2));
}

#[test]
fn every_setting_is_printed_with_its_source() {
    let lantern = Called::new("lantern");
    let file = "job_queue_size=7\nkeystore=k.p12\nkeystore_pass=hunter2\nvmargs=-Xmx1g\nenable_envvars_config=true\n";
    std::fs::write(lantern.path("config.properties"), file).unwrap();
    let run = |arguments: &[&str]| {
        let output = lantern
            .command(arguments)
            .env("TS_MAX_REQUEST_SIZE", "99")
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&["config", "--model-store", "store"]);
    let row = |key: &str| -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")));
        let line = line.unwrap_or_else(|| panic!("no {key} in {text}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        row("job_queue_size"),
        ["job_queue_size", "7", "config.properties:1"]
    );
    assert_eq!(
        row("max_request_size"),
        ["max_request_size", "99", "TS_MAX_REQUEST_SIZE"]
    );
    assert_eq!(row("default_response_timeout")[2], "default");
    assert_eq!(row("model_store")[2], "--model-store");
    assert_eq!(row("vmargs")[3], "(ignored)");
    assert!(!text.contains("hunter2"), "{text}");
    let json: Value = serde_json::from_str(&run(&["config", "--json"])).unwrap();
    assert_eq!(json["settings"]["job_queue_size"]["value"], "7");
    assert_eq!(
        json["settings"]["job_queue_size"]["source"],
        "config.properties:1"
    );
    assert_eq!(json["settings"]["keystore_pass"]["value"], "********");
    assert!(!json["warnings"].as_array().unwrap().is_empty());
}

/// As the server would at its start.
#[test]
fn a_certificate_that_cannot_be_used_is_reported_with_the_settings() {
    let lantern = Called::new("lantern");
    let fixtures =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keystores");
    let config = |keystore: &str, address: &str| {
        let file = format!(
            "inference_address={address}\nkeystore={}\n",
            fixtures.join(keystore).display()
        );
        std::fs::write(lantern.path("config.properties"), file).unwrap();
        lantern.run(&["config"])
    };
    let small = config("small.jks", "https://127.0.0.1:0");
    let error = String::from_utf8(small.stderr).unwrap();
    assert!(
        error.contains("it holds an RSA key of 1024 bits"),
        "{error}"
    );
    assert_eq!(small.status.code(), Some(1));
    assert!(config("rsa.jks", "https://127.0.0.1:0").status.success());
    // Nobody speaks TLS, so nothing is read.
    assert!(config("small.jks", "http://127.0.0.1:0").status.success());
}
