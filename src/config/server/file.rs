//! Which file of settings is read, and its bytes.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::super::properties::{self, Property};
use super::super::snapshot::{self, Saved};
use super::super::{Problem, Problems};
use super::environment::Environment;
use super::raw::Flags;
use crate::error::shortened;
use crate::place;

/// Largest file of settings that is read. Snapshots of many models are the largest there are.
const FILE_LIMIT: u64 = 16 << 20;
/// Keys of another program's file that a message names, and characters of each.
const KEYS_SHOWN: usize = 3;
const KEY_SHOWN: usize = 40;
/// The file in the current directory that is read when no other is named.
const DEFAULT_FILE: &str = "config.properties";

/// How a file was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// By this variable or flag.
    Name(&'static str),
    /// As the newest whole snapshot.
    Snapshot,
    /// By lying in the current directory.
    Place,
}

/// A file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// How it was found.
    pub found_by: FoundBy,
    /// Where it lies.
    pub path: PathBuf,
    /// Its name, for messages.
    pub name: String,
    /// What it says, in its order.
    pub properties: Vec<Property>,
    /// What is wrong with a snapshot.
    pub damage: Option<String>,
    /// Files that were passed over.
    pub warnings: Vec<Problem>,
}

/// The file named by the environment, else by a flag, else the newest snapshot that can be read, else the one in the
/// current directory; `None` if there is none of them.
pub fn read(flags: &Flags, environment: &Environment) -> Result<Option<Settings>, Problems> {
    if let Some(path) = environment.variable("TS_CONFIG_FILE") {
        let path = environment.path(path);
        return parsed(FoundBy::Name("TS_CONFIG_FILE"), path).map(Some);
    }
    if let Some(path) = &flags.ts_config {
        let path = environment.current_directory.join(path);
        return parsed(FoundBy::Name("--ts-config"), path).map(Some);
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

/// The file in the current directory, if there is one.
pub fn beside(environment: &Environment) -> Result<Option<Settings>, Problems> {
    let path = environment.current_directory.join(DEFAULT_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    parsed(FoundBy::Place, path).map(Some)
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
        match parsed(FoundBy::Snapshot, path.clone()) {
            Ok(settings) => match &settings.damage {
                None => return Some(settings),
                Some(rule) => warnings.push(passed_over(&path, rule)),
            },
            Err(problems) => warnings.extend(problems.iter().cloned()),
        }
    }
    None
}

/// What the newest snapshot in `directory` says that can be read; nothing if there is none. Fails if there are some, and none can be read.
pub fn newest_saved(directory: &Path) -> Result<Saved, Unreadable> {
    let mut paths = snapshots(directory).peekable();
    if paths.peek().is_none() {
        return Ok(Saved::default());
    }
    let read = |path| {
        let settings = parsed(FoundBy::Snapshot, path).ok()?;
        let mut properties = settings.properties.iter().rev();
        let models = properties.find(|property| property.key == "model_snapshot")?;
        let is_whole = settings.damage.is_none();
        is_whole.then(|| snapshot::parse(&models.value).ok())?
    };
    paths.find_map(read).ok_or(Unreadable)
}

/// There are snapshots, and none can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

fn passed_over(path: &Path, rule: &str) -> Problem {
    Problem::new("snapshot", "", rule, path.display().to_string())
}

/// Snapshots in `directory`, the newest first. Other files do not matter; to TorchServe they are fatal.
fn snapshots(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let is_snapshot = |name: &str| snapshot::stamp(name).is_some();
    let names = snapshot::names(directory, is_snapshot).unwrap_or_default();
    names.into_iter().rev().map(|name| directory.join(name))
}

fn parsed(found_by: FoundBy, path: PathBuf) -> Result<Settings, Problems> {
    let bytes = bytes(&path, found_by)
        .map_err(|rule| Problem::new(found_by.origin(), "", rule, path.display().to_string()))?;
    let name = path.file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    let properties = properties::parse(&bytes).map_err(|malformed| {
        let line = format!("{name}:{}", malformed.line);
        Problem::plain(line, "", "has a broken \\u escape")
    })?;
    Ok(Settings {
        found_by,
        path,
        name,
        damage: (found_by == FoundBy::Snapshot)
            .then(|| snapshot::damage(&String::from_utf8_lossy(&bytes), &properties))
            .flatten(),
        properties,
        warnings: Vec::new(),
    })
}

impl FoundBy {
    const fn origin(self) -> &'static str {
        match self {
            Self::Name(name) => name,
            Self::Snapshot => "snapshot",
            Self::Place => DEFAULT_FILE,
        }
    }
}

impl Settings {
    /// What is wrong with a file that somebody named and that says nothing that is known: it is another program's.
    pub fn stranger(&self, is_known: impl Fn(&str) -> bool) -> Option<Problem> {
        let FoundBy::Name(origin) = self.found_by else {
            return None;
        };
        let keys = || self.properties.iter().map(|property| &property.key);
        if keys().len() == 0 || keys().any(|key| is_known(key)) {
            return None;
        }
        let shown = keys().take(KEYS_SHOWN);
        let shown: Vec<_> = shown
            .map(|key| shortened(&format!("{key:?}"), KEY_SHOWN))
            .collect();
        let rule = format!(
            "must name a file of the server's settings, but none of its {} keys is known, such as {}: `lantern config` \
             lists those that are",
            keys().len(),
            shown.join(", ")
        );
        let path = self.path.display().to_string();
        Some(Problem::new(origin, "", rule, path))
    }
}

/// A snapshot says what is loaded and run, so that one which others can write is none.
fn bytes(path: &Path, found_by: FoundBy) -> Result<Vec<u8>, &'static str> {
    let unreadable = "must name a file that can be read";
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "file not found",
        _ => unreadable,
    })?;
    let found = file.metadata().map_err(|_| unreadable)?;
    if !found.is_file() {
        return Err(unreadable);
    }
    if found_by == FoundBy::Snapshot && place::is_others(&found) {
        return Err("is another user's, or others can write to it, and is passed over");
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

    /// A file as TorchServe writes it.
    fn whole(size: u32) -> String {
        format!("job_queue_size={size}\nmodel_snapshot={{\"models\":{{}}}}\n")
    }

    /// A directory with snapshots.
    fn saved(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Environment) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("logs/config");
        std::fs::create_dir_all(&config).unwrap();
        for (name, content) in files {
            std::fs::write(config.join(name), content).unwrap();
        }
        let environment = Environment {
            current_directory: directory.path().to_owned(),
            ..Environment::default()
        };
        (directory, environment)
    }

    #[test]
    fn the_newest_snapshot_that_can_be_read_is_taken() {
        let (_directory, environment) = saved(&[
            ("20261120152439289-snapshot.cfg", whole(1).as_bytes()),
            ("20261120152439290-shutdown.cfg", whole(2).as_bytes()),
            ("20261120152439291-startup.cfg", b"a=\\u12"),
            ("20261120152439292-startup.cfg", b""),
            ("zz-notes.txt", whole(9).as_bytes()),
            ("20261120152439293-startup.cfg.tmp", whole(8).as_bytes()),
        ]);
        let settings = read(&Flags::default(), &environment).unwrap().unwrap();
        assert_eq!(settings.name, "20261120152439290-shutdown.cfg");
        assert_eq!(settings.warnings.len(), 2);
        let flags = Flags {
            no_config_snapshots: true,
            ..Flags::default()
        };
        assert_eq!(read(&flags, &environment), Ok(None));
    }

    #[test]
    fn a_damaged_snapshot_of_any_kind_is_passed_over_in_one_line() {
        let ours = snapshot::text(
            "20261120152439290-startup.cfg",
            &jiff::Zoned::now(),
            &[
                ("job_queue_size", "2"),
                ("version", env!("CARGO_PKG_VERSION")),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            &[],
        );
        let later = ours.replace(
            &format!("version={}", env!("CARGO_PKG_VERSION")),
            "version=999.0.0",
        );
        let mut damaged: Vec<(&str, Vec<u8>)> = vec![
            ("nothing", vec![]),
            ("zeros", vec![0; 4096]),
            ("zeros in place of its middle", {
                let mut bytes = ours.clone().into_bytes();
                bytes[100..120].fill(0);
                bytes
            }),
            ("a text", b"Dear Sir,\nI am not a snapshot.\n".to_vec()),
            (
                "another program's settings",
                b"app.name=shop\napp.port=80\n".to_vec(),
            ),
            ("an archive", b"PK\x03\x04\xff\xfe\x00MANIFEST".to_vec()),
            ("JSON", br#"{"models": {}}"#.to_vec()),
            (
                "TorchServe's, cut in its models",
                whole(3).as_bytes()[..40].to_vec(),
            ),
            ("a later version's", later.into_bytes()),
        ];
        for cut in 0..ours.len() {
            damaged.push(("ours, cut", ours.as_bytes()[..cut].to_vec()));
        }
        for (what, bytes) in damaged {
            let (_directory, environment) = saved(&[
                ("20261120152439289-snapshot.cfg", whole(1).as_bytes()),
                ("20261120152439290-startup.cfg", &bytes),
            ]);
            let settings = read(&Flags::default(), &environment).unwrap().unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(
                settings.name, "20261120152439289-snapshot.cfg",
                "{what}: {text}"
            );
            let [warning] = settings.warnings.as_slice() else {
                panic!("{what}: {:?}", settings.warnings);
            };
            let line = warning.to_string();
            assert!(
                line.contains("20261120152439290-startup.cfg"),
                "{what}: {line}"
            );
            assert_eq!(line.lines().count(), 1, "{what}: {line}");
        }
        let (_directory, environment) =
            saved(&[("20261120152439290-startup.cfg", ours.as_bytes())]);
        let settings = read(&Flags::default(), &environment).unwrap().unwrap();
        assert_eq!(
            (settings.found_by, settings.warnings),
            (FoundBy::Snapshot, vec![])
        );
    }
}
