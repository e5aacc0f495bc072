//! The last lines of one version's log, in memory, for those who ask for them and those who follow them.
//!
//! Every version keeps a few, within a limit of bytes, and whoever follows them reads them from there: a reader that is slow has no queue
//! of its own, but misses lines, and is told how many. A line is one line, whatever its text holds.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::truncated;
use crate::runtime::Level;

/// Lines that are kept of a version.
pub const KEPT_LINES: usize = 200;
/// Bytes that they have at most, together.
const KEPT_BYTES: usize = 64 << 10;
/// Bytes of one line.
const LINE_LIMIT: usize = 8 << 10;

/// Who says a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The handler, or what runs in the version's worker process.
    Model,
    /// The server.
    Server,
}

/// What a line is made from.
pub(super) struct Said<'a> {
    pub by: Speaker,
    pub at: SystemTime,
    pub level: Level,
    pub text: &'a str,
    /// Empty outside of a request.
    pub request_id: &'a str,
}

/// The last lines of one version. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentLines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    /// There is another line, or no more will come.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// How many there were before those that are kept.
    gone: u64,
    has_ended: bool,
}

/// Reads the lines of one version as they come.
#[derive(Debug)]
pub struct Follower {
    lines: RecentLines,
    /// How many it has read or missed.
    seen: u64,
}

impl RecentLines {
    /// Keeps a line, in place of the oldest ones.
    pub fn push(&self, said: &Said<'_>) {
        self.push_line(line(said).into());
    }

    fn push_line(&self, line: Bytes) {
        let mut kept = self.0.kept.lock();
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.lines.len() > KEPT_LINES || kept.bytes > KEPT_BYTES {
            kept.drop_oldest();
        }
        drop(kept);
        self.0.changed.notify_waiters();
    }

    /// No more lines come.
    pub fn end(&self) {
        self.0.kept.lock().has_ended = true;
        self.0.changed.notify_waiters();
    }

    /// The last lines, `count` at most, and a reader of those that come after them.
    pub fn last(&self, count: usize) -> (Vec<u8>, Follower) {
        let kept = self.0.kept.lock();
        let skipped = kept.lines.len().saturating_sub(count);
        let text = kept.from(skipped);
        let seen = kept.gone + kept.lines.len() as u64;
        drop(kept);
        let lines = self.clone();
        (text, Follower { lines, seen })
    }
}

impl Kept {
    fn drop_oldest(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= line.len();
            self.gone += 1;
        }
    }

    /// The text of all lines but the first `skipped`.
    fn from(&self, skipped: usize) -> Vec<u8> {
        let lines = self.lines.iter().skip(skipped);
        lines.flat_map(|line| line.iter().copied()).collect()
    }
}

impl Follower {
    /// The lines that have come since the last time, once there are some; `None` if no more will come. Where it is slower than they come,
    /// a line says how many it missed. May be dropped at any time: nothing is lost by that.
    pub async fn more(&mut self) -> Option<Vec<u8>> {
        loop {
            let lines = self.lines.clone();
            let changed = lines.0.changed.notified();
            match self.next() {
                Next::Text(text) => return Some(text),
                Next::End => return None,
                Next::Later => changed.await,
            }
        }
    }

    fn next(&mut self) -> Next {
        let kept = self.lines.0.kept.lock();
        let missed = kept.gone.saturating_sub(self.seen);
        let skipped = usize::try_from(self.seen.saturating_sub(kept.gone));
        let skipped = skipped.unwrap_or(usize::MAX);
        if skipped < kept.lines.len() {
            let mut text = told_missed(missed);
            text.extend(kept.from(skipped));
            self.seen = kept.gone + kept.lines.len() as u64;
            return Next::Text(text);
        }
        if kept.has_ended {
            Next::End
        } else {
            Next::Later
        }
    }
}

/// What there is for a reader.
enum Next {
    Text(Vec<u8>),
    /// Nothing yet.
    Later,
    /// Nothing, and no more will come.
    End,
}

/// What a reader is told that missed so many lines. No line of a model begins so: those begin with a time.
fn told_missed(missed: u64) -> Vec<u8> {
    if missed == 0 {
        return Vec::new();
    }
    format!("-- {missed} lines were missed: they came faster than they were read\n").into_bytes()
}

/// `2026-11-20T15:20:39.500Z [INFO ] MODEL_LOG - the text request_id=…`, with a line break at the end and none before it.
fn line(said: &Said<'_>) -> String {
    let mut line = String::with_capacity(said.text.len() + 96);
    // A time that the calendar does not have comes from a wrong clock.
    let at = Timestamp::try_from(said.at).unwrap_or(Timestamp::UNIX_EPOCH);
    let (level, logger) = (name_of(said.level), said.by.logger());
    let _ = write!(line, "{at:.3} [{level:<5}] {logger} - ");
    escape(&mut line, said.text);
    if line.len() > LINE_LIMIT {
        let end = truncated(&line, LINE_LIMIT).len();
        line.truncate(end);
        let _ = write!(line, "… ({} bytes)", said.text.len());
    }
    if !said.request_id.is_empty() {
        line.push_str(" request_id=");
        escape(&mut line, truncated(said.request_id, LINE_LIMIT));
    }
    line.push('\n');
    line
}

impl Speaker {
    /// The logger's name, as in the log files.
    const fn logger(self) -> &'static str {
        match self {
            Self::Model => "MODEL_LOG",
            Self::Server => "lantern",
        }
    }
}

const fn name_of(level: Level) -> &'static str {
    match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}

/// Appends `text` without what a reader or a terminal could take for the end of the line or for a command.
fn escape(line: &mut String, text: &str) {
    let ends_lines = |c: char| matches!(c, '\u{2028}' | '\u{2029}');
    for c in text.trim_end_matches('\n').chars() {
        if (c.is_control() && c != '\t') || ends_lines(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn said<'a>(text: &'a str, request_id: &'a str) -> Said<'a> {
        Said {
            by: Speaker::Model,
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_188_039_500),
            level: Level::Info,
            text,
            request_id,
        }
    }

    fn shown(text: &str) -> String {
        line(&said(text, ""))
    }

    const HEAD: &str = "2026-11-20T15:20:39.500Z [INFO ] MODEL_LOG - ";

    #[test]
    fn a_line_says_when_who_and_what() {
        let whole = line(&said("loaded", "r-1"));
        assert_eq!(whole, format!("{HEAD}loaded request_id=r-1\n"));
        let server = Said {
            by: Speaker::Server,
            level: Level::Error,
            ..said("it died", "")
        };
        let expected = "2026-11-20T15:20:39.500Z [ERROR] lantern - it died\n";
        assert_eq!(line(&server), expected);
    }

    #[test]
    fn what_a_handler_says_is_one_line() {
        let forged =
            "a\n2026-11-20T15:20:39.500Z [INFO ] lantern - forged\r\u{1b}[2J\u{9b}\u{2028}\t\0";
        assert_eq!(
            shown(forged),
            format!(
                "{HEAD}a\\n2026-11-20T15:20:39.500Z [INFO ] lantern - forged\\r\\u{{1b}}[2J\\u{{9b}}\\u{{2028}}\t\\u{{0}}\n"
            )
        );
        let long = shown(&"é".repeat(LINE_LIMIT));
        assert!(long.len() < LINE_LIMIT + 32, "{}", long.len());
        assert!(long.ends_with("é… (16384 bytes)\n"), "{long}");
    }

    proptest! {
        #[test]
        fn no_text_looks_like_two_lines(text in "(?s).{0,64}", id in "(?s).{0,16}") {
            let line = line(&said(&text, &id));
            let inner = line.strip_suffix('\n').unwrap();
            prop_assert!(inner.starts_with(HEAD));
            prop_assert!(!inner.chars().any(|c| c.is_control() && c != '\t'));
            prop_assert_eq!(inner.lines().count(), 1);
        }
    }

    #[test]
    fn the_last_ones_are_kept_within_both_limits() {
        let lines = RecentLines::default();
        for number in 0..KEPT_LINES + 50 {
            lines.push(&said(&number.to_string(), ""));
        }
        let text = String::from_utf8(lines.last(usize::MAX).0).unwrap();
        assert_eq!(text.lines().count(), KEPT_LINES);
        assert!(text.starts_with(&format!("{HEAD}50\n")), "{text}");
        let two = String::from_utf8(lines.last(2).0).unwrap();
        assert_eq!(two, format!("{HEAD}248\n{HEAD}249\n"));
        assert_eq!(lines.last(0).0, b"");
        for _ in 0..KEPT_LINES {
            lines.push(&said(&"x".repeat(LINE_LIMIT), ""));
        }
        let kept = lines.0.kept.lock();
        assert!(kept.bytes <= KEPT_BYTES && kept.lines.len() > 4);
    }

    #[tokio::test]
    async fn a_follower_reads_what_comes_and_is_told_what_it_missed() {
        let lines = RecentLines::default();
        lines.push(&said("before", ""));
        let (_, mut follower) = lines.last(0);
        lines.push(&said("one", ""));
        lines.push(&said("two", ""));
        let more = follower.more().await.unwrap();
        assert_eq!(more, format!("{HEAD}one\n{HEAD}two\n").into_bytes());
        for number in 0..KEPT_LINES + 7 {
            lines.push(&said(&number.to_string(), ""));
        }
        let more = String::from_utf8(follower.more().await.unwrap()).unwrap();
        assert!(more.starts_with("-- 7 lines were missed: "), "{more}");
        assert_eq!(more.lines().count(), KEPT_LINES + 1);
        let waiting = tokio::spawn(async move {
            let last = follower.more().await;
            (last, follower.more().await)
        });
        tokio::task::yield_now().await;
        lines.push(&said("last", ""));
        lines.end();
        let (last, end) = waiting.await.unwrap();
        assert_eq!(last.unwrap(), format!("{HEAD}last\n").into_bytes());
        assert_eq!(end, None);
    }
}
