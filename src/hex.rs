//! Bytes as hexadecimal digits.

/// `bytes` in lower-case digits.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

/// `N` bytes from two digits for each, in either case; `None` if `text` is anything else.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn digit(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = [0x00, 0x0f, 0xf0, 0xab];
        assert_eq!(encode(&bytes), "000ff0ab");
        assert_eq!(decode("000ff0ab"), Some(bytes));
        assert_eq!(decode("000FF0AB"), Some(bytes));
    }

    #[test]
    fn what_is_no_such_number_of_digits_is_refused() {
        for text in [
            "",
            "000ff0a",
            "000ff0ab0",
            "000ff0ag",
            "+00ff0ab",
            "ä0ff0ab",
        ] {
            assert_eq!(decode::<4>(text), None, "{text}");
        }
    }
}
