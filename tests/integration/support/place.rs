//! The program, started several times with the same directories: what it prints, what it saves, how it ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::Model;

/// Directories of a server that is started several times.
pub struct Place {
    /// The directory that holds all others.
    pub directory: TempDir,
    settings: Vec<String>,
    variables: Vec<(String, String)>,
    current_directory: Option<PathBuf>,
    asks_for_tokens: bool,
    descriptors: Option<u32>,
}

/// One running process of that server.
pub struct Life {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What it printed so far.
    pub output: String,
    management: String,
}

impl Place {
    /// A place with models in its store.
    pub fn new(models: &[Model]) -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        for model in models {
            model.pack_into(&directory.path().join("store"));
        }
        Self {
            directory,
            settings: vec!["lantern_allow_inline=true".to_owned()],
            variables: Vec::new(),
            current_directory: None,
            asks_for_tokens: false,
            descriptors: None,
        }
    }

    /// A copy of all directories.
    pub fn copy(&self) -> Self {
        let directory = TempDir::new().unwrap();
        copy(self.directory.path(), directory.path());
        Self {
            directory,
            settings: self.settings.clone(),
            variables: self.variables.clone(),
            current_directory: self.current_directory.clone(),
            asks_for_tokens: self.asks_for_tokens,
            descriptors: self.descriptors,
        }
    }

    /// Gives the server so few descriptors.
    pub fn with_descriptors(self, descriptors: u32) -> Self {
        Self {
            descriptors: Some(descriptors),
            ..self
        }
    }

    /// Has the server ask for tokens.
    pub fn with_tokens(self) -> Self {
        Self {
            asks_for_tokens: true,
            ..self
        }
    }

    /// Starts the server in another directory.
    pub fn in_directory(self, directory: &str) -> Self {
        Self {
            current_directory: Some(directory.into()),
            ..self
        }
    }

    /// Sets a variable of the server's environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a setting, `KEY=VALUE`.
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// The model store.
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// The directory of the snapshots.
    pub fn snapshot_directory(&self) -> PathBuf {
        self.directory.path().join("logs/config")
    }

    /// Names of snapshots, the oldest first.
    pub fn snapshots(&self) -> Vec<String> {
        let entries = fs::read_dir(self.snapshot_directory())
            .into_iter()
            .flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The part of each snapshot's name after the time.
    pub fn moments(&self) -> Vec<String> {
        self.snapshots()
            .iter()
            .map(|name| name[18..].to_owned())
            .collect()
    }

    /// The newest snapshot.
    pub fn newest(&self) -> PathBuf {
        self.snapshot_directory()
            .join(self.snapshots().last().unwrap())
    }

    /// The program, which a shell that limits itself turns into.
    fn program(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_lantern");
        let Some(descriptors) = self.descriptors else {
            return Command::new(program);
        };
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        command.args(["-c", &script, program]);
        command
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = self.program();
        command
            .args(["serve", "--enable-model-api", "--access-log", "false"])
            .env("XDG_CACHE_HOME", self.directory.path())
            .env("TMPDIR", self.directory.path())
            .current_dir(
                self.current_directory
                    .as_deref()
                    .unwrap_or(self.directory.path()),
            )
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .envs(self.variables.iter().cloned())
            .kill_on_drop(true);
        command.arg("--model-store").arg(self.store());
        if !self.asks_for_tokens {
            command.arg("--disable-token-auth");
        }
        for listener in ["inference", "management", "metrics"] {
            command.args(["--set", &format!("{listener}_address=http://127.0.0.1:0")]);
        }
        for setting in ["grpc_inference_port=0", "grpc_management_port=0"] {
            command.args(["--set", setting]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.args(more);
        command
    }

    /// Starts the server and waits until its models have loaded or failed.
    pub async fn start(&self, more: &[&str]) -> Life {
        let mut child = self.command(more).spawn().unwrap();
        let mut life = Life {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            output: String::new(),
            management: String::new(),
        };
        let listens = life.read_until("management API listens on").await;
        life.management = listens.split("http://").nth(1).unwrap().to_owned();
        life.read_until("Model server started.").await;
        life
    }

    /// Starts the server and waits until it has written the snapshot of its start.
    pub async fn settled(&self, more: &[&str]) -> Life {
        let mut life = self.start(more).await;
        life.read_until("The catalog is saved: ").await;
        life
    }
}

impl Life {
    /// Reads output until a line contains `text`, and returns that line.
    pub async fn read_until(&mut self, text: &str) -> String {
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

    /// The first line that contains `text`, of those that were read or of those that come.
    pub async fn line(&mut self, text: &str) -> String {
        let read = self.output.lines().find(|line| line.contains(text));
        match read.map(str::to_owned) {
            Some(line) => line,
            None => self.read_until(text).await,
        }
    }

    /// A call of the management API, which the server must answer.
    pub async fn ask(&self, method: &str, path: &str) -> (u16, Value) {
        let answer = self.try_ask(method, path).await.unwrap();
        assert!(answer.0 < 500, "{method} {path}: {answer:?}");
        answer
    }

    /// A call of the management API, which may fail because the server ends.
    pub async fn try_ask(&self, method: &str, path: &str) -> reqwest::Result<(u16, Value)> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let url = format!("http://{}{path}", self.management);
        let answer = reqwest::Client::new()
            .request(method.parse().unwrap(), url)
            .send()
            .await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// The status of a prediction, whose model answers with what it is given.
    pub async fn predict(&self, model: &str, key: Option<&str>) -> u16 {
        drop(rustls::crypto::ring::default_provider().install_default());
        let address = self.address("inference");
        let request = reqwest::Client::new().post(format!("{address}/predictions/{model}"));
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let answer = request.body("ping").send().await.unwrap();
        answer.status().as_u16()
    }

    /// A prediction that is asked for in another task, with a JSON body: its status. The server may end meanwhile.
    pub fn asking(
        &self,
        model: &str,
        body: String,
    ) -> impl Future<Output = reqwest::Result<u16>> + Send + use<> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let url = format!("{}/predictions/{model}", self.address("inference"));
        let request = reqwest::Client::new().post(url).body(body);
        let request = request.header("content-type", "application/json");
        async move { Ok(request.send().await?.status().as_u16()) }
    }

    /// The value of one sample of `/metrics`, whose line starts with `start`.
    pub async fn sample(&self, start: &str) -> Option<f64> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let url = format!("{}/metrics", self.address("metrics"));
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// The address of a listener, with its scheme.
    pub fn address(&self, listener: &str) -> &str {
        let listens = format!("{listener} API listens on ");
        let (_, address) = self.output.split_once(&listens).unwrap();
        address.lines().next().unwrap()
    }

    /// Each version: model, version, whether it is the default, workers asked for.
    pub async fn versions(&self) -> BTreeSet<String> {
        let (_, list) = self.ask("GET", "/models").await;
        let mut found = BTreeSet::new();
        for model in list["models"].as_array().unwrap() {
            let name = model["modelName"].as_str().unwrap();
            let (_, versions) = self.ask("GET", &format!("/models/{name}/all")).await;
            let (_, default) = self.ask("GET", &format!("/models/{name}")).await;
            for version in versions.as_array().unwrap() {
                let mark = if version["modelVersion"] == default[0]["modelVersion"] {
                    "*"
                } else {
                    ""
                };
                let text = |member: &str| version[member].to_string().replace('"', "");
                found.insert(format!(
                    "{name} {}{mark} {}..{}",
                    text("modelVersion"),
                    text("minWorkers"),
                    text("maxWorkers")
                ));
            }
        }
        found
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// Its process id.
    pub fn id(&self) -> Pid {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        Pid::from_raw(id).unwrap()
    }

    /// Sends a signal and waits for the end.
    pub async fn end(self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        self.ended().await
    }

    /// Waits for the end.
    pub async fn ended(mut self) -> (ExitStatus, String) {
        while let Some(line) = self.lines.next_line().await.unwrap() {
            self.output.push_str(&line);
            self.output.push('\n');
        }
        (self.child.wait().await.unwrap(), self.output)
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
