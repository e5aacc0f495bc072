//! Interface `logging`: a handler's lines in its model's log, and what it prints.
//!
//! A guest can log millions of lines a second. So lines are cut, their number per call is limited, and so is their rate
//! over all instances together. How many were left out is logged in one line.

use std::time::Instant;

use parking_lot::Mutex;

use crate::error::truncated;

use super::bindings::lantern::handler::logging;
use super::host::{HandlerState, Host};
use super::rate::RateLimit;
use super::{Level, LogLine};

/// Most bytes of one message, fields included.
const MESSAGE_LIMIT: usize = 8 << 10;
/// Most named values of one line.
const FIELD_LIMIT: usize = 32;
/// Most bytes of a field's name, and of its value: all fields of a line together are no longer than two messages may be.
const FIELD_BYTES: usize = MESSAGE_LIMIT / FIELD_LIMIT;
/// Most bytes of the id of a request.
const REQUEST_ID: usize = 128;
const LINES_PER_CALL: u32 = 100;
const BYTES_PER_CALL: usize = 64 << 10;

/// Lines a second about requests that failed outside of the handler: clients may cause them.
pub const FAILURES_PER_SECOND: u32 = 20;

/// About the length of a line that says how many were left out.
const LEFT_OUT_BYTES: u32 = 64;

/// How much one call may still log.
#[derive(Debug)]
pub(super) struct LogQuota {
    lines: u32,
    bytes: usize,
}

impl Default for LogQuota {
    fn default() -> Self {
        Self {
            lines: LINES_PER_CALL,
            bytes: BYTES_PER_CALL,
        }
    }
}

impl LogQuota {
    fn take(&mut self, bytes: usize) -> bool {
        if self.lines == 0 || self.bytes < bytes {
            return false;
        }
        self.lines -= 1;
        self.bytes -= bytes;
        true
    }
}

impl LogLine {
    /// The line with its texts cut to what a line may have. Both ends of a worker process's connection do that.
    #[must_use]
    pub fn cut(mut self) -> Self {
        cut(&mut self.message, MESSAGE_LIMIT);
        cut(&mut self.request_id, REQUEST_ID);
        self.fields.truncate(FIELD_LIMIT);
        for (name, value) in &mut self.fields {
            cut(name, FIELD_BYTES);
            cut(value, FIELD_BYTES);
        }
        self
    }

    /// Bytes of its texts.
    pub fn bytes(&self) -> usize {
        let fields = self.fields.iter();
        let fields: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
        self.message.len() + fields
    }
}

fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}

/// Limits the rate of log lines over all instances of a handler.
pub(super) struct LogGate(Mutex<Rates>);

struct Rates {
    lines: RateLimit,
    bytes: RateLimit,
    dropped: u64,
}

/// What [`LogGate::admit`] decided.
#[derive(Debug, PartialEq, Eq)]
enum LineDecision {
    Dropped,
    /// The line may be logged. `dropped` lines before it were left out.
    Passed {
        dropped: u64,
    },
}

impl LogGate {
    /// Lets so many lines and bytes a second through. That is also the most that may come at once.
    pub fn new(lines_per_second: u32, bytes_per_second: usize) -> Self {
        Self(Mutex::new(Rates {
            lines: RateLimit::new(lines_per_second),
            bytes: RateLimit::new(saturated(bytes_per_second)),
            dropped: 0,
        }))
    }

    fn admit(&self, bytes: usize, now: Instant) -> LineDecision {
        let mut rates = self.0.lock();
        if rates.lines.admit(1, now) && rates.bytes.admit(saturated(bytes), now) {
            let dropped = std::mem::take(&mut rates.dropped);
            if dropped > 0 {
                // The line that says so counts as well.
                rates.lines.charge(1, now);
                rates.bytes.charge(LEFT_OUT_BYTES, now);
            }
            return LineDecision::Passed { dropped };
        }
        rates.dropped += 1;
        LineDecision::Dropped
    }

    fn count_dropped(&self) {
        self.0.lock().dropped += 1;
    }
}

fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl HandlerState {
    /// Sends a line about a request that failed outside of the handler, unless there are too many.
    pub fn log_failure(&self, message: &str, request_id: &str) {
        let decision = self.failure_gate.admit(message.len(), Instant::now());
        let LineDecision::Passed { dropped } = decision else {
            return;
        };
        if dropped > 0 {
            let text = format!("{dropped} lines about requests that failed were left out");
            self.warn(text, "");
        }
        self.warn(truncated(message, MESSAGE_LIMIT).to_owned(), request_id);
    }

    fn warn(&self, message: String, request_id: &str) {
        self.sink.log(LogLine {
            level: Level::Warn,
            message,
            fields: Vec::new(),
            request_id: request_id.to_owned(),
        });
    }
}

impl Host {
    /// Sends a line to the model's log, unless the call or the handler is over its limit.
    pub fn log(&mut self, level: Level, message: &str, fields: Vec<(String, String)>) {
        let line = self.line(level, message.to_owned(), fields).cut();
        let gate = &self.shared.log_gate;
        if !self.log_quota.take(line.message.len()) {
            gate.count_dropped();
            return;
        }
        let LineDecision::Passed { dropped } = gate.admit(line.bytes(), Instant::now()) else {
            return;
        };
        if dropped > 0 {
            let text = format!("{dropped} lines of the handler's log were left out");
            let left_out = self.line(Level::Warn, text, Vec::new());
            self.shared.sink.log(left_out);
        }
        self.shared.sink.log(line);
    }

    /// Sends what the call printed to the model's log.
    pub fn flush_output(&mut self, has_failed: bool) {
        let level = if has_failed {
            Level::Error
        } else {
            Level::Warn
        };
        for (output, level) in [
            (self.stdout.take(), Level::Info),
            (self.stderr.take(), level),
        ] {
            if let Some(text) = output {
                self.log(level, text.trim_end(), Vec::new());
            }
        }
    }

    fn line(&self, level: Level, message: String, fields: Vec<(String, String)>) -> LogLine {
        LogLine {
            level,
            message,
            fields,
            request_id: self.request_id.clone(),
        }
    }
}

impl logging::Host for Host {
    fn enabled(&mut self, level: logging::Level) -> wasmtime::Result<bool> {
        self.charge()?;
        Ok(level != logging::Level::Trace)
    }

    fn log(
        &mut self,
        level: logging::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        self.charge()?;
        Self::log(self, level.into(), &message, fields);
        Ok(())
    }
}

impl From<logging::Level> for Level {
    fn from(level: logging::Level) -> Self {
        match level {
            logging::Level::Trace => Self::Trace,
            logging::Level::Debug => Self::Debug,
            logging::Level::Info => Self::Info,
            logging::Level::Warn => Self::Warn,
            logging::Level::Error => Self::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_gate_lets_a_burst_through_then_the_rate_and_says_what_it_left_out() {
        let start = Instant::now();
        let gate = LogGate::new(2, 100);
        let passed = |dropped| LineDecision::Passed { dropped };
        assert_eq!(gate.admit(1, start), passed(0));
        assert_eq!(gate.admit(1, start), passed(0));
        assert_eq!(gate.admit(1, start), LineDecision::Dropped);
        assert_eq!(gate.admit(1, start), LineDecision::Dropped);
        let later = start + Duration::from_millis(500);
        assert_eq!(gate.admit(1, later), passed(2));
        assert_eq!(gate.admit(1, later), LineDecision::Dropped);
    }

    #[test]
    fn the_gate_counts_bytes_as_well() {
        let start = Instant::now();
        let gate = LogGate::new(1000, 100);
        assert_eq!(gate.admit(150, start), LineDecision::Passed { dropped: 0 });
        assert_eq!(gate.admit(1, start), LineDecision::Dropped);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.admit(1, later), LineDecision::Passed { dropped: 1 });
    }

    #[test]
    fn no_text_of_a_line_is_longer_than_it_may_be() {
        let long = "ä".repeat(1 << 20);
        let line = LogLine {
            level: Level::Warn,
            message: long.clone(),
            fields: vec![(long.clone(), long.clone()); 100],
            request_id: long,
        };
        let line = line.cut();
        assert_eq!(line.fields.len(), FIELD_LIMIT);
        assert_eq!(line.bytes(), MESSAGE_LIMIT + FIELD_LIMIT * 2 * FIELD_BYTES);
        assert_eq!(line.request_id.len(), REQUEST_ID);
    }

    #[test]
    fn a_call_may_log_so_many_lines_and_bytes() {
        let mut quota = LogQuota::default();
        let admitted = (0..1000).filter(|_| quota.take(1)).count();
        assert_eq!(admitted, 100);
        let mut quota = LogQuota::default();
        let admitted = (0..1000).filter(|_| quota.take(MESSAGE_LIMIT)).count();
        assert_eq!(admitted, 8);
    }
}
