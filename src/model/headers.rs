//! Headers that act on more than the response that they are in. An author of an archive sets them only where the operator
//! has named them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Headers that are the operator's to allow, with lower-case names.
const NAMES: &[&str] = &[
    // Cookies and logins of the origin, and what makes a browser or client ask its user for a password or send it.
    "activate-storage-access",
    "authentication-info",
    "proxy-authentication-info",
    "set-cookie",
    "set-cookie2",
    "set-login",
    "www-authenticate",
    // Who may read from the origin; with those that begin with `access-control-` and `cross-origin-`.
    "timing-allow-origin",
    // What browsers remember of the whole origin, or do to it.
    "accept-ch",
    "alt-svc",
    "alternate-protocol",
    "clear-site-data",
    "critical-ch",
    "expect-ct",
    "nel",
    "origin-agent-cluster",
    "report-to",
    "service-worker-allowed",
    "shared-storage-write",
    "strict-transport-security",
    "use-as-dictionary",
    // Where a client goes next, which may take its key and its request along.
    "location",
    "refresh",
    // Who answered.
    "server",
    "via",
    // What proxies in front obey: files they send instead, and whether the server is well.
    "x-sendfile",
    "x-sendfile2",
];

/// Beginnings of such names.
const PREFIXES: &[&str] = &[
    "access-control-",
    "cross-origin-",
    "public-key-pins",
    "sec-",
    "x-accel-",
    "x-envoy-",
    "x-lighttpd-send-",
    "x-litespeed-",
    "x-reproxy-",
];

/// What handlers may set of the headers that act on more than their response. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandlerHeaders(BTreeSet<String>);

/// A header that a handler may not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "header {0:?}, which acts on more than the response: the operator may allow it (lantern_handler_headers)"
)]
pub struct ForbiddenHeader(String);

impl HandlerHeaders {
    /// Allows `names`, which are separated by commas. `None` if one needs no permission, or is no name of a header.
    pub fn parse(names: &str) -> Option<Self> {
        let names = names.split(',').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        let names: BTreeSet<_> = names.map(str::to_ascii_lowercase).collect();
        let are_owned = names.iter().all(|name| is_owned(name) && is_name(name));
        are_owned.then_some(Self(names))
    }

    /// Refuses the first of `names`, which are lower-case, that is not allowed.
    pub fn check<'n>(
        &self,
        mut names: impl Iterator<Item = &'n str>,
    ) -> Result<(), ForbiddenHeader> {
        match names.find(|name| is_owned(name) && !self.0.contains(*name)) {
            Some(name) => Err(ForbiddenHeader(name.to_owned())),
            None => Ok(()),
        }
    }
}

/// Whether the header is the operator's to allow.
fn is_owned(name: &str) -> bool {
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(allowed: &str, name: &str) -> bool {
        let allowed = HandlerHeaders::parse(allowed).unwrap();
        allowed.check([name].into_iter()).is_err()
    }

    #[test]
    fn what_acts_on_more_than_the_response_is_refused_unless_it_is_named() {
        let prefixed = PREFIXES.iter().map(|prefix| format!("{prefix}x"));
        for name in NAMES.iter().map(|name| (*name).to_owned()).chain(prefixed) {
            assert!(refused("", &name), "{name}");
            assert!(
                !refused(&format!("Nel, {}", name.to_uppercase()), &name),
                "{name}"
            );
            assert!(refused("nel,via", "set-cookie"));
        }
        for name in [
            "x-a",
            "etag",
            "link",
            "content-security-policy",
            "cache-control",
            "retry-after",
            "vary",
        ] {
            assert!(!refused("", name), "{name}");
        }
    }

    #[test]
    fn only_headers_that_need_permission_are_named() {
        for names in ["set-cookie, Via", "access-control-allow-origin", "", " , "] {
            assert!(HandlerHeaders::parse(names).is_some(), "{names}");
        }
        for names in [
            "x-a",
            "set-cokie",
            "content-length",
            "connection",
            "access-control-*",
            "sec-a b",
            "*",
            "set-cookie via",
        ] {
            assert_eq!(HandlerHeaders::parse(names), None, "{names}");
        }
    }

    #[test]
    fn a_refusal_names_header_and_setting() {
        let error = HandlerHeaders::default().check(["a", "via"].into_iter());
        assert_eq!(
            error.unwrap_err().to_string(),
            "header \"via\", which acts on more than the response: the operator may allow it (lantern_handler_headers)"
        );
    }
}
