//! Interface `logging`: a handler's lines in its model's log, and what it prints.
//!
//! A guest can log millions of lines a second. So lines are cut, their number per call is limited, and so is their rate
//! over all instances together. How many were left out is logged in one line.

use std::time::Instant;

use parking_lot::Mutex;

use crate::error::truncated;

use super::bindings::lantern::handler::logging;
use super::host::{HandlerState, Host};
use super::{Level, LogLine};

/// Most bytes of one message, fields included.
const MESSAGE_LIMIT: usize = 8 << 10;
/// Most named values of one line.
const FIELD_LIMIT: usize = 32;
const LINES_PER_CALL: u32 = 100;
const BYTES_PER_CALL: usize = 64 << 10;

/// Lines a second about requests that failed outside of the handler: clients may cause them.
pub(super) const FAILURES_PER_SECOND: u32 = 20;

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

/// Limits the rate of log lines over all instances of a handler.
pub(super) struct LogGate {
    rate: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
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
    /// Lets `lines_per_second` through. That is also the most that may come at once.
    pub fn new(lines_per_second: u32, now: Instant) -> Self {
        let rate = f64::from(lines_per_second);
        Self {
            rate,
            bucket: Mutex::new(Bucket {
                tokens: rate,
                filled: now,
                dropped: 0,
            }),
        }
    }

    fn admit(&self, now: Instant) -> LineDecision {
        let mut bucket = self.bucket.lock();
        let elapsed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * self.rate).min(self.rate);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.dropped += 1;
            return LineDecision::Dropped;
        }
        bucket.tokens -= 1.0;
        LineDecision::Passed {
            dropped: std::mem::take(&mut bucket.dropped),
        }
    }

    fn count_dropped(&self) {
        self.bucket.lock().dropped += 1;
    }
}

impl HandlerState {
    /// Sends a line about a request that failed outside of the handler, unless there are too many.
    pub fn log_failure(&self, message: &str, request_id: &str) {
        let LineDecision::Passed { dropped } = self.failure_gate.admit(Instant::now()) else {
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
        let message = truncated(message, MESSAGE_LIMIT);
        let gate = &self.shared.log_gate;
        if !self.log_quota.take(message.len()) {
            gate.count_dropped();
            return;
        }
        let LineDecision::Passed { dropped } = gate.admit(Instant::now()) else {
            return;
        };
        if dropped > 0 {
            self.send(
                Level::Warn,
                format!("{dropped} lines of the handler's log were left out"),
                Vec::new(),
            );
        }
        self.send(level, message.to_owned(), fields);
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

    fn send(&self, level: Level, message: String, fields: Vec<(String, String)>) {
        self.shared.sink.log(LogLine {
            level,
            message,
            fields,
            request_id: self.request_id.clone(),
        });
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
        let fields = fields
            .into_iter()
            .take(FIELD_LIMIT)
            .map(cut_field)
            .collect();
        Self::log(self, level.into(), &message, fields);
        Ok(())
    }
}

/// Cuts the name and the value of a field, so that all fields of a line together are no longer than a message may be.
fn cut_field((name, value): (String, String)) -> (String, String) {
    let limit = MESSAGE_LIMIT / FIELD_LIMIT;
    (
        truncated(&name, limit).to_owned(),
        truncated(&value, limit).to_owned(),
    )
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
        let gate = LogGate::new(2, start);
        let passed = |dropped| LineDecision::Passed { dropped };
        assert_eq!(gate.admit(start), passed(0));
        assert_eq!(gate.admit(start), passed(0));
        assert_eq!(gate.admit(start), LineDecision::Dropped);
        assert_eq!(gate.admit(start), LineDecision::Dropped);
        assert_eq!(gate.admit(start + Duration::from_millis(500)), passed(2));
        assert_eq!(
            gate.admit(start + Duration::from_millis(500)),
            LineDecision::Dropped
        );
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
