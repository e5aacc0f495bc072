//! Checks that code shown in a document is the code that is built and tested.

use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A block of code in a document, and the file that the document says it is.
struct Shown<'d> {
    file: &'d str,
    code: &'d str,
}

/// The blocks that follow `<!-- file: PATH -->`.
fn shown(document: &str) -> Vec<Shown<'_>> {
    let mut found = Vec::new();
    for after in document.split("<!-- file: ").skip(1) {
        let (file, rest) = after.split_once(" -->\n").expect("the comment ends");
        let (_, rest) = rest.split_once("```").expect("a block follows");
        let (_, rest) = rest.split_once('\n').expect("the block has lines");
        let (code, _) = rest.split_once("```").expect("the block ends");
        found.push(Shown { file, code });
    }
    found
}

/// The text of a file without its unit tests, as documents show it.
fn without_tests(file: &str) -> String {
    let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    format!("{}\n", code.trim_end())
}

#[test]
fn the_migration_guide_shows_the_handlers_as_they_are() {
    let guide = Path::new(ROOT).join("docs/migrating-from-torchserve.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let blocks = shown(&guide);
    assert_eq!(blocks.len(), 2, "the Python handler and its Rust twin");
    for block in blocks {
        let file = without_tests(block.file);
        assert!(
            block.code == file,
            "docs/migrating-from-torchserve.md shows {} as it was; paste it anew",
            block.file
        );
    }
}
