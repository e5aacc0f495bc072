//! Directories in the store that hold the files of an archive.

use std::os::unix::fs::symlink;

use super::*;

const TEXT: &str = r#"{"model": {"modelName": "m", "modelVersion": "1", "handler": "h.wasm"}}"#;

fn model(bench: &Bench, at: &str) -> PathBuf {
    let directory = bench.path(at);
    fs::create_dir_all(directory.join("MAR-INF")).unwrap();
    fs::write(directory.join(MANIFEST), TEXT).unwrap();
    fs::write(directory.join("h.wasm"), component::HEADER).unwrap();
    directory
}

#[test]
fn a_directory_is_copied() {
    let bench = Bench::new();
    let directory = model(&bench, "m");
    let store = bench.store();
    let unpacked = store.unpack(&Location::local(&directory).unwrap()).unwrap();
    fs::write(directory.join("h.wasm"), "changed").unwrap();
    assert_eq!(
        fs::read(unpacked.directory().join("h.wasm")).unwrap(),
        component::HEADER
    );
    let again = store.unpack(&Location::local(&directory).unwrap());
    assert!(again.is_err(), "what changed is another model");
}

#[test]
fn a_lone_directory_inside_is_unwrapped() {
    let bench = Bench::new();
    model(&bench, "outer/inner");
    let location = Location::local(&bench.path("outer")).unwrap();
    let unpacked = bench.store().unpack(&location).unwrap();
    assert_eq!(unpacked.contents().manifest.version.as_str(), "1");
}

#[test]
fn links_are_refused() {
    let bench = Bench::new();
    let directory = model(&bench, "m");
    symlink(bench.path(CANARY), directory.join("link")).unwrap();
    let error = bench
        .store()
        .unpack(&Location::local(&directory).unwrap())
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("entry \"link\" must be a file or a directory, got a symbolic link"),
        "{error}"
    );
}

#[test]
fn entries_are_counted() {
    let bench = Bench::new();
    let directory = model(&bench, "m");
    for index in 0..200 {
        fs::write(directory.join(index.to_string()), "x").unwrap();
    }
    let error = bench
        .store()
        .unpack(&Location::local(&directory).unwrap())
        .unwrap_err();
    assert!(
        error.to_string().contains("more entries than allowed"),
        "{error}"
    );
}
