//! Archives that `torch-model-archiver` made, and the errors of archives that cannot be served.

use super::raw::{RawEntry, zip};
use super::*;
use crate::model::BackendKind;

fn fixture(name: &str) -> Location {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/archives");
    Location::local(&directory.join(name)).unwrap()
}

fn manifest(model: &str) -> RawEntry {
    let text = format!(
        r#"{{"runtime": "wasm", "model": {{"modelName": "m", "modelVersion": "1", {model}}}}}"#
    );
    RawEntry::new(MANIFEST, text.as_bytes())
}

fn refused(entries: &[RawEntry]) -> String {
    Bench::new().refused("x.mar", &zip(entries))
}

#[test]
fn archives_of_the_original_tool_are_read() {
    for name in ["default.mar", "stored.mar", "compressed.tar.gz"] {
        let bench = Bench::new();
        let unpacked = bench.store().unpack(&fixture(name)).unwrap();
        let contents = unpacked.contents();
        assert_eq!(contents.handler.as_str(), "linear.wasm", "{name}");
        assert_eq!(contents.backend, BackendKind::Onnx);
        assert_eq!(contents.manifest.runtime, Runtime::Python);
        assert_eq!(contents.config.options.batch_size, Some(4));
        assert!(unpacked.directory().join("index_to_name.json").is_file());
    }
}

#[test]
fn a_python_handler_is_refused_with_what_to_do() {
    let bench = Bench::new();
    let error = bench
        .store()
        .unpack(&fixture("python_handler.mar"))
        .unwrap_err();
    insta::assert_snapshot!("python_handler", error.to_string());
}

#[test]
fn a_refused_archive_can_still_be_examined() {
    let examined = examine(&fixture("python_handler.mar"), UnpackLimits::default()).unwrap();
    let names: Vec<_> = examined
        .files
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, [MANIFEST, "custom.py", "linear.onnx"]);
    assert!(examined.contents.is_err());
}

#[test]
fn handlers_must_be_there_and_be_components() {
    let handler = manifest(r#""handler": "h.wasm""#);
    assert!(refused(std::slice::from_ref(&handler)).contains("no file \"h.wasm\""));
    let native = RawEntry::new("h.wasm", b"\x7fELF\x02\x01\x01\0");
    assert!(refused(&[native, handler]).contains("precompiled code"));
    let climbs = manifest(r#""handler": "../h.wasm""#);
    assert!(refused(&[climbs]).contains("must not hold '..'"));
}

#[test]
fn weights_must_be_there_and_have_a_backend() {
    let handler = RawEntry::new("h.wasm", &component::HEADER);
    let weights = manifest(r#""handler": "h.wasm", "serializedFile": "m.xyz""#);
    assert!(refused(&[handler.clone(), weights.clone()]).contains("no file \"m.xyz\""));
    let unknown = [handler, weights, RawEntry::new("m.xyz", b"x")];
    assert!(refused(&unknown).contains("cannot tell what runs \"m.xyz\""));
}

#[test]
fn every_backend_is_found_by_its_settings_or_by_the_name_of_its_weights() {
    let handler = RawEntry::new("h.wasm", &component::HEADER);
    let found = |entries: &[RawEntry]| {
        let bench = Bench::new();
        let archive = bench.put("m.mar", &zip(entries));
        bench.store().unpack(&archive).unwrap().contents().backend
    };
    for kind in BackendKind::ALL {
        let named =
            manifest(r#""handler": "h.wasm", "configFile": "c.yaml", "serializedFile": "w""#);
        let settings = format!("lantern: {{backend: {}}}", kind.name());
        let settings = RawEntry::new("c.yaml", settings.as_bytes());
        let weights = RawEntry::new("w", b"x");
        assert_eq!(found(&[handler.clone(), named, settings, weights]), kind);
        for extension in kind.info().extensions {
            let weights = format!("w.{extension}");
            let named = manifest(&format!(
                r#""handler": "h.wasm", "serializedFile": "{weights}""#
            ));
            let weights = RawEntry::new(&weights, b"x");
            assert_eq!(found(&[handler.clone(), named, weights]), kind);
        }
    }
}

#[test]
fn settings_must_be_there_and_be_right() {
    let handler = RawEntry::new("h.wasm", &component::HEADER);
    let configured = manifest(r#""handler": "h.wasm", "configFile": "c.yaml""#);
    assert!(refused(&[handler.clone(), configured.clone()]).contains("no c.yaml"));
    let wrong = RawEntry::new("c.yaml", b"batchsizes: 1\nlantern: {bakend: onnx}\n");
    let message = refused(&[handler, configured, wrong]);
    assert!(
        message.contains("batchSize?") && message.contains("backend?"),
        "{message}"
    );
}

#[test]
fn an_archive_without_weights_has_no_backend() {
    let bench = Bench::new();
    let entries = [
        RawEntry::new("h.wasm", &component::HEADER),
        manifest(r#""handler": "h.wasm""#),
    ];
    let unpacked = bench
        .store()
        .unpack(&bench.put("x.mar", &zip(&entries)))
        .unwrap();
    assert_eq!(unpacked.contents().backend, BackendKind::None);
}
