//! A buffer of lines, and the thread that writes them to standard output.
//!
//! It is another thread than the one that writes the files, since a paused terminal or a pipe that nobody reads must not
//! delay the files. Lines that do not fit into the buffer are counted, and the number is written.

use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

/// Most bytes in the buffer.
const CAPACITY: usize = 4 << 20;

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// Lines that did not fit since the last write.
    lost: u64,
    ended: bool,
}

#[derive(Default)]
struct LineBuffer {
    pending: Mutex<Pending>,
    changed: Condvar,
}

/// Owns the thread. Dropping it writes what is left in the buffer.
pub struct Lines {
    shared: Arc<LineBuffer>,
    thread: Option<JoinHandle<()>>,
}

/// The side of the buffer that takes lines. Cheap to clone.
#[derive(Clone)]
pub struct LineWriter(Arc<LineBuffer>);

impl Lines {
    /// Starts a thread that writes to `output`.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(LineBuffer::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-console".to_owned())
            .spawn(move || run(&theirs, output))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Another handle that adds lines.
    pub fn writer(&self) -> LineWriter {
        LineWriter(Arc::clone(&self.shared))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.shared.pending.lock().ended = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl LineWriter {
    /// Adds whole lines, each with its line break. Never waits for the output.
    pub fn push(&self, lines: &[u8]) {
        let mut pending = self.0.pending.lock();
        if pending.bytes.len() + lines.len() > CAPACITY {
            pending.lost += 1;
            return;
        }
        let first = pending.bytes.is_empty();
        pending.bytes.extend_from_slice(lines);
        drop(pending);
        if first {
            self.0.changed.notify_one();
        }
    }
}

fn run(shared: &LineBuffer, mut output: impl Write) {
    let mut batch = Vec::new();
    loop {
        let (lost, ended) = shared.take(&mut batch);
        // If standard output is closed, there is nowhere to report it.
        let _ = output.write_all(&batch);
        if lost > 0 {
            let _ = writeln!(
                output,
                "{lost} log lines were lost: the output is slower than the log"
            );
        }
        let _ = output.flush();
        batch.clear();
        if ended {
            return;
        }
    }
}

impl LineBuffer {
    /// Waits for lines and swaps them with the empty `batch`.
    fn take(&self, batch: &mut Vec<u8>) -> (u64, bool) {
        let mut pending = self.pending.lock();
        while pending.bytes.is_empty() && !pending.ended {
            self.changed.wait(&mut pending);
        }
        std::mem::swap(&mut pending.bytes, batch);
        (std::mem::take(&mut pending.lost), pending.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_none_is_left_behind() {
        let output = Output::default();
        let lines = Lines::start(output.clone()).unwrap();
        let writer = lines.writer();
        for number in 0..1000 {
            writer.push(format!("{number}\n").as_bytes());
        }
        drop(lines);
        let written = String::from_utf8(output.0.lock().clone()).unwrap();
        let expected: Vec<_> = (0..1000).map(|number: u32| number.to_string()).collect();
        assert_eq!(written.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_said() {
        let output = Output::default();
        let lines = Lines::start(output.clone()).unwrap();
        lines.writer().push(&vec![b'x'; CAPACITY + 1]);
        drop(lines);
        let written = String::from_utf8(output.0.lock().clone()).unwrap();
        assert!(written.starts_with("1 log lines were lost"), "{written}");
    }
}
