//! Registration.

use std::time::Duration;

use super::{Operations, Outcome, bad_request};
use crate::catalog::{Entry, Registered, Registration, Requested};
use crate::error::{Error, Kind, truncated};
use crate::model::Envelope;

/// Workers that one call may ask for.
const WORKERS_LIMIT: i64 = 1024;
/// Rows of a batch that one call may ask for.
const BATCH_LIMIT: i64 = 65_536;
/// Milliseconds or seconds of a duration that one call may ask for.
const DURATION_LIMIT: i64 = i32::MAX as i64;
/// Bytes of a value that a message shows.
const SHOWN: usize = 64;
/// What TorchServe takes for `runtime`, and what handlers are here.
const RUNTIMES: [&str; 4] = ["python", "python3", "LSP", "wasm"];

/// What a client wants registered; `None` where it said nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::api) struct RegisterParams {
    /// Where the archive is.
    pub url: Option<String>,
    /// Name of the model; the archive's if not given.
    pub model_name: Option<String>,
    /// The handler; the archive's if not given.
    pub handler: Option<String>,
    /// The archive's `runtime`.
    pub runtime: Option<String>,
    /// Rows that a batch may have.
    pub batch_size: Option<i64>,
    /// How long the oldest job may wait for a fuller batch, in ms.
    pub max_batch_delay: Option<i64>,
    /// Workers to start with; 0 and less ask for none.
    pub initial_workers: Option<i64>,
    /// From arrival until the answer, in s.
    pub response_timeout: Option<i64>,
    /// From the start of loading until the first worker is ready, in s.
    pub startup_timeout: Option<i64>,
    /// How requests are wrapped; as the archive or the server says if not given.
    pub service_envelope: Option<String>,
    /// Whether to wait for the workers; so if not given.
    pub synchronous: Option<bool>,
}

impl Operations {
    /// Registers a version and starts its workers.
    pub(in crate::api) async fn register(&self, params: RegisterParams) -> Result<Outcome, Error> {
        self.note_wanted(&params);
        self.check_model_api()?;
        let wait = params.synchronous.unwrap_or(true);
        let registration = registration(params)?;
        let registered = self
            .catalog
            .register(registration, wait, |entry| self.note_found(entry));
        Ok(outcome(&registered.await?))
    }

    fn note_wanted(&self, params: &RegisterParams) {
        if let Some(url) = &params.url
            && let Some(notes) = &self.notes
        {
            notes.url(url);
        }
        if let Some(name) = &params.model_name {
            self.note_model(name, None);
        }
    }

    /// Notes what is in the archive.
    fn note_found(&self, entry: &Entry) {
        let spec = entry.spec();
        self.note_model(spec.name.as_str(), Some(spec.version.as_str()));
        if let Some(notes) = &self.notes {
            notes.digest(entry.digest());
        }
    }
}

fn registration(params: RegisterParams) -> Result<Registration, Error> {
    check_runtime(params.runtime.as_deref())?;
    let requested = requested(&params);
    let url = params.url;
    let url = url.ok_or_else(|| bad_request("Parameter url is required."))?;
    if url.is_empty() {
        return Err(Error::new(Kind::ModelNotFound, "empty url"));
    }
    Ok(Registration {
        url,
        name: params.model_name.filter(|name| !name.is_empty()),
        handler: params.handler.filter(|handler| !handler.is_empty()),
        envelope: envelope(params.service_envelope.as_deref())?,
        requested: requested?,
        restored: None,
    })
}

fn check_runtime(runtime: Option<&str>) -> Result<(), Error> {
    match runtime {
        Some(runtime) if !RUNTIMES.contains(&runtime) => {
            Err(bad_request(format!("Invalid RuntimeType value: {runtime}")))
        }
        _ => Ok(()),
    }
}

fn envelope(name: Option<&str>) -> Result<Option<Envelope>, Error> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let envelope = Envelope::named(name).ok_or_else(|| {
        let (choices, shown) = (Envelope::choices(), truncated(name, SHOWN));
        bad_request(format!(
            "service_envelope must be one of {choices}, got {shown:?}"
        ))
    });
    envelope.map(Some)
}

fn requested(params: &RegisterParams) -> Result<Requested, Error> {
    let second = Duration::from_secs(1);
    let workers = params.initial_workers.map(|workers| workers.max(0));
    Ok(Requested {
        batch_size: count("batch_size", params.batch_size, 1, BATCH_LIMIT)?,
        max_batch_delay: duration(
            "max_batch_delay",
            params.max_batch_delay,
            0,
            Duration::from_millis(1),
        )?,
        min_workers: count("initial_workers", workers, 0, WORKERS_LIMIT)?,
        max_workers: None,
        response_timeout: duration("response_timeout", params.response_timeout, 1, second)?,
        startup_timeout: duration("startup_timeout", params.startup_timeout, 0, second)?,
    })
}

/// A number from `least` to `most`.
fn count(name: &str, value: Option<i64>, least: i64, most: i64) -> Result<Option<usize>, Error> {
    match value {
        Some(value) if !(least..=most).contains(&value) => Err(bad_request(format!(
            "{name} must be from {least} to {most}, got {value}"
        ))),
        value => Ok(value.and_then(|value| usize::try_from(value).ok())),
    }
}

/// A duration of at least `least` units.
fn duration(
    name: &str,
    value: Option<i64>,
    least: i64,
    unit: Duration,
) -> Result<Option<Duration>, Error> {
    let value = count(name, value, least, DURATION_LIMIT)?;
    let value = value.and_then(|value| u32::try_from(value).ok());
    Ok(value.map(|value| unit * value))
}

fn outcome(registered: &Registered) -> Outcome {
    match registered {
        Registered::Empty { name, version } => Outcome::done(format!(
            "Model \"{name}\" Version: {version} registered with 0 initial workers. Use scale workers API to add \
             workers for the model."
        )),
        Registered::Loaded {
            name,
            version,
            workers,
        } => Outcome::done(format!(
            "Model \"{name}\" Version: {version} registered with {workers} initial workers"
        )),
        Registered::Starting => Outcome::under_way(),
        Registered::Partly => Outcome::partial(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(params: RegisterParams) -> String {
        let params = RegisterParams {
            url: params.url.or_else(|| Some("x.mar".to_owned())),
            ..params
        };
        registration(params).unwrap_err().message().to_owned()
    }

    #[test]
    fn numbers_outside_their_range_are_named_with_rule_and_value() {
        let none = RegisterParams::default;
        assert_eq!(
            refused(RegisterParams {
                batch_size: Some(0),
                ..none()
            }),
            "batch_size must be from 1 to 65536, got 0"
        );
        assert_eq!(
            refused(RegisterParams {
                response_timeout: Some(0),
                ..none()
            }),
            "response_timeout must be from 1 to 2147483647, got 0"
        );
        assert_eq!(
            refused(RegisterParams {
                initial_workers: Some(i64::MAX),
                ..none()
            }),
            "initial_workers must be from 0 to 1024, got 9223372036854775807"
        );
    }

    #[test]
    fn the_runtime_is_looked_at_before_the_url() {
        let params = RegisterParams {
            runtime: Some("Python".to_owned()),
            ..RegisterParams::default()
        };
        let error = registration(params).unwrap_err();
        assert_eq!(error.message(), "Invalid RuntimeType value: Python");
        let error = registration(RegisterParams::default()).unwrap_err();
        assert_eq!(error.message(), "Parameter url is required.");
    }

    #[test]
    fn envelopes_are_known_by_name() {
        let asked = |name: &str| envelope(Some(name)).map_err(|error| error.message().to_owned());
        assert_eq!(envelope(None), Ok(None));
        assert_eq!(asked(""), Ok(None));
        assert_eq!(asked("none"), Ok(Some(Envelope::None)));
        assert_eq!(asked("kfservingv2"), Ok(Some(Envelope::KServeV2)));
        let refused = asked("seldon").unwrap_err();
        let says = "must be one of none, body, json, kserve, kservev2, kfserving, kfservingv2, got \"seldon\"";
        assert!(refused.contains(says), "{refused}");
    }
}
