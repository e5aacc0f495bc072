//! Paths and query strings, decoded as TorchServe's clients expect.

use std::borrow::Cow;

use hyper::Uri;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind};

/// The path of `uri`, percent-decoded as UTF-8. Fails if an escape anywhere in the URI, the query included, is not two
/// hexadecimal digits.
pub(super) fn decode_path(uri: &Uri) -> Result<Cow<'_, str>, Error> {
    if let Some(all) = uri.path_and_query() {
        check_escapes(all.as_str())?;
    }
    Ok(percent_decode_str(uri.path()).decode_utf8_lossy())
}

fn check_escapes(text: &str) -> Result<(), Error> {
    for (index, _) in text.match_indices('%') {
        let digits = text.as_bytes().get(index + 1..index + 3);
        let problem = match digits {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => continue,
            Some(digits) => {
                let digits = String::from_utf8_lossy(digits);
                format!(
                    "invalid hex byte '{digits}' at index {} of '{text}'",
                    index + 1
                )
            }
            None => format!("unterminated escape sequence at index {index} of: {text}"),
        };
        return Err(Error::new(Kind::BadEncoding, problem));
    }
    Ok(())
}

/// The parameters of a query string, in order. `&` and `;` separate pairs, `+` is a space.
pub(super) fn decode_query(uri: &Uri) -> Vec<(String, String)> {
    let pairs = uri.query().unwrap_or("").split(['&', ';']);
    let pairs = pairs.filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode_component(name), decode_component(value))
        })
        .collect()
}

fn decode_component(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_decoded_before_they_are_split() {
        assert_eq!(
            decode_path(&uri("/predictions%2Fm/a+b%20c")).unwrap(),
            "/predictions/m/a+b c"
        );
    }

    #[test]
    fn bad_escapes_are_named_wherever_they_are() {
        let message = |text| decode_path(&uri(text)).unwrap_err().message().to_owned();
        assert_eq!(
            message("/ping%zz"),
            "invalid hex byte 'zz' at index 6 of '/ping%zz'"
        );
        assert_eq!(
            message("/ping?x=%4"),
            "unterminated escape sequence at index 8 of: /ping?x=%4"
        );
    }

    #[test]
    fn queries_separate_by_ampersand_and_semicolon() {
        let pairs = decode_query(&uri("/models?a=1&b=x+y;c=%26&&d"));
        let expected = [("a", "1"), ("b", "x y"), ("c", "&"), ("d", "")];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
