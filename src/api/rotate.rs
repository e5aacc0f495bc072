//! The endpoint that makes new keys.

use hyper::StatusCode;

use super::{Api, Call, Response, reply, uri};
use crate::error::Error;

impl Api {
    /// `/token?type=inference` or `type=management`. The key is written to the file, not sent.
    pub(super) async fn rotate_token(&self, call: &Call) -> Result<Response, Error> {
        let query = uri::decode_query(&call.head.uri);
        let kind = query.iter().find(|(name, _)| name == "type");
        let kind = kind.map(|(_, value)| value.as_str());
        self.authority.rotate(kind).await?;
        Ok(reply::with_type(StatusCode::OK, reply::JSON, "\n"))
    }
}
