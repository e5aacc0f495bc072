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

/// Most bytes of records in the queue, without those of the audit log.
const CAPACITY: usize = 8 << 20;
/// Most bytes of records of the audit log in it: no other lines take their room.
const AUDIT_CAPACITY: usize = 8 << 20;
/// How long the thread waits for more records before it writes.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that are handed to the writer of standard output at a time.
const PORTION: usize = 64 << 10;

#[derive(Default)]
struct Pending {
    items: Vec<Item>,
    /// Of the audit log's records, and of the others.
    audited: Share,
    others: Share,
    ended: bool,
}

/// What has a limit of its own.
#[derive(Default)]
struct Share {
    weight: usize,
    /// Records that did not fit since the last batch.
    lost: u64,
}

impl Share {
    /// Whether so much fits, which is counted.
    fn takes(&mut self, weight: usize, capacity: usize) -> bool {
        let fits = self.weight + weight <= capacity;
        if fits {
            self.weight += weight;
        } else {
            self.lost += 1;
        }
        fits
    }
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
        let fits = match &item {
            Item::Record(record) if record.log == Log::Audit => {
                pending.audited.takes(weight, AUDIT_CAPACITY)
            }
            Item::Record(_) | Item::Print(_) => pending.others.takes(weight, CAPACITY),
        };
        if !fits {
            return;
        }
        let is_first = pending.items.is_empty();
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

    /// Waits for items, waits for more, and swaps them with the empty `batch`. Behind them is said which did not fit. Returns whether these
    /// are the last.
    fn take(&self, batch: &mut Vec<Item>) -> bool {
        let mut pending = self.0.pending.lock();
        while pending.items.is_empty() && !pending.ended {
            self.0.changed.wait(&mut pending);
        }
        if !pending.ended {
            self.0.changed.wait_for(&mut pending, GATHER);
        }
        std::mem::swap(&mut pending.items, batch);
        let shares = [
            (Log::Audit, std::mem::take(&mut pending.audited)),
            (Log::Server, std::mem::take(&mut pending.others)),
        ];
        let losses = shares.into_iter().filter(|(_, share)| share.lost > 0);
        batch.extend(losses.map(|(log, share)| Item::Record(Record::lost(log, share.lost))));
        pending.ended
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
        let ended = journal.take(&mut batch);
        outputs.write(&batch);
        batch.clear();
        if ended {
            return;
        }
    }
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
        // Where it has a file, the audit log is in that alone.
        if record.log != Log::Audit || !self.files.has(Log::Audit) {
            self.formatter.write(long, record, Form::Long);
        }
        let line = self.files.line(record.log);
        self.formatter.write(line, record, Form::OfFile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(log: Log, bytes: usize) -> Record {
        Record::now(log, Level::INFO, vec![b'x'; bytes])
    }

    #[test]
    fn no_flood_of_other_lines_takes_the_room_of_the_audit_log() {
        let journal = Journal::default();
        for _ in 0..10 {
            journal.write(line(Log::Access, 1 << 20));
        }
        journal.write(line(Log::Audit, 100));
        let mut batch = Vec::new();
        journal.0.pending.lock().ended = true;
        assert!(journal.take(&mut batch));
        let of = |log| {
            let records = batch.iter().filter_map(|item| match item {
                Item::Record(record) if record.log == log => Some(record),
                _ => None,
            });
            records.collect::<Vec<_>>()
        };
        assert_eq!(of(Log::Audit).len(), 1);
        assert_eq!(of(Log::Access).len(), 7);
        let lost = String::from_utf8_lossy(&of(Log::Server)[0].message).into_owned();
        assert!(lost.starts_with("3 log lines were lost"), "{lost}");
    }
}
