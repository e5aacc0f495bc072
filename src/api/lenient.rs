//! JSON as TorchServe's parser takes it: one flat object.
//!
//! Beside JSON it takes texts in single quotes, and names and values without quotes. What it does not take is a value
//! that is an object or a list, so it never nests, and a name that comes twice, so that nobody in between reads another
//! value than the server does. Numbers stay as they were written.

use std::fmt;

use crate::error::truncated;

/// Members that one object may have; no call has so many parameters.
const MEMBERS_LIMIT: usize = 64;
/// Bytes of a name or value that a message shows.
const SHOWN: usize = 64;

/// The value of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `null`.
    Null,
    /// Anything else, as it was written; a text without its quotes.
    Text(String),
}

/// Why a body is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    what: String,
    at: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at byte {}", self.what, self.at)
    }
}

/// The members of the object that `body` is, in order.
pub(super) fn object(body: &[u8]) -> Result<Vec<(String, Scalar)>, Malformed> {
    let text = std::str::from_utf8(body).map_err(|error| Malformed {
        what: "a byte that is not UTF-8".to_owned(),
        at: error.valid_up_to(),
    })?;
    Reader { text, at: 0 }.object()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn object(mut self) -> Result<Vec<(String, Scalar)>, Malformed> {
        self.expect('{')?;
        let mut members: Vec<(String, Scalar)> = Vec::new();
        if self.takes('}') {
            return self.end(members);
        }
        loop {
            let name = self.text_value()?;
            if members.len() == MEMBERS_LIMIT {
                return Err(self.wrong(format!("more than {MEMBERS_LIMIT} members")));
            }
            if members.iter().any(|(earlier, _)| *earlier == name) {
                return Err(self.wrong(format!("{:?} is given twice", truncated(&name, SHOWN))));
            }
            self.expect(':')?;
            let value = self.value(&name)?;
            members.push((name, value));
            if self.takes('}') {
                return self.end(members);
            }
            self.expect(',')?;
        }
    }

    fn end<T>(mut self, value: T) -> Result<T, Malformed> {
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.wrong("something after the object")),
        }
    }

    fn value(&mut self, name: &str) -> Result<Scalar, Malformed> {
        match self.peek() {
            Some('{' | '[') => {
                let name = truncated(name, SHOWN);
                Err(self.wrong(format!("{name:?} must be a text, a number or a flag")))
            }
            Some('"' | '\'') => self.text_value().map(Scalar::Text),
            _ => {
                let text = self.bare()?;
                Ok(if text.eq_ignore_ascii_case("null") {
                    Scalar::Null
                } else {
                    Scalar::Text(text)
                })
            }
        }
    }

    /// A name, or a value in quotes.
    fn text_value(&mut self) -> Result<String, Malformed> {
        match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.at += 1;
                self.quoted(quote)
            }
            _ => self.bare(),
        }
    }

    /// The rest of a text that began with `quote`.
    fn quoted(&mut self, quote: char) -> Result<String, Malformed> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(self.wrong("a text without its end")),
                Some('\\') => text.push(self.escaped()?),
                Some(c) if c == quote => return Ok(text),
                Some(c) => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Malformed> {
        match self.next() {
            Some(c @ ('"' | '\'' | '\\' | '/')) => Ok(c),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => self.escaped_unit(),
            _ => Err(self.wrong("an escape that JSON does not have")),
        }
    }

    /// What `\u` introduces: a character, or the first half of one.
    fn escaped_unit(&mut self) -> Result<char, Malformed> {
        let mut units = vec![self.unit()?];
        if (0xD800..0xDC00).contains(&units[0]) && self.rest().starts_with("\\u") {
            self.at += 2;
            units.push(self.unit()?);
        }
        match String::from_utf16(&units).map(|text| text.chars().next()) {
            Ok(Some(c)) => Ok(c),
            _ => Err(self.wrong("half a character")),
        }
    }

    fn unit(&mut self) -> Result<u16, Malformed> {
        let digits = self.rest().get(..4).unwrap_or_default();
        let is_hex = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u16::from_str_radix(digits, 16) {
            Ok(unit) if is_hex => {
                self.at += 4;
                Ok(unit)
            }
            _ => Err(self.wrong("an escape without its four digits")),
        }
    }

    /// What stands without quotes.
    fn bare(&mut self) -> Result<String, Malformed> {
        let ends = |c: char| c.is_whitespace() || c.is_control() || "{}[]:,;=#/\\\"'".contains(c);
        let rest = self.rest();
        let bare = &rest[..rest.find(ends).unwrap_or(rest.len())];
        if bare.is_empty() {
            return Err(self.unexpected());
        }
        let bare = bare.to_owned();
        self.at += bare.len();
        Ok(bare)
    }

    /// The next character that is no space; it stays.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        let spaces = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.at += spaces;
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, wanted: char) -> Result<(), Malformed> {
        if self.takes(wanted) {
            return Ok(());
        }
        Err(self.wrong(format!("expected '{wanted}'")))
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn unexpected(&mut self) -> Malformed {
        match self.peek() {
            Some(c) => self.wrong(format!("unexpected {c:?}")),
            None => self.wrong("unexpected end"),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> Malformed {
        Malformed {
            what: what.into(),
            at: self.at,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn text(value: &str) -> Scalar {
        Scalar::Text(value.to_owned())
    }

    fn read(body: &str) -> Vec<(String, Scalar)> {
        object(body.as_bytes()).unwrap()
    }

    fn refused(body: &str) -> String {
        object(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_the_original_takes_is_taken() {
        for body in [
            r#"{"url": "a.mar", "batch_size": 3}"#,
            r#" { "url" : "a.mar" , "batch_size" : "3" } "#,
            "{'url': 'a.mar', 'batch_size': 3}",
            "{url: a.mar, batch_size: 3}",
            "{\n\turl:\"\\u0061.mar\",\r\nbatch_size:3}",
        ] {
            let members = [("url", text("a.mar")), ("batch_size", text("3"))];
            let members = members.map(|(name, value)| (name.to_owned(), value));
            assert_eq!(read(body), members, "{body}");
        }
        assert_eq!(read("{a: NULL}"), [("a".to_owned(), Scalar::Null)]);
        assert_eq!(read("{a: 'NULL'}"), [("a".to_owned(), text("NULL"))]);
        assert_eq!(read(" {} "), []);
    }

    #[test]
    fn escapes_are_read() {
        let members = read(r#"{"a": "\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00'"}"#);
        assert_eq!(members[0].1, text("\"\\/\u{8}\u{c}\n\r\tä😀'"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let many: Vec<_> = (0..65).map(|index| format!("a{index}:1")).collect();
        let many = format!("{{{}}}", many.join(","));
        for (body, says) in [
            ("", "expected '{' at byte 0"),
            ("[]", "expected '{' at byte 0"),
            ("3", "expected '{' at byte 0"),
            ("{", "unexpected end at byte 1"),
            ("{a", "expected ':' at byte 2"),
            ("{a:", "unexpected end at byte 3"),
            ("{a:}", "unexpected '}' at byte 3"),
            ("{a:1", "expected ',' at byte 4"),
            ("{a:1,}", "unexpected '}' at byte 5"),
            ("{a:1 b:2}", "expected ',' at byte 5"),
            ("{a:1}{", "something after the object at byte 5"),
            ("{a:'b}", "a text without its end at byte 6"),
            ("{a:1,'a':2}", "\"a\" is given twice at byte 8"),
            (
                "{a:[]}",
                "\"a\" must be a text, a number or a flag at byte 3",
            ),
            (
                "{a:{}}",
                "\"a\" must be a text, a number or a flag at byte 3",
            ),
            (r#"{a:"\x"}"#, "an escape that JSON does not have at byte 6"),
            (
                r#"{a:"\u00g0"}"#,
                "an escape without its four digits at byte 6",
            ),
            (
                r#"{a:"\u+123"}"#,
                "an escape without its four digits at byte 6",
            ),
            (r#"{a:"\ud83d"}"#, "half a character at byte 10"),
            (r#"{a:"\ude00"}"#, "half a character at byte 10"),
            (&many, "more than 64 members at byte 378"),
        ] {
            assert_eq!(refused(body), says, "{body}");
        }
        let error = object(b"{a:\xff}").unwrap_err();
        assert_eq!(error.to_string(), "a byte that is not UTF-8 at byte 3");
    }

    #[test]
    fn depth_costs_nothing() {
        for body in [
            "[".repeat(1_000_000),
            format!("{{\"a\":{}", "[".repeat(1_000_000)),
            "{\"a\":".repeat(101),
        ] {
            object(body.as_bytes()).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body: Vec<u8>) {
            let _ = object(&body);
        }

        #[test]
        fn whatever_is_like_an_object_ends(body in r#"[{}\[\]:,'"a0\\u ]{0,40}"#) {
            let _ = object(body.as_bytes());
        }

        #[test]
        fn flat_json_means_the_same(members in prop::collection::btree_map(any::<String>(), any::<String>(), 0..20)) {
            let json: Map<String, Value> = members
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()))
                .collect();
            let read = object(Value::Object(json).to_string().as_bytes()).unwrap();
            let members = members.into_iter();
            let expected: Vec<_> = members.map(|(name, value)| (name, Scalar::Text(value))).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
