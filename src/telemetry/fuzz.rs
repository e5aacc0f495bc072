//! What the fuzzer calls: lines of logs that hold foreign text.

use serde_json::Value;
use tracing::Level;

use super::Format;
use super::clock::Clock;
use super::format::{CONTINUED, Form, Formatter, worker_line};
use super::record::{Log, Record};

/// A target: its name, and its function.
type Target = (&'static str, fn(&[u8]));

/// Names of the targets and their functions.
pub(crate) const TARGETS: [Target; 1] = [("log_line", log_line)];

/// No message and no field looks like a line of its own.
fn log_line(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let record = Record::now(Log::Model, Level::INFO, bytes.to_vec()).with("request_id", text);
    for form in [Form::Long, Form::OfFile] {
        check_text(&line(Format::Human, &record, form));
    }
    check_text(&worker_line(&record));
    let json = line(Format::Json, &record, Form::Long);
    assert!(!json[..json.len() - 1].contains(&b'\n'));
    let value: Value = serde_json::from_slice(&json).expect("a line is JSON");
    assert_eq!(value["message"], *String::from_utf8_lossy(&record.message));
}

fn line(format: Format, record: &Record, form: Form) -> Vec<u8> {
    let mut line = Vec::new();
    Formatter::new(format, Clock::of_system()).write(&mut line, record, form);
    line
}

fn check_text(text: &[u8]) {
    let text = text.strip_suffix(b"\n").expect("a line ends");
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.next();
    assert!(lines.all(|line| line.starts_with(CONTINUED)));
    let is_raw = |byte: &u8| byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t');
    assert!(!text.iter().any(is_raw));
}
