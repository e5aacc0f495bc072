//! Logs of tenants: files of their own, apart from the operator's and from each other's, written by one thread for all.
//!
//! Each tenant has a queue with a limit of its own: one that floods it loses lines, which are counted in its file, and takes no room from
//! others. Whoever closes a log waits until its files are left alone: from then on nothing is written there.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use tracing::Level;

use super::files::Files;
use super::format::{Form, Formatter};
use super::journal::Journal;
use super::record::{Log, Record};
use crate::model::TenantName;

/// Most bytes of records in the queue of one tenant.
const CAPACITY: usize = 1 << 20;
/// How long the thread waits for more records before it writes.
const GATHER: Duration = Duration::from_millis(20);
/// The logs that a tenant has.
const LOGS: [Log; 2] = [Log::Model, Log::ModelMetrics];

/// Opens the logs of tenants. Cheap to clone.
#[derive(Clone)]
pub struct TenantLogs(Arc<Shared>);

struct Shared {
    due: Mutex<Due>,
    changed: Condvar,
    formatter: Formatter,
    /// Where is logged what goes wrong.
    journal: Journal,
    /// Whether lines of models are logged at a level.
    is_logged: fn(Level) -> bool,
}

/// Logs with records that are not written.
#[derive(Default)]
struct Due {
    logs: Vec<Arc<Apart>>,
    has_ended: bool,
}

/// The log of one tenant: its own files. Cheap to clone.
#[derive(Clone)]
pub struct TenantLog {
    all: TenantLogs,
    own: Arc<Apart>,
}

struct Apart {
    tenant: TenantName,
    queue: Mutex<Queue>,
    /// `None` once it is closed. Locked before the queue.
    files: Mutex<Option<Files>>,
}

#[derive(Default)]
struct Queue {
    records: Vec<Record>,
    weight: usize,
    /// Records that did not fit since the last ones were taken.
    lost: u64,
    is_closed: bool,
}

/// The thread. Dropping it writes what was logged.
pub(super) struct TenantLogWriter {
    logs: TenantLogs,
    thread: Option<JoinHandle<()>>,
}

impl TenantLogs {
    /// Opens the log of `tenant` in `directory`, which is made. Blocks. A file that cannot be written is logged, and is no error.
    pub fn open(&self, tenant: &TenantName, directory: &Path) -> TenantLog {
        let clock = self.0.formatter.clock();
        let (files, complaints) = Files::open(&LOGS, |_| directory.to_owned(), clock);
        let own = Arc::new(Apart {
            tenant: tenant.clone(),
            queue: Mutex::default(),
            files: Mutex::new(Some(files)),
        });
        self.0.complain(tenant, complaints);
        let all = self.clone();
        TenantLog { all, own }
    }

    fn add(&self, log: &Arc<Apart>) {
        self.0.due.lock().logs.push(Arc::clone(log));
        self.0.changed.notify_one();
    }
}

impl TenantLog {
    /// Adds a record. Never waits for a file. After the log was closed, it is dropped.
    pub fn write(&self, record: Record) {
        let is_left_out = record.log == Log::Model && !(self.all.0.is_logged)(record.level);
        if !is_left_out && self.own.push(record) {
            self.all.add(&self.own);
        }
    }

    /// Writes what was logged, and closes the files. Blocks until nothing of this log touches them any more.
    pub fn close(&self) {
        self.own.queue.lock().is_closed = true;
        self.own.write(&self.all.0);
        let files = self.own.files.lock().take();
        if let Some(files) = files {
            files.close();
        }
    }
}

impl Apart {
    /// Whether it is the first record since the last were taken.
    fn push(&self, record: Record) -> bool {
        let weight = record.weight();
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return false;
        }
        if queue.weight + weight > CAPACITY {
            queue.lost += 1;
            return false;
        }
        queue.weight += weight;
        queue.records.push(record);
        queue.records.len() == 1
    }

    fn take(&self) -> Vec<Record> {
        let mut queue = self.queue.lock();
        queue.weight = 0;
        let lost = std::mem::take(&mut queue.lost);
        let mut records = std::mem::take(&mut queue.records);
        drop(queue);
        if lost > 0 {
            records.push(Record::lost(Log::Model, lost));
        }
        records
    }

    fn write(&self, shared: &Shared) {
        let mut files = self.files.lock();
        let Some(files) = files.as_mut() else {
            return;
        };
        for record in self.take() {
            let line = files.line(record.log);
            shared.formatter.write(line, &record, Form::OfFile);
        }
        let today = shared.formatter.clock().day(SystemTime::now());
        shared.complain(&self.tenant, files.flush(today));
    }
}

impl Shared {
    fn complain(&self, tenant: &TenantName, complaints: Vec<String>) {
        for complaint in complaints {
            let record = Record::now(Log::Server, Level::WARN, complaint.into_bytes());
            self.journal.write(record.with("tenant", tenant.as_str()));
        }
    }

    /// Waits until something is to be written, and for more.
    fn take(&self) -> (Vec<Arc<Apart>>, bool) {
        let mut due = self.due.lock();
        while due.logs.is_empty() && !due.has_ended {
            self.changed.wait(&mut due);
        }
        if !due.has_ended {
            self.changed.wait_for(&mut due, GATHER);
        }
        (std::mem::take(&mut due.logs), due.has_ended)
    }
}

impl TenantLogWriter {
    /// Starts the thread. Lines of models are left out unless they are logged at their level; complaints go to `journal`.
    pub fn start(
        formatter: Formatter,
        journal: Journal,
        is_logged: fn(Level) -> bool,
    ) -> io::Result<Self> {
        let logs = TenantLogs(Arc::new(Shared {
            due: Mutex::default(),
            changed: Condvar::new(),
            formatter,
            journal,
            is_logged,
        }));
        let shared = Arc::clone(&logs.0);
        let thread = std::thread::Builder::new()
            .name("log-tenants".to_owned())
            .spawn(move || run(&shared))?;
        Ok(Self {
            logs,
            thread: Some(thread),
        })
    }

    /// What opens logs.
    pub const fn logs(&self) -> &TenantLogs {
        &self.logs
    }
}

impl Drop for TenantLogWriter {
    fn drop(&mut self) {
        self.logs.0.due.lock().has_ended = true;
        self.logs.0.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let (logs, has_ended) = shared.take();
        for log in logs {
            log.write(shared);
        }
        if has_ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use jiff::tz::TimeZone;
    use tempfile::TempDir;

    use super::super::Format;
    use super::super::clock::Clock;
    use super::*;

    fn writer() -> TenantLogWriter {
        let formatter = Formatter::new(Format::Human, Clock::of_zone(TimeZone::UTC));
        TenantLogWriter::start(formatter, Journal::default(), |level| level <= Level::INFO).unwrap()
    }

    fn acme() -> TenantName {
        TenantName::new("acme").unwrap()
    }

    fn line(text: &str) -> Record {
        Record::now(Log::Model, Level::INFO, text.as_bytes().to_vec())
            .with("model", "m")
            .with("version", "1.0")
    }

    fn written(directory: &Path) -> String {
        fs::read_to_string(directory.join("model_log.log")).unwrap()
    }

    #[test]
    fn a_tenants_lines_are_in_its_own_files_and_nobody_elses() {
        let directory = TempDir::new().unwrap();
        let (acme_home, other_home) = (directory.path().join("a"), directory.path().join("b"));
        let writer = writer();
        let log = writer.logs().open(&acme(), &acme_home);
        let other = writer.logs().open(&acme(), &other_home);
        log.write(line("mine"));
        log.write(Record::now(Log::ModelMetrics, Level::INFO, b"rows".into()));
        log.write(Record::now(Log::Model, Level::DEBUG, b"quiet".into()));
        other.write(line("theirs"));
        drop(writer);
        let [mine, theirs] = [&acme_home, &other_home].map(|home| written(home));
        assert!(
            mine.ends_with(" - mine\n") && mine.lines().count() == 1,
            "{mine}"
        );
        assert!(
            theirs.ends_with(" - theirs\n") && theirs.lines().count() == 1,
            "{theirs}"
        );
        let metrics = fs::read_to_string(acme_home.join("model_metrics.log")).unwrap();
        assert!(metrics.ends_with(" - rows\n"), "{metrics}");
    }

    #[test]
    fn a_log_that_is_closed_leaves_its_directory_alone() {
        let directory = TempDir::new().unwrap();
        let (home, aside) = (
            directory.path().join("home"),
            directory.path().join("aside"),
        );
        let writer = writer();
        let first = writer.logs().open(&acme(), &home);
        first.write(line("first"));
        first.close();
        let before = written(&home);
        assert!(before.ends_with(" - first\n"), "{before}");
        fs::rename(&home, &aside).unwrap();
        first.write(line("late"));
        first.close();
        assert!(!home.exists());
        let second = writer.logs().open(&acme(), &home);
        first.write(line("later"));
        second.write(line("second"));
        drop(writer);
        assert_eq!(written(&aside), before);
        let second = written(&home);
        assert!(
            second.ends_with(" - second\n") && second.lines().count() == 1,
            "{second}"
        );
    }

    #[test]
    fn a_flood_costs_its_own_lines_and_says_how_many() {
        let directory = TempDir::new().unwrap();
        let (flooded, calm) = (directory.path().join("a"), directory.path().join("b"));
        let writer = writer();
        let log = writer.logs().open(&acme(), &flooded);
        let other = writer.logs().open(&acme(), &calm);
        // The thread cannot take what comes meanwhile.
        let held = log.own.files.lock();
        let text = "x".repeat(64 << 10);
        for _ in 0..100 {
            log.write(line(&text));
        }
        let queued = log.own.queue.lock().records.len();
        assert!(queued < 17, "{queued}");
        drop(held);
        other.write(line("heard"));
        drop(writer);
        let text = written(&flooded);
        let end = text.lines().last().unwrap();
        let lost = 100 - queued;
        assert!(
            end.contains(&format!("{lost} log lines were lost")),
            "{end}"
        );
        assert!(written(&calm).ends_with(" - heard\n"));
    }

    #[test]
    fn a_directory_that_cannot_be_made_stops_nobody() {
        let directory = TempDir::new().unwrap();
        let occupied = directory.path().join("occupied");
        fs::write(&occupied, "").unwrap();
        let writer = writer();
        let log = writer.logs().open(&acme(), &occupied);
        log.write(line("lost"));
        log.close();
        drop(writer);
        assert_eq!(fs::read_to_string(&occupied).unwrap(), "");
    }
}
