//! Snapshot files: their names, their text, and how they come to be whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Zoned;

use super::{Moment, SnapshotConfig};
use crate::config::render_property;
use crate::config::snapshot::{END, OURS, SavedVersion, render};

/// Snapshots that are kept. TorchServe keeps all.
const KEPT: usize = 64;
/// Digits of a name: a local time to the millisecond.
const STAMP: usize = 17;
/// What a file is called until it is whole.
const PARTIAL: &str = ".partial";

impl Moment {
    const fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Change => "snapshot",
            Self::Shutdown => "shutdown",
        }
    }
}

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
        let names = snapshots(directory)?;
        let now = Zoned::now();
        let name = format!("{}-{}.cfg", self.stamp(&now, &names), moment.name());
        let text = self.text(&name, &now, versions);
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
        let clock = format!("{}{:03}", now.strftime("%Y%m%d%H%M%S"), now.millisecond());
        let newest = names
            .last()
            .and_then(|name| name[..STAMP].parse().ok())
            .unwrap_or(0);
        let newest: u64 = newest.max(self.newest.load(Ordering::Relaxed));
        let stamp = clock.parse().unwrap_or(0).max(newest + 1);
        self.newest.store(stamp, Ordering::Relaxed);
        stamp
    }

    fn text(&self, name: &str, now: &Zoned, versions: &[SavedVersion]) -> String {
        let date = now.strftime("%a %b %d %H:%M:%S %Z %Y");
        let mut text = format!("#Saving snapshot\n#{date}\n{OURS}");
        for (key, value) in &self.cfg.properties {
            text.push_str(&render_property(key, value));
        }
        let models = render(name, now.timestamp().as_millisecond(), versions);
        text.push_str(&render_property("model_snapshot", &models));
        text.push_str(END.trim_start());
        text
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
            if inner.is_some_and(is_snapshot) {
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

/// Names of snapshots, the oldest first. Other files are somebody else's.
fn snapshots(directory: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(directory)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| is_snapshot(name)).collect();
    names.sort_unstable();
    Ok(names)
}

fn is_snapshot(name: &str) -> bool {
    let moments = [Moment::Startup, Moment::Change, Moment::Shutdown];
    let Some((stamp, rest)) = name.split_at_checked(STAMP) else {
        return false;
    };
    let rest = rest
        .strip_prefix('-')
        .and_then(|rest| rest.strip_suffix(".cfg"));
    stamp.bytes().all(|byte| byte.is_ascii_digit())
        && rest.is_some_and(|rest| moments.iter().any(|moment| moment.name() == rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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

    fn names(directory: &Path) -> Vec<String> {
        snapshots(&directory.join("logs/config")).unwrap()
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
        let names = names(directory.path());
        let kinds: Vec<_> = names.iter().map(|name| &name[STAMP + 1..]).collect();
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
        let names = names(directory.path());
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
        assert_eq!(names(directory.path()).len(), KEPT);
        assert_eq!(fs::read_dir(&config).unwrap().count(), KEPT + others.len());
    }

    #[test]
    fn a_file_is_properties_that_java_reads() {
        let directory = tempfile::tempdir().unwrap();
        files(directory.path()).write(Moment::Startup, &[]).unwrap();
        let name = &names(directory.path())[0];
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
        assert!(text.ends_with(END));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("logs"), "a file").unwrap();
        assert!(files(directory.path()).write(Moment::Change, &[]).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
