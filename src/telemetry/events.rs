//! Converts events of `tracing` to records.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::journal::Journal;
use super::record::{Log, Record};

/// The `tracing` target of lines from handlers and worker processes.
const MODEL: &str = "model";

/// A layer that hands every event to the journal.
pub(super) struct ToJournal(pub Journal);

impl<S: Subscriber> Layer<S> for ToJournal {
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let metadata = event.metadata();
        let is_model = metadata.target() == MODEL;
        let log = if is_model { Log::Model } else { Log::Server };
        let mut record = Record::now(log, *metadata.level(), Vec::new());
        let mut visitor = Fields::default();
        event.record(&mut visitor);
        record.message = visitor.message.into_bytes();
        record.fields = visitor.fields;
        if is_model {
            name_thread(&mut record);
        } else {
            record.logger = metadata.target();
        }
        self.0.write(record);
    }
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

#[derive(Default)]
struct Fields {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields
                .push((field.name(), format!("{value:?}").into()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.fields.push((field.name(), value.into()));
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push((field.name(), value.into()));
    }
}
