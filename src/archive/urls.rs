//! `allowed_urls`: the starts of URLs that archives may be fetched from.
//!
//! URLs are compared as they were parsed, scheme, host, port and one path segment after the other, and never as
//! texts. TorchServe has regular expressions here; those that mean the start of a URL are understood, and others are
//! refused with how to write them. It reads no file and asks no name server.

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// The rule for each item of `allowed_urls`.
const RULE: &str = "must be the start of a URL up to a slash, such as https://models.example.com/team/, \
                        s3://bucket/team/ or file:///srv/models/";
/// Characters that a regular expression has and the start of a URL has not.
const PATTERN: [char; 13] = [
    '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\',
];

/// The starts of URLs that archives may be fetched from; none by default, which allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedUrls(Vec<SourceUrl>);

/// Why nothing is fetched from a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It is no URL.
    #[error("is not a URL")]
    Malformed,
    /// Its scheme is not one that archives are fetched by.
    #[error("must start with https://, http://, s3:// or file://")]
    Scheme,
    /// It says who asks.
    #[error("must not hold a user name or password")]
    User,
    /// It names no host where one is needed, or one where none may be.
    #[error("must name a host, or none with file://")]
    Host,
    /// A segment of its path decodes to what no path may hold.
    #[error("must not hold encoded slashes, dots that climb, or control characters")]
    Path,
}

/// A URL that archives are fetched from, or the start of one, in components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUrl {
    /// `http`, `https`, `s3` or `file`.
    pub scheme: &'static str,
    /// Host, or bucket; `None` with `file`.
    pub host: Option<Host<String>>,
    /// Port, written or not.
    pub port: Option<u16>,
    /// Path, decoded; without the empty segment that a slash at the end makes.
    pub segments: Vec<String>,
}

impl SourceUrl {
    /// The components of `text`, and the URL as it was parsed.
    pub fn parse(text: &str) -> Result<(Self, Url), BadUrl> {
        // The parser would drop or turn round what a client may have put there on purpose.
        if text.contains(|c: char| c.is_control() || c == '\\' || c == ' ') || climbs(text) {
            return Err(BadUrl::Path);
        }
        let url = Url::parse(text).map_err(|_| BadUrl::Malformed)?;
        let source = Self::of(&url)?;
        Ok((source, url))
    }

    /// The components of a parsed URL.
    pub fn of(url: &Url) -> Result<Self, BadUrl> {
        let scheme = ["http", "https", "s3", "file"]
            .into_iter()
            .find(|scheme| *scheme == url.scheme())
            .ok_or(BadUrl::Scheme)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl::User);
        }
        let host = url.host().map(|host| host.to_owned());
        if host.is_none() != (scheme == "file") {
            return Err(BadUrl::Host);
        }
        Ok(Self {
            scheme,
            host,
            port: url.port_or_known_default(),
            segments: segments(url)?,
        })
    }

    fn holds(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.host == other.host
            && self.port == other.port
            && other.segments.starts_with(&self.segments)
    }
}

impl AllowedUrls {
    /// Reads the value of `allowed_urls`. Fails with the part that is not understood and the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let mut sources = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let plain = plain(item).ok_or_else(|| (item.to_owned(), RULE.to_owned()))?;
            for text in plain {
                sources.push(
                    allowed(&text).map_err(|why| (item.to_owned(), format!("{RULE}; it {why}")))?,
                );
            }
        }
        Ok(Self(sources))
    }

    /// Whether `source` may be fetched from.
    pub fn permit(&self, source: &SourceUrl) -> bool {
        self.0.iter().any(|allowed| allowed.holds(source))
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Directories of this machine that hold what may be fetched, as paths.
    pub fn directories(&self) -> impl Iterator<Item = std::path::PathBuf> {
        let files = self.0.iter().filter(|source| source.scheme == "file");
        files.map(|source| {
            std::iter::once("/")
                .chain(source.segments.iter().map(String::as_str))
                .collect()
        })
    }
}

/// Checks the value of `allowed_urls`. Fails with the item that breaks a rule, and the rule.
pub fn check_urls(text: &str) -> Result<(), (String, String)> {
    AllowedUrls::parse(text).map(drop)
}

fn allowed(text: &str) -> Result<SourceUrl, String> {
    let (source, url) = SourceUrl::parse(text).map_err(|bad| bad.to_string())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".to_owned());
    }
    if source.scheme == "file" && source.segments.is_empty() {
        return Err("must name a directory".to_owned());
    }
    Ok(source)
}

/// The starts of URLs that a regular expression of TorchServe's stands for; `None` if it stands for more.
fn plain(item: &str) -> Option<Vec<String>> {
    let item = item.strip_prefix('^').unwrap_or(item);
    let item = item.strip_suffix('$').unwrap_or(item);
    let item = match item.strip_suffix(".*") {
        // `https://host/models.*` would allow `models-of-others` as well.
        Some(start) if !is_cut_at_slash(start) => return None,
        Some(start) => start,
        None => item,
    };
    let item = item
        .replace("\\.", ".")
        .replace("\\/", "/")
        .replace("\\-", "-");
    let schemes = ["http(s)?://", "https?://", "(http|https)://"];
    let starts = match schemes.iter().find_map(|scheme| item.strip_prefix(scheme)) {
        Some(rest) => vec![format!("http://{rest}"), format!("https://{rest}")],
        None => vec![item],
    };
    let is_plain = |start: &String| !start.contains(PATTERN);
    starts.iter().all(is_plain).then_some(starts)
}

/// Whether a URL's start ends where a host or a segment ends.
fn is_cut_at_slash(start: &str) -> bool {
    match start.split_once("://") {
        Some((_, rest)) => rest.ends_with('/') || (!rest.is_empty() && !rest.contains('/')),
        None => false,
    }
}

fn climbs(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or(text);
    path.split('/').any(|segment| {
        let decoded = percent_decode_str(segment).collect::<Vec<u8>>();
        decoded == b"." || decoded == b".."
    })
}

fn segments(url: &Url) -> Result<Vec<String>, BadUrl> {
    let mut segments = Vec::new();
    for segment in url.path().trim_start_matches('/').split('/') {
        let decoded = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| BadUrl::Path)?;
        let is_odd = |c: char| c == '/' || c == '\\' || c.is_control();
        if decoded.contains(is_odd) || decoded == "." || decoded == ".." {
            return Err(BadUrl::Path);
        }
        segments.push(decoded.into_owned());
    }
    if segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permits(allowed: &str, url: &str) -> bool {
        let allowed = AllowedUrls::parse(allowed).unwrap();
        SourceUrl::parse(url).is_ok_and(|(source, _)| allowed.permit(&source))
    }

    #[test]
    fn urls_are_compared_by_component() {
        let allowed = "https://models.example.com/team/";
        for url in [
            "https://models.example.com/team/a.mar",
            "HTTPS://Models.Example.COM:443/team/a/b.mar?sign=1#sha256=00",
            "https://models.example.com/%74eam/a.mar",
        ] {
            assert!(permits(allowed, url), "{url}");
        }
        for url in [
            "http://models.example.com/team/a.mar",
            "https://models.example.com:8443/team/a.mar",
            "https://models.example.com/teams/a.mar",
            "https://models.example.com/team-b/a.mar",
            "https://models.example.com/a.mar",
            "https://models.example.com.evil.com/team/a.mar",
            "https://models.example.com./team/a.mar",
            "https://models.example.com@evil.com/team/a.mar",
            "https://user@models.example.com/team/a.mar",
            "https://evil.com/https://models.example.com/team/a.mar",
            "https://models.example.com/team/%2e%2e/other/a.mar",
            "https://models.example.com/team/.%2E/other/a.mar",
            "https://models.example.com/team/x%2f..%2f..%2fother.mar",
            "https://models.example.com/team/a%00.mar",
            "https://models.example.com\\team\\a.mar",
            "https:\\\\models.example.com/team/a.mar",
            "https://models.example.com/te\tam/a.mar",
            " https://models.example.com/team/a.mar",
            "ftp://models.example.com/team/a.mar",
            "//models.example.com/team/a.mar",
        ] {
            assert!(!permits(allowed, url), "{url}");
        }
    }

    #[test]
    fn an_address_in_another_notation_is_the_same_address() {
        let loopback = [
            "http://127.0.0.1:9/x.mar",
            "http://2130706433:9/x.mar",
            "http://0177.0.0.1:9/x.mar",
            "http://0x7f.1:9/x.mar",
        ];
        for url in loopback {
            assert!(permits("http://127.0.0.1:9/", url), "{url}");
            assert!(!permits("http://10.0.0.1:9/", url), "{url}");
        }
        for url in [
            "http://[::1]:9/x.mar",
            "http://[::ffff:127.0.0.1]:9/x.mar",
            "http://0.0.0.0:9/x.mar",
            "http://localhost:9/x.mar",
        ] {
            assert!(!permits("http://127.0.0.1:9/", url), "{url}");
        }
    }

    #[test]
    fn values_of_torchserve_that_are_prefixes_are_understood() {
        for (allowed, url) in [
            (
                "https://s3.amazonaws.com/.*",
                "https://s3.amazonaws.com/a/b.mar",
            ),
            (
                "https://s3\\.amazonaws\\.com/.*",
                "https://s3.amazonaws.com/b.mar",
            ),
            (
                "^https://s3.amazonaws.com.*$",
                "https://s3.amazonaws.com/b.mar",
            ),
            ("https?://h.org/.*", "http://h.org/b.mar"),
            ("http(s)?://h.org/.*,s3://b/.*", "https://h.org/b.mar"),
            ("http(s)?://h.org/.*, s3://b/.*", "s3://b/x/y.mar"),
            ("file:///srv/models/.*", "file:///srv/models/x.mar"),
            ("https://h.org/x.mar", "https://h.org/x.mar"),
        ] {
            assert!(permits(allowed, url), "{allowed} {url}");
        }
    }

    #[test]
    fn other_values_are_refused_with_how_to_write_them() {
        for bad in [
            "file://.*|http(s)?://.*",
            ".*",
            "https://.*",
            "https://h.org/models.*",
            "https://*.h.org/",
            "https://h.org/a/../b/",
            "https://user@h.org/",
            "https://h.org/?a",
            "file:///",
            "file://host/srv",
            "ftp://h.org/",
            "h.org",
        ] {
            let (item, rule) = AllowedUrls::parse(bad).unwrap_err();
            assert!(
                bad.starts_with(&item) && rule.starts_with(RULE),
                "{bad}: {rule}"
            );
        }
        assert!(AllowedUrls::parse(" , ").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_permitted_has_the_allowed_host(url in "(https?|s3):[/\\\\]{0,3}[a-z0-9.@:%/\\\\#?]{0,40}") {
            let allowed = AllowedUrls::parse("https://h.org/a/").unwrap();
            if let Ok((source, parsed)) = SourceUrl::parse(&url) && allowed.permit(&source) {
                prop_assert_eq!(parsed.host_str(), Some("h.org"));
                prop_assert!(parsed.path().starts_with("/a"));
            }
        }
    }
}
