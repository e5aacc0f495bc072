//! The smallest handler: answers with the request's body, without inference.

use handler_sdk::{Context, Error, Handler, Outputs, Request, Response, Step};

/// A handler without state.
pub struct Echo;

impl Handler for Echo {
    fn init(_context: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let media_type = request
            .payload_type()
            .unwrap_or("application/octet-stream")
            .to_owned();
        Ok(Step::Done(Response::bytes(
            media_type,
            request.into_bytes()?,
        )))
    }

    fn postprocess(&self, _outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        Err(Error::internal("echo runs no model"))
    }
}

handler_sdk::export!(Echo);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use handler_sdk::testing;

    use super::*;

    #[test]
    fn body_and_media_type_come_back() {
        let request = testing::request_of_type("text/csv", "1,2\n");
        let response = testing::done(Echo.preprocess(request).unwrap());
        assert_eq!(
            (response.content_type(), response.body()),
            ("text/csv", &b"1,2\n"[..])
        );
    }

    #[test]
    fn field_data_of_a_form_comes_back() {
        let request = testing::form([("note", "n"), ("data", "d")]);
        let response = testing::done(Echo.preprocess(request).unwrap());
        assert_eq!(response.content_type(), "application/octet-stream");
        assert_eq!(response.body(), b"d");
    }
}
