//! The proxies through which archives are fetched: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`.
//!
//! Which URL may be fetched is decided before, by `allowed_urls`, and at every redirect; a proxy changes nothing there. What
//! a proxy may reach is its own business, since it looks names up by itself. Addresses of this machine and its link are never
//! asked for through one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use url::{Host, Url};

/// Which proxy is used for which URL. Cheap to clone.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Named>>);

/// What the variables name.
struct Named {
    http: Option<Url>,
    https: Option<Url>,
    /// Knows which hosts are reached without a proxy.
    matcher: Matcher,
}

impl Proxies {
    /// Those that the variables name. One that is not understood is left out with a warning.
    pub fn new(variables: &BTreeMap<String, String>) -> Self {
        let named = |name: &str| variables.get(name).and_then(|value| read(name, value));
        let (http, https) = (named("HTTP_PROXY"), named("HTTPS_PROXY"));
        if http.is_none() && https.is_none() {
            return Self::default();
        }
        let text = |proxy: &Option<Url>| proxy.as_ref().map(Url::to_string).unwrap_or_default();
        let without = variables.get("NO_PROXY").map_or("", String::as_str);
        let matcher = Matcher::builder()
            .http(text(&http))
            .https(text(&https))
            .no(without)
            .build();
        Self(Some(Arc::new(Named {
            http,
            https,
            matcher,
        })))
    }

    /// The proxy that `url` is fetched through, if it is one.
    pub fn of(&self, url: &Url) -> Option<&Url> {
        let named = self.0.as_ref().filter(|_| !is_here(url))?;
        named.matcher.intercept(&url.as_str().parse().ok()?)?;
        match url.scheme() {
            "https" => named.https.as_ref(),
            _ => named.http.as_ref(),
        }
    }
}

/// Shows no proxy: its URL may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_set = self.0.is_some();
        formatter.debug_tuple("Proxies").field(&is_set).finish()
    }
}

/// The proxy that a variable names, which may be written without a scheme.
fn read(name: &str, value: &str) -> Option<Url> {
    let whole = if value.contains("://") {
        value.to_owned()
    } else {
        format!("http://{value}")
    };
    let proxy = Url::parse(&whole).ok().filter(|url| {
        let is_http = matches!(url.scheme(), "http" | "https");
        is_http && url.has_host()
    });
    if proxy.is_none() {
        tracing::warn!(
            "{name} is ignored, and archives are fetched without a proxy: it must be http://HOST:PORT or https://HOST:PORT"
        );
    }
    proxy
}

/// Whether `url` names this machine or its link, as the service does that gives credentials to machines in a cloud.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(four)) => four.is_loopback() || four.is_link_local(),
        Some(Host::Ipv6(six)) => match IpAddr::from(six).to_canonical() {
            IpAddr::V4(four) => four.is_loopback() || four.is_link_local(),
            IpAddr::V6(six) => six.is_loopback() || six.is_unicast_link_local(),
        },
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let proxies = Proxies::new(&variables.collect());
        proxies.of(&Url::parse(url).unwrap()).map(Url::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy_and_some_hosts_have_none() {
        let both = [
            ("HTTP_PROXY", "http://user:word@plain.corp:3128"),
            ("HTTPS_PROXY", "secure.corp:3129"),
            ("NO_PROXY", "inner.corp, 10.0.0.0/8"),
        ];
        for (url, expected) in [
            (
                "http://h.org/x.mar",
                Some("http://user:word@plain.corp:3128/"),
            ),
            ("https://h.org/x.mar", Some("http://secure.corp:3129/")),
            ("https://inner.corp/x.mar", None),
            ("https://a.inner.corp/x.mar", None),
            (
                "https://inner.corp.evil.com/x.mar",
                Some("http://secure.corp:3129/"),
            ),
            ("http://10.1.2.3/x.mar", None),
            ("http://localhost/x.mar", None),
            ("http://127.0.0.1/x.mar", None),
            ("http://169.254.169.254/latest", None),
            ("http://[::ffff:127.0.0.1]/x.mar", None),
        ] {
            assert_eq!(proxy(&both, url).as_deref(), expected, "{url}");
        }
        assert_eq!(proxy(&both[..1], "https://h.org/x.mar"), None);
        assert_eq!(proxy(&both[2..], "https://h.org/x.mar"), None);
    }

    #[test]
    fn what_is_no_proxy_is_left_out() {
        for bad in ["socks5://proxy.corp:1080", "http://", "::"] {
            assert_eq!(
                proxy(&[("HTTP_PROXY", bad)], "http://h.org/x.mar"),
                None,
                "{bad}"
            );
        }
    }

    #[test]
    fn no_password_is_shown() {
        let variables = [("HTTP_PROXY".to_owned(), "http://user:word@p:1".to_owned())];
        assert_eq!(
            format!("{:?}", Proxies::new(&variables.into())),
            "Proxies(true)"
        );
    }
}
