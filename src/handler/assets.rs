//! Interface `assets`: the files of the archive, read-only.
//!
//! Names are those found when the handler was loaded, so a name is never resolved as a path of the guest's choice;
//! and a file is opened beneath the directory without following links, so what has changed since cannot lead
//! elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::bindings::lantern::handler::assets::{self, Asset, AssetError};
use super::cpu_meter::measured;
use super::host::Host;

/// Most bytes that one call may read.
const READ_LIMIT: u32 = 16 << 20;
/// Most files and folders of one archive.
const ENTRY_LIMIT: usize = 100_000;

/// The files below one directory. Cheap to clone.
#[derive(Clone)]
pub(super) struct Assets {
    files: Arc<Files>,
}

struct Files {
    root: OwnedFd,
    sizes: BTreeMap<String, u64>,
}

impl Assets {
    /// Lists the regular files below `directory`; links are left out.
    pub fn list(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())?;
        let mut sizes = BTreeMap::new();
        let mut folders = vec![(directory.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                let name = format!("{prefix}{name}");
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    folders.push((entry.path(), format!("{name}/")));
                } else if metadata.is_file() {
                    sizes.insert(name, metadata.len());
                }
                if sizes.len() + folders.len() > ENTRY_LIMIT {
                    return Err(io::Error::other(format!("more than {ENTRY_LIMIT} files")));
                }
            }
        }
        Ok(Self {
            files: Arc::new(Files { root, sizes }),
        })
    }

    /// At most `max` bytes of a file from `offset`; fewer at its end.
    fn read(&self, name: &str, offset: u64, max: u32) -> Result<Vec<u8>, AssetError> {
        let file = self.files.open(name).ok_or(AssetError::NotFound)?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let rest = size.saturating_sub(offset).min(u64::from(max));
        let mut bytes = vec![0; usize::try_from(rest).unwrap_or(0)];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(AssetError::NotFound),
        }
    }
}

impl Files {
    fn open(&self, name: &str) -> Option<File> {
        self.sizes.get(name)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(&self.root, name, flags, Mode::empty(), beneath).ok()?;
        Some(file.into())
    }
}

impl assets::Host for Host {
    fn list(&mut self) -> wasmtime::Result<Vec<Asset>> {
        self.charge()?;
        let sizes = self.shared.assets.files.sizes.iter();
        Ok(sizes
            .map(|(name, &size)| Asset {
                name: name.clone(),
                size,
            })
            .collect())
    }

    /// Reads on a blocking thread: a cold file must not hold up the runtime's. What that takes there is the call's own CPU time.
    async fn read(
        &mut self,
        name: String,
        offset: u64,
        max: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, AssetError>> {
        self.charge()?;
        if max > READ_LIMIT {
            return Ok(Err(AssetError::TooLarge));
        }
        let assets = self.shared.assets.clone();
        let read =
            tokio::task::spawn_blocking(move || measured(|| assets.read(&name, offset, max)));
        let (read, took) = read.await?;
        self.meter.charge(took)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;
    use crate::handler::fault::Exceeded;
    use crate::handler::host::HandlerState;
    use crate::handler::logging::LogGate;
    use crate::handler::metrics::Series;
    use crate::handler::tests::fixture::Recorder;
    use crate::model::Limits;

    fn archive() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("sub/words.txt"), "abcdef").unwrap();
        symlink("/etc/passwd", directory.path().join("link")).unwrap();
        directory
    }

    #[test]
    fn files_are_read_by_the_names_they_are_listed_under() {
        let directory = archive();
        let assets = Assets::list(directory.path()).unwrap();
        let names: Vec<_> = assets.files.sizes.keys().cloned().collect();
        assert_eq!(names, ["sub/words.txt"]);
        assert_eq!(assets.read("sub/words.txt", 2, 3).unwrap(), b"cde");
        assert_eq!(assets.read("sub/words.txt", 4, 100).unwrap(), b"ef");
        assert_eq!(assets.read("sub/words.txt", 100, 100).unwrap(), b"");
    }

    #[test]
    fn nothing_else_is_readable() {
        let directory = archive();
        let assets = Assets::list(directory.path()).unwrap();
        for name in [
            "link",
            "/etc/passwd",
            "../x",
            "sub/../sub/words.txt",
            "sub",
            "",
            ".",
        ] {
            assert!(assets.read(name, 0, 1).is_err(), "{name}");
        }
    }

    fn host(directory: &Path) -> Host {
        let limits = Limits::default();
        Host::new(Arc::new(HandlerState {
            sink: Arc::new(Recorder::default()),
            assets: Assets::list(directory).unwrap(),
            log_gate: LogGate::new(1, 1),
            failure_gate: LogGate::new(1, 1),
            series: Series::new(1, 1),
            limits,
        }))
    }

    #[tokio::test]
    async fn a_read_is_charged_to_the_cpu_time_of_its_call() {
        use assets::Host as _;
        let directory = archive();
        let mut host = host(directory.path());
        let name = || "sub/words.txt".to_owned();
        host.meter.reset(Duration::from_hours(1));
        assert_eq!(host.read(name(), 0, 3).await.unwrap().unwrap(), b"abc");
        host.meter.reset(Duration::ZERO);
        let error = host.read(name(), 0, 3).await.unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(Exceeded::Cpu(_))),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_became_a_link_is_not_followed() {
        let directory = archive();
        let assets = Assets::list(directory.path()).unwrap();
        let file = directory.path().join("sub/words.txt");
        fs::remove_file(&file).unwrap();
        symlink("/etc/passwd", &file).unwrap();
        assert!(assets.read("sub/words.txt", 0, 1).is_err());
    }
}
