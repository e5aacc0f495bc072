//! Names of an archive's entries: relative paths that cannot lead out of the directory they are unpacked to, each once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::ArchiveError;

const NAME_LIMIT: usize = 1024;
const COMPONENT_LIMIT: usize = 255;
const DEPTH_LIMIT: usize = 16;

/// A relative path of plain components: no `..`, no root, no backslash, no NUL, no control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName(String);

impl EntryName {
    /// Checks a name as it stands in an archive. `./` and a closing slash are dropped; `None` if nothing is left,
    /// which is how archives name their own root.
    pub fn parse(raw: &[u8]) -> Result<Option<Self>, ArchiveError> {
        let refuse = |rule, value: String| Err(ArchiveError::entry(raw, rule, value));
        if raw.len() > NAME_LIMIT {
            return refuse("must have at most 1024 bytes", raw.len().to_string());
        }
        let Ok(text) = std::str::from_utf8(raw) else {
            return refuse(
                "must be UTF-8",
                format!("{:?}", String::from_utf8_lossy(raw)),
            );
        };
        if let Some(found) = text.chars().find(|c| c.is_control() || *c == '\\') {
            return refuse(
                "must hold neither backslashes nor control characters",
                format!("{found:?}"),
            );
        }
        if text.starts_with('/') {
            return refuse("must be a relative path", format!("{text:?}"));
        }
        if text.is_empty() {
            return refuse("must have a name", "none".to_owned());
        }
        let components = components(raw, text)?;
        Ok((!components.is_empty()).then(|| Self(components.join("/"))))
    }

    /// The path, with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path as bytes, for messages.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The entry's path when the archive is unpacked into `directory`.
    pub fn under(&self, directory: &Path) -> PathBuf {
        directory.join(&self.0)
    }

    /// The path without its first component; `None` if it has only one.
    pub fn without_first(&self) -> Option<Self> {
        let (_, rest) = self.0.split_once('/')?;
        Some(Self(rest.to_owned()))
    }

    /// The paths of the directories above, outermost first.
    fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }
}

fn components<'a>(raw: &[u8], text: &'a str) -> Result<Vec<&'a str>, ArchiveError> {
    let mut kept = Vec::new();
    let text = text.strip_suffix('/').unwrap_or(text);
    for component in text.split('/') {
        match component {
            "." => {}
            ".." => return Err(ArchiveError::entry(raw, "must not hold '..'", "..")),
            "" => {
                return Err(ArchiveError::entry(
                    raw,
                    "must not hold empty components",
                    "//",
                ));
            }
            long if long.len() > COMPONENT_LIMIT => {
                let rule = "must have components of at most 255 bytes";
                return Err(ArchiveError::entry(raw, rule, long.len()));
            }
            plain => kept.push(plain),
        }
    }
    if kept.len() > DEPTH_LIMIT {
        let rule = "must be at most 16 directories deep";
        return Err(ArchiveError::entry(raw, rule, kept.len()));
    }
    Ok(kept)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File,
    Directory,
}

/// The names of an archive seen so far. Two that differ only in case count as the same name, since they would be one file
/// on some machines.
#[derive(Debug, Default)]
pub struct Names(HashMap<String, (String, EntryKind)>);

impl Names {
    /// Adds the name of a file. Fails if an entry has it already, or if one of its parents is a file.
    pub fn file(&mut self, name: &EntryName) -> Result<(), ArchiveError> {
        self.above(name)?;
        let key = name.as_str().to_lowercase();
        if let Some((other, _)) = self.0.get(&key) {
            let value = format!("{other:?} as well");
            return Err(ArchiveError::entry(
                name.bytes(),
                "must be there once",
                value,
            ));
        }
        self.0
            .insert(key, (name.as_str().to_owned(), EntryKind::File));
        Ok(())
    }

    /// Adds the name of a directory, which may have been added before. Fails if a file has the name or is a parent of it.
    pub fn directory(&mut self, name: &EntryName) -> Result<(), ArchiveError> {
        self.above(name)?;
        self.directory_at(name, name.as_str())
    }

    fn above(&mut self, name: &EntryName) -> Result<(), ArchiveError> {
        name.ancestors()
            .try_for_each(|path| self.directory_at(name, path))
    }

    fn directory_at(&mut self, name: &EntryName, path: &str) -> Result<(), ArchiveError> {
        let entry = (path.to_owned(), EntryKind::Directory);
        let known = self.0.entry(path.to_lowercase()).or_insert(entry);
        let rule = match known {
            (_, EntryKind::File) => "must not lie in a file",
            (other, _) if other != path => "must not differ from another entry in case alone",
            _ => return Ok(()),
        };
        Err(ArchiveError::entry(
            name.bytes(),
            rule,
            format!("{:?}", known.0),
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> EntryName {
        EntryName::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn plain_names_are_kept() {
        for (raw, expected) in [
            ("a", "a"),
            ("a/b.c", "a/b.c"),
            ("./a/./b/", "a/b"),
            ("..a/b..", "..a/b.."),
            ("ä/日本", "ä/日本"),
        ] {
            assert_eq!(name(raw).as_str(), expected);
        }
        assert_eq!(EntryName::parse(b"./").unwrap(), None);
    }

    #[test]
    fn names_that_escape_are_refused() {
        let bad: [&[u8]; 14] = [
            b"../x",
            b"a/../../x",
            b"..",
            b"a/..",
            b"/abs",
            b"//abs",
            b"..\\x",
            b"C:\\x",
            b"a//b",
            b"a\0b",
            b"a\nb",
            b"",
            b"\xff\xfe",
            b"../dest-evil/x",
        ];
        for raw in bad {
            assert!(EntryName::parse(raw).is_err(), "{raw:?}");
        }
        for long in ["n".repeat(256), "n/".repeat(600), "n/".repeat(17)] {
            assert!(EntryName::parse(long.as_bytes()).is_err(), "{long}");
        }
    }

    #[test]
    fn a_name_is_taken_once_whatever_its_case() {
        let mut names = Names::default();
        names.file(&name("Model.pt")).unwrap();
        assert_eq!(
            names.file(&name("model.PT")).unwrap_err().to_string(),
            "entry \"model.PT\" must be there once, got \"Model.pt\" as well"
        );
        names.file(&name("dir/a")).unwrap();
        assert!(names.file(&name("DIR/b")).is_err());
        names.directory(&name("dir")).unwrap();
    }

    #[test]
    fn files_and_directories_do_not_clash() {
        let mut names = Names::default();
        names.file(&name("a")).unwrap();
        assert!(names.file(&name("a/b")).is_err());
        assert!(names.directory(&name("a")).is_err());
        names.file(&name("b/c")).unwrap();
        assert!(names.file(&name("b")).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below_its_directory(
            raw in proptest::collection::vec(
                prop_oneof![Just(b'/'), Just(b'.'), Just(b'\\'), Just(0), any::<u8>()], 0..24)
        ) {
            if let Ok(Some(name)) = EntryName::parse(&raw) {
                let path = name.under(Path::new("/dest"));
                let inside = path.strip_prefix("/dest").unwrap();
                prop_assert!(inside.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(inside.components().count() > 0);
                prop_assert_eq!(EntryName::parse(name.bytes()).unwrap(), Some(name));
            }
        }
    }
}
