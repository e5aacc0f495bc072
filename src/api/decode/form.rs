//! Forms: multipart and URL-encoded bodies as fields, in order.

use bytes::Bytes;

use crate::error::{Error, Kind};
use crate::payload::Part;

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
}
