//! Refuses model files that point outside their directory, before ONNX Runtime opens what they point to.
//!
//! A tensor in an ONNX file may say that its data lies in another file: an initializer, an attribute of a node, inside
//! a subgraph, a function or a sparse tensor. Every such place is visited; each location must be a plain relative path
//! to a regular file in the model's directory. Attacks on this: CVE-2022-25882, CVE-2024-27318.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path};

use super::wire::{Content, Walker, WireError};

/// Nested messages; protobuf itself stops at 100.
const MAX_DEPTH: usize = 100;
/// Bytes of a location, or of another entry beside it.
const MAX_TEXT: usize = 4096;

/// Why a model file is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExternalError {
    /// Not a model.
    #[error("the model file {0}")]
    Wire(#[from] WireError),
    /// A location that breaks the rule.
    #[error("external data at {location:?}: {rule}")]
    Location {
        /// As the file has it.
        location: String,
        /// The rule it breaks.
        rule: &'static str,
    },
}

/// The messages of `onnx.proto` that lead to a tensor. A length-delimited field that leads nowhere is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Training,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
    ExternalEntry,
}

impl Message {
    /// What lies in field `number`, if it can lead to external data. Numbers are those of `onnx.proto`.
    const fn child(self, number: u32) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => {
                Some(Self::Graph)
            }
            (Self::Model, 20) => Some(Self::Training),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Graph, 5) | (Self::SparseTensor, 1 | 2) | (Self::Attribute, 5 | 10) => {
                Some(Self::Tensor)
            }
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::SparseTensor),
            (Self::Function, 11) | (Self::Node, 5) => Some(Self::Attribute),
            (Self::Tensor, 13) => Some(Self::ExternalEntry),
            _ => None,
        }
    }
}

/// Checks every location in the model file `artifact`.
pub(super) fn check(artifact: &Path) -> Result<(), ExternalError> {
    let file = File::open(artifact).map_err(WireError::Read)?;
    let length = file.metadata().map_err(WireError::Read)?.len();
    let directory = artifact.parent().unwrap_or(Path::new(""));
    check_reader(BufReader::new(file), length, directory)
}

pub(super) fn check_reader(
    reader: impl BufRead + Seek,
    length: u64,
    directory: &Path,
) -> Result<(), ExternalError> {
    if length == 0 {
        return Err(WireError::Malformed("it is empty", 0).into());
    }
    Visit {
        walker: Walker::new(reader),
        directory,
    }
    .message(Message::Model, length, 0)
}

struct Visit<'a, R> {
    walker: Walker<R>,
    directory: &'a Path,
}

impl<R: BufRead + Seek> Visit<'_, R> {
    fn message(&mut self, message: Message, end: u64, depth: usize) -> Result<(), ExternalError> {
        if depth == MAX_DEPTH {
            return Err(self.walker.malformed("messages nested too deeply").into());
        }
        if message == Message::ExternalEntry {
            return self.entry(end);
        }
        while let Some(field) = self.walker.next_field(end)? {
            match (field.content, message.child(field.number)) {
                (Content::Until(end), Some(child)) => self.message(child, end, depth + 1)?,
                (content, _) => self.walker.skip(content)?,
            }
        }
        Ok(())
    }

    /// A key and a value. Each may come more than once, and the last counts; here every value must stand.
    fn entry(&mut self, end: u64) -> Result<(), ExternalError> {
        let mut is_location = false;
        let mut values = Vec::new();
        while let Some(field) = self.walker.next_field(end)? {
            match (field.number, field.content) {
                (1, Content::Until(end)) => {
                    is_location |= self.walker.bytes(end, MAX_TEXT)? == b"location";
                }
                (2, Content::Until(end)) => values.push(self.walker.bytes(end, MAX_TEXT)?),
                (_, content) => self.walker.skip(content)?,
            }
        }
        if !is_location {
            return Ok(());
        }
        if values.is_empty() {
            values.push(Vec::new());
        }
        values
            .iter()
            .try_for_each(|value| check_location(value, self.directory))
    }
}

fn check_location(location: &[u8], directory: &Path) -> Result<(), ExternalError> {
    let refuse = |rule| ExternalError::Location {
        location: String::from_utf8_lossy(location).into_owned(),
        rule,
    };
    let text = str::from_utf8(location).map_err(|_| refuse("must be UTF-8"))?;
    if text.is_empty() {
        return Err(refuse("must not be empty"));
    }
    if text.contains(['\0', '\\', ':']) {
        return Err(refuse("must not hold NUL, backslash or colon"));
    }
    let mut path = directory.to_owned();
    for component in Path::new(text).components() {
        let Component::Normal(name) = component else {
            return Err(refuse("must be a relative path without . and .."));
        };
        path.push(name);
        let kind =
            fs::symlink_metadata(&path).map_err(|_| refuse("is not in the model's directory"))?;
        if kind.is_symlink() {
            return Err(refuse("must not be or pass a symbolic link"));
        }
    }
    let kind =
        fs::symlink_metadata(&path).map_err(|_| refuse("is not in the model's directory"))?;
    match (kind.is_file(), kind.nlink()) {
        (true, 1) => Ok(()),
        (true, _) => Err(refuse("must not be a hard link to another file")),
        (false, _) => Err(refuse("must be a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        [&bytes, content].concat()
    }

    /// A model with one initializer that has these external entries.
    fn model(entries: &[Vec<u8>]) -> Vec<u8> {
        let entries: Vec<u8> = entries.iter().flat_map(|entry| field(13, entry)).collect();
        field(7, &field(5, &entries))
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        [field(1, key.as_bytes()), field(2, value)].concat()
    }

    fn checked(directory: &Path, model: &[u8]) -> Result<(), String> {
        let length = u64::try_from(model.len()).unwrap();
        check_reader(Cursor::new(model), length, directory).map_err(|error| error.to_string())
    }

    /// `weights/a.bin`, and a link of every kind that leads out.
    fn directory() -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("weights")).unwrap();
        fs::write(at("weights/a.bin"), b"1234").unwrap();
        symlink("weights", at("linked")).unwrap();
        symlink("weights/a.bin", at("soft.bin")).unwrap();
        fs::write(at("b.bin"), b"1234").unwrap();
        fs::hard_link(at("b.bin"), at("hard.bin")).unwrap();
        directory
    }

    #[test]
    fn files_in_the_directory_are_allowed() {
        let directory = directory();
        let entries = [
            entry("location", b"weights/a.bin"),
            entry("offset", b"../0"),
        ];
        checked(directory.path(), &model(&entries)).unwrap();
    }

    #[test]
    fn links_folders_and_absent_files_are_refused() {
        let directory = directory();
        for location in [
            "soft.bin",
            "linked/a.bin",
            "hard.bin",
            "weights",
            "absent.bin",
            "weights/a.bin/b",
        ] {
            let refusal = checked(
                directory.path(),
                &model(&[entry("location", location.as_bytes())]),
            );
            assert!(refusal.unwrap_err().contains(location));
        }
    }

    #[test]
    fn paths_that_are_not_plain_are_refused() {
        let directory = directory();
        for location in [
            &b"/weights/a.bin"[..],
            b"./weights/a.bin",
            b"weights/../b.bin",
            b"..",
            b"weights\\a.bin",
            b"weights/a.bin\0",
            b"\xff",
            b"",
            b"file:weights/a.bin",
        ] {
            assert!(checked(directory.path(), &model(&[entry("location", location)])).is_err());
        }
    }

    #[test]
    fn a_second_value_does_not_hide_the_first() {
        let directory = directory();
        let good = field(2, b"weights/a.bin");
        let bad = field(2, b"../secret.bin");
        let key = field(1, b"location");
        for entry in [
            [key.clone(), good.clone(), bad.clone()].concat(),
            [bad.clone(), key.clone(), good.clone()].concat(),
            [field(1, b"offset"), good.clone(), key.clone(), bad.clone()].concat(),
            key.clone(),
        ] {
            assert!(checked(directory.path(), &model(&[entry])).is_err());
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut graph = Vec::new();
        for _ in 0..1000 {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        let refusal = checked(Path::new(""), &field(7, &graph)).unwrap_err();
        assert!(refusal.contains("nested too deeply"), "{refusal}");
    }

    #[test]
    fn a_length_beyond_the_file_is_refused() {
        for bytes in [
            &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0x3a, 5, 0],
            &[0x3a],
            &[0x80],
            &[0x3b],
        ] {
            assert!(checked(Path::new(""), bytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = checked(Path::new(""), &bytes);
        }

        #[test]
        fn any_change_to_a_model_is_checked_without_panic(place in 0..60usize, byte: u8) {
            let mut bytes = model(&[entry("location", b"weights/a.bin"), entry("length", b"4")]);
            let place = place % bytes.len();
            bytes[place] = byte;
            let _ = checked(Path::new(""), &bytes);
        }
    }
}
