//! Which file of settings is read, and its bytes.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::super::properties::{self, Property};
use super::super::snapshot;
use super::super::{Problem, Problems};
use super::environment::Environment;
use super::raw::Flags;

/// Largest file of settings that is read. Snapshots of many models are the largest there are.
const FILE_LIMIT: u64 = 16 << 20;
/// The file in the current directory that is read when no other is named.
const DEFAULT_FILE: &str = "config.properties";

/// A file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name, for messages.
    pub name: String,
    /// What it says, in its order.
    pub properties: Vec<Property>,
    /// Files that were passed over.
    pub warnings: Vec<Problem>,
}

/// The file named by the environment, else by a flag, else the newest snapshot that can be read, else the one in the
/// current directory; `None` if there is none of them.
pub fn read(flags: &Flags, environment: &Environment) -> Result<Option<Settings>, Problems> {
    if let Some(path) = environment.variable("TS_CONFIG_FILE") {
        return named("TS_CONFIG_FILE", environment.path(path)).map(Some);
    }
    if let Some(path) = &flags.ts_config {
        return named("--ts-config", environment.current_directory.join(path)).map(Some);
    }
    let mut warnings = Vec::new();
    let found = match newest(flags, environment, &mut warnings) {
        Some(settings) => Some(settings),
        None => beside(environment)?,
    };
    Ok(found.map(|settings| Settings {
        warnings,
        ..settings
    }))
}

fn beside(environment: &Environment) -> Result<Option<Settings>, Problems> {
    let path = environment.current_directory.join(DEFAULT_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    named(DEFAULT_FILE, path).map(Some)
}

/// A snapshot that cannot be read is passed over: the server then starts with the one before it.
fn newest(
    flags: &Flags,
    environment: &Environment,
    warnings: &mut Vec<Problem>,
) -> Option<Settings> {
    if flags.no_config_snapshots {
        return None;
    }
    for path in snapshots(&environment.snapshot_directory()) {
        match named("snapshot", path.clone()) {
            Ok(settings) => match damage(&path, &settings) {
                None => return Some(settings),
                Some(rule) => warnings.push(passed_over(&path, &rule)),
            },
            Err(problems) => warnings.extend(problems.iter().cloned()),
        }
    }
    None
}

fn damage(path: &Path, settings: &Settings) -> Option<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    snapshot::damage(&text, &settings.properties)
}

fn passed_over(path: &Path, rule: &str) -> Problem {
    Problem::new("snapshot", "", rule, path.display().to_string())
}

/// Snapshots in `directory`, the newest first. Other files do not matter; to TorchServe they are fatal.
fn snapshots(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let is_snapshot = |name: &str| snapshot::stamp(name).is_some();
    let names = snapshot::names(directory, is_snapshot).unwrap_or_default();
    names.into_iter().rev().map(|name| directory.join(name))
}

fn named(origin: &str, path: PathBuf) -> Result<Settings, Problems> {
    let bytes =
        bytes(&path).map_err(|rule| Problem::new(origin, "", rule, path.display().to_string()))?;
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let properties = properties::parse(&bytes).map_err(|malformed| {
        let line = format!("{name}:{}", malformed.line);
        Problem::plain(line, "", "has a broken \\u escape")
    })?;
    Ok(Settings {
        path,
        name,
        properties,
        warnings: Vec::new(),
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, &'static str> {
    let file = File::open(path).map_err(|_| "file not found")?;
    let unreadable = "must name a file that can be read";
    if !file.metadata().map_err(|_| unreadable)?.is_file() {
        return Err(unreadable);
    }
    let mut bytes = Vec::new();
    let read = file.take(FILE_LIMIT + 1).read_to_end(&mut bytes);
    match read.map_err(|_| unreadable)? as u64 {
        size if size > FILE_LIMIT => Err("must name a file of at most 16 MiB"),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshot_that_can_be_read_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("logs/config");
        std::fs::create_dir_all(&config).unwrap();
        for (name, content) in [
            ("20261120152439289-snapshot.cfg", "job_queue_size=1"),
            ("20261120152439290-shutdown.cfg", "job_queue_size=2"),
            ("20261120152439291-startup.cfg", "a=\\u12"),
            ("20261120152439292-startup.cfg", ""),
            ("zz-notes.txt", "job_queue_size=9"),
            ("20261120152439293-startup.cfg.tmp", "job_queue_size=8"),
        ] {
            std::fs::write(config.join(name), content).unwrap();
        }
        let environment = Environment {
            current_directory: directory.path().to_owned(),
            ..Environment::default()
        };
        let settings = read(&Flags::default(), &environment).unwrap().unwrap();
        assert_eq!(settings.name, "20261120152439290-shutdown.cfg");
        assert_eq!(settings.warnings.len(), 2);
        let flags = Flags {
            no_config_snapshots: true,
            ..Flags::default()
        };
        assert_eq!(read(&flags, &environment), Ok(None));
    }
}
