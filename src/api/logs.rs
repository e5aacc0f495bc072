//! The endpoint for the log of a model: its last lines, and those that come.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use parking_lot::Mutex;

use super::extract::{PathParams, Query};
use super::parameters::Parameters;
use super::routes::Permission;
use super::{Api, ApiState, EndpointResult, reply};
use crate::catalog::{Follower, KEPT_LINES};
use crate::error::{Error, Kind, truncated};
use crate::model::TenantName;

/// Lines that are answered if nothing else is said.
const LINES: usize = 100;
/// How many may follow logs at a time: of one tenant's keys or of the operator's, and of all tenants'.
const OF_OWNER: usize = 8;
const IN_ALL: usize = 64;
/// How often it is looked whether somebody who follows may still do so. It is looked before each answer of lines as well.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes of a value that a message shows.
const SHOWN: usize = 64;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// How many follow logs, by owner; `None` is the operator. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Followers(Arc<Mutex<BTreeMap<Option<TenantName>, usize>>>);

/// One of them, counted until it is dropped.
struct Counted {
    followers: Followers,
    owner: Option<TenantName>,
}

/// What one that follows is answered from.
struct Following {
    api: Arc<Api>,
    /// What it showed, which is looked at again and again.
    headers: HeaderMap,
    follower: Follower,
    /// Lines from before.
    last: Vec<u8>,
    _counted: Counted,
}

/// The last lines of a version's log, and with `follow` those that come, until the client leaves or may not see them any more.
pub(super) async fn show(
    api: ApiState,
    path: PathParams,
    Query(query): Query,
    method: Method,
    headers: HeaderMap,
) -> EndpointResult {
    let query = Parameters::Query(query);
    let count = count(query.text("lines").as_deref())?;
    let catalog = &api.services.catalog;
    let entry = catalog.find(&path.model, path.version.as_deref())?;
    let follows = is_set(query.text("follow").as_deref()) && method != Method::HEAD;
    let counted = follows.then(|| api.services.followers.begin(owner(&api)));
    let counted = counted.transpose()?;
    let (last, follower) = entry.last_lines(count);
    let body = match counted {
        None => Body::from(last),
        Some(counted) => followed(Following {
            api: Arc::clone(&api),
            headers,
            follower,
            last,
            _counted: counted,
        }),
    };
    Ok(reply::with_type(StatusCode::OK, TEXT, body))
}

fn owner(api: &Api) -> Option<TenantName> {
    // The operator has places of its own, whosever log it follows.
    let access = api
        .access
        .as_ref()
        .filter(|access| !access.is_operators())?;
    access.tenant.name().cloned()
}

/// How many lines are wanted.
fn count(text: Option<&str>) -> Result<usize, Error> {
    let Some(text) = text else {
        return Ok(LINES);
    };
    let count = text.parse().ok().filter(|count| *count <= KEPT_LINES);
    count.ok_or_else(|| {
        let shown = truncated(text, SHOWN);
        let message = format!("lines must be a number from 0 to {KEPT_LINES}, got {shown:?}");
        Error::new(Kind::BadRequest, message)
    })
}

/// Whether a flag is set: by its name alone, or by `true`.
fn is_set(value: Option<&str>) -> bool {
    value.is_some_and(|text| text.is_empty() || text.eq_ignore_ascii_case("true"))
}

fn followed(following: Following) -> Body {
    let lines = stream::unfold(following, async |mut following| {
        let text = following.more().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), following))
    });
    Body::from_stream(lines)
}

impl Following {
    /// The next lines; `None` at the end.
    async fn more(&mut self) -> Option<Vec<u8>> {
        if !self.last.is_empty() {
            return Some(std::mem::take(&mut self.last));
        }
        let api = Arc::clone(&self.api);
        loop {
            let more = tokio::select! {
                biased;
                () = api.common.stop.cancelled() => return None,
                more = self.follower.more() => Some(more?),
                () = tokio::time::sleep(LOOK) => None,
            };
            if !self.may_see() {
                return None;
            }
            if more.is_some() {
                return more;
            }
        }
    }

    /// Whether the key is still one that opens this log, and the tenant there and not suspended.
    fn may_see(&self) -> bool {
        let authority = &self.api.common.authority;
        let opens = authority.check(Permission::Logs, &self.headers);
        opens.is_ok() && self.api.check_access().is_ok()
    }
}

impl Followers {
    /// One more of `owner`, if there may be another.
    fn begin(&self, owner: Option<TenantName>) -> Result<Counted, Error> {
        let mut counts = self.0.lock();
        let own = counts.get(&owner).copied().unwrap_or(0);
        if own >= OF_OWNER {
            return Err(too_many(&format!("{OF_OWNER} are, as many as may be")));
        }
        let of_tenants = counts.iter().filter(|(owner, _)| owner.is_some());
        if owner.is_some() && of_tenants.map(|(_, count)| count).sum::<usize>() >= IN_ALL {
            return Err(too_many("as many are as may be on this server"));
        }
        counts.insert(owner.clone(), own + 1);
        drop(counts);
        let followers = self.clone();
        Ok(Counted { followers, owner })
    }
}

fn too_many(why: &str) -> Error {
    let message = format!("No more logs can be followed at the moment: {why}");
    Error::new(Kind::Throttled, message)
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.followers.0.lock();
        let owner = std::mem::take(&mut self.owner);
        match counts.get_mut(&owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&owner)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: usize) -> TenantName {
        TenantName::new(&format!("t{number}")).unwrap()
    }

    #[test]
    fn one_owner_and_all_together_have_so_many_followers() {
        let followers = Followers::default();
        let begin = |owner| followers.begin(owner);
        let mut held: Vec<_> = (0..OF_OWNER).map(|_| begin(None).unwrap()).collect();
        let refused = begin(None).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Throttled);
        for number in 0..IN_ALL / OF_OWNER {
            let one = || begin(Some(tenant(number + 1))).unwrap();
            held.extend((0..OF_OWNER).map(|_| one()));
        }
        let refused = begin(Some(tenant(0))).map(drop).unwrap_err();
        assert_eq!(refused.kind(), Kind::Throttled);
        held.pop();
        drop(begin(Some(tenant(0))).unwrap());
        drop(held);
        assert!(followers.0.lock().is_empty());
    }

    #[test]
    fn parameters_are_what_they_say() {
        assert_eq!(count(None).unwrap(), LINES);
        assert_eq!(count(Some("0")).unwrap(), 0);
        assert_eq!(count(Some("200")).unwrap(), 200);
        for wrong in ["", "201", "-1", "many", "1.0"] {
            let error = count(Some(wrong)).unwrap_err();
            assert!(error.message().contains(&format!("{wrong:?}")), "{error}");
        }
        for (value, expected) in [
            (None, false),
            (Some(""), true),
            (Some("TRUE"), true),
            (Some("false"), false),
            (Some("1"), false),
        ] {
            assert_eq!(is_set(value), expected, "{value:?}");
        }
    }
}
