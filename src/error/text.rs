//! Foreign text in messages and logs: it is cut, since whoever sent it chose its length, and what a library says of a failure
//! is made fit for somebody who may not see the machine.

use std::path::Path;

/// Bytes of a name that a message shows.
const NAME_SHOWN: usize = 64;

/// Bytes of a library's reason that a message shows.
const REASON_SHOWN: usize = 400;

/// Bytes of a library's text that are looked at: names of an archive's may be in it, of any length.
const REASON_READ: usize = 4 << 10;

/// How the lines begin that say where in its own code a library failed. What follows the first of them is left out.
const FRAMES: [&str; 6] = [
    "Exception raised from",
    "The following operation failed",
    "Traceback",
    "C++ CapturedTraceback",
    "frame #",
    "#0 ",
];

/// Ends of the names of source files in which native libraries say they failed.
const SOURCES: [&str; 7] = [".cc:", ".cpp:", ".cxx:", ".cu:", ".h:", ".hpp:", ".cuh:"];

/// Addresses have at least so many digits; shorter numbers may be a model's own.
const ADDRESS_DIGITS: usize = 6;

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

/// The part of a library's text that says what failed, without the lines that say where in its code.
pub fn without_frames(text: &str) -> &str {
    let is_frame = |line: &str| FRAMES.iter().any(|frame| line.starts_with(frame));
    let mut begin = 0;
    for line in text.split_inclusive('\n') {
        if is_frame(line.trim_start()) && !text[..begin].trim().is_empty() {
            return text[..begin].trim_end();
        }
        begin += line.len();
    }
    text.trim_end()
}

/// What a library says of a failure, for somebody who may not see the machine: one line of limited length without stack
/// frames, places in source files, addresses, and paths of this machine, of which the last name stays. `directory` is the one
/// that the library was given files of.
pub fn reason(text: &str, directory: &Path) -> String {
    let directory = format!("{}/", directory.display());
    let text = truncated(without_frames(text), REASON_READ).replace(&directory, "");
    let text = text.replace(|c: char| c.is_control(), " ");
    let text = without_places(&text);
    let words: Vec<_> = text.split_whitespace().map(without_address).collect();
    let text = words.join(" ");
    match truncated(&text, REASON_SHOWN) {
        whole if whole.len() == text.len() => text,
        cut => format!("{cut}…"),
    }
}

/// `text` with each path replaced by its last name, and without places in source files.
fn without_places(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = path_begin(rest, told.chars().next_back()) {
        let (before, path) = rest.split_at(begin);
        told.push_str(before);
        let end = path.find(is_path_end).unwrap_or(path.len());
        let (path, after) = path.split_at(end);
        rest = if is_place(path) {
            without_function(after)
        } else {
            told.push_str(last_name(path));
            after
        };
    }
    told + rest
}

/// Where the next path of this machine or the next place in a source file begins; `before` is what stands before `text`.
fn path_begin(text: &str, before: Option<char>) -> Option<usize> {
    let is_inside = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-');
    text.match_indices('/').map(|(at, _)| at).find(|at| {
        let previous = text[..*at].chars().next_back();
        let previous = if *at == 0 { before } else { previous };
        let path = &text[*at..];
        let path = &path[..path.find(is_path_end).unwrap_or(path.len())];
        !previous.is_some_and(is_inside) && (is_place(path) || is_of_this_machine(path))
    })
}

const fn is_path_end(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\'' | '`' | '(' | ')' | '<' | '>' | '[' | ']' | ',' | ';'
        )
}

/// Whether it is `FILE.cc:LINE`, where a library was made.
fn is_place(path: &str) -> bool {
    SOURCES.iter().any(|source| path.contains(source))
}

/// Whether the first name of the path is in this machine's root directory. Nodes of models have names like paths.
fn is_of_this_machine(path: &str) -> bool {
    let mut names = path.split('/').skip(1);
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    !first.is_empty() && second.is_some() && Path::new("/").join(first).exists()
}

fn last_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default()
}

/// `text` without the C++ function that it begins with, if it does.
fn without_function(mut text: &str) -> &str {
    while let Some(rest) = behind_function(text) {
        text = rest;
        // Else another follows, which is inside that one.
        if !text.starts_with("::") {
            break;
        }
    }
    text
}

/// What stands behind the C++ function that `text` begins with, if it does.
fn behind_function(text: &str) -> Option<&str> {
    let (_, arguments) = text
        .split_once('(')
        .filter(|(name, _)| name.contains("::"))?;
    let mut depth = 1_usize;
    let end = arguments.find(|c| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth - 1,
            _ => depth,
        };
        depth == 0
    });
    let rest = end.map_or("", |end| &arguments[end + 1..]);
    let rest = rest.strip_prefix(" const").unwrap_or(rest);
    let with = rest.strip_prefix(" [with ");
    let with = with.and_then(|with| with.split_once(']'));
    Some(with.map_or(rest, |(_, rest)| rest))
}

fn without_address(word: &str) -> &str {
    let is_address = word.split_once("0x").is_some_and(|(_, digits)| {
        let digits = digits.bytes().take_while(u8::is_ascii_hexdigit);
        digits.count() >= ADDRESS_DIGITS
    });
    if is_address { "…" } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in a model become part of what libraries say.
    #[test]
    fn a_reason_of_any_length_takes_neither_a_deep_stack_nor_long() {
        for repeated in ["a/", "/", "::f()", "/a.cc:1", "x(", "[with "] {
            let said = format!("/src/a.cc:1 f::g(){}", repeated.repeat(100_000));
            assert!(reason(&said, Path::new("/store")).len() <= REASON_SHOWN + "…".len());
        }
    }

    /// What libraries say, and what is told of it.
    #[test]
    fn a_reason_names_nothing_of_this_machine_and_nothing_of_the_librarys_code() {
        let long = "x".repeat(2 * REASON_SHOWN);
        let cut = format!("{}…", "x".repeat(REASON_SHOWN));
        let libtorch = "PytorchStreamReader failed locating file constants.pkl: file not found\nException raised from valid at \
            ../caffe2/serialize/inline_container.cc:236 (most recent call first):\nframe #0: c10::Error::Error() + 0x80 (0x7f12 in /usr/lib/libc10.so)\n";
        let torchscript = "RuntimeError: shape '[3]' is invalid for input of size 4\nThe following operation failed in the TorchScript \
            interpreter.\nTraceback of TorchScript (most recent call last):\n  File \"code/__torch__.py\", line 5, in forward\n";
        for (said, told) in [
            (
                "Load model from /store/a b/m/x.onnx failed:Protobuf parsing failed.",
                "Load model from x.onnx failed:Protobuf parsing failed.",
            ),
            (
                "Load model from /store/a b/m/x.onnx failed:/onnxruntime_src/onnxruntime/core/graph/model.cc:181 \
                 onnxruntime::Model::Model(onnx::ModelProto&&, const std::function<void(int)>&) Unsupported model IR version: 99",
                "Load model from x.onnx failed: Unsupported model IR version: 99",
            ),
            (
                "This is an invalid model. In Node, (\"/conv1/Conv\", Conv, \"\", -1) : Error Node (/conv1/Conv) has input size 0",
                "This is an invalid model. In Node, (\"/conv1/Conv\", Conv, \"\", -1) : Error Node (/conv1/Conv) has input size 0",
            ),
            (
                "/build/a/b.h:12 auto lib::f(int)::<lambda>(T) const [with T = int] it is wrong",
                "it is wrong",
            ),
            (
                "libx.so: cannot open /tmp/secret/lib x/y.so, \"/usr/lib/libz.so\" or /proc/1/maps: no such file",
                "libx.so: cannot open lib x/y.so, \"libz.so\" or maps: no such file",
            ),
            (
                "at 0x7f00deadbeef\tand 0x10\r\nand\u{1b}[31m red",
                "at … and 0x10 and [31m red",
            ),
            (
                libtorch,
                "PytorchStreamReader failed locating file constants.pkl: file not found",
            ),
            (
                torchscript,
                "RuntimeError: shape '[3]' is invalid for input of size 4",
            ),
            ("frame #0: only frames", "frame #0: only frames"),
            ("", ""),
            (&long, &cut),
        ] {
            assert_eq!(reason(said, Path::new("/store/a b/m")), told);
        }
    }

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
