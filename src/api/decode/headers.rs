//! Headers as a handler sees them.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName};

use crate::payload::Field;

/// Headers a handler never sees: credentials, and what is between the client and this server alone. That a body came
/// compressed is, since the handler gets it unpacked.
const HIDDEN: [HeaderName; 10] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
    header::CONTENT_ENCODING,
];
/// The same, for names that are no standard's.
const HIDDEN_NAMES: [&str; 5] = [
    "keep-alive",
    "proxy-connection",
    "x-api-key",
    "explain",
    "url_path",
];

/// Headers that the server adds for a handler; which depends on the route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum RouteHeaders {
    /// `explain`, and `url_path`: the rest of the path.
    ExplainAndPath(String),
    /// `explain` alone.
    Explain,
    /// None.
    Nothing,
}

/// The headers a handler sees: the client's with lower-case names, less what is hidden from it, and the server's own. Of
/// headers with the same name the last wins.
pub(in crate::api) fn headers_for_handler(headers: &HeaderMap, route: RouteHeaders) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::with_capacity(headers.len() + 2);
    for name in headers.keys() {
        let value = headers.get_all(name).iter().next_back();
        if let (false, Some(value)) = (is_hidden(name, headers), value) {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            fields.push((name.as_str().to_owned(), value));
        }
    }
    if route != RouteHeaders::Nothing {
        fields.push(("explain".to_owned(), "False".to_owned()));
    }
    if let RouteHeaders::ExplainAndPath(path) = route {
        fields.push(("url_path".to_owned(), path));
    }
    fields
}

fn is_hidden(name: &HeaderName, headers: &HeaderMap) -> bool {
    HIDDEN.contains(name)
        || HIDDEN_NAMES.contains(&name.as_str())
        || is_connection_option(name, headers)
}

/// Whether the client said with `Connection: NAME` that a header is for this connection alone.
fn is_connection_option(name: &HeaderName, headers: &HeaderMap) -> bool {
    let options = headers.get_all(header::CONNECTION).iter();
    let mut options = options
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    options.any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    #[test]
    fn handlers_see_no_credentials_and_no_hop_by_hop_headers() {
        let seen = headers_for_handler(
            &headers(&[
                ("X-Req", "1"),
                ("x-req", "2"),
                ("Authorization", "Bearer secret"),
                ("Cookie", "secret"),
                ("Connection", "close, X-Once"),
                ("X-Once", "secret"),
                ("explain", "True"),
                ("url_path", "mine"),
            ]),
            RouteHeaders::ExplainAndPath("a/b".to_owned()),
        );
        let expected = [("x-req", "2"), ("explain", "False"), ("url_path", "a/b")];
        assert_eq!(
            seen,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn routes_without_a_rest_say_less() {
        let headers = headers(&[
            ("content-encoding", "gzip"),
            ("x", "1"),
            ("explain", "True"),
        ]);
        let seen = |route| {
            let fields = headers_for_handler(&headers, route);
            let lines = fields
                .iter()
                .map(|(name, value)| format!("{name}: {value}"));
            lines.collect::<Vec<_>>()
        };
        assert_eq!(seen(RouteHeaders::Nothing), ["x: 1"]);
        assert_eq!(seen(RouteHeaders::Explain), ["x: 1", "explain: False"]);
    }
}
