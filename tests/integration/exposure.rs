//! What a server process exposes: its sockets and its secrets; and which settings switch tokens off.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// A server process on free ports, without models.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    output: String,
    directory: TempDir,
}

impl Process {
    /// Starts it with `file` as its settings, and waits until it serves.
    async fn start(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let ports = "inference_address=http://127.0.0.1:0\nmanagement_address=http://127.0.0.1:0\n\
                     metrics_address=http://127.0.0.1:0\ngrpc_inference_port=0\ngrpc_management_port=0\n";
        let settings = directory.path().join("config.properties");
        std::fs::write(settings, format!("{ports}{file}")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_lantern"))
            .args(["serve", "--ncs", "--model-store", "."])
            .args(flags)
            .env("XDG_CACHE_HOME", directory.path())
            .env("TEMP", directory.path())
            .envs(variables.iter().copied())
            .current_dir(directory.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut process = Self {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            output: String::new(),
            directory,
        };
        process.read_until("Model server started.").await;
        process
    }

    async fn read_until(&mut self, text: &str) {
        while !self.output.contains(text) {
            let line = self.lines.next_line().await.unwrap();
            self.output
                .push_str(&line.unwrap_or_else(|| panic!("{}", self.output)));
            self.output.push('\n');
        }
    }

    /// Ends the server, and returns everything that it wrote to its output and its log files.
    async fn end(mut self) -> String {
        let id = self.child.id().unwrap().try_into().unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.output.push_str(&line);
            self.output.push('\n');
        }
        self.child.wait().await.unwrap();
        let files = std::fs::read_dir(self.directory.path().join("logs")).unwrap();
        for file in files.flatten() {
            if let Ok(text) = std::fs::read_to_string(file.path()) {
                self.output.push_str(&text);
            }
        }
        self.output
    }

    /// The status of a request to the management listener.
    async fn management(&self, method: &str, path: &str, key: Option<&str>) -> u16 {
        let line = self
            .output
            .lines()
            .find(|line| line.contains("management API listens on http"));
        let address = line.unwrap().split("http://").nth(1).unwrap();
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::new();
        let mut request =
            client.request(method.parse().unwrap(), format!("http://{address}{path}"));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.send().await.unwrap().status().as_u16()
    }

    fn keys(&self) -> Value {
        let text = std::fs::read(self.directory.path().join("key_file.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// Local addresses of the TCP sockets that a process listens on, in the kernel's hexadecimal.
fn listening(pid: u32) -> Vec<String> {
    let handles = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = handles.filter_map(|handle| std::fs::read_link(handle.unwrap().path()).ok());
    let inodes: HashSet<String> = targets.map(|target| target.display().to_string()).collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{pid}/net/{table}");
        if !Path::new(&path).exists() {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines().skip(1) {
            let columns: Vec<_> = line.split_whitespace().collect();
            let is_listening = columns[3] == "0A";
            if is_listening && inodes.contains(&format!("socket:[{}]", columns[9])) {
                found.push(columns[1].to_owned());
            }
        }
    }
    found
}

#[tokio::test]
async fn every_socket_is_loopback_unless_told_otherwise() {
    let process = Process::start("", &[], &[]).await;
    let sockets = listening(process.child.id().unwrap());
    assert_eq!(sockets.len(), 5, "{sockets:?}");
    for socket in &sockets {
        assert!(socket.starts_with("0100007F:"), "{socket} is not 127.0.0.1");
    }
    // With tokens, an address beyond loopback causes no warning.
    let wide = Process::start("metrics_address=http://0.0.0.0:0\n", &[], &[]).await;
    let sockets = listening(wide.child.id().unwrap());
    let public = sockets
        .iter()
        .filter(|socket| socket.starts_with("00000000:"));
    assert_eq!(public.count(), 1, "{sockets:?}");
}

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let process = Process::start("", &[], &["--log", "trace"]).await;
    let before = process.keys();
    let key = |keys: &Value, scope: &str| keys[scope]["key"].as_str().unwrap().to_owned();
    let wrong = "a-wrong-key-that-somebody-typed";
    let management = key(&before, "management");
    assert_eq!(
        process
            .management("GET", "/models", Some(&management))
            .await,
        200
    );
    assert_eq!(process.management("GET", "/models", Some(wrong)).await, 400);
    let rotation = "/token?type=inference";
    let api = key(&before, "API");
    assert_eq!(process.management("GET", rotation, Some(&api)).await, 200);
    let after = process.keys();
    let output = process.end().await;
    assert!(output.contains("GET /models"), "{output}");
    for keys in [&before, &after] {
        for scope in ["management", "inference", "API"] {
            assert!(!output.contains(&key(keys, scope)), "{scope}");
        }
    }
    assert!(!output.contains(wrong));
}

#[tokio::test]
async fn precedence_of_tokens_and_model_control_is_torchserves() {
    let variables = "enable_envvars_config=true\n";
    let (tokens_on, off) = (
        "disable_token_authorization=false\n",
        "TS_DISABLE_TOKEN_AUTHORIZATION",
    );
    let flag = "--disable-token-auth";
    for (file, variable, flags, expected) in [
        (format!("{variables}{tokens_on}"), None, vec![flag], 200),
        (
            format!("{variables}{tokens_on}"),
            Some((off, "true")),
            vec![],
            200,
        ),
        (variables.to_owned(), Some((off, "false")), vec![flag], 400),
        // Variables count only if the file allows it.
        (tokens_on.to_owned(), Some((off, "true")), vec![], 400),
    ] {
        let process = Process::start(&file, variable.as_slice(), &flags).await;
        let status = process.management("GET", "/models", None).await;
        assert_eq!(status, expected, "{file:?} {variable:?} {flags:?}");
    }
    let (api_off, name) = ("enable_model_api=false\n", "TS_ENABLE_MODEL_API");
    let (flag, open) = ("--enable-model-api", "--disable-token-auth");
    for (file, variable, flags, expected) in [
        (format!("{variables}{api_off}"), None, vec![open, flag], 404),
        (
            format!("{variables}{api_off}"),
            Some((name, "true")),
            vec![open],
            404,
        ),
        (
            variables.to_owned(),
            Some((name, "false")),
            vec![open, flag],
            405,
        ),
    ] {
        let process = Process::start(&file, variable.as_slice(), &flags).await;
        let status = process.management("DELETE", "/models/nobody", None).await;
        assert_eq!(status, expected, "{file:?} {variable:?} {flags:?}");
    }
}
