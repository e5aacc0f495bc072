//! The endpoint that makes new keys.

use hyper::StatusCode;

use super::extract::Query;
use super::{ApiState, EndpointResult, reply};

/// `/token?type=inference` or `type=management`. The key is written to the file, not sent.
pub(super) async fn rotate_token(api: ApiState, Query(query): Query) -> EndpointResult {
    let kind = query.iter().find(|(name, _)| name == "type");
    let kind = kind.map(|(_, value)| value.as_str());
    api.common.authority.rotate(kind).await?;
    Ok(reply::with_type(StatusCode::OK, reply::JSON, "\n"))
}
