//! Files of weights that are not served, and archives that contradict themselves: registration, `lantern archive` and
//! `lantern inspect` refuse them alike, and say what to do.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lantern::model::BackendKind;
use tempfile::TempDir;

use crate::support::onnx::Sum;
use crate::support::{TestServer, fixture, guest};

/// An author's model.
struct Author {
    directory: TempDir,
}

impl Author {
    fn new(file: &str, content: &[u8], config: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(file), content).unwrap();
        fs::write(directory.path().join("model-config.yaml"), config).unwrap();
        fs::copy(guest("passthrough"), directory.path().join("handler.wasm")).unwrap();
        Self { directory }
    }

    fn lantern(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lantern"));
        command.args(arguments).current_dir(self.directory.path());
        command.output().unwrap()
    }

    /// What `lantern archive` says of it.
    fn archived(&self, file: &str) -> (bool, String) {
        let arguments = [
            "archive",
            "--model-name",
            "m",
            "--version",
            "1.0",
            "--handler",
            "handler.wasm",
            "--serialized-file",
            file,
            "--config-file",
            "model-config.yaml",
        ];
        let output = self.lantern(&arguments);
        let written = self.directory.path().join("m.mar").exists();
        assert_eq!(output.status.success(), written);
        (written, String::from_utf8(output.stderr).unwrap())
    }

    /// The archive as a tool makes it that checks nothing.
    fn packed(&self, file: &str) -> PathBuf {
        let path = self.directory.path().join("unchecked.mar");
        let mut archive = zip::ZipWriter::new(fs::File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored);
        let manifest = format!(
            r#"{{"runtime": "wasm", "model": {{"modelName": "m", "modelVersion": "1.0", "serializedFile": "{file}",
                "handler": "handler.wasm", "configFile": "model-config.yaml"}}}}"#
        );
        archive
            .start_file("MAR-INF/MANIFEST.json", options)
            .unwrap();
        archive.write_all(manifest.as_bytes()).unwrap();
        for name in [file, "handler.wasm", "model-config.yaml"] {
            archive.start_file(name, options).unwrap();
            archive
                .write_all(&fs::read(self.directory.path().join(name)).unwrap())
                .unwrap();
        }
        archive.finish().unwrap();
        path
    }

    /// What `lantern inspect` says of it.
    fn inspected(&self, archive: &Path) -> (bool, String) {
        let output = self.lantern(&["inspect", &archive.display().to_string()]);
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
        )
    }
}

/// Asserts that all three refuse the model, and say these.
async fn is_refused_everywhere(author: &Author, file: &str, status: u16, says: &[&str]) {
    let (is_written, archive) = author.archived(file);
    assert!(!is_written, "{file} was packed");
    let packed = author.packed(file);
    let (is_servable, inspect) = author.inspected(&packed);
    assert!(!is_servable, "{inspect}");
    assert!(inspect.contains("not servable: "), "{inspect}");
    let server = TestServer::builder().start().await;
    fs::copy(&packed, server.store().join("m.mar")).unwrap();
    let path = "/models?url=m.mar&initial_workers=1&synchronous=true";
    let answer = server.management("POST", path).await;
    assert_eq!(answer.status, status, "{}", answer.text());
    let registration = answer.json()["message"].as_str().unwrap().to_owned();
    for told in [archive, inspect, registration] {
        for part in says {
            assert!(told.contains(part), "{file}: no {part:?} in {told}");
        }
    }
}

/// Files, with what they are.
const FILES: [(&str, &str); 7] = [
    (
        "hostile/state_dict.pt",
        "a pickle of torch.save, which holds weights",
    ),
    (
        "unserved/module.pth",
        "a pickle of torch.save, which holds weights",
    ),
    (
        "unserved/legacy.pt",
        "a pickle of torch.save, which holds weights",
    ),
    ("unserved/exported.pt2", "a program of torch.export"),
    ("unserved/lite.ptl", "a file of PyTorch's Lite Interpreter"),
    ("unserved/weights.safetensors", "a file of safetensors"),
    ("unserved/forest.pkl", "a Python pickle"),
];

#[tokio::test(flavor = "multi_thread")]
async fn real_files_are_named_for_what_they_are() {
    for (path, what) in FILES {
        let file = Path::new(path).file_name().unwrap().to_str().unwrap();
        let author = Author::new(file, &fs::read(fixture(path)).unwrap(), "minWorkers: 1\n");
        let says = [what, "torch.jit.script(model).save", "docs/exporting.md"];
        is_refused_everywhere(&author, file, 400, &says).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_files_content_counts_more_than_its_name_and_its_name_more_than_nothing() {
    let safetensors = fs::read(fixture("unserved/weights.safetensors")).unwrap();
    let exported = fs::read(fixture("unserved/exported.pt2")).unwrap();
    for (file, content, config, says) in [
        ("model.onnx", &safetensors[..], "", "a file of safetensors"),
        ("model.pt", &exported[..], "", "a program of torch.export"),
        (
            "model",
            &exported[..],
            "lantern: {backend: torch}\n",
            "a program of torch.export",
        ),
        ("model.plan", b"\0\x01\x02", "", "an engine of TensorRT"),
        ("model.engine", b"ftrt....", "", "an engine of TensorRT"),
        (
            "model.h5",
            b"\x89HDF\r\n\x1a\n",
            "",
            "python -m tf2onnx.convert",
        ),
        ("model.pb", b"\x08\x01", "", "a graph of TensorFlow"),
        (
            "model.tflite",
            b"\x1c\0\0\0TFL3",
            "",
            "a model of TensorFlow Lite",
        ),
        (
            "pytorch_model.bin",
            b"\x01\x02",
            "",
            "a file of bare weights",
        ),
        (
            "model.xyz",
            b"\x01\x02",
            "",
            "cannot tell what runs \"model.xyz\"",
        ),
    ] {
        let author = Author::new(file, content, config);
        is_refused_everywhere(&author, file, 400, &[says]).await;
    }
}

#[test]
fn a_name_alone_refuses_nothing_where_the_settings_say_what_runs_it() {
    let onnx = fs::read(fixture("linear.onnx")).unwrap();
    let author = Author::new("weights.bin", &onnx, "lantern: {backend: onnx}\n");
    let (is_written, text) = author.archived("weights.bin");
    assert!(is_written, "{text}");
    let (is_servable, text) = author.inspected(&author.directory.path().join("m.mar"));
    assert!(is_servable, "{text}");
    assert_eq!(BackendKind::of_artifact("weights.bin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_inputs_that_contradict_the_file_are_refused_everywhere() {
    let onnx = fs::read(fixture("linear.onnx")).unwrap();
    for (inputs, says) in [
        (
            "{name: image, dtype: fp32, shape: [-1, 16]}",
            "input image: fp32[?, 16] is declared, but the model has only x: fp32[?, 16]",
        ),
        (
            "{name: x, dtype: int64, shape: [-1, 16]}",
            "input x: int64[?, 16] is declared, but the model's is x: fp32[?, 16]",
        ),
        (
            "{name: x, dtype: fp32, shape: [-1, 17]}",
            "input x: fp32[?, 17] is declared, but the model's is x: fp32[?, 16]",
        ),
        (
            "{name: x, dtype: fp32, shape: [-1, 1, 16]}",
            "input x: fp32[?, 1, 16] is declared, but the model's is x: fp32[?, 16]",
        ),
    ] {
        let config = format!("minWorkers: 1\nlantern:\n  inputs: [{inputs}]\n");
        let author = Author::new("linear.onnx", &onnx, &config);
        is_refused_everywhere(&author, "linear.onnx", 500, &[says]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_needs_what_is_off_is_refused_everywhere() {
    let author = Author::new(
        "linear.onnx",
        &fs::read(fixture("linear.onnx")).unwrap(),
        "minWorkers: 1\n",
    );
    let handler = author.directory.path().join("handler.wasm");
    // A core module with a memory of 64-bit addresses, in front of what makes it a handler.
    let wasm = fs::read(&handler).unwrap();
    let module = b"\0asm\x01\0\0\0\x05\x03\x01\x04\x01";
    let length = u8::try_from(module.len()).unwrap();
    let section = [&[1, length][..], module].concat();
    fs::write(&handler, [&wasm[..8], &section, &wasm[8..]].concat()).unwrap();
    let says = [
        "is not valid here: ",
        "memory64",
        "64-bit memory",
        "build it for wasm32-wasip2",
    ];
    is_refused_everywhere(&author, "linear.onnx", 500, &says).await;
}

#[test]
fn a_model_that_onnx_runtime_refuses_is_packed_and_not_called_servable() {
    let onnx = Sum::of(1, 4).of_the_future().bytes();
    let config = "lantern:\n  inputs: [{name: '0000', dtype: fp32, shape: [-1, 1]}]\n";
    let author = Author::new("sum.onnx", &onnx, config);
    let (is_written, text) = author.archived("sum.onnx");
    assert!(is_written, "{text}");
    let (is_servable, text) = author.inspected(&author.directory.path().join("m.mar"));
    assert!(!is_servable && text.contains("IR version: 9999"), "{text}");
}
