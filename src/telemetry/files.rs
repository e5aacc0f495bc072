//! The log files: created at the start, rotated by size and by day; old ones are compressed and the oldest removed.
//!
//! The `file-rotate` crate is not used: it rotates by size or by day but not by both, gives old files other names, and
//! panics where a directory cannot be listed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::Date;

use super::clock::Clock;
use super::record::Log;

/// Size in bytes from which a file is rotated.
const LARGEST: u64 = 100 << 20;
/// How many old files of each log are kept.
const KEPT: usize = 5;
/// Names of months as Java's `MMM` writes them in English.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The files of all logs; empty if there are to be no files.
#[derive(Default)]
pub(super) struct Files {
    files: Vec<LogFile>,
    /// Buffer for lines of a log without a file, which are dropped.
    nowhere: Vec<u8>,
}

/// The file of one log.
struct LogFile {
    log: Log,
    path: PathBuf,
    file: Option<File>,
    size: u64,
    largest: u64,
    /// Day of the first line in the file.
    day: Option<Date>,
    /// Lines for the next flush.
    lines: Vec<u8>,
    has_complained: bool,
    /// Compresses the file that was moved aside last.
    rotation: Option<JoinHandle<()>>,
}

impl Files {
    /// Opens the files of `logs`, and creates those that are missing. Returns a message for each that cannot be opened; its lines are
    /// dropped.
    pub fn open(
        logs: &[Log],
        directory: impl Fn(Log) -> PathBuf,
        clock: &Clock,
    ) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let files = logs.iter().map(|log| {
            let mut file = LogFile::new(*log, directory(*log).join(log.file_name()));
            complaints.extend(file.open(clock));
            file
        });
        let files = Self {
            files: files.collect(),
            nowhere: Vec::new(),
        };
        (files, complaints)
    }

    /// Whether there is a file of `log` that could be opened.
    pub fn has(&self, log: Log) -> bool {
        let mut files = self.files.iter();
        files.any(|file| file.log == log && file.file.is_some())
    }

    /// Waits until nothing is done with the files any more, nor with those that were moved aside.
    pub fn close(self) {
        for rotation in self.files.into_iter().filter_map(|file| file.rotation) {
            // A panic was logged where it happened.
            let _ = rotation.join();
        }
    }

    /// The buffer to which lines of `log` are appended for the next flush.
    pub fn line(&mut self, log: Log) -> &mut Vec<u8> {
        match self.files.iter_mut().find(|file| file.log == log) {
            Some(file) => &mut file.lines,
            None => &mut self.nowhere,
        }
    }

    /// Writes the buffers. Returns a message for each file that fails for the first time.
    pub fn flush(&mut self, today: Date) -> Vec<String> {
        self.nowhere.clear();
        let files = self.files.iter_mut();
        files.filter_map(|file| file.flush(today)).collect()
    }
}

impl LogFile {
    fn new(log: Log, path: PathBuf) -> Self {
        Self {
            log,
            path,
            file: None,
            size: 0,
            largest: LARGEST,
            day: None,
            lines: Vec::new(),
            has_complained: false,
            rotation: None,
        }
    }

    /// Opens the file to append to it. Lines that a server left there on another day keep that day.
    fn open(&mut self, clock: &Clock) -> Option<String> {
        let opened = self.path.parent().map_or(Ok(()), fs::create_dir_all);
        let opened = opened.and_then(|()| append(&self.path));
        match opened {
            Ok((file, size, changed)) => {
                self.day = (size > 0).then(|| clock.day(changed));
                self.size = size;
                self.file = Some(file);
                None
            }
            Err(error) => self.complain(&error),
        }
    }

    fn flush(&mut self, today: Date) -> Option<String> {
        if self.lines.is_empty() {
            return None;
        }
        // A file that cannot be rotated is written on.
        let rotated = self.rotate_if_due(today);
        let written = self.write(today);
        self.lines.clear();
        let failed = rotated.and(written).err();
        failed.and_then(|error| self.complain(&error))
    }

    fn rotate_if_due(&mut self, today: Date) -> io::Result<()> {
        let is_full = self.size + self.lines.len() as u64 > self.largest;
        let is_old = self.day.is_some_and(|day| day != today);
        if self.size > 0 && (is_full || is_old) {
            return self.rotate(today);
        }
        Ok(())
    }

    fn write(&mut self, today: Date) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        self.day.get_or_insert(today);
        file.write_all(&self.lines)?;
        self.size += self.lines.len() as u64;
        Ok(())
    }

    /// Renames the file and starts an empty one. A thread compresses the old one.
    fn rotate(&mut self, today: Date) -> io::Result<()> {
        let aside = aside(&self.path, self.day.unwrap_or(today));
        fs::rename(&self.path, &aside)?;
        let (file, size, _) = append(&self.path)?;
        self.file = Some(file);
        self.size = size;
        self.day = Some(today);
        let path = self.path.clone();
        let before = self.rotation.take();
        let rotation = std::thread::Builder::new()
            .name("log-rotation".to_owned())
            .spawn(move || {
                // One after the other: whoever waits for the last waits for all.
                let _ = before.map(JoinHandle::join);
                // A file that cannot be compressed stays as it is, and counts as an old one.
                let _ = compress(&aside);
                prune(&path);
            })?;
        self.rotation = Some(rotation);
        Ok(())
    }

    /// A message for the first failure, and none for further ones.
    fn complain(&mut self, error: &io::Error) -> Option<String> {
        let is_first = !std::mem::replace(&mut self.has_complained, true);
        is_first.then(|| format!("cannot write the log {}: {error}", self.path.display()))
    }
}

fn append(path: &Path) -> io::Result<(File, u64, SystemTime)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let metadata = file.metadata()?;
    let changed = metadata.modified()?;
    Ok((file, metadata.len(), changed))
}

/// The name of an old file: `ts_log.20-Nov.log`, as in TorchServe, or `ts_log.20-Nov.1.log` if that exists.
fn aside(path: &Path, day: Date) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let month = usize::try_from(day.month() - 1).unwrap_or_default();
    let month = MONTHS.get(month).copied().unwrap_or_default();
    let name = |number: usize| {
        let number = if number == 0 {
            String::new()
        } else {
            format!(".{number}")
        };
        path.with_file_name(format!("{stem}.{:02}-{month}{number}.log", day.day()))
    };
    let is_free = |path: &PathBuf| !path.exists() && !compressed(path).exists();
    (0..10_000)
        .map(name)
        .find(is_free)
        .unwrap_or_else(|| name(0))
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

fn compress(path: &Path) -> io::Result<()> {
    let target = compressed(path);
    let mut encoder = GzEncoder::new(File::create(&target)?, Compression::fast());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::remove_file(path)
}

/// Removes the oldest old files of the log at `path`.
fn prune(path: &Path) {
    let mut old = moved_aside(path);
    old.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    for (_, path) in old.into_iter().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
}

fn moved_aside(path: &Path) -> Vec<(SystemTime, PathBuf)> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let prefix = format!("{stem}.");
    let directory = path.parent().unwrap_or(Path::new("."));
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_old = |name: &str| {
        let rest = name.strip_prefix(&prefix);
        let rest = rest.map(|rest| Path::new(rest.strip_suffix(".gz").unwrap_or(rest)));
        rest.and_then(Path::extension)
            .is_some_and(|extension| extension == "log")
    };
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_old))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use jiff::civil::date;
    use jiff::tz::TimeZone;

    use super::*;

    fn open(directory: &Path) -> Files {
        let (files, complaints) = Files::open(
            &Log::ALL,
            |_| directory.to_owned(),
            &Clock::of_zone(TimeZone::UTC),
        );
        assert_eq!(complaints, Vec::<String>::new());
        files
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn wait_for(directory: &Path, name: &str, gone: &str) {
        let since = std::time::Instant::now();
        while !directory.join(name).exists() || directory.join(gone).exists() {
            assert!(since.elapsed().as_secs() < 20, "{:?}", names(directory));
            std::thread::yield_now();
        }
    }

    fn add(files: &mut Files, text: &str, today: Date) {
        files.line(Log::Server).extend_from_slice(text.as_bytes());
        assert_eq!(files.flush(today), Vec::<String>::new());
    }

    #[test]
    fn all_files_are_made_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        open(&directory.path().join("made"));
        let mut expected = Log::ALL.map(Log::file_name);
        expected.sort_unstable();
        assert_eq!(names(&directory.path().join("made")), expected);
    }

    #[test]
    fn another_day_and_a_full_file_begin_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut files = open(directory.path());
        add(&mut files, "first\n", date(2026, 11, 20));
        add(&mut files, "second\n", date(2026, 11, 21));
        wait_for(
            directory.path(),
            "ts_log.20-Nov.log.gz",
            "ts_log.20-Nov.log",
        );
        files.files[0].largest = 10;
        add(&mut files, "third\n", date(2026, 11, 21));
        wait_for(
            directory.path(),
            "ts_log.21-Nov.log.gz",
            "ts_log.21-Nov.log",
        );
        add(&mut files, "fourth\n", date(2026, 11, 21));
        wait_for(
            directory.path(),
            "ts_log.21-Nov.1.log.gz",
            "ts_log.21-Nov.1.log",
        );
        let mut text = String::new();
        let file = File::open(at("ts_log.20-Nov.log.gz")).unwrap();
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "first\n");
        assert_eq!(fs::read_to_string(at("ts_log.log")).unwrap(), "fourth\n");
    }

    #[test]
    fn the_newest_old_files_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ts_log.log");
        for day in 10..18 {
            let old = directory.path().join(format!("ts_log.{day}-Nov.log.gz"));
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(day);
            File::create(old).unwrap().set_modified(time).unwrap();
        }
        fs::write(directory.path().join("ts_log_other.10-Nov.log.gz"), "").unwrap();
        fs::write(&path, "").unwrap();
        prune(&path);
        let expected = [
            "ts_log.13-Nov.log.gz",
            "ts_log.14-Nov.log.gz",
            "ts_log.15-Nov.log.gz",
            "ts_log.16-Nov.log.gz",
            "ts_log.17-Nov.log.gz",
            "ts_log.log",
            "ts_log_other.10-Nov.log.gz",
        ];
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn a_file_that_cannot_be_rotated_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let (moved, path) = (
            directory.path().join("moved"),
            directory.path().join("ts_log.log"),
        );
        let mut files = open(directory.path());
        add(&mut files, "first\n", date(2026, 11, 20));
        // Renaming fails, as it does in a directory that cannot be written to.
        fs::rename(&path, &moved).unwrap();
        files.line(Log::Server).extend_from_slice(b"second\n");
        let complaints = files.flush(date(2026, 11, 21));
        assert_eq!(complaints.len(), 1);
        add(&mut files, "third\n", date(2026, 11, 22));
        assert_eq!(
            fs::read_to_string(&moved).unwrap(),
            "first\nsecond\nthird\n"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_complained_of_once() {
        let directory = tempfile::tempdir().unwrap();
        let occupied = directory.path().join("occupied");
        fs::write(&occupied, "").unwrap();
        let (mut files, complaints) = Files::open(
            &Log::ALL,
            |_| occupied.clone(),
            &Clock::of_zone(TimeZone::UTC),
        );
        assert_eq!(complaints.len(), Log::ALL.len());
        add(&mut files, "lost\n", date(2026, 11, 20));
    }
}
