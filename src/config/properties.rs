//! The format of `config.properties`: Java's, as `java.util.Properties.load` reads it.
//!
//! It knows the syntax and nothing of what the keys mean. Own code rather than a crate: it is small, and lines are
//! needed for messages.

use std::fmt::Write as _;

/// One `key = value`, and the line it starts on (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Key, unescaped.
    pub key: String,
    /// Value, unescaped.
    pub value: String,
    /// Line of the key.
    pub line: usize,
}

/// A line that is not a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
}

/// Reads a whole file. Bytes that are not UTF-8 are taken as ISO-8859-1, which is what Java does with all.
pub fn parse(bytes: &[u8]) -> Result<Vec<Property>, Malformed> {
    let text = decode(bytes);
    logical_lines(&text)
        .into_iter()
        .map(|(line, content)| property(line, &content))
        .collect()
}

/// Writes one property as `java.util.Properties.store` does, so that Java and `parse` read it.
pub fn render(key: &str, value: &str) -> String {
    let mut line = String::with_capacity(key.len() + value.len() + 2);
    escape(key, true, &mut line);
    line.push('=');
    escape(value, false, &mut line);
    line.push('\n');
    line
}

fn escape(text: &str, is_key: bool, line: &mut String) {
    for (at, character) in text.chars().enumerate() {
        match character {
            ' ' if is_key || at == 0 => line.push_str("\\ "),
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\u{c}' => line.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => line.extend(['\\', character]),
            ' '..='~' => line.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(line, "\\u{unit:04X}");
                }
            }
        }
    }
}

fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Joins lines that end in a backslash, and drops blank ones and comments.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (index, line) in text.replace("\r\n", "\n").split(['\n', '\r']).enumerate() {
        let content = line.trim_start_matches([' ', '\t', '\u{c}']);
        let is_comment = content.is_empty() || content.starts_with(['#', '!']);
        if !continues {
            if is_comment {
                continue;
            }
            joined.push((index + 1, String::new()));
        }
        let slashes = content.chars().rev().take_while(|c| *c == '\\').count();
        continues = slashes % 2 == 1;
        let kept = &content[..content.len() - usize::from(continues)];
        if let Some((_, logical)) = joined.last_mut() {
            logical.push_str(kept);
        }
    }
    joined
}

fn property(line: usize, content: &str) -> Result<Property, Malformed> {
    let is_space = |character: char| matches!(character, ' ' | '\t' | '\u{c}');
    let mut escaped = false;
    let end = content.find(|character: char| {
        let ends = !escaped && (is_space(character) || matches!(character, '=' | ':'));
        escaped = !escaped && character == '\\';
        ends
    });
    let (key, rest) = content.split_at(end.unwrap_or(content.len()));
    let rest = rest.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    let malformed = || Malformed { line };
    Ok(Property {
        key: unescape(key).ok_or_else(malformed)?,
        value: unescape(rest.trim_start_matches(is_space)).ok_or_else(malformed)?,
        line,
    })
}

/// Resolves `\t`, `\n`, `\r`, `\f` and `\uXXXX`; a backslash before anything else is dropped.
fn unescape(text: &str) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let meant = match character {
            '\\' => match characters.next() {
                Some('u') => {
                    units.push(hex(&mut characters)?);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => continue,
            },
            other => other,
        };
        units.extend_from_slice(meant.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

fn hex(characters: &mut std::str::Chars<'_>) -> Option<u16> {
    (0..4).try_fold(0_u16, |value, _| {
        let digit = characters.next()?.to_digit(16)?;
        Some(value << 4 | u16::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let properties = parse(text.as_bytes()).unwrap();
        properties.into_iter().map(|p| (p.key, p.value)).collect()
    }

    #[test]
    fn separators_comments_and_blanks_are_as_in_java() {
        let text = "# comment\n! another\n\n a=1\nb : 2\r\nc 3\nd\ne==x\n";
        let expected = [("a", "1"), ("b", "2"), ("c", "3"), ("d", ""), ("e", "=x")];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn lines_continue_after_a_backslash() {
        let text = "models={ \\\n   \"noop\": {} \\\n # not a comment \\\n}\npath=a\\\\\nnext=1";
        let expected = [
            ("models", "{ \"noop\": {} # not a comment }"),
            ("path", "a\\"),
            ("next", "1"),
        ];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(text), expected);
    }

    #[test]
    fn escapes_are_resolved() {
        assert_eq!(
            pairs(r"a\ b\=c=\u00e9\t\ud83d\ude00\q"),
            [("a b=c".to_owned(), "é\t😀q".to_owned())]
        );
    }

    #[test]
    fn latin_1_is_read_where_utf_8_fails() {
        let properties = parse(b"a=caf\xe9").unwrap();
        assert_eq!(properties[0].value, "café");
    }

    #[test]
    fn broken_escapes_name_their_line() {
        for bad in ["x=\n\na=\\u12", "x=\n\na=\\u12zz", "x=\n\na=\\ud800"] {
            assert_eq!(parse(bad.as_bytes()), Err(Malformed { line: 3 }), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn what_is_rendered_comes_back(key in "[^\\p{Cc}]{1,20}|.{1,20}", value in "(?s).{0,60}") {
            prop_assert_eq!(pairs(&render(&key, &value)), [(key, value)]);
        }

        #[test]
        fn plain_values_come_back(value in "[a-z0-9/.:]{0,40}") {
            prop_assert_eq!(pairs(&format!("key={value}")), [("key".to_owned(), value)]);
        }
    }
}
