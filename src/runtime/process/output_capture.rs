//! Captures what a worker process writes to stdout and stderr: each line goes to the model's log, and the last lines of
//! stderr are kept to explain its death.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::task::AbortOnDropHandle;

use super::counts::ProcessCounts;
use crate::handler::{Level, LogLine, RateLimit, Sink};
use crate::metrics::ReportKind;

/// Lines that are kept.
const KEPT_LINES: usize = 20;

/// Bytes of a line; what is longer is cut into several.
const LINE_LIMIT: usize = 4 << 10;

/// Lines a second that go to the log. All of them count as last lines.
const LINES_PER_SECOND: u32 = 100;

/// Bytes a second that are read of a stream. A process that writes more waits, as it would for a terminal.
const BYTES_PER_SECOND: u32 = 8 << 20;

/// Bytes that a line counts for beside its own: an empty one costs work as well.
const LINE_COST: usize = 256;

/// How long reading the rest of a dead process's output may take. The pipe may never close: a grandchild can have
/// inherited it.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// The last lines of stderr, oldest first.
#[derive(Debug, Clone, Default)]
pub struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    /// The lines.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    fn keep(&self, line: &str) {
        let mut lines = self.0.lock();
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }
}

/// Reads both streams of one process until they end, or until dropped.
#[derive(Debug)]
pub struct OutputCapture {
    last_lines: LastLines,
    readers: [AbortOnDropHandle<()>; 2],
}

impl OutputCapture {
    /// Starts to read both streams; their lines go to `sink`, and those that are too many are counted in `counts`.
    pub fn new(
        stdout: impl AsyncRead + Send + Unpin + 'static,
        stderr: impl AsyncRead + Send + Unpin + 'static,
        sink: &Arc<dyn Sink>,
        counts: &Arc<ProcessCounts>,
    ) -> Self {
        let last_lines = LastLines::default();
        let reader = |stream, last_lines| StreamReader {
            stream,
            sink: sink.clone(),
            counts: counts.clone(),
            last_lines,
            lines: RateLimit::new(LINES_PER_SECOND),
            bytes: RateLimit::new(BYTES_PER_SECOND),
        };
        let out = reader("stdout", None);
        let err = reader("stderr", Some(last_lines.clone()));
        let readers = [
            AbortOnDropHandle::new(tokio::spawn(out.read(stdout))),
            AbortOnDropHandle::new(tokio::spawn(err.read(stderr))),
        ];
        Self {
            last_lines,
            readers,
        }
    }

    /// The last lines of stderr. To be called when the process is dead; waits for the rest of its output.
    pub async fn last_output(mut self) -> Vec<String> {
        let [out, err] = &mut self.readers;
        let both = async { tokio::join!(out, err) };
        // Lines that come later are lost.
        let _ = tokio::time::timeout(READ_TIMEOUT, both).await;
        self.last_lines.lines()
    }
}

struct StreamReader {
    stream: &'static str,
    sink: Arc<dyn Sink>,
    counts: Arc<ProcessCounts>,
    last_lines: Option<LastLines>,
    lines: RateLimit,
    bytes: RateLimit,
}

impl StreamReader {
    async fn read(mut self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = BytesMut::with_capacity(LINE_LIMIT);
        while let Ok(mut count @ 1..) = stream.read_buf(&mut buffer).await {
            while let Some(line) = next_line(&mut buffer) {
                self.take(&line);
                count += LINE_COST;
            }
            buffer.reserve(LINE_LIMIT);
            self.pace(count).await;
        }
        if !buffer.is_empty() {
            self.take(&printable(&buffer));
        }
    }

    /// Waits after so many bytes, if they came too fast.
    async fn pace(&mut self, count: usize) {
        let now = tokio::time::Instant::now().into_std();
        self.bytes
            .charge(u32::try_from(count).unwrap_or(u32::MAX), now);
        if self.bytes.is_overdrawn() {
            tokio::time::sleep(self.bytes.owed(now)).await;
        }
    }

    fn take(&mut self, line: &str) {
        if let Some(last_lines) = &self.last_lines {
            last_lines.keep(line);
        }
        if !self.lines.admit(1, Instant::now()) {
            self.counts.dropped(ReportKind::Output);
            return;
        }
        // Lantern's own lines are on stderr.
        let (message, request_id) = match &self.last_lines {
            Some(_) => split_request_id(line),
            None => (line, ""),
        };
        self.sink.log(LogLine {
            level: Level::Info,
            message: message.to_owned(),
            fields: vec![("stream".to_owned(), self.stream.to_owned())],
            request_id: request_id.to_owned(),
        });
    }
}

fn next_line(buffer: &mut BytesMut) -> Option<String> {
    let end = buffer
        .iter()
        .take(LINE_LIMIT)
        .position(|byte| *byte == b'\n');
    match end {
        Some(end) => {
            let line = printable(&buffer[..end]);
            buffer.advance(end + 1);
            Some(line)
        }
        None if buffer.len() >= LINE_LIMIT => Some(printable(&buffer.split_to(LINE_LIMIT))),
        None => None,
    }
}

/// The message of a line, and the id of the request that it is about: the log of a worker process writes that last.
fn split_request_id(line: &str) -> (&str, &str) {
    let split = line.rsplit_once(" request_id=");
    split
        .filter(|(_, id)| is_request_id(id))
        .unwrap_or((line, ""))
}

/// Whether a text is an id that this server makes: a UUID, with a number for a message of a stream.
fn is_request_id(text: &str) -> bool {
    let (id, number) = text.split_at_checked(36).unwrap_or((text, ""));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let is_message = number.strip_prefix('-').is_some_and(is_number);
    uuid::Uuid::try_parse(id).is_ok() && (number.is_empty() || is_message)
}

/// Text that can be shown on a terminal: foreign code must not send it control sequences.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars()
        .filter(|c| !c.is_control() || *c == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoSink;

    impl Sink for NoSink {
        fn log(&self, _line: LogLine) {}
        fn observe(&self, _observation: crate::handler::Observation) {}
    }

    async fn captured(output: &'static [u8]) -> Vec<String> {
        let sink: Arc<dyn Sink> = Arc::new(NoSink);
        OutputCapture::new(tokio::io::empty(), output, &sink, &Arc::default())
            .last_output()
            .await
    }

    #[derive(Default)]
    struct Lines(Mutex<Vec<LogLine>>);

    impl Sink for Lines {
        fn log(&self, line: LogLine) {
            self.0.lock().push(line);
        }
        fn observe(&self, _observation: crate::handler::Observation) {}
    }

    /// What a model prints is on stdout, and may look like a line of the server's own.
    #[tokio::test]
    async fn a_line_on_stdout_names_no_request() {
        let line = b"x request_id=67e55044-10b1-426f-9247-bb680e5fe0c8\n".as_slice();
        let lines = Arc::new(Lines::default());
        let sink: Arc<dyn Sink> = lines.clone();
        let counts = Arc::default();
        OutputCapture::new(line, line, &sink, &counts)
            .last_output()
            .await;
        let lines = lines.0.lock();
        for (stream, id) in [
            ("stdout", ""),
            ("stderr", "67e55044-10b1-426f-9247-bb680e5fe0c8"),
        ] {
            let of_stream = lines.iter().find(|line| line.fields[0].1 == stream);
            assert_eq!(of_stream.unwrap().request_id, id, "{stream}");
        }
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_without_control_characters() {
        let lines: Vec<_> = (0..30).map(|number| format!("line {number}\n")).collect();
        let kept = captured(lines.concat().leak().as_bytes()).await;
        assert_eq!(kept.len(), KEPT_LINES);
        assert_eq!(kept.last().map(String::as_str), Some("line 29"));
        assert_eq!(
            captured(b"\x1b[31mred\x07\r\n\xff tail").await,
            ["[31mred", "\u{fffd} tail"]
        );
    }

    #[test]
    fn the_id_of_a_request_is_told_from_the_message() {
        for id in [
            "67e55044-10b1-426f-9247-bb680e5fe0c8",
            "67e55044-10b1-426f-9247-bb680e5fe0c8-12",
        ] {
            let line = format!(" WARN x a=1 request_id={id}");
            assert_eq!(split_request_id(&line), (" WARN x a=1", id));
        }
        for other in [
            "",
            "request_id=67e55044-10b1-426f-9247-bb680e5fe0c8",
            "x request_id=67e55044-10b1-426f-9247-bb680e5fe0c8 y",
            "x request_id=67e55044-10b1-426f-9247-bb680e5fe0c8-",
            "x request_id=r-1",
            "x request_id=",
        ] {
            assert_eq!(split_request_id(other), (other, ""));
        }
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut() {
        let kept = captured(vec![b'a'; 3 * LINE_LIMIT + 1].leak()).await;
        let lengths: Vec<_> = kept.iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_LIMIT, LINE_LIMIT, LINE_LIMIT, 1]);
    }

    #[tokio::test]
    async fn lines_beyond_the_share_of_a_stream_are_counted() {
        let (lines, counts) = (Arc::new(Lines::default()), Arc::default());
        let sink: Arc<dyn Sink> = lines.clone();
        let output = "a line\n".repeat(1000).leak().as_bytes();
        OutputCapture::new(output, tokio::io::empty(), &sink, &counts)
            .last_output()
            .await;
        let logged = lines.0.lock().len();
        assert!((100..1000).contains(&logged), "{logged}");
        let dropped = counts.take_dropped(ReportKind::Output);
        assert_eq!(logged as u64 + dropped, 1000);
    }

    /// A stream that never ends is read no faster than it may be written.
    #[tokio::test(start_paused = true)]
    async fn a_flood_on_a_stream_waits() {
        let begun = tokio::time::Instant::now();
        let sink: Arc<dyn Sink> = Arc::new(NoSink);
        let output = vec![b'x'; 5 * BYTES_PER_SECOND as usize].leak();
        let mut capture = OutputCapture::new(&*output, tokio::io::empty(), &sink, &Arc::default());
        let [out, _] = &mut capture.readers;
        out.await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(4));
    }
}
