//! `allowed_urls`: which URLs archives may be fetched from.
//!
//! An item is the start of URLs, which is compared as it was parsed: scheme, host, port and one path segment after the
//! other, never as texts. TorchServe has regular expressions here. Those that fix a scheme and a host are read by `pattern`,
//! and allow no URL that they would not allow there. Whatever else an item is, it allows nothing, and a warning says so.
//! Nothing here reads a file or asks a name server.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::fetch::is_public;
use super::roots::Root;

mod pattern;

pub use pattern::Rest;
use pattern::{Pattern, Unread};

/// How an item may be written.
const RULE: &str = "write the start of URLs up to a slash, such as https://models.example.com/team/, s3://bucket/team/ \
                    or file:///srv/models/, or a pattern with a whole host, such as https://models.example.com/team/.*\\.mar";
/// The setting without which no item allows every host.
const ANY: &str = "lantern_allow_any_url=true";

/// The URLs that archives may be fetched from; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedUrls(Vec<Rule>);

/// What one item allows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// URLs that start so, compared by component.
    Start(SourceUrl),
    /// URLs that a regular expression matches.
    Pattern(Pattern),
}

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

/// A URL that archives are fetched from, or the start of one, as a text and in components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUrl {
    /// As it was typed.
    pub text: String,
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
        let is_odd = |c: char| c.is_control() || matches!(c, '\\' | ' ' | '\u{2028}' | '\u{2029}');
        if text.contains(is_odd) || climbs(text) {
            return Err(BadUrl::Path);
        }
        let url = Url::parse(text).map_err(|_| BadUrl::Malformed)?;
        let source = Self {
            text: text.to_owned(),
            ..Self::of(&url)?
        };
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
            text: url.as_str().to_owned(),
            scheme,
            host,
            port: url.port_or_known_default(),
            segments: segments(url)?,
        })
    }

    /// Whether both name the same server, and may only differ in the path.
    fn has_origin_of(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host == other.host && self.port == other.port
    }

    fn holds(&self, other: &Self) -> bool {
        self.has_origin_of(other) && other.segments.starts_with(&self.segments)
    }

    /// Whether its host may be named where no item names it: neither this machine nor an address that is not public.
    fn is_elsewhere(&self) -> bool {
        match &self.host {
            Some(Host::Domain(name)) => name != "localhost" && !name.ends_with(".localhost"),
            Some(Host::Ipv4(four)) => is_public((*four).into()),
            Some(Host::Ipv6(six)) => is_public((*six).into()),
            None => true,
        }
    }

    /// The path on this machine.
    pub fn path(&self) -> PathBuf {
        let segments = self.segments.iter().map(String::as_str);
        std::iter::once("/").chain(segments).collect()
    }
}

impl Rule {
    fn permits(&self, url: &SourceUrl) -> bool {
        match self {
            Self::Start(start) => start.holds(url),
            Self::Pattern(pattern) => pattern.matches(url),
        }
    }

    /// The part of this machine that it names.
    fn root(&self) -> Option<Root> {
        match self {
            Self::Start(start) if start.scheme == "file" => Some(Root::whole(start.path())),
            Self::Start(_) => None,
            Self::Pattern(pattern) => pattern.root(),
        }
    }
}

impl AllowedUrls {
    /// Reads the value of `allowed_urls`, and says which items allow nothing, or less than they say there. Only with
    /// `any` may an item stand for every host.
    pub fn read(text: &str, any: bool) -> (Self, Vec<String>) {
        let (mut rules, mut taken, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let items = text.split(',').map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            match read_item(item, any) {
                Ok(read) => {
                    taken.push(item);
                    notes.extend(read.note);
                    rules.extend(read.rules);
                }
                Err(why) => notes.push(why),
            }
        }
        let in_force = InForce(&taken);
        let notes = notes.iter().map(|note| format!("{note}; {in_force}"));
        (Self(rules), notes.collect())
    }

    /// Whether `source` may be fetched from.
    pub fn permit(&self, source: &SourceUrl) -> bool {
        self.0.iter().any(|rule| rule.permits(source))
    }

    /// Parts of this machine that may be fetched from.
    pub fn roots(&self) -> impl Iterator<Item = Root> {
        self.0.iter().filter_map(Rule::root)
    }
}

/// What of `allowed_urls` with the value `text` is not in force, and why.
pub fn check_urls(text: &str, any: bool) -> Vec<String> {
    AllowedUrls::read(text, any).1
}

/// Says where archives come from.
struct InForce<'a>(&'a [&'a str]);

impl fmt::Display for InForce<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("archives come from the model store alone");
        }
        let items = self.0.join(", ");
        write!(formatter, "archives come from the model store and {items}")
    }
}

/// The rules that one item stands for, and a remark for the operator.
struct Item {
    rules: Vec<Rule>,
    note: Option<String>,
}

/// Reads one item, or says why it allows nothing.
fn read_item(item: &str, any: bool) -> Result<Item, String> {
    if !pattern::is_pattern(item) {
        let start = start(item).map_err(|why| format!("has {item:?}, which {why}: {RULE}"))?;
        return Ok(Item {
            rules: vec![Rule::Start(start)],
            note: None,
        });
    }
    let patterns = pattern::read(item).map_err(|why| match why {
        Unread::NoHost => format!(
            "has the pattern {item:?}, which fixes no host or no directory, so that it allows nothing: {RULE}"
        ),
        Unread::Unclear(what) => format!(
            "has the pattern {item:?}, whose {what} is not read, so that it allows nothing: {RULE}"
        ),
    })?;
    let everything = patterns.iter().filter(|pattern| pattern.is_everywhere());
    if !any && everything.count() > 0 {
        return Err(format!(
            "has the pattern {item:?}, which stands for every host or every file, so that it allows nothing without {ANY}: set \
             that, or name the hosts ({RULE})"
        ));
    }
    let is_cut = patterns.iter().any(Pattern::is_cut_in_host);
    Ok(Item {
        note: is_cut.then(|| {
            format!("has the pattern {item:?}, which goes on within the host, and is read as if a slash ended the host")
        }),
        rules: patterns.into_iter().map(Rule::Pattern).collect(),
    })
}

fn start(text: &str) -> Result<SourceUrl, String> {
    let (source, url) = SourceUrl::parse(text).map_err(|bad| bad.to_string())?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a query or a fragment".to_owned());
    }
    if source.scheme == "file" && source.segments.is_empty() {
        return Err("must name a directory".to_owned());
    }
    Ok(source)
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
    let path = url.path();
    // One slash begins the path; a second is a name of its own to the server that is asked.
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        let decoded = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| BadUrl::Path)?;
        let is_odd = |c: char| c == '/' || c == '\\' || c.is_control();
        // To some servers what follows a semicolon is not part of the name.
        let name = decoded.split(';').next().unwrap_or_default();
        if decoded.contains(is_odd) || name == "." || name == ".." {
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
mod tests;
