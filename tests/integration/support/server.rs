//! The builder and the server under test.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lantern::api::{self, AccessLog, AuditLine, AuditLog, Listener};
use lantern::archive::check_urls;
use lantern::backend::Backend;
use lantern::backend::fake::{FakeBackend, Gate};
use lantern::catalog::Catalog;
use lantern::config::server::{Environment, Flags, ServerConfig};
use lantern::listen::Address;
use lantern::metrics::MetricLog;
use lantern::model::BackendKind;
use lantern::server::{Config, Machine, Running, Server};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Model};

/// Settings of every server, which a test may override.
const FIXED: [&str; 2] = [
    "lantern_allow_inline=true",
    "disable_token_authorization=true",
];

/// Lines of the audit log that are kept: tests that measure memory make many calls.
const KEPT_AUDITED: usize = 16;

/// Makes a [`TestServer`].
pub struct Builder {
    store: Vec<Model>,
    loaded: Vec<String>,
    api: api::Config,
    fake: FakeBackend,
    settings: Vec<String>,
    unregister_timeout: Option<Duration>,
}

/// A server on free ports of the loopback interface. Ends with the test.
pub struct TestServer {
    running: Option<Running>,
    client: reqwest::Client,
    gate: Gate,
    fake: FakeBackend,
    access: Arc<Mutex<Vec<u8>>>,
    audit: Arc<Mutex<Vec<AuditLine>>>,
    metric_lines: MetricLines,
    addresses: HashMap<Listener, Address>,
    directory: TempDir,
}

/// Metrics that were written as lines: TorchServe's `ts_metrics.log` and `model_metrics.log`.
#[derive(Default)]
struct MetricLines {
    server: Arc<Mutex<String>>,
    models: Arc<Mutex<String>>,
}

fn log_into(lines: &Arc<Mutex<String>>) -> MetricLog {
    let lines = Arc::clone(lines);
    MetricLog::new(move |line| {
        let mut lines = lines.lock();
        lines.push_str(line);
        lines.push('\n');
    })
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            store: Vec::new(),
            loaded: Vec::new(),
            api: api::Config {
                enable_model_api: true,
                ..api::Config::default()
            },
            fake: FakeBackend::new(),
            settings: [
                "inference_address=http://127.0.0.1:0",
                "management_address=http://127.0.0.1:0",
                "metrics_address=http://127.0.0.1:0",
                "grpc_inference_port=0",
                "grpc_management_port=0",
            ]
            .map(str::to_owned)
            .into(),
            unregister_timeout: None,
        }
    }
}

impl Builder {
    /// Loads `model` at start-up.
    pub fn model(self, model: Model) -> Self {
        self.list(&model.url()).in_store(model)
    }

    /// Lists a model to be loaded at start-up, as `--models` has it.
    pub fn list(mut self, model: &str) -> Self {
        self.loaded.push(model.to_owned());
        self
    }

    /// Puts `model` into the model store, to be registered.
    pub fn in_store(mut self, model: Model) -> Self {
        self.store.push(model);
        self
    }

    /// Changes settings of the API.
    pub fn api(mut self, change: impl FnOnce(&mut api::Config)) -> Self {
        change(&mut self.api);
        self
    }

    /// Adds a setting, `KEY=VALUE`.
    pub fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// Sets the fake backend of models in the server's process.
    pub fn fake(self, fake: FakeBackend) -> Self {
        Self { fake, ..self }
    }

    /// Sets how long unregistering may wait.
    pub fn unregister_timeout(self, unregister_timeout: Duration) -> Self {
        Self {
            unregister_timeout: Some(unregister_timeout),
            ..self
        }
    }

    /// Starts the server and waits until its models have loaded or failed.
    pub async fn start(self) -> TestServer {
        let mut server = self.begin();
        server.loaded().await;
        server
    }

    /// Starts the server, and does not wait for its models.
    pub fn begin(self) -> TestServer {
        let directory = TempDir::new().unwrap();
        let (gate, fake) = (self.fake.gate(), self.fake.clone());
        let access = Arc::new(Mutex::new(Vec::new()));
        let metric_lines = MetricLines::default();
        let mut cfg = self.config(directory.path(), &access);
        let audit = Arc::<Mutex<Vec<AuditLine>>>::default();
        let audited = Arc::clone(&audit);
        cfg.audit = Some(AuditLog::new(move |line| {
            let mut lines = audited.lock();
            if lines.len() == KEPT_AUDITED {
                lines.remove(0);
            }
            lines.push(line);
        }));
        cfg.metrics.server_log = log_into(&metric_lines.server);
        cfg.metrics.model_log = log_into(&metric_lines.models);
        let server = Server::bind(cfg).unwrap();
        let running = server.start();
        let listeners = [
            Listener::Inference,
            Listener::Management,
            Listener::Metrics,
            Listener::GrpcInference,
            Listener::GrpcManagement,
        ];
        // Clients need a provider. A second test of the same process finds it installed, which is no error.
        drop(rustls::crypto::ring::default_provider().install_default());
        TestServer {
            addresses: listeners
                .into_iter()
                .filter_map(|one| Some((one, running.bound(one)?.clone())))
                .collect(),
            running: Some(running),
            client: client(),
            gate,
            fake,
            access,
            audit,
            metric_lines,
            directory,
        }
    }

    fn config(self, directory: &Path, access: &Arc<Mutex<Vec<u8>>>) -> Config {
        let store = directory.join("model-store");
        std::fs::create_dir(&store).unwrap();
        for model in &self.store {
            model.pack_into(&store);
        }
        let flags = Flags {
            model_store: Some(store),
            models: self.loaded.clone(),
            set: [FIXED.map(str::to_owned).to_vec(), self.settings].concat(),
            no_config_snapshots: true,
            ..Flags::default()
        };
        let settings = ServerConfig::load(&flags, &environment(directory), check_urls).unwrap();
        let mut cfg = Config::new(&settings, &machine()).unwrap();
        let lines = Arc::clone(access);
        cfg.access = Some(AccessLog::new(move |line| {
            let mut lines = lines.lock();
            lines.extend_from_slice(&line.message);
            if let Some(client) = line.client_request_id {
                lines.extend_from_slice(format!(" client {client}").as_bytes());
            }
            lines.push(b'\n');
        }));
        cfg.api = api::Config {
            cors: cfg.api.cors,
            kserve: cfg.api.kserve,
            adopt_request_id: cfg.api.adopt_request_id,
            keep_alive: cfg.api.keep_alive,
            head_timeout: cfg.api.head_timeout,
            body_timeout: cfg.api.body_timeout,
            write_timeout: cfg.api.write_timeout,
            http2: cfg.api.http2,
            ..self.api
        };
        cfg.unregister_timeout = self.unregister_timeout.unwrap_or(cfg.unregister_timeout);
        let mut backends = HashMap::clone(&cfg.hosts.backends);
        backends.insert(BackendKind::Fake, Arc::new(self.fake) as Arc<dyn Backend>);
        cfg.hosts.backends = Arc::new(backends);
        cfg
    }
}

impl TestServer {
    /// A builder of a server without models.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Waits until the models that were listed have loaded or failed.
    pub async fn loaded(&mut self) {
        self.running.as_mut().unwrap().loaded().await;
    }

    /// The catalog, for what no client can ask.
    pub fn catalog(&self) -> &Catalog {
        self.running.as_ref().unwrap().catalog()
    }

    /// The gate that every load of the fake backend in the server's process passes.
    pub fn load_gate(&self) -> Gate {
        self.fake.load_gate()
    }

    /// A server with `model` loaded.
    pub async fn with(model: Model) -> Self {
        Self::builder().model(model).start().await
    }

    /// The server's current directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Removes what is unpacked, as programs do that clean directories of temporary files.
    pub fn lose_unpacked(&self) {
        let found = std::fs::read_dir(self.directory.path()).unwrap();
        let found = found.map(|entry| entry.unwrap().path());
        let is_unpacked = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with("lantern-")
        };
        for directory in found.filter(is_unpacked) {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }

    /// Removes what was unpacked and the archives, so that nothing can be loaded again.
    pub fn lose_archives(&self) {
        std::fs::remove_dir_all(self.store()).unwrap();
        self.lose_unpacked();
    }

    /// The model store.
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("model-store")
    }

    /// Interface and port of a listener.
    pub fn address(&self, listener: Listener) -> SocketAddr {
        self.addresses[&listener].socket().unwrap()
    }

    /// Whether there is such a listener.
    pub fn listens(&self, listener: Listener) -> bool {
        self.addresses.contains_key(&listener)
    }

    /// The gate of the fake backend in the server's process.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// How many batches the fake backend in the server's process was given.
    pub fn fake_runs(&self) -> usize {
        self.fake.runs().len()
    }

    /// Waits until `runs` runs of the fake backend are held at its gate.
    pub async fn wait_for_held(&self, runs: usize) {
        let gate = self.gate.clone();
        tokio::task::spawn_blocking(move || gate.wait_for(runs))
            .await
            .unwrap();
    }

    /// The access log so far.
    pub fn access_log(&self) -> String {
        String::from_utf8(self.access.lock().clone()).unwrap()
    }

    /// The last lines of the audit log since this was last asked, as JSON objects.
    pub fn take_audit_log(&self) -> Vec<Value> {
        let lines = std::mem::take(&mut *self.audit.lock());
        let object = |AuditLine(fields): AuditLine| {
            let names: BTreeSet<_> = fields.iter().map(|(name, _)| *name).collect();
            assert_eq!(names.len(), fields.len(), "each name once: {fields:?}");
            let fields = fields.into_iter();
            fields
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        };
        lines.into_iter().map(object).collect()
    }

    /// Lines of `ts_metrics.log` so far.
    pub fn server_metric_lines(&self) -> String {
        self.metric_lines.server.lock().clone()
    }

    /// Lines of `model_metrics.log` so far.
    pub fn model_metric_lines(&self) -> String {
        self.metric_lines.models.lock().clone()
    }

    /// Empties the access log, and frees its memory.
    pub fn forget_access_log(&self) {
        *self.access.lock() = Vec::new();
    }

    /// A request to `path` of a listener, to be finished and sent.
    pub fn request(&self, listener: Listener, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.addresses[&listener]);
        self.client.request(method.parse().unwrap(), url)
    }

    /// A request to the inference listener.
    pub async fn inference(&self, method: &str, path: &str) -> Answer {
        Answer::of(
            self.request(Listener::Inference, method, path)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// A request to the management listener.
    pub async fn management(&self, method: &str, path: &str) -> Answer {
        Answer::of(
            self.request(Listener::Management, method, path)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// A prediction with a JSON body.
    pub async fn predict(&self, model: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(
            Listener::Inference,
            "POST",
            &format!("/predictions/{model}"),
        );
        let request = request
            .header("content-type", "application/json")
            .body(body);
        Answer::of(request.send().await.unwrap()).await
    }

    /// The value of one sample of `/metrics`, whose line starts with `start`.
    pub async fn sample(&self, start: &str) -> Option<f64> {
        let response = self
            .request(Listener::Metrics, "GET", "/metrics")
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        let line = text.lines().find(|line| line.starts_with(start))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Asks for a sample until it is there, for metrics that are not measured by a request.
    pub async fn sample_once_there(&self, start: &str) -> f64 {
        let asked = async {
            loop {
                if let Some(value) = self.sample(start).await {
                    return value;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), asked).await;
        found.unwrap_or_else(|_| panic!("no sample {start} within 20 s"))
    }

    /// Drains the server.
    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    /// Starts draining the server, and does not wait for its end.
    pub fn begin_stop(&mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.running.take().unwrap().stop())
    }
}

/// A verifier that accepts any certificate, and keeps the last one.
fn client() -> reqwest::Client {
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .tls_info(true);
    client.build().unwrap()
}

/// The machine as servers under test see it: the same on every machine, with or without GPUs.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are told by the Makefile where libraries lie"
)]
fn machine() -> Machine {
    let libraries =
        std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH".into(), path));
    Machine {
        program: PathBuf::from(env!("CARGO_BIN_EXE_lantern")),
        environment: libraries.into_iter().collect(),
        gpus: 0,
        cores: 2,
    }
}

/// An environment with nothing but the paths of the native libraries.
#[allow(
    clippy::disallowed_methods,
    reason = "tests are told by the Makefile where libraries lie"
)]
fn environment(directory: &Path) -> Environment {
    let library = std::env::var("ORT_DYLIB_PATH").map(|path| ("ORT_DYLIB_PATH".to_owned(), path));
    Environment {
        variables: library
            .into_iter()
            .chain([
                ("HOME".to_owned(), directory.display().to_string()),
                ("TEMP".to_owned(), directory.display().to_string()),
            ])
            .collect(),
        current_directory: directory.to_owned(),
        program_directory: PathBuf::from(env!("CARGO_BIN_EXE_lantern"))
            .parent()
            .unwrap()
            .to_owned(),
        memory: None,
    }
}
