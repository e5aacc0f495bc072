//! Converts events of `tracing` to records.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{self, Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::record::{Log, Record};

/// The `tracing` target of lines from handlers and worker processes.
pub(super) const MODEL: &str = "model";

/// Makes a record of every event and hands it over. The record carries the event's own values and those of the spans around
/// it, each name once.
pub(super) struct Records<W>(pub W);

impl<S, W> Layer<S> for Records<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(Record) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            let mut fields = SpanFields::with_capacity(attributes.fields().len());
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &span::Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in ctx.event_scope(event).into_iter().flatten() {
            if let Some(of_span) = span.extensions().get::<SpanFields>() {
                fields.add_missing(of_span);
            }
        }
        (self.0)(record(event.metadata(), fields));
    }
}

fn record(metadata: &'static Metadata<'static>, fields: Fields) -> Record {
    let is_model = metadata.target() == MODEL;
    let log = if is_model { Log::Model } else { Log::Server };
    let mut record = Record::now(log, *metadata.level(), fields.message.into_bytes());
    record.fields = fields.fields;
    if is_model {
        name_thread(&mut record);
    } else {
        record.logger = metadata.target();
    }
    record
}

/// Gives a model's lines the thread's name `W-resnet_1.0`, by which TorchServe's text tells models apart. Name and version
/// stay in the fields, for JSON.
fn name_thread(record: &mut Record) {
    let find = |name: &str| {
        let field = record.fields.iter().find(|(field, _)| *field == name);
        field.and_then(|(_, value)| value.as_str())
    };
    if let Some((model, version)) = find("model").zip(find("version")) {
        record.thread = format!("W-{model}_{version}").into();
    }
}

/// Bytes that the values of a request's span need: an id, and in most cases a model's name and version.
const SPAN_BYTES: usize = 96;

/// The values of a span, as text. Every request has a span and few log a line, so they are kept one after the other in one
/// allocation.
struct SpanFields {
    text: String,
    /// Name, and where the value ends in the text. It begins where the one before it ends.
    ends: Vec<(&'static str, usize)>,
}

impl SpanFields {
    fn with_capacity(fields: usize) -> Self {
        Self {
            text: String::with_capacity(SPAN_BYTES),
            ends: Vec::with_capacity(fields),
        }
    }

    /// Names and values, the latest first: a value may be recorded more than once.
    fn latest_first(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        let begins: Vec<usize> = begins.collect();
        let fields = self.ends.iter().zip(begins).rev();
        fields.map(|(&(name, end), begin)| (name, &self.text[begin..end]))
    }
}

impl Visit for SpanFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.text, "{value:?}");
        self.ends.push((field.name(), self.text.len()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text.push_str(value);
        self.ends.push((field.name(), self.text.len()));
    }
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Fields {
    fn push(&mut self, name: &'static str, value: Value) {
        self.fields.push((name, value));
    }

    /// Adds the values of a span whose names are not there.
    fn add_missing(&mut self, span: &SpanFields) {
        let own = self.fields.len();
        for (name, value) in span.latest_first() {
            if self.fields.iter().all(|(known, _)| *known != name) {
                self.fields.push((name, value.into()));
            }
        }
        self.fields[own..].reverse();
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.push(field.name(), format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.push(field.name(), value.into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::Format;
    use super::super::clock::Clock;
    use super::super::format::{Form, Formatter, worker_line};
    use super::*;

    /// What is logged within the span of a request: as text, as JSON and as a worker process writes it.
    fn lines(log: impl FnOnce()) -> Vec<[String; 3]> {
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        let layer = Records(move |record| kept.lock().push(record));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::error_span!(
                "request",
                request_id = "r-1",
                model = Empty,
                version = Empty
            );
            span.record("model", "digits").record("version", "2.0");
            span.in_scope(log);
        });
        let records = std::mem::take(&mut *records.lock());
        records.iter().map(written).collect()
    }

    fn written(record: &Record) -> [String; 3] {
        let clock = || Clock::of_zone(jiff::tz::TimeZone::UTC);
        let [mut text, mut json] = [Vec::new(), Vec::new()];
        Formatter::new(Format::Human, clock()).write(&mut text, record, Form::Long);
        Formatter::new(Format::Json, clock()).write(&mut json, record, Form::Long);
        [text, json, worker_line(record)].map(|line| String::from_utf8_lossy(&line).into_owned())
    }

    #[test]
    fn a_line_within_a_request_carries_id_model_and_version() {
        let written = lines(|| tracing::warn!(worker = 3, "it is late"));
        let [text, json, worker] = &written[0];
        let end = " - it is late worker=3 request_id=r-1 model=digits version=2.0\n";
        assert!(text.ends_with(end), "{text}");
        let end = "\"message\":\"it is late\",\"worker\":3,\"request_id\":\"r-1\",\"model\":\"digits\",\"version\":\"2.0\"}\n";
        assert!(json.ends_with(end), "{json}");
        assert_eq!(worker, " WARN it is late worker=3 request_id=r-1\n");
    }

    #[test]
    fn values_of_the_line_itself_stand_once_and_count() {
        let log = || {
            tracing::info_span!("inner", step = "a", request_id = "r-2").in_scope(|| {
                tracing::info!(target: MODEL, model = "other", version = "3.0", "x");
            });
        };
        let written = lines(log);
        let [text, json, _] = &written[0];
        assert!(
            text.contains("] W-other_3.0 MODEL_LOG - x step=a request_id=r-2\n"),
            "{text}"
        );
        for (name, value) in [
            ("model", "other"),
            ("version", "3.0"),
            ("request_id", "r-2"),
        ] {
            assert_eq!(json.matches(&format!("\"{name}\":")).count(), 1, "{json}");
            assert!(json.contains(&format!("\"{name}\":\"{value}\"")), "{json}");
        }
    }
}
