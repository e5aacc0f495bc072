//! What the fuzzer calls: model files, as they are screened before ONNX Runtime opens them.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::symlink;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::external::{self, ExternalError};
use super::interface;
use crate::tensor::MAX_RANK;

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 2] = [
    ("onnx_external", onnx_external),
    ("onnx_interface", onnx_interface),
];

/// A model's directory: `external.bin`, a link to a file outside, and a directory.
static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("external.bin"), [0; 64]).expect("a file can be written");
    fs::create_dir(at("weights")).expect("a directory can be made");
    symlink("/etc/hostname", at("link.bin")).expect("a link can be made");
    directory
});

fn onnx_external(bytes: &[u8]) {
    let checked = external::check_reader(Cursor::new(bytes), length(bytes), DIRECTORY.path());
    if let Err(ExternalError::Location { location, .. }) = checked {
        assert!(location.len() <= 3 * bytes.len());
    }
}

fn onnx_interface(bytes: &[u8]) {
    let Ok(interface) = interface::read_from(Cursor::new(bytes), length(bytes)) else {
        return;
    };
    for spec in interface.tensors {
        assert!(spec.name.len() <= bytes.len());
        assert!(
            spec.shape
                .as_ref()
                .is_none_or(|axes| axes.len() <= MAX_RANK)
        );
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
