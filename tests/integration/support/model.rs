//! Models for tests: a guest, an artifact and settings, laid out as an unpacked archive.

use std::fs;
use std::path::{Path, PathBuf};

use lantern::model::{
    BackendKind, Declared, Hosting, Limits, ModelName, ModelSpec, Settings, Version,
};

/// One version of a model.
#[derive(Clone)]
pub struct Model {
    name: String,
    version: String,
    guest: String,
    backend: BackendKind,
    artifact: Option<String>,
    config: String,
    settings: Settings,
    limits: Limits,
}

impl Model {
    /// A model named after its guest, in the server's process, that runs nothing but its handler.
    pub fn new(guest: &str) -> Self {
        Self {
            name: guest.to_owned(),
            version: "1.0".to_owned(),
            guest: guest.to_owned(),
            backend: BackendKind::None,
            artifact: None,
            config: "{}".to_owned(),
            settings: Settings {
                hosting: Hosting::Inline,
                ..Settings::default()
            },
            limits: Limits::default(),
        }
    }

    /// `linear.onnx` behind JSON.
    pub fn linear() -> Self {
        Self::new("linear").artifact("linear.onnx")
    }

    /// The fake backend behind tensors in JSON.
    pub fn fake() -> Self {
        let fake = Self::new("passthrough").named("fake");
        Self {
            backend: BackendKind::Fake,
            ..fake
        }
    }

    /// Another name.
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Another version.
    pub fn version(self, version: &str) -> Self {
        Self {
            version: version.to_owned(),
            ..self
        }
    }

    /// An artifact of `tests/fixtures`.
    pub fn artifact(self, file: &str) -> Self {
        let is_onnx = Path::new(file)
            .extension()
            .is_some_and(|extension| extension == "onnx");
        Self {
            artifact: Some(file.to_owned()),
            backend: if is_onnx {
                BackendKind::Onnx
            } else {
                BackendKind::Torch
            },
            ..self
        }
    }

    /// In a worker process.
    pub fn in_process(self) -> Self {
        self.settings(|settings| settings.hosting = Hosting::Process)
    }

    /// `model-config.yaml` as JSON.
    pub fn config(self, config: &str) -> Self {
        Self {
            config: config.to_owned(),
            ..self
        }
    }

    /// Changed settings.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Changed limits.
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// What the archive of this version is called.
    pub fn url(&self) -> String {
        format!("{}-{}.mar", self.name, self.version)
    }

    /// Lays the model out below `store`.
    pub fn lay_out(&self, store: &Path) -> ModelSpec {
        let directory = store.join(self.url());
        fs::create_dir_all(&directory).unwrap();
        fs::copy(guest(&self.guest), directory.join("handler.wasm")).unwrap();
        if let Some(artifact) = &self.artifact {
            fs::copy(fixture(artifact), directory.join(artifact)).unwrap();
        }
        ModelSpec {
            name: ModelName::new(&self.name).unwrap(),
            version: Version::new(&self.version).unwrap(),
            directory,
            artifact: self.artifact.clone().unwrap_or_default().into(),
            handler: "handler.wasm".into(),
            backend: self.backend,
            declared: Declared::default(),
            manifest: r#"{"runtime": "wasm"}"#.to_owned(),
            config: self.config.clone(),
            properties: std::collections::BTreeMap::new(),
            settings: self.settings.clone(),
            limits: self.limits.clone(),
        }
    }
}

/// A file of `tests/fixtures`.
pub fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(file)
}

/// The component of a guest; built by `make guests`.
pub fn guest(name: &str) -> PathBuf {
    #[allow(
        clippy::disallowed_methods,
        reason = "tests are told by the Makefile where guests lie"
    )]
    let directory = std::env::var_os("LANTERN_GUESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/target/wasm32-wasip2/release"),
        PathBuf::from,
    );
    let file = directory.join(format!("{name}.wasm"));
    assert!(
        file.exists(),
        "no guest {}: run make guests",
        file.display()
    );
    file
}
