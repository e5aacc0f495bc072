//! Forms: multipart and URL-encoded bodies as fields, in order.

use bytes::Bytes;

use crate::error::{Error, Fault, Kind};
use crate::payload::{Body, Part};

/// Fields of a form.
const FIELDS_LIMIT: usize = 1024;

/// The parts of a multipart body. A file without a media type is bytes; a plain field has none.
pub(super) async fn multipart(content_type: &str, body: Bytes) -> Result<Vec<Part>, Error> {
    let boundary = multer::parse_boundary(content_type).map_err(|error| bad_form(&error))?;
    let pieces = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut form = multer::Multipart::new(pieces, boundary);
    let mut parts = Vec::new();
    while let Some(field) = form.next_field().await.map_err(|error| bad_form(&error))? {
        check_fields(parts.len())?;
        let name = field.name().unwrap_or("").to_owned();
        let filename = field.file_name().map(str::to_owned);
        let content_type = field
            .content_type()
            .map(|media| media.essence_str().to_owned());
        let content_type = match (&filename, content_type) {
            (Some(_), None) => Some("application/octet-stream".to_owned()),
            (_, content_type) => content_type,
        };
        let body = field.bytes().await.map_err(|error| bad_form(&error))?;
        parts.push(Part {
            name,
            filename,
            content_type,
            body,
        });
    }
    Ok(parts)
}

fn bad_form(error: &multer::Error) -> Error {
    Error::new(
        Kind::BadRequest,
        format!("The multipart body does not parse: {error}"),
    )
}

/// The fields of a URL-encoded body.
pub(super) fn urlencoded(body: &[u8]) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for (name, value) in form_urlencoded::parse(body) {
        check_fields(parts.len())?;
        parts.push(Part {
            name: name.into_owned(),
            filename: None,
            content_type: None,
            body: Bytes::from(value.into_owned()),
        });
    }
    Ok(parts)
}

/// Whether a form looks as JSON does that `curl -d` sends without a media type: its first field begins as JSON does.
pub(in crate::api) fn is_json_as_form(body: &Body) -> bool {
    let Body::Form(parts) = body else {
        return false;
    };
    let first = parts.first();
    first.is_some_and(|part| part.name.trim_start().starts_with(['{', '[']))
}

/// A failure to make anything of such a form, with what the client can do about it.
pub(in crate::api) fn with_remedy_for_json_as_form(error: Error) -> Error {
    if !matches!(error.kind().fault(), Fault::Client | Fault::Handler) {
        return error;
    }
    let text = format!(
        "{}. The body came as a form (application/x-www-form-urlencoded) and looks like JSON: send it with the header \
         Content-Type: application/json",
        error.message().trim_end_matches('.')
    );
    let remedied = Error::new(error.kind(), text);
    match error.detail() {
        Some(detail) => remedied.with_detail(detail),
        None => remedied,
    }
}

fn check_fields(so_far: usize) -> Result<(), Error> {
    if so_far < FIELDS_LIMIT {
        return Ok(());
    }
    let message = format!("A form may have at most {FIELDS_LIMIT} fields");
    Err(Error::new(Kind::BadRequest, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_too_many_fields_is_refused() {
        let most = "a=1&".repeat(FIELDS_LIMIT);
        assert_eq!(urlencoded(most.as_bytes()).unwrap().len(), FIELDS_LIMIT);
        let many = "a=1&".repeat(FIELDS_LIMIT + 1);
        assert!(urlencoded(many.as_bytes()).is_err());
    }

    #[test]
    fn json_that_is_sent_as_a_form_is_told_apart() {
        let is_it = |body: &str| is_json_as_form(&Body::Form(urlencoded(body.as_bytes()).unwrap()));
        for json in [
            r#"{"x": 1}"#,
            " [1, 2]",
            r#"{"b64": "AA=="}"#,
            r#"{"a": "b&c=d"}"#,
        ] {
            assert!(is_it(json), "{json}");
        }
        for form in ["", "data={}", "a=1&b=2", "x"] {
            assert!(!is_it(form), "{form}");
        }
        assert!(!is_json_as_form(&Body::Raw("{}".into())));
    }

    #[test]
    fn a_remedy_is_given_where_the_body_may_be_the_reason() {
        let failed =
            |kind| with_remedy_for_json_as_form(Error::new(kind, "No \"x\".").with_detail("d"));
        let remedied = failed(Kind::BadRequest);
        let expected = "No \"x\". The body came as a form (application/x-www-form-urlencoded) and looks like JSON: \
                        send it with the header Content-Type: application/json";
        assert_eq!(
            (remedied.message(), remedied.detail()),
            (expected, Some("d"))
        );
        assert_eq!(failed(Kind::QueueFull).message(), "No \"x\".");
    }
}
