//! Loads guests for tests, and keeps what they log and observe.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::budget::Account;
use crate::model::{BackendKind, Declared, ModelName, Settings, Version as ModelVersion};
use crate::payload::{Meter, Schedule};

/// A sink that keeps what a handler logs and observes.
#[derive(Default)]
pub struct Recorder {
    pub lines: Mutex<Vec<LogLine>>,
    pub observations: Mutex<Vec<Observation>>,
}

impl Sink for Recorder {
    fn log(&self, line: LogLine) {
        self.lines.lock().push(line);
    }

    fn observe(&self, observation: Observation) {
        self.observations.lock().push(observation);
    }
}

impl Recorder {
    pub fn has_line(&self, text: &str) -> bool {
        self.lines
            .lock()
            .iter()
            .any(|line| line.message.contains(text))
    }
}

/// A guest in a directory of its own, and what it is loaded with.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub limits: Limits,
    pub settings: Settings,
    pub config: String,
    pub recorder: Arc<Recorder>,
}

impl Fixture {
    /// The guest of that name; built by `make guests`.
    pub fn new(guest: &str) -> Self {
        let file = guests().join(format!("{guest}.wasm"));
        let Ok(wasm) = std::fs::read(&file) else {
            panic!("no guest {}: run make guests", file.display());
        };
        Self::of(&wasm)
    }

    /// A component from its bytes.
    pub fn of(wasm: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("handler.wasm"), wasm).unwrap();
        Self {
            directory,
            limits: Limits::default(),
            settings: Settings::default(),
            config: "{}".to_owned(),
            recorder: Arc::default(),
        }
    }

    pub async fn load(&self) -> Result<Handler, Error> {
        let wasm = std::fs::read(self.directory.path().join("handler.wasm")).unwrap();
        let code = Code::compile_here(&wasm).map_err(|reason| {
            Error::new(
                Kind::LoadFailed,
                format!("The handler handler.wasm {reason}"),
            )
        })?;
        Handler::load(&HandlerEngine::new()?, self.spec(code)).await
    }

    fn spec(&self, code: Code) -> HandlerSpec {
        let model = ModelSpec {
            digest: String::new(),
            samples: None,
            name: ModelName::new("model").unwrap(),
            version: ModelVersion::new("1.0").unwrap(),
            directory: self.directory.path().to_owned(),
            artifact: PathBuf::from("model.onnx"),
            handler: PathBuf::from("handler.wasm"),
            backend: BackendKind::Fake,
            declared: Declared::default(),
            manifest: String::new(),
            config: self.config.clone(),
            properties: BTreeMap::new(),
            settings: self.settings.clone(),
            limits: self.limits.clone(),
        };
        HandlerSpec {
            model: Arc::new(model),
            code,
            device: Device::Cpu,
            limits: self.limits.clone(),
            sink: Arc::clone(&self.recorder) as Arc<dyn Sink>,
        }
    }
}

/// A request with that body.
pub fn raw(body: &str) -> Request {
    let arrival = Instant::now();
    Request {
        id: "request-1".to_owned(),
        content_type: Some("application/json".to_owned()),
        headers: Vec::new(),
        body: Body::Raw(Bytes::copy_from_slice(body.as_bytes())),
        arrival,
        deadline: arrival + Duration::from_mins(1),
        schedule: Schedule::default(),
        account: Account::default(),
        passes_tensors_on: false,
        meter: Meter::default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "says where guests are built")]
fn guests() -> PathBuf {
    env::var_os("LANTERN_GUESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/target/wasm32-wasip2/release"),
        PathBuf::from,
    )
}
