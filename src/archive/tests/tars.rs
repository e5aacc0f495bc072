//! Hostile `.tar.gz` files.

use std::io::Write;

use ::tar::{Builder, EntryType, Header};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// A header whose name is written without any check.
fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn tar(fill: impl FnOnce(&mut Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
    let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    fill(&mut builder);
    builder.into_inner().unwrap().finish().unwrap()
}

fn file(name: &[u8], content: &[u8]) -> Vec<u8> {
    tar(|builder| {
        let header = header(name, EntryType::Regular, content.len() as u64);
        builder.append(&header, content).unwrap();
    })
}

fn refused(bytes: &[u8]) -> String {
    Bench::new().refused("x.tar.gz", bytes)
}

#[test]
fn names_that_escape_are_refused() {
    for name in BAD_NAMES.into_iter().filter(|name| !name.contains(&0)) {
        let name = [&b"m/"[..], name].concat();
        let message = refused(&file(&name, b"x"));
        assert!(message.starts_with("entry \"m/"), "{message}");
    }
    assert!(refused(&file(b"../m/x", b"x")).contains("must not hold '..'"));
    assert!(refused(&file(b"/m/x", b"x")).contains("relative path"));
}

#[test]
fn links_and_devices_are_refused() {
    let kinds = [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
    ];
    for kind in kinds {
        let bytes = tar(|builder| {
            let mut link = header(b"m/link", kind, 0);
            link.set_link_name("../../unpacked-evil").unwrap();
            link.set_cksum();
            builder.append(&link, &b""[..]).unwrap();
            let through = header(b"m/link/canary", EntryType::Regular, 1);
            builder.append(&through, &b"x"[..]).unwrap();
        });
        let message = refused(&bytes);
        assert!(
            message.starts_with("entry \"m/link\" must be a file or a directory"),
            "{message}"
        );
    }
}

#[test]
fn names_are_there_once() {
    for (first, second) in [
        ("m/a", "m/a"),
        ("m/a", "m/A"),
        ("m/a", "m/a/b"),
        ("m/a", "n/a"),
    ] {
        let bytes = tar(|builder| {
            for name in [first, second] {
                let header = header(name.as_bytes(), EntryType::Regular, 1);
                builder.append(&header, &b"x"[..]).unwrap();
            }
        });
        refused(&bytes);
    }
}

#[test]
fn a_file_beside_the_one_directory_is_refused() {
    assert!(refused(&file(b"lonely", b"x")).contains("must lie in the archive's one directory"));
}

#[test]
fn bombs_are_refused() {
    let message = refused(&file(b"m/zeros", &vec![0; 48 << 20]));
    assert!(
        message.starts_with("entry \"zeros\" must not grow so much"),
        "{message}"
    );
    let many = tar(|builder| {
        for index in 0..200 {
            let header = header(format!("m/{index}").as_bytes(), EntryType::Regular, 0);
            builder.append(&header, &b""[..]).unwrap();
        }
    });
    assert!(refused(&many).contains("must not have more entries than allowed"));
}

#[test]
fn header_extensions_are_bounded() {
    for kind in [
        EntryType::XHeader,
        EntryType::GNULongName,
        EntryType::XGlobalHeader,
    ] {
        let bytes = tar(|builder| {
            let content = vec![b'a'; 1 << 20];
            let header = header(b"m/ext", kind, content.len() as u64);
            builder.append(&header, content.as_slice()).unwrap();
        });
        assert!(refused(&bytes).contains("header extensions of at most"));
    }
}

#[test]
fn names_in_header_extensions_are_checked() {
    let pax = tar(|builder| {
        let record = b"18 path=m/../../x\n";
        let extension = header(b"m/ext", EntryType::XHeader, record.len() as u64);
        builder.append(&extension, &record[..]).unwrap();
        builder
            .append(&header(b"m/harmless", EntryType::Regular, 1), &b"x"[..])
            .unwrap();
    });
    let gnu = tar(|builder| {
        let name = b"m/../../x\0";
        let extension = header(b"././@LongLink", EntryType::GNULongName, name.len() as u64);
        builder.append(&extension, &name[..]).unwrap();
        builder
            .append(&header(b"m/harmless", EntryType::Regular, 1), &b"x"[..])
            .unwrap();
    });
    for bytes in [pax, gnu] {
        let message = refused(&bytes);
        assert!(message.contains("must not hold '..'"), "{message}");
    }
}

#[test]
fn long_names_are_read_from_header_extensions() {
    let bench = Bench::new();
    let long = format!("m/{}.txt", "long".repeat(40));
    let bytes = tar(|builder| {
        let mut content = |name: &str, content: &[u8]| {
            let mut header = header(b"m/x", EntryType::Regular, content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        };
        content(&long, b"x");
        content("m/h.wasm", &component::HEADER);
        let manifest =
            br#"{"model": {"modelName": "m", "modelVersion": "1", "handler": "h.wasm"}}"#;
        content(&format!("m/{MANIFEST}"), manifest);
    });
    let unpacked = bench
        .store()
        .unpack(&bench.put("x.tar.gz", &bytes))
        .unwrap();
    assert!(unpacked.directory().join(&long[2..]).is_file());
}

#[test]
fn what_is_no_tar_is_refused() {
    let mut cut = file(b"m/a", &vec![7; 100_000]);
    cut.truncate(cut.len() / 2);
    let mut garbage = GzEncoder::new(Vec::new(), Compression::fast());
    garbage.write_all(&[0x41; 2000]).unwrap();
    for bytes in [b"plain".to_vec(), garbage.finish().unwrap(), cut] {
        refused(&bytes);
    }
}
