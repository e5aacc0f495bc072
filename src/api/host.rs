//! For whom a request is: its `Host`, and the authority in its target.
//!
//! A request that names two, or none, is refused: a proxy may have let it pass for the one, and a cache keep its answer
//! for the other.

use hyper::header::{self, HeaderValue};
use hyper::http::uri::Scheme;
use hyper::{Request, Version};

use super::decode;
use crate::error::Error;

/// Refuses a request without `Host` or with two, with one that is none, or with another in its target. HTTP/1.0 has
/// requests without; over HTTP/2 the target says it.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Error> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_sound = match (hosts.next(), hosts.next()) {
        (Some(host), None) => is_host(host.as_bytes()) && is_of_target(host, request),
        (None, None) => request.version() == Version::HTTP_10,
        _ => false,
    };
    if is_sound {
        return Ok(());
    }
    Err(decode::invalid_message().with_detail("Host is missing, is none, or is not the target's"))
}

/// Adds the `Host` of a request over HTTP/2, where its target says it. Handlers see it as they do over HTTP/1.
pub(super) fn add<B>(request: &mut Request<B>) {
    let host = request.uri().authority();
    let host = host.and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
}

/// Whether the target, if it names a host, names this one.
fn is_of_target<B>(host: &HeaderValue, request: &Request<B>) -> bool {
    let Some(authority) = request.uri().authority() else {
        return true;
    };
    let port = if request.uri().scheme() == Some(&Scheme::HTTPS) {
        ":443"
    } else {
        ":80"
    };
    let without_port = |text: &[u8]| {
        text.strip_suffix(port.as_bytes())
            .unwrap_or(text)
            .to_ascii_lowercase()
    };
    without_port(host.as_bytes()) == without_port(authority.as_str().as_bytes())
}

/// Whether this is a host, with a port or without: a name, or an address, which is in brackets if it is one of IPv6.
fn is_host(text: &[u8]) -> bool {
    let end = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => text
            .iter()
            .position(|byte| *byte == b':')
            .or(Some(text.len())),
    };
    let Some((host, port)) = end.and_then(|end| text.split_at_checked(end)) else {
        return false;
    };
    let is_named = match host {
        [b'[', address @ .., b']'] => {
            !address.is_empty() && address.iter().all(|byte| is_of_address(*byte))
        }
        name => name.iter().all(|byte| is_of_name(*byte)),
    };
    !host.is_empty() && is_named && is_port(port)
}

/// Of the names that URIs have.
const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'%'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
}

/// Of addresses of IPv6, with or without a zone.
const fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%' | b'-' | b'_' | b'~')
}

/// Nothing, or a colon and digits.
fn is_port(text: &[u8]) -> bool {
    match text {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sound(version: Version, target: &str, hosts: &[&str]) -> bool {
        let request = Request::get(target).version(version);
        let request = hosts
            .iter()
            .fold(request, |request, host| request.header(header::HOST, *host));
        check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn each_request_names_one_host() {
        for host in [
            "x",
            "a.b-c_d:8080",
            "127.0.0.1",
            "[::1]",
            "[fe80::1%25eth0]:80",
            "localhost:",
            "a%20b",
        ] {
            assert!(is_sound(Version::HTTP_11, "/", &[host]), "{host}");
            assert!(is_sound(Version::HTTP_10, "/", &[host]), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "u@a", "a:b", "a:1:2", "a:123456", "[::1", "::1", "[]x",
            "a?b", "a\\b", "[]", "http://a",
        ] {
            for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
                assert!(!is_sound(version, "/", &[host]), "{host}");
                assert!(!is_sound(version, "/", &["a", host]), "{host}");
            }
        }
        assert!(is_sound(Version::HTTP_10, "/", &[]));
        assert!(!is_sound(Version::HTTP_11, "/", &[]));
        assert!(!is_sound(Version::HTTP_11, "/", &["a", "a"]));
        assert!(!is_sound(Version::HTTP_2, "/", &[]));
    }

    #[test]
    fn the_host_of_the_target_is_the_same() {
        for (target, host, expected) in [
            ("http://a.b/c", "A.B", true),
            ("http://a:80/", "a", true),
            ("http://a/", "a:80", true),
            ("https://a:443/", "a", true),
            ("http://a:8080/", "a:8080", true),
            ("http://a:8080/", "a", false),
            ("http://a:443/", "a", false),
            ("http://a/", "b", false),
            ("http://u@a/", "a", false),
        ] {
            assert_eq!(
                is_sound(Version::HTTP_11, target, &[host]),
                expected,
                "{target} {host}"
            );
        }
    }

    #[test]
    fn over_http_2_the_host_is_that_of_the_target() {
        let mut request = Request::get("https://a:1/")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        add(&mut request);
        assert_eq!(request.headers()[header::HOST], "a:1");
        assert!(check(&request).is_ok());
        request
            .headers_mut()
            .insert(header::HOST, HeaderValue::from_static("b"));
        add(&mut request);
        assert_eq!(request.headers()[header::HOST], "b");
        assert!(check(&request).is_err());
    }
}
