//! What tenants used, written down for bills: one JSON object on a line for each tenant and each while in which it used something.
//!
//! The lines of a day (in UTC) are in one file. Each is written at once, so that it is the kernel's when that is done: whatever kills the
//! server takes no line with it, but what was used since the last one.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Unit};
use parking_lot::Mutex;
use serde::Serialize;

use crate::catalog::Usage;
use crate::model::TenantName;

/// Writes the lines.
pub struct Ledger {
    /// Where the files are; made with the first line.
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<(Date, File)>,
    /// What has been written down of each tenant, by the number that it counts by.
    noted: HashMap<u64, Noted>,
    next: u64,
    has_complained: bool,
}

#[derive(Clone, Copy)]
struct Noted {
    until: Timestamp,
    usage: Usage,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Until when.
    time: String,
    tenant: &'a str,
    /// For how long.
    seconds: f64,
    #[serde(flatten)]
    used: Usage,
}

impl Ledger {
    /// Files in `directory`, called `usage-2026-11-30.jsonl`.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            state: Mutex::default(),
        }
    }

    /// A tenant counts from now on. Returns the number that it counts by: another one of its name has another.
    pub(super) fn begin(&self) -> u64 {
        let noted = Noted {
            until: Timestamp::now(),
            usage: Usage::default(),
        };
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        state.noted.insert(number, noted);
        number
    }

    /// Writes down what a tenant has used since the last time, if it has; `usage` says all that it used. What cannot be written now is in the
    /// next line. Blocks.
    pub(super) fn note(&self, tenant: &TenantName, number: u64, usage: impl FnOnce() -> Usage) {
        let mut state = self.state.lock();
        let Some(before) = state.noted.get(&number).copied() else {
            return;
        };
        let (now, usage) = (Timestamp::now(), usage());
        let used = usage.since(&before.usage);
        if used == Usage::default() {
            return;
        }
        let seconds = now.duration_since(before.until).as_secs_f64();
        let line = Line {
            time: now.round(Unit::Millisecond).unwrap_or(now).to_string(),
            tenant: tenant.as_str(),
            seconds,
            used,
        };
        match self.write(&mut state, now, &line) {
            Ok(()) => {
                let noted = Noted { until: now, usage };
                state.noted.insert(number, noted);
                state.has_complained = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut state.has_complained, true) {
                    let directory = self.directory.display();
                    tracing::error!(%error, "what tenants use cannot be written to {directory}: it is kept until it can");
                }
            }
        }
    }

    /// The tenant is gone.
    pub(super) fn end(&self, number: u64) {
        self.state.lock().noted.remove(&number);
    }

    fn write(&self, state: &mut State, now: Timestamp, line: &Line<'_>) -> io::Result<()> {
        let today = now.to_zoned(TimeZone::UTC).date();
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        let mut file = match state.file.take() {
            Some((day, file)) if day == today && self.is_there(day, &file) => file,
            _ => self.open(today)?,
        };
        let length = file.metadata()?.len();
        if let Err(error) = file.write_all(&text) {
            // A part of a line is no line. What cannot be cut off is ended by whoever opens the file.
            let _ = file.set_len(length);
            return Err(error);
        }
        state.file = Some((today, file));
        Ok(())
    }

    fn path(&self, day: Date) -> PathBuf {
        self.directory.join(format!("usage-{day}.jsonl"))
    }

    /// Whether nobody has taken the file away.
    fn is_there(&self, day: Date, file: &File) -> bool {
        let (open, named) = (file.metadata(), std::fs::metadata(self.path(day)));
        open.is_ok_and(|open| named.is_ok_and(|named| named.ino() == open.ino()))
    }

    fn open(&self, day: Date) -> io::Result<File> {
        std::fs::create_dir_all(&self.directory)?;
        let path = self.path(day);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        // A line that was cut off by a full disk is no part of the next one.
        if file.seek(SeekFrom::End(0))? > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(answered: u64, seconds: f64) -> Usage {
        let mut usage = Usage::default();
        usage.requests.answered = answered;
        usage.handler_seconds = seconds;
        usage
    }

    fn lines(directory: &std::path::Path) -> Vec<serde_json::Value> {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let text: String = files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_add_up_to_what_was_used() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("usage");
        let (ledger, acme) = (Ledger::new(place.clone()), TenantName::new("acme").unwrap());
        let number = ledger.begin();
        for (answered, seconds) in [(3, 0.5), (3, 0.5), (10, 2.0)] {
            ledger.note(&acme, number, || used(answered, seconds));
        }
        ledger.end(number);
        ledger.note(&acme, number, || used(11, 2.0));
        assert_ne!(ledger.begin(), number);
        let lines = lines(&place);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let sum: u64 = lines
            .iter()
            .map(|line| line["requests"]["answered"].as_u64().unwrap())
            .sum();
        assert_eq!(sum, 10);
        assert_eq!(lines[1]["handler_seconds"], 1.5);
        assert_eq!(lines[1]["tenant"], "acme");
        assert!(lines[1]["seconds"].as_f64().unwrap() >= 0.0);
    }

    #[test]
    fn a_file_that_is_taken_away_is_followed_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("usage");
        let (ledger, acme) = (Ledger::new(place.clone()), TenantName::new("acme").unwrap());
        let number = ledger.begin();
        ledger.note(&acme, number, || used(3, 0.5));
        std::fs::remove_dir_all(&place).unwrap();
        ledger.note(&acme, number, || used(5, 0.5));
        assert_eq!(lines(&place)[0]["requests"]["answered"], 2);
    }

    #[test]
    fn what_cannot_be_written_is_in_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("usage");
        std::fs::write(&place, "in the way").unwrap();
        let (ledger, acme) = (Ledger::new(place.clone()), TenantName::new("acme").unwrap());
        let number = ledger.begin();
        ledger.note(&acme, number, || used(3, 0.5));
        std::fs::remove_file(&place).unwrap();
        ledger.note(&acme, number, || used(5, 0.5));
        let lines = lines(&place);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["requests"]["answered"], 5);
    }
}
