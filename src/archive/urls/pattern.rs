//! Regular expressions in `allowed_urls`, as far as they can be read safely.
//!
//! TorchServe compares the whole URL with an expression, whatever the case. Here one is read as a few patterns: a literal
//! beginning, at most one part that may be anything, a literal ending. Alternatives, optional parts and single characters
//! in brackets become patterns of their own. A URL matches if its text does and if it has the scheme, host and port that
//! the beginning fixes once both are parsed: so what the text looks like never decides which host is asked.
//!
//! No library for regular expressions is used: one would match texts, and it could not say which host an expression means.

use super::super::roots::Root;
use super::SourceUrl;

/// Characters that a regular expression has and the start of a URL has not.
const SPECIAL: [char; 13] = [
    '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\',
];
/// Most patterns that one expression may stand for.
const MOST: usize = 64;
/// Deepest nesting of groups.
const DEPTH: usize = 8;
/// What every file's URL starts with.
const FILES: &str = "file:///";

/// Why an expression is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// What may be anything begins before the host has ended.
    NoHost,
    /// It has a part that is not understood.
    Unclear(&'static str),
}

/// What may follow the literal beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Anything, and then a literal ending.
    Wild {
        /// Fewest characters before the ending.
        least: usize,
        /// Whether there may be no slash before the ending.
        in_segment: bool,
        /// Ending.
        ending: String,
    },
}

impl Rest {
    /// Anything at all.
    pub const ANYTHING: Self = Self::Wild {
        least: 0,
        in_segment: false,
        ending: String::new(),
    };

    /// Whether `text` may follow, whatever its case.
    pub fn fits(&self, text: &str) -> bool {
        match self {
            Self::Nothing => text.is_empty(),
            Self::Wild {
                least,
                in_segment,
                ending,
            } => without_end(text, ending).is_some_and(|middle| {
                let is_in_segment = !in_segment || !middle.contains('/');
                is_in_segment && middle.chars().count() >= *least
            }),
        }
    }
}

fn without_start<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    let found = text.get(..start.len())?;
    found
        .eq_ignore_ascii_case(start)
        .then(|| &text[start.len()..])
}

fn without_end<'t>(text: &'t str, end: &str) -> Option<&'t str> {
    let at = text.len().checked_sub(end.len())?;
    let found = text.get(at..)?;
    found.eq_ignore_ascii_case(end).then(|| &text[..at])
}

/// One way to match an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// What fixes scheme, host and port; `None` for any.
    origin: Option<SourceUrl>,
    /// How a URL begins.
    beginning: String,
    /// How it goes on.
    rest: Rest,
}

/// Whether `item` is a regular expression and not the start of URLs.
pub fn is_pattern(item: &str) -> bool {
    item.contains(SPECIAL)
}

/// The patterns that `item` stands for, at least one.
pub fn read(item: &str) -> Result<Vec<Pattern>, Unread> {
    // Cases never count.
    let item = item.strip_prefix("(?i)").unwrap_or(item);
    let mut parser = Parser {
        left: item,
        depth: 0,
    };
    let sequences = parser.alternatives()?;
    if !parser.left.is_empty() {
        return Err(Unread::Unclear("closing parenthesis"));
    }
    sequences.into_iter().map(Pattern::new).collect()
}

impl Pattern {
    fn new(sequence: Sequence) -> Result<Self, Unread> {
        let Sequence(pieces) = sequence;
        let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
        let wild = pieces.iter().position(|piece| !is_text(piece));
        let (before, after) = pieces.split_at(wild.unwrap_or(pieces.len()));
        let beginning = text(before);
        let rest = match after.split_first() {
            None | Some((Piece::Text(_), _)) => Rest::Nothing,
            Some((Piece::Wild { least, in_segment }, ending)) => {
                if !ending.iter().all(is_text) {
                    return Err(if fixes_host(&beginning) {
                        Unread::Unclear("second part that may be anything")
                    } else {
                        Unread::NoHost
                    });
                }
                Rest::Wild {
                    least: *least,
                    in_segment: *in_segment,
                    ending: text(ending),
                }
            }
        };
        let origin = origin(&beginning, &rest)?;
        Ok(Self {
            origin,
            beginning,
            rest,
        })
    }

    /// Whether it allows `url`.
    pub fn matches(&self, url: &SourceUrl) -> bool {
        let is_there = match &self.origin {
            Some(origin) => origin.has_origin_of(url),
            None => url.is_elsewhere(),
        };
        let after = without_start(&url.text, &self.beginning);
        is_there && after.is_some_and(|after| self.rest.fits(after))
    }

    /// Whether it stands for every host, or for every file of this machine.
    pub const fn is_everywhere(&self) -> bool {
        self.origin.is_none()
    }

    /// Whether what may be anything begins within the host, which is compared whole all the same.
    pub fn is_cut_in_host(&self) -> bool {
        let after = self.beginning.split_once("://");
        let is_open = after.is_some_and(|(_, after)| !after.contains('/'));
        self.origin.is_some() && is_open && self.rest != Rest::Nothing
    }

    /// The part of this machine that it names.
    pub fn root(&self) -> Option<Root> {
        match &self.origin {
            Some(origin) if origin.scheme != "file" => None,
            Some(origin) => {
                let (_, tail) = self.beginning.rsplit_once('/')?;
                Some(Root {
                    directory: origin.path(),
                    beginning: tail.to_owned(),
                    rest: self.rest.clone(),
                })
            }
            None => without_start(FILES, &self.beginning).map(|_| Root {
                directory: "/".into(),
                beginning: String::new(),
                rest: self.rest.clone(),
            }),
        }
    }
}

/// What a literal beginning fixes; `None` if nothing.
fn origin(beginning: &str, rest: &Rest) -> Result<Option<SourceUrl>, Unread> {
    if !fixes_host(beginning) {
        let is_single = rest != &Rest::Nothing && may_start_a_url(beginning);
        let has_no_host = matches!(rest, Rest::Wild { ending, .. } if ending.contains('/'));
        return match (is_single, has_no_host) {
            (true, false) => Ok(None),
            _ => Err(Unread::NoHost),
        };
    }
    let (source, _) =
        SourceUrl::parse(whole_part(beginning)).map_err(|_| Unread::Unclear("host"))?;
    Ok(Some(source))
}

/// Whether `beginning` goes on as far as the host, or with `file://` as far as a directory.
fn fixes_host(beginning: &str) -> bool {
    if let Some(path) = without_start(beginning, FILES) {
        return path.find('/').is_some_and(|end| end > 0);
    }
    match beginning.split_once("://") {
        Some((scheme, after)) => {
            !scheme.eq_ignore_ascii_case("file") && !after.is_empty() && !after.starts_with('/')
        }
        None => false,
    }
}

/// Whether URLs of some scheme begin so, whatever their host.
fn may_start_a_url(beginning: &str) -> bool {
    let schemes = ["http://", "https://", "s3://", FILES];
    schemes
        .iter()
        .any(|scheme| without_start(scheme, beginning).is_some())
}

/// A beginning up to the last slash of its path, or to the end of its host.
fn whole_part(beginning: &str) -> &str {
    let host = beginning.find("://").map_or(0, |at| at + 3);
    match beginning[host..].rfind('/') {
        Some(slash) => &beginning[..=host + slash],
        None => beginning,
    }
}

fn text(pieces: &[Piece]) -> String {
    let characters = pieces.iter().filter_map(|piece| match piece {
        Piece::Text(character) => Some(*character),
        Piece::Wild { .. } => None,
    });
    characters.collect()
}

/// A character, or something that may be anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Text(char),
    Wild { least: usize, in_segment: bool },
}

/// One way through an expression.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sequence(Vec<Piece>);

/// Reads an expression from the left.
struct Parser<'t> {
    left: &'t str,
    /// Groups that are open.
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, expected: &str) -> bool {
        let rest = self.left.strip_prefix(expected);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.left.chars();
        let next = characters.next();
        self.left = characters.as_str();
        next
    }

    /// Everything up to the end, or to the parenthesis that closes this group.
    fn alternatives(&mut self) -> Result<Vec<Sequence>, Unread> {
        let mut all = self.sequence()?;
        while self.take("|") {
            all.extend(self.sequence()?);
            if all.len() > MOST {
                return Err(Unread::Unclear("number of alternatives"));
            }
        }
        Ok(all)
    }

    fn sequence(&mut self) -> Result<Vec<Sequence>, Unread> {
        // The whole URL is compared, so that anchors say nothing at both ends.
        if self.depth == 0 {
            self.take("^");
        }
        let mut all = vec![Sequence::default()];
        while !self.left.is_empty() && !self.left.starts_with(['|', ')']) {
            if self.depth == 0 && self.take("$") {
                return self.at_end(all);
            }
            let ways = self.part()?;
            let joined = all.iter().flat_map(|start| {
                ways.iter()
                    .map(move |way| Sequence([start.0.as_slice(), &way.0].concat()))
            });
            all = joined.collect();
            if all.len() > MOST {
                return Err(Unread::Unclear("number of alternatives"));
            }
        }
        Ok(all)
    }

    fn at_end(&self, all: Vec<Sequence>) -> Result<Vec<Sequence>, Unread> {
        let is_end = self.left.is_empty() || self.left.starts_with('|');
        is_end
            .then_some(all)
            .ok_or(Unread::Unclear("anchor within it"))
    }

    /// One character, bracket or group with what says how often it comes.
    fn part(&mut self) -> Result<Vec<Sequence>, Unread> {
        let atom = self.atom()?;
        let part = match (&atom, self.next_repeat()) {
            (Atom::Any { in_segment }, Some(repeat @ ('*' | '+'))) => {
                let (least, in_segment) = (usize::from(repeat == '+'), *in_segment);
                vec![Sequence(vec![Piece::Wild { least, in_segment }])]
            }
            (Atom::Ways(ways), None) => ways.clone(),
            (Atom::Ways(ways), Some('?')) => {
                let mut ways = ways.clone();
                ways.push(Sequence::default());
                ways
            }
            // As hosts are written without a backslash. It allows less than any character.
            (Atom::Any { in_segment: false }, None) => {
                vec![Sequence(vec![Piece::Text('.')])]
            }
            _ => return Err(Unread::Unclear("repetition")),
        };
        // `.*?` matches what `.*` does.
        let is_wild = matches!(atom, Atom::Any { .. });
        if is_wild {
            self.take("?");
        }
        if self.left.starts_with(['*', '+', '?', '{']) {
            return Err(Unread::Unclear("repetition"));
        }
        Ok(part)
    }

    fn next_repeat(&mut self) -> Option<char> {
        self.left
            .starts_with(['*', '+', '?', '{'])
            .then(|| self.next())
            .flatten()
    }

    fn atom(&mut self) -> Result<Atom, Unread> {
        let one = |character| Ok(Atom::Ways(vec![Sequence(vec![Piece::Text(character)])]));
        match self.next() {
            Some('(') => self.group(),
            Some('[') => self.bracket(),
            Some('.') => Ok(Atom::Any { in_segment: false }),
            Some('\\') => match self.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => one(escaped),
                _ => Err(Unread::Unclear("backslash")),
            },
            Some(']') => Err(Unread::Unclear("closing bracket")),
            Some('{' | '}') => Err(Unread::Unclear("brace")),
            Some('^' | '$') => Err(Unread::Unclear("anchor within it")),
            Some('*' | '+' | '?') | None => Err(Unread::Unclear("repetition")),
            Some(other) => one(other),
        }
    }

    fn group(&mut self) -> Result<Atom, Unread> {
        self.take("?:");
        if self.left.starts_with('?') || self.depth == DEPTH {
            return Err(Unread::Unclear("group"));
        }
        self.depth += 1;
        let ways = self.alternatives()?;
        self.depth -= 1;
        if !self.take(")") {
            return Err(Unread::Unclear("opening parenthesis"));
        }
        Ok(Atom::Ways(ways))
    }

    /// `[^/]`, or a few characters.
    fn bracket(&mut self) -> Result<Atom, Unread> {
        if self.take("^/]") {
            return Ok(Atom::Any { in_segment: true });
        }
        let end = self.left.find(']').filter(|end| *end > 0);
        let end = end.ok_or(Unread::Unclear("bracket"))?;
        let (inside, after) = self.left.split_at(end);
        if inside.contains(['^', '-', '\\', '[', '&']) {
            return Err(Unread::Unclear("bracket"));
        }
        self.left = &after[1..];
        let ways = inside
            .chars()
            .map(|one| Sequence(vec![Piece::Text(one)]))
            .collect();
        Ok(Atom::Ways(ways))
    }
}

/// What may be repeated.
enum Atom {
    /// One of these.
    Ways(Vec<Sequence>),
    /// Any one character, or any but a slash.
    Any { in_segment: bool },
}
