//! Formats a record as a line: TorchServe's text, or JSON.
//!
//! Text from handlers and clients cannot look like a line of its own: line breaks within a message are marked, and
//! control characters are escaped.

use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::Level;

use super::Format;
use super::clock::Clock;
use super::record::{Log, Record};

/// Beginning of a line that continues the message before it.
pub(super) const CONTINUED: &[u8] = b"    | ";

/// Formats records as lines.
pub(super) struct Formatter {
    format: Format,
    clock: Clock,
}

/// Which of its two forms a line of text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The form on standard output, which shows the lines of all logs.
    Long,
    /// The form in the log's own file.
    OfFile,
}

impl Formatter {
    pub const fn new(format: Format, clock: Clock) -> Self {
        Self { format, clock }
    }

    /// The clock of the lines.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Appends `record` as one line.
    pub fn write(&self, line: &mut Vec<u8>, record: &Record, form: Form) {
        match self.format {
            _ if record.log == Log::Audit && form == Form::OfFile => audit(line, record),
            Format::Json => json(line, record),
            Format::Human => self.text(line, record, form),
        }
        line.push(b'\n');
    }

    fn text(&self, line: &mut Vec<u8>, record: &Record, form: Form) {
        self.clock.write_local(line, record.at);
        if form == Form::Long || !record.log.is_brief() {
            let thread = record.thread.as_bytes();
            let logger = record.logger.as_bytes();
            for part in [level(record), b"] ", thread, b" ", logger] {
                line.extend_from_slice(part);
            }
        }
        line.extend_from_slice(b" - ");
        escape(line, &record.message);
        // The message of the other logs has TorchServe's exact format, so no fields are added.
        if !record.log.is_brief() {
            // What the thread's name says already.
            let is_named = record.log == Log::Model;
            fields(line, record, is_named);
        }
    }
}

/// The record's level in TorchServe's five columns.
fn level(record: &Record) -> &'static [u8] {
    match record.level {
        Level::ERROR => b" [ERROR",
        Level::WARN => b" [WARN ",
        Level::INFO => b" [INFO ",
        Level::DEBUG => b" [DEBUG",
        Level::TRACE => b" [TRACE",
    }
}

/// A line of a worker process, which its server takes apart again: it knows model and version, and the id of the request is
/// last, if there is one.
pub(super) fn worker_line(record: &Record) -> Vec<u8> {
    let mut line = format!("{:>5} ", record.level.as_str()).into_bytes();
    escape(&mut line, &record.message);
    fields(&mut line, record, true);
    line.push(b'\n');
    line
}

/// What is empty is left out of text, and so are model and version where they are known besides.
fn fields(line: &mut Vec<u8>, record: &Record, is_version_known: bool) {
    for (name, value) in &record.fields {
        let is_known = is_version_known && matches!(*name, "model" | "version");
        if !is_known && value.as_str() != Some("") {
            let _ = write!(line, " {name}=");
            field(line, value);
        }
    }
}

/// Appends a field's value. A text of plain words stands as it is, any other in quotes.
fn field(line: &mut Vec<u8>, value: &Value) {
    let is_plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"')
    };
    match value {
        Value::String(text) if is_plain(text) => line.extend_from_slice(text.as_bytes()),
        other => escape(line, other.to_string().as_bytes()),
    }
}

/// A line of the audit log is JSON whatever the format of the others: its time, and what is known of the call.
fn audit(line: &mut Vec<u8>, record: &Record) {
    let mut object = begun(record);
    if !record.message.is_empty() {
        object.insert("message".to_owned(), text(&record.message));
    }
    finish(line, object, record);
}

fn json(line: &mut Vec<u8>, record: &Record) {
    let mut object = begun(record);
    object.insert("level".to_owned(), record.level.as_str().into());
    object.insert("thread".to_owned(), (*record.thread).into());
    object.insert("logger".to_owned(), record.logger.into());
    object.insert("message".to_owned(), text(&record.message));
    finish(line, object, record);
}

/// An object that has the time.
fn begun(record: &Record) -> Map<String, Value> {
    let mut time = Vec::with_capacity(24);
    Clock::write_utc(&mut time, record.at);
    let mut object = Map::new();
    object.insert("timestamp".to_owned(), text(&time));
    object
}

fn finish(line: &mut Vec<u8>, mut object: Map<String, Value>, record: &Record) {
    for (name, value) in &record.fields {
        object.insert((*name).to_owned(), value.clone());
    }
    let _ = write!(line, "{}", Value::Object(object));
}

fn text(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

/// Appends `text` with its line breaks marked and its control characters escaped.
fn escape(line: &mut Vec<u8>, text: &[u8]) {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if !text.iter().any(|byte| is_control(*byte)) {
        return line.extend_from_slice(text);
    }
    for byte in text {
        match *byte {
            b'\n' => {
                line.push(b'\n');
                line.extend_from_slice(CONTINUED);
            }
            byte if is_control(byte) => line.extend(byte.escape_ascii()),
            byte => line.push(byte),
        }
    }
}

const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use jiff::tz::TimeZone;

    use super::*;

    fn record(log: Log, message: &str) -> Record {
        Record {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_188_039_500),
            thread: "main".into(),
            ..Record::now(log, Level::INFO, message.as_bytes().to_vec())
        }
    }

    fn line(format: Format, record: &Record, form: Form) -> String {
        let mut line = Vec::new();
        let clock = Clock::of_zone(TimeZone::UTC);
        Formatter::new(format, clock).write(&mut line, record, form);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn text_has_torchserves_two_forms() {
        let access = record(
            Log::Access,
            "/127.0.0.1:39750 \"GET /ping HTTP/1.1\" 200 28",
        )
        .with("request_id", "r-1");
        assert_eq!(
            line(Format::Human, &access, Form::OfFile),
            "2026-11-20T15:20:39,500 - /127.0.0.1:39750 \"GET /ping HTTP/1.1\" 200 28\n"
        );
        assert_eq!(
            line(Format::Human, &access, Form::Long),
            "2026-11-20T15:20:39,500 [INFO ] main ACCESS_LOG - /127.0.0.1:39750 \"GET /ping HTTP/1.1\" 200 28\n"
        );
        let server = record(Log::Server, "Model a loaded.")
            .with("version", "1.0")
            .with("why", "so so");
        assert_eq!(
            line(Format::Human, &server, Form::OfFile),
            "2026-11-20T15:20:39,500 [INFO ] main lantern - Model a loaded. version=1.0 why=\"so so\"\n"
        );
    }

    #[test]
    fn json_has_the_request_in_each_line() {
        let access = record(Log::Access, "x")
            .with("status", 200)
            .with("request_id", "r-1");
        assert_eq!(
            line(Format::Json, &access, Form::OfFile),
            "{\"timestamp\":\"2026-11-20T15:20:39.500Z\",\"level\":\"INFO\",\"thread\":\"main\",\
             \"logger\":\"ACCESS_LOG\",\"message\":\"x\",\"status\":200,\"request_id\":\"r-1\"}\n"
        );
    }

    #[test]
    fn a_line_of_the_audit_log_is_json_in_its_file() {
        let audit = record(Log::Audit, "")
            .with("principal", "operator")
            .with("model", "a\",\"principal\":\"x\n\u{1b}");
        for format in [Format::Human, Format::Json] {
            assert_eq!(
                line(format, &audit, Form::OfFile),
                "{\"timestamp\":\"2026-11-20T15:20:39.500Z\",\"principal\":\"operator\",\
                 \"model\":\"a\\\",\\\"principal\\\":\\\"x\\n\\u001b\"}\n"
            );
        }
        let console = line(Format::Human, &audit, Form::Long);
        let expected = "main AUDIT_LOG -  principal=operator model=\"a\\\",";
        assert!(console.contains(expected), "{console}");
    }

    #[test]
    fn a_record_cannot_forge_lines() {
        let forged = record(
            Log::Model,
            "boom\n2026-01-01 INFO forged\rover\x00\x1b[31m\n\tend\n",
        );
        let written = line(Format::Human, &forged, Form::OfFile);
        let lines: Vec<_> = written.lines().skip(1).collect();
        let expected = [
            "    | 2026-01-01 INFO forged\\rover\\x00\\x1b[31m",
            "    | \tend",
        ];
        assert_eq!(lines, expected);
        let value = record(Log::Model, "m").with("request_id", "a\nb");
        assert!(line(Format::Human, &value, Form::OfFile).ends_with("m request_id=\"a\\nb\"\n"));
        assert_eq!(line(Format::Json, &forged, Form::OfFile).lines().count(), 1);
    }
}
