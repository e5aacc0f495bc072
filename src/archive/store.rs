//! The model store: the one directory that archives are loaded from.
//!
//! A client names an archive by a path relative to the store. TorchServe also takes absolute paths to any directory of the
//! machine. Here nothing outside the store can be named, and a link that leads out of it is not followed.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::ArchiveError;

/// Endings of the names that `all` finds.
const SUFFIXES: [&str; 3] = [".mar", ".model", ".tar.gz"];
/// The store's directory for unfinished downloads and markers. No client can name a file in it.
pub(super) const HIDDEN: &str = ".lantern";

/// The directory that archives are loaded from, if there is one. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelStore {
    directory: Option<PathBuf>,
}

/// An archive that exists in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    path: PathBuf,
    url: String,
    source: String,
    digest: Option<String>,
}

impl Location {
    /// An archive anywhere on this machine. The path must come from whoever runs the program, not from a client.
    pub fn local(path: &Path) -> Result<Self, ArchiveError> {
        let url = path.display().to_string();
        match fs::canonicalize(path) {
            Ok(path) => Ok(Self::at(path, &url)),
            Err(_) => Err(ArchiveError::NotFound(url)),
        }
    }

    /// The archive that a client calls `url`, at a path that was checked.
    pub(super) fn at(path: PathBuf, url: &str) -> Self {
        Self {
            path,
            url: url.to_owned(),
            source: url.to_owned(),
            digest: None,
        }
    }

    /// What finds the archive again: a name in the store, or an absolute path.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The same archive under another URL.
    pub(super) fn named(self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self
        }
    }

    /// The same archive, whose SHA-256 must be `digest` when it is opened.
    pub(super) fn pinned(self, digest: Option<String>) -> Self {
        Self { digest, ..self }
    }

    /// The SHA-256 that it must have, in hexadecimal, if whoever named it gave one.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The URL by which the client named it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its path on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name for a model whose archive gives none: see [`default_name`].
    pub fn default_name(&self) -> String {
        default_name(&self.url)
    }

    /// The file's name without extension.
    pub fn stem(&self) -> &str {
        stem(&self.url)
    }
}

/// The name for a model whose archive, at `url`, gives none: the file's name without extension, with characters replaced
/// that names may not have.
pub fn default_name(url: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '_'
        }
    };
    stem(url).chars().map(plain).collect()
}

fn stem(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let file = path.trim_end_matches('/').rsplit('/').next();
    let file = file.unwrap_or_default();
    let stem = file.strip_suffix(".tar.gz").unwrap_or(file);
    stem.rsplit_once('.').map_or(stem, |(stem, _)| stem)
}

impl ModelStore {
    /// The store in `directory`.
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory }
    }

    /// The archive that a client calls `url`. Reads the file system.
    pub fn resolve(&self, url: &str) -> Result<Location, ArchiveError> {
        let named = relative(url)?;
        let directory = self
            .directory
            .as_deref()
            .ok_or(ArchiveError::NoModelStore)?;
        let missing = || ArchiveError::NotFound(shorten(url));
        let root = fs::canonicalize(directory).map_err(|_| missing())?;
        let path = fs::canonicalize(root.join(named)).map_err(|_| missing())?;
        if !path.starts_with(&root) || path == root {
            return Err(missing());
        }
        Ok(Location::at(path, url))
    }

    /// The store's directory, if there is one.
    pub fn root(&self) -> Option<PathBuf> {
        fs::canonicalize(self.directory.as_deref()?).ok()
    }

    /// The resolved form of an absolute path, if that is in the store.
    pub(super) fn holds(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root()?;
        let real = fs::canonicalize(path).ok()?;
        let below = real.strip_prefix(&root).ok()?;
        let is_hidden = below.starts_with(HIDDEN) || below.as_os_str().is_empty();
        (!is_hidden).then_some(real)
    }

    /// Every archive in the store, ordered by name: files whose names end as archives' do, and directories. Empty if the
    /// store does not exist.
    pub fn list(&self) -> Result<Vec<Location>, ArchiveError> {
        let Some(directory) = &self.directory else {
            return Ok(Vec::new());
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ArchiveError::io("listing the model store")(error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_archive(directory, name))
            .collect();
        names.sort();
        Ok(names
            .iter()
            .filter_map(|name| self.resolve(name).ok())
            .collect())
    }
}

fn is_archive(directory: &Path, name: &str) -> bool {
    let has_suffix = SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    !name.starts_with('.') && (has_suffix || directory.join(name).is_dir())
}

fn relative(url: &str) -> Result<&Path, ArchiveError> {
    if url.is_empty() {
        return Err(ArchiveError::EmptyUrl);
    }
    if url.contains("..") {
        return Err(ArchiveError::RelativePath(shorten(url)));
    }
    let scheme = url
        .split_once("://")
        .map(|(scheme, _)| scheme.to_ascii_lowercase());
    if matches!(scheme.as_deref(), Some("http" | "https" | "file")) {
        return Err(ArchiveError::UrlNotAllowed(shorten(url)));
    }
    let path = Path::new(url);
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_plain || url.contains('\0') || path.starts_with(HIDDEN) {
        return Err(ArchiveError::NotFound(shorten(url)));
    }
    Ok(path)
}

/// The beginning of a client's URL, as much as a message repeats.
pub(super) fn shorten(url: &str) -> String {
    url.chars().take(1024).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn store() -> (tempfile::TempDir, ModelStore) {
        let root = tempfile::tempdir().unwrap();
        let models = root.path().join("models");
        fs::create_dir_all(models.join("dir/deep")).unwrap();
        fs::create_dir_all(root.path().join("models-evil")).unwrap();
        for name in [
            "models/a.mar",
            "models/b.tar.gz",
            "models/c.txt",
            "models/.hidden.mar",
            "models/dir/d.mar",
            "models-evil/x.mar",
            "outside.mar",
        ] {
            fs::write(root.path().join(name), b"x").unwrap();
        }
        symlink(root.path().join("outside.mar"), models.join("out.mar")).unwrap();
        symlink(root.path().join("models-evil"), models.join("evil")).unwrap();
        symlink("a.mar", models.join("alias.mar")).unwrap();
        let store = ModelStore::new(Some(models));
        (root, store)
    }

    fn refused(store: &ModelStore, url: &str) -> String {
        store.resolve(url).unwrap_err().to_string()
    }

    #[test]
    fn archives_inside_the_store_are_found() {
        let (_root, store) = store();
        for url in ["a.mar", "dir/d.mar", "dir", "alias.mar"] {
            assert_eq!(store.resolve(url).unwrap().url(), url);
        }
    }

    #[test]
    fn nothing_outside_the_store_is_found() {
        let (root, store) = store();
        let absolute = root.path().join("models/a.mar").display().to_string();
        for url in [
            absolute.as_str(),
            "/etc",
            "out.mar",
            "evil",
            "evil/x.mar",
            "./",
            ".",
            "nope.mar",
            "s3://b/x.mar",
            "a\0.mar",
        ] {
            assert_eq!(refused(&store, url), format!("Model not found at: {url}"));
        }
    }

    #[test]
    fn names_that_torchserve_refuses_are_refused_in_its_words() {
        let (_root, store) = store();
        assert_eq!(refused(&store, ""), "empty url");
        assert_eq!(
            refused(&store, "../a.mar"),
            "Relative path is not allowed in url: ../a.mar"
        );
        for url in [
            "http://127.0.0.1:1/x.mar",
            "HTTPS://allowed@evil/x",
            "file:///etc/passwd",
        ] {
            assert_eq!(
                refused(&store, url),
                format!("Given URL {url} does not match any allowed URL(s)")
            );
        }
        assert_eq!(
            refused(&ModelStore::default(), "a.mar"),
            "Model store has not been configured."
        );
    }

    #[test]
    fn all_lists_archives_and_directories() {
        let (_root, store) = store();
        let listed = store.list().unwrap();
        let urls: Vec<_> = listed.iter().map(Location::url).collect();
        assert_eq!(urls, ["a.mar", "alias.mar", "b.tar.gz", "dir"]);
        let missing = ModelStore::new(Some("/nonexistent/models".into()));
        assert_eq!(missing.list().unwrap(), []);
    }

    #[test]
    fn default_names_come_from_the_file() {
        let (_root, store) = store();
        assert_eq!(store.resolve("dir/d.mar").unwrap().default_name(), "d");
        assert_eq!(store.resolve("b.tar.gz").unwrap().default_name(), "b");
    }
}
