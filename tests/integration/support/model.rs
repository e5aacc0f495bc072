//! Models for tests: a guest, an artifact and settings, packed as an author would.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lantern::archive::Runtime;
use lantern::archive::pack::{PackForm, PackSpec, pack_checked};
use lantern::model::{ModelName, Version};
use lantern::signing::SigningKey;

/// A version of a model, to be packed.
#[derive(Clone)]
pub struct Model {
    name: String,
    version: String,
    guest: String,
    artifact: Option<&'static str>,
    /// Lines of `model-config.yaml`.
    settings: Vec<String>,
    /// Lines of its section `lantern:`.
    lantern: Vec<String>,
    /// Who signs its archive.
    key: Option<Arc<SigningKey>>,
}

impl Model {
    /// A model named after its guest, with one worker in the server's process, that runs nothing but its handler.
    pub fn new(guest: &str) -> Self {
        Self {
            name: guest.to_owned(),
            version: "1.0".to_owned(),
            guest: guest.to_owned(),
            artifact: None,
            settings: vec!["minWorkers: 1".to_owned(), "maxWorkers: 1".to_owned()],
            lantern: vec!["hosting: inline".to_owned()],
            key: None,
        }
    }

    /// `linear.onnx` with the handler that takes JSON.
    pub fn linear() -> Self {
        Self::new("linear").artifact("linear.onnx")
    }

    /// The fake backend with the handler that takes tensors in JSON.
    pub fn fake() -> Self {
        let mut fake = Self::new("passthrough").named("fake");
        fake.lantern.push("backend: fake".to_owned());
        fake
    }

    /// Sets the name.
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Sets the version.
    pub fn version(self, version: &str) -> Self {
        Self {
            version: version.to_owned(),
            ..self
        }
    }

    /// Signs its archive.
    pub fn signed_with(self, key: &Arc<SigningKey>) -> Self {
        Self {
            key: Some(Arc::clone(key)),
            ..self
        }
    }

    /// Sets the artifact, a file of `tests/fixtures`.
    pub fn artifact(self, file: &'static str) -> Self {
        Self {
            artifact: Some(file),
            ..self
        }
    }

    /// Hosts it in a worker process.
    pub fn in_process(mut self) -> Self {
        self.lantern.retain(|line| !line.starts_with("hosting"));
        self
    }

    /// Adds a line to the section `lantern:` of the settings.
    pub fn lantern(mut self, line: &str) -> Self {
        self.lantern.push(line.to_owned());
        self
    }

    /// Adds a line to the settings.
    pub fn with(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Leaves the number of workers to the registration.
    pub fn without_workers(mut self) -> Self {
        self.settings.retain(|line| !line.contains("Workers"));
        self
    }

    /// File name of its archive.
    pub fn url(&self) -> String {
        format!("{}-{}.mar", self.name, self.version)
    }

    /// Its archive, as bytes.
    pub fn packed(&self) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        self.pack_into(directory.path());
        fs::read(directory.path().join(self.url())).unwrap()
    }

    /// Packs it into `store`.
    pub fn pack_into(&self, store: &Path) {
        let work = tempfile::tempdir().unwrap();
        let config_file = work.path().join("model-config.yaml");
        let lantern = self.lantern.iter().map(|line| format!("  {line}\n"));
        let lantern = lantern.collect::<String>();
        let lantern = if lantern.is_empty() {
            lantern
        } else {
            format!("lantern:\n{lantern}")
        };
        fs::write(
            &config_file,
            format!("{}\n{lantern}", self.settings.join("\n")),
        )
        .unwrap();
        let spec = PackSpec {
            name: ModelName::new(&self.name).unwrap(),
            version: Version::new(&self.version).unwrap(),
            runtime: Runtime::Wasm,
            handler: guest(&self.guest),
            serialized_file: self.artifact.map(fixture),
            model_file: None,
            requirements_file: None,
            config_file: Some(config_file),
            extra_files: Vec::new(),
            export_path: work.path().to_owned(),
            form: PackForm::StoredZip,
            force: false,
        };
        let packed = pack_checked(&spec, self.key.as_deref(), |_| Ok(()));
        fs::rename(packed.unwrap().path, store.join(self.url())).unwrap();
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
