//! The queue of records, and the thread that formats and writes them.
//!
//! Logging costs the caller no more than adding a record to the queue; the thread does the rest. The first record after a
//! pause wakes it, and then it looks every few milliseconds, so that a server under load pays for one wake-up per batch
//! and an idle one for none. The queue is bounded: records that do not fit are counted, and the number is logged.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use tracing::Level;

use super::files::Files;
use super::format::{Form, Formatter};
use super::lines::LineWriter;
use super::record::{Log, Record};

/// Most bytes of records in the queue.
const CAPACITY: usize = 8 << 20;
/// How long the thread waits for more records before it writes.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that are handed to the writer of standard output at a time.
const PORTION: usize = 64 << 10;

#[derive(Default)]
struct Pending {
    items: Vec<Item>,
    weight: usize,
    /// Records that did not fit since the last batch.
    lost: u64,
    ended: bool,
}

/// An item of the queue. Items are written in order.
enum Item {
    Record(Record),
    /// A line that is written to standard output alone, without a format.
    Print(&'static str),
}

#[derive(Default)]
struct RecordQueue {
    pending: Mutex<Pending>,
    changed: Condvar,
}

/// The side of the queue that takes records. Cheap to clone.
#[derive(Clone, Default)]
pub struct Journal(Arc<RecordQueue>);

/// Sends lines to one log. Cheap to clone.
#[derive(Clone)]
pub struct LogSender {
    journal: Journal,
    log: Log,
}

/// The thread that writes the logs. Dropping it writes what is left in the queue.
pub(super) struct LogWriter {
    journal: Journal,
    thread: Option<JoinHandle<()>>,
}

/// Where the thread writes lines.
pub(super) struct Outputs {
    /// Makes lines of records.
    pub formatter: Formatter,
    /// Standard output, which gets the lines of all logs.
    pub console: LineWriter,
    /// The files, one for each log.
    pub files: Files,
}

impl Journal {
    /// Adds one record to the queue. Never waits for a file or a terminal.
    pub fn write(&self, record: Record) {
        let weight = record.weight();
        self.push(Item::Record(record), weight);
    }

    /// Adds a line for standard output alone. It comes after everything that was logged before.
    pub fn print(&self, line: &'static str) {
        self.push(Item::Print(line), line.len());
    }

    fn push(&self, item: Item, weight: usize) {
        let mut pending = self.0.pending.lock();
        if pending.weight + weight > CAPACITY {
            pending.lost += 1;
            return;
        }
        let is_first = pending.items.is_empty();
        pending.weight += weight;
        pending.items.push(item);
        drop(pending);
        if is_first {
            self.0.changed.notify_one();
        }
    }

    /// A sender of lines to `log`.
    pub fn log(&self, log: Log) -> LogSender {
        let journal = self.clone();
        LogSender { journal, log }
    }

    /// Waits for items, waits for more, and swaps them with the empty `batch`.
    fn take(&self, batch: &mut Vec<Item>) -> (u64, bool) {
        let mut pending = self.0.pending.lock();
        while pending.items.is_empty() && !pending.ended {
            self.0.changed.wait(&mut pending);
        }
        if !pending.ended {
            self.0.changed.wait_for(&mut pending, GATHER);
        }
        std::mem::swap(&mut pending.items, batch);
        pending.weight = 0;
        (std::mem::take(&mut pending.lost), pending.ended)
    }
}

impl LogSender {
    /// Adds one line, given as the message alone: without time, level or line break.
    pub fn write(&self, line: &[u8]) {
        self.journal
            .write(Record::now(self.log, Level::INFO, line.to_vec()));
    }
}

impl LogWriter {
    /// Starts the thread.
    pub fn start(journal: Journal, mut outputs: Outputs) -> io::Result<Self> {
        let queue = journal.clone();
        let thread = std::thread::Builder::new()
            .name("log-files".to_owned())
            .spawn(move || run(&queue, &mut outputs))?;
        Ok(Self {
            journal,
            thread: Some(thread),
        })
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.journal.0.pending.lock().ended = true;
        self.journal.0.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(journal: &Journal, outputs: &mut Outputs) {
    let mut batch = Vec::new();
    loop {
        let (lost, ended) = journal.take(&mut batch);
        if lost > 0 {
            batch.push(Item::Record(loss(lost)));
        }
        outputs.write(&batch);
        batch.clear();
        if ended {
            return;
        }
    }
}

fn loss(lost: u64) -> Record {
    let message =
        format!("{lost} log lines were lost: they came faster than they could be written.");
    Record::now(Log::Server, Level::WARN, message.into_bytes())
}

impl Outputs {
    fn write(&mut self, batch: &[Item]) {
        let mut long = Vec::with_capacity(PORTION);
        for item in batch {
            match item {
                Item::Print(line) => long.extend_from_slice(line.as_bytes()),
                Item::Record(record) => self.line(&mut long, record),
            }
            if long.len() >= PORTION {
                self.console.push(&long);
                long.clear();
            }
        }
        let today = self.formatter.clock().day(SystemTime::now());
        for complaint in self.files.flush(today) {
            let record = Record::now(Log::Server, Level::WARN, complaint.into_bytes());
            self.formatter.write(&mut long, &record, Form::Long);
        }
        self.console.push(&long);
    }

    fn line(&mut self, long: &mut Vec<u8>, record: &Record) {
        self.formatter.write(long, record, Form::Long);
        let line = self.files.line(record.log);
        self.formatter.write(line, record, Form::OfFile);
    }
}
