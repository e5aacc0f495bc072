//! The directory of snapshots: how files come to be whole or not at all, and which are kept.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Zoned;

use super::{Moment, SnapshotConfig};
use crate::config::snapshot::{SavedVersion, file_name, is_ours, names, stamp, stamp_of, text};

/// Snapshots that are kept. TorchServe keeps all.
const KEPT: usize = 64;
/// What a file is called until it is whole.
const PARTIAL: &str = ".partial";

/// The directory of snapshots.
pub struct SnapshotFiles {
    cfg: SnapshotConfig,
    /// The newest stamp there is: names must grow even if the clock does not, as when summer time ends.
    newest: AtomicU64,
}

impl SnapshotFiles {
    /// Nothing is touched yet.
    pub fn new(cfg: SnapshotConfig) -> Self {
        Self {
            cfg,
            newest: AtomicU64::new(0),
        }
    }

    /// Writes one snapshot. When this returns, it is there even if the machine stops.
    pub fn write(&self, moment: Moment, versions: &[SavedVersion]) -> io::Result<()> {
        let directory = &self.cfg.directory;
        fs::create_dir_all(directory)?;
        let names = names(directory, is_ours)?;
        let now = Zoned::now();
        let name = file_name(self.stamp(&now, &names), moment);
        let text = text(&name, &now, &self.cfg.properties, versions);
        let partial = directory.join(format!(".{name}{PARTIAL}"));
        let written = write_whole(&partial, &directory.join(&name), text.as_bytes());
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written?;
        tracing::info!("The catalog is saved: {name}, {} versions", versions.len());
        self.prune(&names);
        Ok(())
    }

    fn stamp(&self, now: &Zoned, names: &[String]) -> u64 {
        let newest = names.last().and_then(|name| stamp(name)).unwrap_or(0);
        let newest = newest.max(self.newest.load(Ordering::Relaxed));
        let stamp = stamp_of(now).max(newest + 1);
        self.newest.store(stamp, Ordering::Relaxed);
        stamp
    }

    /// Removes all but the newest, and what a server that was killed left half-written.
    fn prune(&self, before: &[String]) {
        let directory = &self.cfg.directory;
        let old = before.len().saturating_sub(KEPT - 1);
        for name in &before[..old] {
            let _ = fs::remove_file(directory.join(name));
        }
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let inner = name
                .strip_prefix('.')
                .and_then(|name| name.strip_suffix(PARTIAL));
            if inner.is_some_and(is_ours) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn write_whole(partial: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(partial)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(partial, path)?;
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> SnapshotFiles {
        let properties = [
            ("inference_address", "http://127.0.0.1:8080"),
            ("model_store", "/a b"),
        ];
        SnapshotFiles::new(SnapshotConfig {
            directory: directory.join("logs/config"),
            properties: properties
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        })
    }

    fn written(directory: &Path) -> Vec<String> {
        names(&directory.join("logs/config"), is_ours).unwrap()
    }

    #[test]
    fn events_of_one_millisecond_are_all_saved_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let moments = [
            Moment::Startup,
            Moment::Change,
            Moment::Change,
            Moment::Change,
            Moment::Shutdown,
        ];
        for moment in moments {
            files.write(moment, &[]).unwrap();
        }
        let names = written(directory.path());
        let kinds: Vec<_> = names
            .iter()
            .map(|name| name.split_once('-').unwrap().1)
            .collect();
        assert_eq!(
            kinds,
            [
                "startup.cfg",
                "snapshot.cfg",
                "snapshot.cfg",
                "snapshot.cfg",
                "shutdown.cfg"
            ]
        );
    }

    #[test]
    fn names_grow_though_the_clock_went_back() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("logs/config")).unwrap();
        let future = "29991231235959999-snapshot.cfg";
        fs::write(directory.path().join("logs/config").join(future), "a=1").unwrap();
        files(directory.path()).write(Moment::Startup, &[]).unwrap();
        let names = written(directory.path());
        assert_eq!(names[0], future);
        assert!(names[1].ends_with("-startup.cfg"));
    }

    #[test]
    fn old_ones_and_half_written_ones_go_and_other_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let config = directory.path().join("logs/config");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join(".20261120152439289-snapshot.cfg.partial"), "a=").unwrap();
        let others = [
            "20261120152439289-mine.cfg",
            "README",
            ".20261120152439289-mine.cfg.partial",
        ];
        for other in others {
            fs::write(config.join(other), "mine").unwrap();
        }
        for _ in 0..KEPT + 5 {
            files.write(Moment::Change, &[]).unwrap();
        }
        assert_eq!(written(directory.path()).len(), KEPT);
        assert_eq!(fs::read_dir(&config).unwrap().count(), KEPT + others.len());
    }

    #[test]
    fn a_file_is_properties_that_java_reads() {
        let directory = tempfile::tempdir().unwrap();
        files(directory.path()).write(Moment::Startup, &[]).unwrap();
        let name = &written(directory.path())[0];
        let text = fs::read_to_string(directory.path().join("logs/config").join(name)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "#Saving snapshot");
        assert!(
            lines[1].starts_with('#') && lines[1].split(' ').count() == 6,
            "{}",
            lines[1]
        );
        assert_eq!(lines[3], "inference_address=http\\://127.0.0.1\\:8080");
        assert_eq!(lines[4], "model_store=/a b");
        assert!(
            lines[5].starts_with("model_snapshot={\\n  \"name\"\\: \""),
            "{}",
            lines[5]
        );
        assert!(text.ends_with("\n#end\n"));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("logs"), "a file").unwrap();
        assert!(files(directory.path()).write(Moment::Change, &[]).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
