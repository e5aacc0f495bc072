//! Directories in the store that hold the files of an archive.

use std::os::unix::fs::symlink;

use super::*;
use crate::archive::roots::Roots;

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

/// A model in `m` with a link in it to `target`.
fn linked(bench: &Bench, link: &str, target: &str) -> PathBuf {
    let directory = model(bench, "m");
    symlink(target, directory.join(link)).unwrap();
    directory
}

#[test]
fn links_that_lead_elsewhere_are_refused_with_where_they_lead() {
    let bench = Bench::new();
    let canary = bench.path(CANARY).display().to_string();
    let directory = linked(&bench, "link", &canary);
    let location = Location::local(&directory).unwrap();
    let error = bench.store().unpack(&location).unwrap_err();
    let error = crate::error::Error::from(error);
    assert_eq!(error.kind(), crate::error::Kind::InvalidModel);
    let message = error.message();
    assert!(
        message.starts_with("entry \"link\" must be a file, a directory, or a symbolic link"),
        "{message}"
    );
    assert!(!message.contains(&canary), "{message}");
    assert!(
        error
            .detail()
            .is_some_and(|detail| detail.contains(&canary)),
        "{error}"
    );
}

#[test]
fn links_are_followed_within_the_model_and_to_where_archives_may_lie() {
    let bench = Bench::new();
    let elsewhere = bench.path("blobs");
    fs::create_dir_all(elsewhere.join("sub")).unwrap();
    fs::write(elsewhere.join("weights"), "weights").unwrap();
    fs::write(elsewhere.join("sub/labels"), "labels").unwrap();
    let directory = linked(&bench, "again.wasm", "h.wasm");
    symlink("../blobs/weights", directory.join("weights.bin")).unwrap();
    symlink(elsewhere.join("sub"), directory.join("sub")).unwrap();
    let roots = Roots::default().and(elsewhere.canonicalize().unwrap());
    let location = Location::local(&directory).unwrap().linking_to(roots);
    let unpacked = bench.store().unpack(&location).unwrap();
    let copy = |name: &str| {
        let path = unpacked.directory().join(name);
        assert!(!path.is_symlink(), "{name}");
        fs::read(path).unwrap()
    };
    assert_eq!(copy("again.wasm"), component::HEADER);
    assert_eq!(copy("weights.bin"), b"weights");
    assert_eq!(copy("sub/labels"), b"labels");
    let refused = bench.store().unpack(&Location::local(&directory).unwrap());
    assert!(refused.is_err());
}

#[test]
fn a_manifest_behind_a_link_is_read_as_the_archive_is() {
    let bench = Bench::new();
    let directory = model(&bench, "m");
    let elsewhere = bench.path("blobs");
    fs::create_dir(&elsewhere).unwrap();
    fs::rename(directory.join("MAR-INF"), elsewhere.join("MAR-INF")).unwrap();
    symlink("../blobs/MAR-INF", directory.join("MAR-INF")).unwrap();
    let location = Location::local(&directory).unwrap();
    let limits = UnpackLimits::default();
    assert!(read_summary(&location, limits).is_none());
    let roots = Roots::default().and(elsewhere.canonicalize().unwrap());
    assert!(read_summary(&location.linking_to(roots), limits).is_some());
}

#[test]
fn links_in_a_circle_end() {
    let bench = Bench::new();
    let directory = linked(&bench, "round", ".");
    let unpacked = bench.store().unpack(&Location::local(&directory).unwrap());
    assert!(unpacked.is_err());
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
