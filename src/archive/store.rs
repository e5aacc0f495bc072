//! The model store: the one directory that archives are loaded from.
//!
//! A client names an archive by a path relative to the store. TorchServe also takes absolute paths to any directory of the
//! machine, and follows every link. Here a link in the store is followed where it ends in the store or in what `allowed_urls`
//! names by `file://`.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::roots::{Astray, Root, Roots};
use super::{AllowedUrls, ArchiveError};

/// Endings of the names that `all` finds.
const SUFFIXES: [&str; 3] = [".mar", ".model", ".tar.gz"];
/// The store's directory for unfinished downloads and markers. No client can name a file in it.
pub(super) const HIDDEN: &str = ".lantern";

/// The directory that archives are loaded from, if there is one. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelStore {
    directory: Option<PathBuf>,
    /// Where else links may lead.
    elsewhere: Vec<Root>,
}

/// What there is in the store.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every archive, ordered by name.
    pub archives: Vec<Location>,
    /// Why links that look like archives are not read.
    pub refused: Vec<ArchiveError>,
}

/// An archive that exists in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    path: PathBuf,
    url: String,
    source: String,
    digest: Option<String>,
    /// Where links in it may lead, if it is a directory.
    roots: Roots,
}

impl Location {
    /// An archive anywhere on this machine. The path must come from whoever runs the program, not from a client.
    pub fn local(path: &Path) -> Result<Self, ArchiveError> {
        let url = path.display().to_string();
        match fs::canonicalize(path) {
            Ok(path) => Ok(Self::at(path, &url, Roots::default())),
            Err(_) => Err(ArchiveError::NotFound(url)),
        }
    }

    /// The archive that a client calls `url`, at a path that has no links and was checked. Links in it may lead to itself and
    /// into `roots`.
    pub(super) fn at(path: PathBuf, url: &str, roots: Roots) -> Self {
        Self {
            roots: roots.and(path.clone()),
            path,
            url: url.to_owned(),
            source: url.to_owned(),
            digest: None,
        }
    }

    /// The same archive, in which links may also lead into `roots`.
    pub(super) fn linking_to(self, roots: Roots) -> Self {
        let roots = roots.and(self.path.clone());
        Self { roots, ..self }
    }

    /// Where links in it may lead.
    pub(super) const fn roots(&self) -> &Roots {
        &self.roots
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
    /// The store in `directory`, whose links lead nowhere else.
    pub const fn new(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            elsewhere: Vec::new(),
        }
    }

    /// The same store, whose links may also lead to what `allowed` names by `file://`.
    #[must_use]
    pub fn linking_to(self, allowed: &AllowedUrls) -> Self {
        Self {
            elsewhere: allowed.roots().collect(),
            ..self
        }
    }

    /// The archive that a client calls `url`. Reads the file system.
    pub fn resolve(&self, url: &str) -> Result<Location, ArchiveError> {
        let named = relative(url)?;
        if self.directory.is_none() {
            return Err(ArchiveError::NoModelStore);
        }
        let missing = || ArchiveError::NotFound(shorten(url));
        let (root, roots) = (self.root().ok_or_else(missing)?, self.roots());
        match roots.follow(&root, named) {
            Ok(path) if path != root => Ok(Location::at(path, url, roots)),
            Err(Astray::Link { link, target }) => Err(ArchiveError::Link {
                url: shorten(url),
                leads: leads(&link, &target),
            }),
            _ => Err(missing()),
        }
    }

    /// The store's directory, if there is one.
    pub fn root(&self) -> Option<PathBuf> {
        fs::canonicalize(self.directory.as_deref()?).ok()
    }

    /// Where archives may lie.
    pub(super) fn roots(&self) -> Roots {
        let store = self.root();
        let hidden = store.as_ref().map(|store| store.join(HIDDEN));
        let roots = store.map(Root::whole).into_iter();
        Roots::new(
            roots.chain(self.elsewhere.iter().cloned()).collect(),
            hidden,
        )
    }

    /// The resolved form of an absolute path, if that is in the store, or is a link in it that may be followed.
    pub(super) fn holds(&self, path: &Path) -> Option<PathBuf> {
        let (root, roots) = (self.root()?, self.roots());
        let typed = self
            .directory
            .as_ref()
            .map(|directory| path.strip_prefix(directory));
        let below = typed
            .and_then(Result::ok)
            .or_else(|| path.strip_prefix(&root).ok());
        let real = match below {
            Some(below) => roots.follow(&root, below).ok()?,
            None => roots.resolve(path).filter(|real| real.starts_with(&root))?,
        };
        (real != root).then_some(real)
    }

    /// What there is in the store: files whose names end as archives' do, and directories. Nothing if the store does not
    /// exist.
    pub fn list(&self) -> Result<Listing, ArchiveError> {
        let Some(directory) = &self.directory else {
            return Ok(Listing::default());
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
            Err(error) => return Err(ArchiveError::io("listing the model store")(error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_archive(directory, name))
            .collect();
        names.sort();
        let mut listing = Listing::default();
        for name in names {
            match self.resolve(&name) {
                Ok(location) => listing.archives.push(location),
                Err(refusal @ ArchiveError::Link { .. }) => listing.refused.push(refusal),
                // It has gone meanwhile.
                Err(_) => {}
            }
        }
        Ok(listing)
    }
}

/// Where a link leads, why it is not followed, and what helps: for the log.
pub(super) fn leads(link: &Path, target: &Path) -> String {
    let (from, to) = (link.display(), target.display());
    if !target.exists() {
        return format!(
            "{from} is a symbolic link to {to}, which does not exist: mend or remove the link"
        );
    }
    let directory = if target.is_dir() {
        target
    } else {
        target.parent().unwrap_or(target)
    };
    format!(
        "{from} is a symbolic link to {to}, which is neither in the model store nor in a directory that allowed_urls names: add \
         file://{}/ to allowed_urls, or put what it leads to into the model store",
        directory.display()
    )
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
            "./",
            ".",
            "nope.mar",
            "s3://b/x.mar",
            "a\0.mar",
        ] {
            assert_eq!(refused(&store, url), format!("Model not found at: {url}"));
        }
    }

    /// A link in `store` that leads to `target`, given as it is shown in the log.
    fn refused_link(store: &ModelStore, url: &str) -> (String, String) {
        let error = crate::error::Error::from(store.resolve(url).unwrap_err());
        assert_eq!(error.kind(), crate::error::Kind::ModelNotFound);
        let detail = error.detail().unwrap_or_default().to_owned();
        (error.message().to_owned(), detail)
    }

    #[test]
    fn a_link_that_leads_out_is_refused_with_what_it_is_and_what_helps() {
        let (root, store) = store();
        let root = root.path().canonicalize().unwrap();
        symlink("/nonexistent.mar", root.join("models/gone.mar")).unwrap();
        let outside = root.join("models-evil").display().to_string();
        // Nobody learns which files there are behind a link.
        for (url, link, target) in [
            ("out.mar", "out.mar", root.join("outside.mar")),
            ("evil", "evil", root.join("models-evil")),
            ("evil/x.mar", "evil", root.join("models-evil")),
            ("evil/nope.mar", "evil", root.join("models-evil")),
        ] {
            let (message, detail) = refused_link(&store, url);
            assert!(message.starts_with(&format!("Model not found at: {url}: ")));
            assert!(!message.contains(&outside), "{message}");
            let link = root.join("models").join(link);
            let says = format!(
                "{} is a symbolic link to {}, which is neither",
                link.display(),
                target.display()
            );
            assert!(detail.starts_with(&says), "{detail}");
            assert!(detail.contains("to allowed_urls"), "{detail}");
        }
        let (_, detail) = refused_link(&store, "gone.mar");
        assert!(
            detail.contains("/nonexistent.mar, which does not exist"),
            "{detail}"
        );
    }

    #[test]
    fn all_names_each_link_that_it_leaves_out() {
        let (_root, store) = store();
        let refused = store.list().unwrap().refused;
        let texts: Vec<_> = refused.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(
            texts[0].starts_with("Model not found at: evil: "),
            "{texts:?}"
        );
        assert!(
            texts[1].starts_with("Model not found at: out.mar: "),
            "{texts:?}"
        );
    }

    #[test]
    fn a_link_is_followed_to_where_a_file_may_be_named() {
        let (root, store) = store();
        let root = root.path().canonicalize().unwrap();
        let allowing = |rule: &str| {
            let rule = format!("file://{}/{rule}", root.display());
            let (allowed, notes) = AllowedUrls::read(&rule, false);
            assert_eq!(notes, Vec::<String>::new());
            store.clone().linking_to(&allowed)
        };
        let found = |store: &ModelStore, url: &str| {
            store.resolve(url).ok().map(|found| found.path().to_owned())
        };
        let whole = allowing("models-evil/");
        assert_eq!(
            found(&whole, "evil/x.mar"),
            Some(root.join("models-evil/x.mar"))
        );
        assert_eq!(found(&whole, "evil"), Some(root.join("models-evil")));
        assert_eq!(found(&whole, "out.mar"), None);
        assert_eq!(whole.list().unwrap().refused.len(), 1);
        let through = root.join("models/evil/x.mar");
        assert_eq!(whole.holds(&through), Some(root.join("models-evil/x.mar")));
        assert_eq!(store.holds(&through), None);
        let archives = allowing("models-evil/.*\\.mar");
        assert_eq!(
            found(&archives, "evil/x.mar"),
            Some(root.join("models-evil/x.mar"))
        );
        assert_eq!(found(&archives, "evil"), None);
        let others = allowing("models-evil/y.*");
        assert_eq!(found(&others, "evil/x.mar"), None);
    }

    #[test]
    fn no_link_leads_into_the_hidden_directory() {
        let (root, store) = store();
        let models = root.path().join("models");
        fs::create_dir(models.join(HIDDEN)).unwrap();
        fs::write(models.join(HIDDEN).join("x.part"), "x").unwrap();
        symlink(format!("{HIDDEN}/x.part"), models.join("x.mar")).unwrap();
        symlink(HIDDEN, models.join("parts")).unwrap();
        for url in ["x.mar", "parts/x.part", "parts"] {
            assert!(store.resolve(url).is_err(), "{url}");
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
        let urls: Vec<_> = listed.archives.iter().map(Location::url).collect();
        assert_eq!(urls, ["a.mar", "alias.mar", "b.tar.gz", "dir"]);
        let missing = ModelStore::new(Some("/nonexistent/models".into()));
        assert!(missing.list().unwrap().archives.is_empty());
    }

    #[test]
    fn default_names_come_from_the_file() {
        let (_root, store) = store();
        assert_eq!(store.resolve("dir/d.mar").unwrap().default_name(), "d");
        assert_eq!(store.resolve("b.tar.gz").unwrap().default_name(), "b");
    }
}
