//! Hostile `.mar` files.

use super::raw::{RawEntry, million_entries, zip};
use super::*;

fn refused(entries: &[RawEntry]) -> String {
    Bench::new().refused("x.mar", &zip(entries))
}

#[test]
fn the_raw_writer_writes_zip() {
    let bench = Bench::new();
    let manifest = br#"{"model": {"modelName": "m", "modelVersion": "1", "handler": "h.wasm"}}"#;
    let entries = [
        RawEntry::new("dir/", b"").mode(0o040_755),
        RawEntry::new("h.wasm", &component::HEADER),
        RawEntry::deflated("dir/data.bin", &[7; 1000]),
        RawEntry::new(MANIFEST, manifest),
    ];
    let unpacked = bench
        .store()
        .unpack(&bench.put("x.mar", &zip(&entries)))
        .unwrap();
    assert_eq!(
        fs::read(unpacked.directory().join("dir/data.bin")).unwrap(),
        [7; 1000]
    );
}

#[test]
fn names_that_escape_are_refused() {
    for name in BAD_NAMES {
        let message = refused(&[RawEntry::new(name, b"x")]);
        assert!(message.starts_with("entry \""), "{message}");
    }
}

#[test]
fn only_files_and_directories_are_taken() {
    for mode in [0o120_777, 0o020_666, 0o060_666, 0o010_666, 0o140_666] {
        let message = refused(&[
            RawEntry::new("link", b"/etc").mode(mode),
            RawEntry::new("link/passwd", b"x"),
        ]);
        assert_eq!(
            message,
            format!("entry \"link\" must be a file or a directory, got mode {mode:o}")
                .replace("777", "000")
                .replace("666", "000")
        );
    }
}

#[test]
fn names_are_there_once_whatever_their_case() {
    for (first, second) in [
        ("a.pt", "a.pt"),
        ("a.pt", "A.PT"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("d/x", "D/y"),
    ] {
        refused(&[RawEntry::new(first, b"1"), RawEntry::new(second, b"2")]);
    }
}

#[test]
fn ratio_bombs_are_refused() {
    let message = refused(&[RawEntry::deflated("zeros", &vec![0; 48 << 20])]);
    assert!(
        message.starts_with("entry \"zeros\" must not grow so much"),
        "{message}"
    );
}

#[test]
fn many_small_bombs_are_a_large_one() {
    let entries = ["a", "b", "c"].map(|name| RawEntry::deflated(name, &vec![0; 15 << 20]));
    let message = refused(&entries);
    assert!(
        message.starts_with("the archive must not grow so much"),
        "{message}"
    );
}

#[test]
fn sizes_that_lie_are_refused() {
    let small = RawEntry::deflated("lies", &vec![0; 1 << 20]).declared(10);
    let large = RawEntry::deflated("lies", b"ten bytes.").declared(1 << 30);
    for entry in [small, large] {
        let message = refused(&[entry]);
        assert!(message.starts_with("entry \"lies\" must"), "{message}");
    }
}

#[test]
fn content_that_is_not_what_was_packed_is_refused() {
    let mut bytes = zip(&[RawEntry::new("file", b"content")]);
    let at = bytes
        .windows(7)
        .position(|window| window == b"content")
        .unwrap();
    bytes[at] = b'X';
    let message = Bench::new().refused("x.mar", &bytes);
    assert!(
        message.starts_with("entry \"file\" must be readable"),
        "{message}"
    );
}

#[test]
fn large_files_and_large_archives_are_refused() {
    let mut bench = Bench::new();
    bench.limits.file = 1000;
    let message = bench.refused("x.mar", &zip(&[RawEntry::new("big", &[1; 1001])]));
    assert_eq!(
        message,
        "entry \"big\" is too large, got more than 1000 bytes"
    );
    bench.limits.total = 1500;
    let entries = ["a", "b"].map(|name| RawEntry::new(name, &[1; 800]));
    let message = bench.refused("x.mar", &zip(&entries));
    assert_eq!(
        message,
        "the archive is too large when unpacked, got more than 1500 bytes"
    );
}

#[test]
fn a_million_entries_are_refused_unread() {
    let message = Bench::new().refused("x.mar", &million_entries());
    assert_eq!(
        message,
        "the archive must not have more entries than allowed, got 1000000, the limit is 100"
    );
}

#[test]
fn headers_must_agree() {
    let message = refused(&[RawEntry::new("shown", b"x").local_name("other")]);
    assert!(message.contains("not a readable zip"), "{message}");
}

#[test]
fn encrypted_and_odd_entries_are_refused() {
    assert_eq!(
        refused(&[RawEntry::new("secret", b"x").flags(1)]),
        "entry \"secret\" must not be encrypted, got an encrypted entry"
    );
    let message = refused(&[RawEntry::new("odd", b"x").method(12)]);
    assert!(
        message.starts_with("entry \"odd\" must be stored or deflated"),
        "{message}"
    );
}

#[test]
fn what_is_no_zip_is_refused() {
    for bytes in [&b""[..], b"PK\x05\x06", b"not a zip at all", &[0; 100]] {
        let message = Bench::new().refused("x.mar", bytes);
        assert!(
            message.starts_with("the archive is not a readable zip"),
            "{message}"
        );
    }
}

#[test]
fn an_archive_in_an_archive_is_a_file() {
    let bench = Bench::new();
    let inner = zip(&[RawEntry::new("../x", b"x")]);
    let message = bench.refused("x.mar", &zip(&[RawEntry::new("inner.mar", &inner)]));
    assert_eq!(
        message,
        "the archive has no MAR-INF/MANIFEST.json, which would be its manifest"
    );
}
