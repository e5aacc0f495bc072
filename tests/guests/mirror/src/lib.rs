//! Answers with the request as it got it: media type, headers, and body or fields, as JSON. Of bytes that are not UTF-8 it
//! gives the number. Tests use it to check what the server made of a request.

use handler_sdk::{Body, Context, Error, Handler, Outputs, Part, Request, Response, Step};
use serde_json::{Map, Value, json};

/// A handler without state.
pub struct Mirror;

impl Handler for Mirror {
    fn init(_context: &Context) -> Result<Self, Error> {
        Ok(Self)
    }

    fn preprocess(&self, request: Request) -> Result<Step, Error> {
        let headers = request.headers().iter();
        let headers: Map<String, Value> = headers
            .map(|field| (field.name.clone(), field.value.as_str().into()))
            .collect();
        let body = match request.body() {
            Body::Raw(bytes) => json!({ "raw": text(bytes) }),
            Body::Form(parts) => json!({ "form": parts.iter().map(part).collect::<Vec<_>>() }),
            Body::Tensors(tensors) => json!({ "tensors": tensors.len() }),
        };
        let seen = json!({
            "id": request.id(),
            "content_type": request.content_type(),
            "headers": headers,
            "body": body,
        });
        Ok(Step::Done(Response::json(&seen)?))
    }

    fn postprocess(&self, _outputs: Outputs, _carry: &[u8]) -> Result<Response, Error> {
        Err(Error::internal("mirror runs no model"))
    }
}

/// Name, media type, content.
fn part(part: &Part) -> Value {
    json!([part.name, part.content_type, text(&part.body)])
}

fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!(bytes.len()), Value::from)
}

handler_sdk::export!(Mirror);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use handler_sdk::testing;

    use super::*;

    fn seen(request: Request) -> Value {
        let response = testing::done(Mirror.preprocess(request).unwrap());
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn bodies_and_fields_are_told_apart() {
        assert_eq!(
            seen(testing::request("abc"))["body"],
            json!({ "raw": "abc" })
        );
        assert_eq!(
            seen(testing::request(vec![0xff, 0xff]))["body"],
            json!({ "raw": 2 })
        );
        let form = seen(testing::form([("data", "d")]));
        assert_eq!(form["body"], json!({ "form": [["data", null, "d"]] }));
    }
}
