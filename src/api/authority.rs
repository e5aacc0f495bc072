//! The one place that decides whether a request may do what it asks for, over REST and gRPC alike.
//!
//! Each row of the tables in [`routes`](super::routes) names the permission that its requests need. It is checked before
//! an endpoint sees the request, and endpoints are reached through the tables alone, so that none can leave it out.

use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName};
use serde_json::Value;

use super::routes::Permission;
use super::{Services, method_not_allowed, not_found};
use crate::error::{Error, Kind, truncated};
use crate::model::TenantName;
use crate::tenants::{Access, Tenants};
use crate::token::{KeyDigest, Scope, TenantScope, Tokens};

/// TorchServe's texts. They do not tell which key would be accepted.
const REFUSED: &str =
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly";
const NOT_ROTATED: &str =
    "Token Authentication failed. Token either incorrect, expired, or not provided correctly";

/// The header by which the operator says which tenant is meant.
const TENANT: HeaderName = HeaderName::from_static("x-lantern-tenant");

/// Who makes a call, as far as a key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principal {
    /// No key, or none that is known.
    Nobody,
    /// The operator, with the key that is called so.
    Operator(&'static str),
    /// A tenant.
    Tenant {
        /// Its name.
        tenant: TenantName,
        /// What people call the key.
        label: Option<String>,
        /// SHA-256 of the key.
        digest: KeyDigest,
    },
}

/// Hexadecimal digits of a key's digest that name it.
const DIGITS: usize = 8;

impl Principal {
    /// What the audit log says of it.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Nobody => vec![("principal", "nobody".into())],
            Self::Operator(key) => vec![("principal", "operator".into()), ("key", (*key).into())],
            Self::Tenant { label, digest, .. } => {
                let mut fields = vec![("principal", "tenant".into())];
                fields.extend(label.clone().map(|label| ("key", label.into())));
                let digits = truncated(&digest.hex(), DIGITS).into();
                fields.push(("key_sha256", digits));
                fields
            }
        }
    }
}

/// Checks permissions.
#[derive(Clone)]
pub(super) struct Authority {
    tokens: Option<Arc<Tokens>>,
    tenants: Option<Arc<Tenants>>,
    is_model_api_enabled: bool,
}

impl Authority {
    /// Asks for keys if `services` have any, and lets models come and go only with the model API.
    pub(super) fn new(services: &Services, is_model_api_enabled: bool) -> Self {
        Self {
            tokens: services.tokens.clone(),
            tenants: services.tenants.clone(),
            is_model_api_enabled,
        }
    }

    /// Whether a request with `headers` has `permission`, and to which tenant's models; `None` is the operator's. gRPC's metadata are
    /// headers.
    pub(super) fn check(
        &self,
        permission: Permission,
        headers: &HeaderMap,
    ) -> Result<Option<Access>, Error> {
        let Some(tenants) = &self.tenants else {
            return self.check_operator(permission, headers).map(|()| None);
        };
        if is_repeated(headers, &TENANT) {
            return Err(refused(REFUSED));
        }
        let access = shown(headers).and_then(|key| {
            let mut scopes = tenant_scopes(permission).iter();
            scopes.find_map(|scope| tenants.access(key, *scope))
        });
        let Some(access) = access else {
            self.check_operator(permission, headers)?;
            return meant(tenants, permission, headers);
        };
        if named(headers).is_some_and(|name| !is_called(&access, name)) {
            return Err(refused(REFUSED));
        }
        access.tenant.check_not_suspended()?;
        if permission == Permission::Register {
            self.model_api()?;
        }
        Ok(Some(access))
    }

    /// Whose key a request with `headers` shows, whether or not it opens anything now.
    pub(super) fn principal(&self, headers: &HeaderMap) -> Principal {
        let Some(key) = shown(headers) else {
            return Principal::Nobody;
        };
        let of_tenant = self
            .tenants
            .as_ref()
            .and_then(|tenants| tenants.holder(key));
        if let Some((tenant, key)) = of_tenant {
            return Principal::Tenant {
                tenant,
                label: key.label,
                digest: key.digest,
            };
        }
        let operators = [
            (Scope::Management, "management"),
            (Scope::Inference, "inference"),
            (Scope::Api, "API"),
        ];
        let tokens = self.tokens.as_ref();
        let opens = |scope| tokens.is_some_and(|tokens| tokens.opens(key, scope));
        let opened = operators.into_iter().find(|(scope, _)| opens(*scope));
        opened.map_or(Principal::Nobody, |(_, name)| Principal::Operator(name))
    }

    /// Whether a request with `headers` has `permission` on what is the operator's.
    fn check_operator(&self, permission: Permission, headers: &HeaderMap) -> Result<(), Error> {
        match permission {
            Permission::Nothing => Ok(()),
            Permission::Observe if self.tenants.is_none() => Ok(()),
            Permission::Predict => self.opened(headers, &[Scope::Inference]),
            Permission::Manage | Permission::Observe | Permission::Logs => {
                self.opened(headers, &[Scope::Management])
            }
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

/// What a tenant's key must open, one of these, for a request that needs `permission`.
const fn tenant_scopes(permission: Permission) -> &'static [TenantScope] {
    match permission {
        Permission::Nothing => &TenantScope::ALL,
        Permission::Predict => &[TenantScope::Predict],
        Permission::Manage | Permission::Register => &[TenantScope::Manage],
        Permission::Either => &[TenantScope::Predict, TenantScope::Manage],
        Permission::Observe | Permission::Logs => &[TenantScope::Observe],
        Permission::Rotate => &[],
    }
}

/// The tenant that the operator means, if one is named. Whoever needs no key names none.
fn meant(
    tenants: &Arc<Tenants>,
    permission: Permission,
    headers: &HeaderMap,
) -> Result<Option<Access>, Error> {
    match named(headers) {
        Some(name) if permission != Permission::Nothing => {
            let access = std::str::from_utf8(name).ok();
            let access = access.and_then(|name| tenants.named(name));
            let unknown = || Error::new(Kind::ModelNotFound, "Tenant not found");
            access.map(Some).ok_or_else(unknown)
        }
        _ => Ok(None),
    }
}

/// The tenant that a header names.
pub(super) fn named(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(TENANT).map(header::HeaderValue::as_bytes)
}

fn is_repeated(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get_all(name).iter().nth(1).is_some()
}

fn is_called(access: &Access, name: &[u8]) -> bool {
    let own = access.tenant.name();
    own.is_some_and(|own| own.as_str().as_bytes() == name)
}

/// The failure of registering and unregistering where the model API is off: over REST as if the method did not exist.
pub(super) fn method_not_allowed_by_mode() -> Error {
    Error::new(Kind::ModelApiDisabled, method_not_allowed().message())
}

/// The key in `Authorization: Bearer KEY`: TorchServe's `^Bearer\s+(\S+)$`.
/// Two of them are none: a proxy may have looked at the other one.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    if is_repeated(headers, &header::AUTHORIZATION) {
        return None;
    }
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
        let authority = |is_model_api_enabled| Authority {
            tokens: None,
            tenants: None,
            is_model_api_enabled,
        };
        let closed = authority(false);
        for permission in [
            Permission::Nothing,
            Permission::Predict,
            Permission::Manage,
            Permission::Observe,
        ] {
            closed.check(permission, &headers).unwrap();
        }
        let refusal = closed
            .check(Permission::Register, &headers)
            .map(drop)
            .unwrap_err();
        assert_eq!(refusal.kind(), Kind::ModelApiDisabled);
        let missing = closed
            .check(Permission::Rotate, &headers)
            .map(drop)
            .unwrap_err();
        assert_eq!(missing.kind(), Kind::ResourceNotFound);
        let open = authority(true);
        open.check(Permission::Register, &headers).unwrap();
    }
}
