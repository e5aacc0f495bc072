//! What the fuzzer calls: foreign text that is cut for messages and logs.

use std::path::Path;

use super::{quoted, reason, shortened, truncated, without_frames};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("text", text)];

fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let limit = usize::from(bytes.first().copied().unwrap_or_default());
    assert!(truncated(&text, limit).len() <= limit);
    assert!(text.starts_with(truncated(&text, limit)));
    assert!(shortened(&text, limit).chars().count() <= limit + 40);
    assert!(quoted(&text).len() < 1024);
    assert!(text.starts_with(without_frames(&text)));
    let told = reason(&text, Path::new("/srv/models"));
    assert!(told.len() < 512 && !told.contains(char::is_control));
}
