//! The builder and the server under test.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lantern::api::{self, AccessLog, Listener};
use lantern::backend::Backend;
use lantern::backend::fake::{FakeBackend, Gate};
use lantern::catalog::{Opener, Registration};
use lantern::error::{Error, Kind};
use lantern::handler::EngineConfig;
use lantern::model::{BackendKind, ModelSpec};
use lantern::runtime::process::ProcessConfig;
use lantern::runtime::{Hosts, NativeLibraries, WorkerIds};
use lantern::server::{Config, Running, Server, inline_backends, lazy_engine};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::{Answer, Model};

/// Makes a [`TestServer`].
pub struct Builder {
    store: Vec<Model>,
    loaded: Vec<Model>,
    api: api::Config,
    fake: FakeBackend,
    drain_timeout: Duration,
    unregister_timeout: Duration,
}

/// A server on free ports of the loopback interface. Ends with the test.
pub struct TestServer {
    running: Option<Running>,
    client: reqwest::Client,
    gate: Gate,
    access: Arc<Mutex<Vec<u8>>>,
    addresses: HashMap<Listener, SocketAddr>,
    _directory: TempDir,
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
            drain_timeout: Duration::from_secs(20),
            unregister_timeout: Duration::from_secs(20),
        }
    }
}

impl Builder {
    /// Loads `model` at start-up.
    pub fn model(mut self, model: Model) -> Self {
        self.loaded.push(model.clone());
        self.in_store(model)
    }

    /// Puts `model` into the model store, to be registered.
    pub fn in_store(mut self, model: Model) -> Self {
        self.store.push(model);
        self
    }

    /// Changed settings of the API.
    pub fn api(mut self, change: impl FnOnce(&mut api::Config)) -> Self {
        change(&mut self.api);
        self
    }

    /// Another fake backend for models in the server's process.
    pub fn fake(self, fake: FakeBackend) -> Self {
        Self { fake, ..self }
    }

    /// How long unregistering may wait.
    pub fn unregister_timeout(self, unregister_timeout: Duration) -> Self {
        Self {
            unregister_timeout,
            ..self
        }
    }

    /// Starts the server and waits until its models have loaded or failed.
    pub async fn start(self) -> TestServer {
        let directory = TempDir::new().unwrap();
        let gate = self.fake.gate();
        let access = Arc::new(Mutex::new(Vec::new()));
        let models: Vec<_> = self
            .loaded
            .iter()
            .map(|model| registration(&model.url()))
            .collect();
        let server = Server::bind(self.config(directory.path(), &access, models))
            .await
            .unwrap();
        let mut running = server.start();
        running.loaded().await;
        let listeners = [Listener::Inference, Listener::Management, Listener::Metrics];
        TestServer {
            addresses: listeners
                .map(|one| (one, running.address(one).unwrap()))
                .into(),
            running: Some(running),
            client: reqwest::Client::new(),
            gate,
            access,
            _directory: directory,
        }
    }

    fn config(
        self,
        directory: &Path,
        access: &Arc<Mutex<Vec<u8>>>,
        models: Vec<Registration>,
    ) -> Config {
        let lines = Arc::clone(access);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = [Listener::Inference, Listener::Management, Listener::Metrics];
        Config {
            listeners: listeners.map(|listener| (listener, any)).into(),
            api: self.api,
            access: Some(AccessLog::new(move |line| {
                lines.lock().extend_from_slice(line);
            })),
            hosts: hosts(self.fake),
            opener: opener(&self.store, directory),
            models,
            unregister_timeout: self.unregister_timeout,
            drain_timeout: self.drain_timeout,
        }
    }
}

impl TestServer {
    /// A builder of a server without models.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A server with `model` loaded.
    pub async fn with(model: Model) -> Self {
        Self::builder().model(model).start().await
    }

    /// Where a listener listens.
    pub fn address(&self, listener: Listener) -> SocketAddr {
        self.addresses[&listener]
    }

    /// The gate of the fake backend in the server's process.
    pub const fn gate(&self) -> &Gate {
        &self.gate
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

    /// A request to `path` of a listener, to be finished and sent.
    pub fn request(&self, listener: Listener, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.address(listener));
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

    /// Drains the server.
    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    /// Starts draining the server, and goes on.
    pub fn begin_stop(&mut self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(self.running.take().unwrap().stop())
    }
}

/// An archive to register.
pub fn registration(url: &str) -> Registration {
    Registration {
        url: url.to_owned(),
        ..Registration::default()
    }
}

fn hosts(fake: FakeBackend) -> Hosts {
    let libraries = NativeLibraries {
        onnxruntime: onnxruntime(),
    };
    let mut backends = inline_backends(libraries.onnxruntime.clone());
    backends.insert(BackendKind::Fake, Arc::new(fake) as Arc<dyn Backend>);
    let lantern = PathBuf::from(env!("CARGO_BIN_EXE_lantern"));
    Hosts {
        engine: lazy_engine(EngineConfig::default()),
        backends: Arc::new(backends),
        processes: ProcessConfig {
            lantern_torch: lantern.with_file_name("lantern-torch"),
            lantern,
            libraries,
            ..ProcessConfig::default()
        },
        worker_ids: Arc::new(WorkerIds::from(9000)),
        cores: 2,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "tests are told by the Makefile where libraries lie"
)]
fn onnxruntime() -> Option<PathBuf> {
    std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from)
}

/// Opens models that were laid out, as the model store opens archives.
fn opener(store: &[Model], directory: &Path) -> Opener {
    let specs = store
        .iter()
        .map(|model| (model.url(), model.lay_out(directory)));
    let specs: HashMap<String, ModelSpec> = specs.collect();
    Arc::new(move |registration: &Registration| {
        let url = &registration.url;
        let spec = specs.get(url).cloned();
        let mut spec = spec
            .ok_or_else(|| Error::new(Kind::ModelNotFound, format!("Model not found at: {url}")))?;
        if let Some(workers) = registration.requested.min_workers {
            spec.settings.min_workers = workers;
            spec.settings.max_workers = workers;
        }
        if let Some(rows) = registration.requested.batch_size {
            spec.settings.batch_size = rows;
        }
        Ok(spec)
    })
}
