//! Checks from its bytes, without compiling it, whether a file can be a handler.

use wasmparser::{Parser, Payload};

use super::ArchiveError;

/// The interface that a handler must export, whatever its version.
const PIPELINE: &str = "lantern:handler/pipeline@";
/// The first bytes of every component.
pub const HEADER: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// Checks that `wasm` is a component that exports `lantern:handler/pipeline`. `name` is for messages.
pub fn check_handler(name: &str, wasm: &[u8]) -> Result<(), ArchiveError> {
    check_header(name, wasm)?;
    let exports = exports(wasm)
        .map_err(|error| refuse(name, &format!("is not a valid component: {error}")))?;
    if exports.iter().any(|export| export.starts_with(PIPELINE)) {
        return Ok(());
    }
    let found = match exports.as_slice() {
        [] => "nothing".to_owned(),
        some => some.join(", "),
    };
    Err(refuse(
        name,
        &format!("must export lantern:handler/pipeline, it exports {found}"),
    ))
}

/// Whether a file's name has the extension of WebAssembly.
pub fn is_named_wasm(name: &str) -> bool {
    std::path::Path::new(name)
        .extension()
        .is_some_and(|extension| extension == "wasm")
}

/// Checks only that the first bytes are those of a component.
pub fn check_header(name: &str, start: &[u8]) -> Result<(), ArchiveError> {
    if start.starts_with(&HEADER) {
        return Ok(());
    }
    let what = match start {
        [0, b'a', b's', b'm', ..] => {
            "is a core WebAssembly module: build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
        }
        [0x7f, b'E', b'L', b'F', ..] => {
            "is native or precompiled code, which is never run: give the component itself"
        }
        _ => "is not a WebAssembly component",
    };
    Err(refuse(name, what))
}

fn refuse(name: &str, what: &str) -> ArchiveError {
    ArchiveError::Unservable(format!("the handler {name:?} {what}"))
}

/// Names of the exports of the outermost component, without those of components inside it.
fn exports(wasm: &[u8]) -> Result<Vec<String>, wasmparser::BinaryReaderError> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    names.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        check_handler("h.wasm", bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_component_is_named() {
        assert!(refused(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(refused(b"\x7fELF....").contains("precompiled"));
        assert!(refused(b"def handle(): pass").contains("is not a WebAssembly component"));
        assert!(refused(b"").contains("is not a WebAssembly component"));
    }

    #[test]
    fn a_component_must_export_the_pipeline() {
        assert_eq!(
            refused(&HEADER),
            "the handler \"h.wasm\" must export lantern:handler/pipeline, it exports nothing"
        );
    }

    #[test]
    fn a_broken_component_is_refused() {
        let mut bytes = HEADER.to_vec();
        bytes.extend([0x0b, 0xff, 0xff]);
        assert!(refused(&bytes).contains("not a valid component"));
    }
}
