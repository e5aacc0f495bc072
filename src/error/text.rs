//! Foreign text in messages and logs: it is cut, since whoever sent it chose its length.

/// Bytes of a name that a message shows.
const NAME_SHOWN: usize = 64;

/// The longest prefix of `text` of at most `limit` bytes that ends between two characters.
pub fn truncated(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// The first `limit` characters of `text`, and its size if that is not all.
pub fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}

/// The beginning of a name in quotation marks.
pub fn quoted(name: &str) -> String {
    let shown = truncated(name, NAME_SHOWN);
    let rest = if shown.len() < name.len() { "…" } else { "" };
    format!("{shown:?}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(truncated("aä", 2), "a");
        assert_eq!(truncated("aä", 3), "aä");
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöü", 2), "äö… (6 bytes)");
    }

    #[test]
    fn long_names_are_quoted_in_part() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        let long = "n".repeat(NAME_SHOWN);
        assert_eq!(quoted(&long), format!("\"{long}\""));
        assert_eq!(quoted(&format!("{long}x")), format!("\"{long}\"…"));
    }
}
