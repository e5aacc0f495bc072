//! The one place that decides whether a request may do what it asks for, over REST and gRPC alike.
//!
//! Each row of the tables in [`routes`](super::routes) names the permission that its requests need. It is checked before
//! an endpoint sees the request, and endpoints are reached through the tables alone, so that none can leave it out.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header;

use super::routes::Permission;
use super::{method_not_allowed, not_found};
use crate::error::{Error, Kind};
use crate::token::{Scope, Tokens};

/// TorchServe's texts. They do not tell which key would be accepted.
const REFUSED: &str =
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly";
const NOT_ROTATED: &str =
    "Token Authentication failed. Token either incorrect, expired, or not provided correctly";

/// Checks permissions.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    tokens: Option<Arc<Tokens>>,
    is_model_api_enabled: bool,
}

impl Authority {
    /// Asks for keys if there are `tokens`, and lets models come and go only with the model API.
    pub(super) const fn new(tokens: Option<Arc<Tokens>>, is_model_api_enabled: bool) -> Self {
        Self {
            tokens,
            is_model_api_enabled,
        }
    }

    /// Whether a request with `headers` has `permission`; gRPC's metadata are headers.
    pub(super) fn check(&self, permission: Permission, headers: &HeaderMap) -> Result<(), Error> {
        match permission {
            Permission::Nothing => Ok(()),
            Permission::Predict => self.opened(headers, &[Scope::Inference]),
            Permission::Manage => self.opened(headers, &[Scope::Management]),
            Permission::Either => self.opened(headers, &[Scope::Inference, Scope::Management]),
            Permission::Register => {
                self.opened(headers, &[Scope::Management])?;
                self.model_api()
            }
            Permission::Rotate => self.rotating(headers),
        }
    }

    /// Makes another key of the `kind` that a client names, or refuses as if the client had shown a wrong one: `kind`
    /// is part of what it has to know.
    pub(super) async fn rotate(&self, kind: Option<&str>) -> Result<(), Error> {
        let tokens = self.tokens.clone().ok_or_else(not_found)?;
        let scope = match kind {
            Some("inference") => Scope::Inference,
            Some("management") => Scope::Management,
            _ => return Err(refused(NOT_ROTATED)),
        };
        // Writing the file blocks.
        let rotated = tokio::task::spawn_blocking(move || tokens.rotate(scope)).await;
        match rotated {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(refused(NOT_ROTATED)),
            Ok(Err(error)) => Err(unwritten(error)),
            Err(panic) => Err(unwritten(panic)),
        }
    }

    fn opened(&self, headers: &HeaderMap, scopes: &[Scope]) -> Result<(), Error> {
        let Some(tokens) = &self.tokens else {
            return Ok(());
        };
        let shown = shown(headers);
        let is_open = shown.is_some_and(|key| scopes.iter().any(|scope| tokens.opens(key, *scope)));
        is_open.then_some(()).ok_or_else(|| refused(REFUSED))
    }

    fn model_api(&self) -> Result<(), Error> {
        if self.is_model_api_enabled {
            return Ok(());
        }
        Err(method_not_allowed_by_mode())
    }

    /// Without tokens there are none to make.
    fn rotating(&self, headers: &HeaderMap) -> Result<(), Error> {
        let tokens = self.tokens.as_ref().ok_or_else(not_found)?;
        let is_open = shown(headers).is_some_and(|key| tokens.opens(key, Scope::Api));
        is_open.then_some(()).ok_or_else(|| refused(NOT_ROTATED))
    }
}

/// The failure of registering and unregistering where the model API is off: over REST as if the method did not exist.
pub(super) fn method_not_allowed_by_mode() -> Error {
    Error::new(Kind::ModelApiDisabled, method_not_allowed().message())
}

/// The key in `Authorization: Bearer KEY`: TorchServe's `^Bearer\s+(\S+)$`.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let rest = value.strip_prefix(b"Bearer")?;
    let key = rest.trim_ascii_start();
    let is_key = key.len() < rest.len() && !key.is_empty();
    (is_key && !key.iter().any(u8::is_ascii_whitespace)).then_some(key)
}

fn refused(message: &str) -> Error {
    Error::new(Kind::InvalidKey, message)
}

fn unwritten(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, "The new token could not be written").with_detail(error)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn key_in(value: &'static str) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        shown(&headers).map(<[u8]>::to_vec)
    }

    #[test]
    fn the_header_is_matched_as_torchserve_does() {
        assert_eq!(key_in("Bearer abc").unwrap(), b"abc");
        assert_eq!(key_in("Bearer \t  abc").unwrap(), b"abc");
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "bearer abc",
            "Bearerabc",
            "Basic abc",
            "Bearer a b",
            " Bearer a",
            "Bearer a ",
            "abc",
        ] {
            assert_eq!(key_in(wrong), None, "{wrong:?}");
        }
        assert_eq!(shown(&HeaderMap::new()), None);
    }

    #[test]
    fn without_tokens_only_the_model_api_is_asked() {
        let headers = HeaderMap::new();
        let closed = Authority::new(None, false);
        for permission in [Permission::Nothing, Permission::Predict, Permission::Manage] {
            closed.check(permission, &headers).unwrap();
        }
        let refusal = closed.check(Permission::Register, &headers).unwrap_err();
        assert_eq!(refusal.kind(), Kind::ModelApiDisabled);
        let missing = closed.check(Permission::Rotate, &headers).unwrap_err();
        assert_eq!(missing.kind(), Kind::ResourceNotFound);
        let open = Authority::new(None, true);
        open.check(Permission::Register, &headers).unwrap();
    }
}
