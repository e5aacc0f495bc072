//! Reads a component without compiling it, and checks the limits that it must keep before it is compiled.
//!
//! A small hostile module can make the compiler use gigabytes or minutes. The limits here are what the largest real
//! handlers (Python's interpreter) need, with a margin. They stop the known cheap attacks and not all of them.

use wasmparser::{
    BinaryReaderError, ComponentExportSectionReader, ComponentImportSectionReader, Encoding,
    FunctionBody, Operator, Parser, Payload, Validator, WasmFeatures,
};

use crate::error::{Error, Kind, truncated};

use super::{engine, wasi};

/// Most bytes of a component.
pub(crate) const SIZE_LIMIT: usize = 64 << 20;
const BODY_LIMIT: usize = 1 << 20;
const LOCALS_LIMIT: u64 = 5_000;
const CONTROL_LIMIT: usize = 50_000;
const FUNCTIONS_LIMIT: usize = 100_000;
const MODULES_LIMIT: usize = 200;
/// Most names of imports or exports that a message shows.
const SHOWN: usize = 8;
/// Most bytes of a version that a message shows.
const SHOWN_VERSION: usize = 40;

/// The version track of the interface that this server offers: any 0.1 release.
const TRACK: &str = "0.1";
const PACKAGE: &str = "lantern:handler";
const PIPELINE: &str = "lantern:handler/pipeline";
const INTERFACES: [&str; 5] = [
    "lantern:handler/types",
    "lantern:handler/context",
    "lantern:handler/assets",
    "lantern:handler/logging",
    "lantern:handler/metrics",
];

/// What a component imports and exports, and how large it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentInfo {
    /// Size of the file in bytes.
    pub size: usize,
    /// `handler` if the component exports a pipeline of a version that this server runs.
    pub world: Option<&'static str>,
    /// Imports with their versions, in order.
    pub imports: Vec<String>,
    /// Exports with their versions, in order.
    pub exports: Vec<String>,
    /// The imports that handlers may not have.
    pub forbidden: Vec<String>,
    /// How many core modules it contains.
    pub modules: usize,
    /// How many functions all modules have together.
    pub functions: usize,
    /// Bytes of the largest function.
    pub largest_function: usize,
}

/// Reads a component without compiling it.
///
/// An error says why it is not a component, or which limit it breaks. Forbidden imports and a missing export are not
/// errors here: they are in the result.
pub fn inspect(wasm: &[u8]) -> Result<ComponentInfo, Error> {
    read(wasm).map_err(|reason| Error::new(Kind::InvalidModel, format!("The handler {reason}")))
}

/// Does what [`inspect`] does, and also refuses a component that a server would not run: one that is not valid with the
/// proposals that are on, or is no handler of this interface. Nothing is compiled.
pub fn check(wasm: &[u8]) -> Result<ComponentInfo, Error> {
    let features = engine::features()?;
    let checked = screen(wasm, features);
    checked.map_err(|reason| Error::new(Kind::InvalidModel, format!("The handler {reason}")))
}

/// What [`check`] does, with the proposals of an engine that is there.
pub(super) fn screen(wasm: &[u8], features: WasmFeatures) -> Result<ComponentInfo, String> {
    let info = read(wasm)?;
    if let Some(version) = other_version(&info) {
        return Err(format!(
            "is built for version {version} of the handler interface ({PACKAGE}@{version}), and this server speaks {TRACK}: \
             build it with the handler-sdk, or the handler.wit, of this release"
        ));
    }
    if !info.forbidden.is_empty() {
        return Err(format!(
            "imports what handlers may not have: {}. Files come through the interface `assets`; \
             Python and JavaScript tools leave the rest out with `componentize-py --stub-wasi` or `jco componentize -d all`",
            shown(&info.forbidden)
        ));
    }
    if info.world.is_none() {
        return Err(format!(
            "exports no {PIPELINE}@{TRACK}; it exports {}",
            shown(&info.exports)
        ));
    }
    let mut validator = Validator::new_with_features(features);
    validator
        .validate_all(wasm)
        .map_err(|error| invalid(&error))?;
    Ok(info)
}

fn invalid(error: &BinaryReaderError) -> String {
    format!(
        "is not valid here: {}. Handlers have SIMD, bulk memory, reference types, several values and several memories; \
         threads, exceptions, garbage collection, tail calls, 64-bit memory and relaxed SIMD are off: build it for \
         wasm32-wasip2 without them",
        error.message()
    )
}

fn read(wasm: &[u8]) -> Result<ComponentInfo, String> {
    if wasm.len() > SIZE_LIMIT {
        return Err(format!(
            "has {} bytes, at most {SIZE_LIMIT} are taken",
            wasm.len()
        ));
    }
    if wasmtime::Engine::detect_precompiled(wasm).is_some() {
        return Err("is compiled already: only WebAssembly components are taken".to_owned());
    }
    let mut reading = Reading {
        info: ComponentInfo {
            size: wasm.len(),
            ..ComponentInfo::default()
        },
        depth: 0,
    };
    for payload in Parser::new(0).parse_all(wasm) {
        reading.take(payload.map_err(|error| malformed(&error))?)?;
    }
    Ok(reading.info)
}

struct Reading {
    info: ComponentInfo,
    /// How deep in nested modules and components the reader is. Only imports and exports at depth 1 are the component's own.
    depth: usize,
}

impl Reading {
    fn take(&mut self, payload: Payload<'_>) -> Result<(), String> {
        match payload {
            Payload::Version { encoding, .. } => self.begin(encoding),
            Payload::End(_) => {
                self.depth -= 1;
                Ok(())
            }
            Payload::ComponentImportSection(imports) if self.depth == 1 => self.imports(imports),
            Payload::ComponentExportSection(exports) if self.depth == 1 => self.exports(exports),
            Payload::CodeSectionEntry(body) => self.function(&body),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, encoding: Encoding) -> Result<(), String> {
        if self.depth == 0 && encoding == Encoding::Module {
            return Err("is a core module, not a component: build it for wasm32-wasip2".to_owned());
        }
        self.depth += 1;
        if encoding == Encoding::Module {
            self.info.modules += 1;
            within("core modules", self.info.modules, MODULES_LIMIT)?;
        }
        Ok(())
    }

    fn imports(&mut self, imports: ComponentImportSectionReader<'_>) -> Result<(), String> {
        for import in imports {
            let name = import.map_err(|error| malformed(&error))?.name.name;
            if !is_allowed(name) {
                self.info.forbidden.push(name.to_owned());
            }
            self.info.imports.push(name.to_owned());
        }
        Ok(())
    }

    fn exports(&mut self, exports: ComponentExportSectionReader<'_>) -> Result<(), String> {
        for export in exports {
            let name = export.map_err(|error| malformed(&error))?.name.name;
            if is_version_of(name, PIPELINE, TRACK) {
                self.info.world = Some("handler");
            }
            self.info.exports.push(name.to_owned());
        }
        Ok(())
    }

    fn function(&mut self, body: &FunctionBody<'_>) -> Result<(), String> {
        self.info.functions += 1;
        within("functions", self.info.functions, FUNCTIONS_LIMIT)?;
        let size = body.range().len();
        within("bytes in one function", size, BODY_LIMIT)?;
        self.info.largest_function = self.info.largest_function.max(size);
        let locals = locals(body).map_err(|error| malformed(&error))?;
        if locals > LOCALS_LIMIT {
            return Err(format!(
                "has {locals} locals in one function, at most {LOCALS_LIMIT} are taken"
            ));
        }
        let branches = branches(body).map_err(|error| malformed(&error))?;
        within("branches in one function", branches, CONTROL_LIMIT)
    }
}

fn locals(body: &FunctionBody<'_>) -> Result<u64, BinaryReaderError> {
    let groups = body.get_locals_reader()?.into_iter();
    groups
        .map(|group| group.map(|(count, _)| u64::from(count)))
        .sum()
}

fn branches(body: &FunctionBody<'_>) -> Result<usize, BinaryReaderError> {
    let mut branches = 0;
    for operator in body.get_operators_reader()? {
        branches += usize::from(matches!(
            operator?,
            Operator::Block { .. }
                | Operator::Loop { .. }
                | Operator::If { .. }
                | Operator::BrIf { .. }
                | Operator::BrTable { .. }
        ));
    }
    Ok(branches)
}

fn is_allowed(name: &str) -> bool {
    INTERFACES
        .iter()
        .any(|interface| is_version_of(name, interface, TRACK))
        || wasi::INTERFACES
            .iter()
            .any(|interface| is_version_of(name, interface, "0.2"))
}

/// The version of the interface that a component was built for, if that is one that this server does not speak.
fn other_version(info: &ComponentInfo) -> Option<&str> {
    let names = info.imports.iter().chain(&info.exports);
    let mut versions = names.filter_map(|name| {
        let (_, version) = name
            .strip_prefix(PACKAGE)?
            .strip_prefix('/')?
            .split_once('@')?;
        Some(truncated(version, SHOWN_VERSION))
    });
    versions.find(|version| !is_of_track(version, TRACK))
}

/// Whether `name` is `interface@TRACK.PATCH`.
fn is_version_of(name: &str, interface: &str, track: &str) -> bool {
    name.strip_prefix(interface)
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|version| is_of_track(version, track))
}

/// Whether `version` is `TRACK.PATCH`.
fn is_of_track(version: &str, track: &str) -> bool {
    version
        .strip_prefix(track)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|patch| patch.starts_with(|c: char| c.is_ascii_digit()))
}

fn within(what: &str, value: usize, limit: usize) -> Result<(), String> {
    if value > limit {
        return Err(format!("has more than {limit} {what}"));
    }
    Ok(())
}

fn malformed(error: &BinaryReaderError) -> String {
    format!(
        "is not a WebAssembly component: {} at byte {}",
        error.message(),
        error.offset()
    )
}

fn shown(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let more = names.len().saturating_sub(SHOWN);
    let names: Vec<_> = names
        .iter()
        .take(SHOWN)
        .map(|name| truncated(name, 200))
        .collect();
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty component.
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    /// An empty core module.
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn an_empty_component_exports_nothing() {
        let info = inspect(COMPONENT).unwrap();
        assert_eq!(info.size, 8);
        assert_eq!(info.world, None);
        let reason = screen(COMPONENT, engine::features().unwrap()).unwrap_err();
        assert!(reason.contains("exports no lantern:handler/pipeline@0.1; it exports nothing"));
    }

    #[test]
    fn what_is_no_component_is_refused_with_the_reason() {
        for (wasm, reason) in [
            (MODULE, "is a core module, not a component"),
            (b"", "is not a WebAssembly component"),
            (b"(component)", "is not a WebAssembly component"),
            (b"\0asm\x0d\0\x01", "is not a WebAssembly component"),
            (
                b"\0asm\x0d\0\x01\0\x04\xff\xff\xff\xff\x0f",
                "is not a WebAssembly component",
            ),
        ] {
            let error = inspect(wasm).unwrap_err();
            assert!(error.message().contains(reason), "{wasm:?}: {error}");
        }
    }

    #[test]
    fn compiled_code_is_refused() {
        let code = wasmtime::Engine::default()
            .precompile_component(COMPONENT)
            .unwrap();
        let error = inspect(&code).unwrap_err();
        assert!(error.message().contains("is compiled already"), "{error}");
    }

    /// `value` in LEB128.
    fn leb(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    /// Prefixed with its length.
    fn sized(bytes: &[u8]) -> Vec<u8> {
        [leb(bytes.len()), bytes.to_vec()].concat()
    }

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        [vec![id], sized(content)].concat()
    }

    /// A component of one core module whose functions have these bodies.
    fn component(bodies: &[Vec<u8>]) -> Vec<u8> {
        let types = section(1, &[1, 0x60, 0, 0]);
        let functions = section(3, &[leb(bodies.len()), vec![0; bodies.len()]].concat());
        let code: Vec<u8> = bodies.iter().flat_map(|body| sized(body)).collect();
        let code = section(10, &[leb(bodies.len()), code].concat());
        let module = [MODULE.to_vec(), types, functions, code].concat();
        [COMPONENT.to_vec(), section(1, &module)].concat()
    }

    #[test]
    fn what_would_stop_the_compiler_does_not_reach_it() {
        let end = vec![0x0b];
        let body = |instructions: Vec<u8>| [vec![0], instructions, end.clone()].concat();
        let blocks = |count| body([0x02, 0x40, 0x0b].repeat(count));
        let locals = |count| [vec![1], leb(count), vec![0x7f], end.clone()].concat();
        let modules = |count| [COMPONENT.to_vec(), section(1, MODULE).repeat(count)].concat();
        for (wasm, says) in [
            (
                component(&[locals(50_000)]),
                "has 50000 locals in one function, at most 5000",
            ),
            (
                component(&[blocks(50_001)]),
                "has more than 50000 branches in one function",
            ),
            (
                component(&[body(vec![0x01; 2 << 20])]),
                "has more than 1048576 bytes in one function",
            ),
            (
                component(&vec![body(vec![]); 100_001]),
                "has more than 100000 functions",
            ),
            (modules(201), "has more than 200 core modules"),
        ] {
            let error = inspect(&wasm).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
        let good = component(&[locals(5_000), blocks(50_000)]);
        assert_eq!(inspect(&good).unwrap().functions, 2);
        assert_eq!(inspect(&modules(200)).unwrap().modules, 200);
    }

    /// A component that exports an empty instance by this name.
    fn exporting(name: &str) -> Vec<u8> {
        // An instance made of no exports.
        let instance = section(5, &[1, 1, 0]);
        let name = [vec![0], sized(name.as_bytes())].concat();
        let export = section(11, &[vec![1], name, vec![5, 0, 0]].concat());
        [COMPONENT.to_vec(), instance, export].concat()
    }

    #[test]
    fn a_version_that_this_server_does_not_speak_is_named() {
        for (version, is_spoken) in [
            ("0.1.0", true),
            ("0.1.7", true),
            ("0.2.0", false),
            ("1.0.0", false),
            ("0.10.0", false),
        ] {
            let wasm = exporting(&format!("{PIPELINE}@{version}"));
            let info = inspect(&wasm).unwrap();
            assert_eq!(info.world.is_some(), is_spoken, "{version}");
            let checked = screen(&wasm, engine::features().unwrap());
            let says = format!("is built for version {version} of the handler interface");
            let is_told = checked.is_err_and(|reason| {
                reason.contains(&says) && reason.contains("this server speaks 0.1")
            });
            assert_eq!(is_told, !is_spoken, "{version}");
        }
    }

    #[test]
    fn imports_are_allowed_by_name_and_track() {
        for good in [
            "wasi:io/streams@0.2.0",
            "wasi:io/streams@0.2.12",
            "lantern:handler/assets@0.1.3",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "wasi:io/streams",
            "wasi:io/streams@0.3.0",
            "wasi:io/streams@0.20.1",
            "wasi:io/streamsx@0.2.0",
            "wasi:filesystem/types@0.2.6",
            "wasi:sockets/tcp@0.2.6",
            "lantern:handler/assets@0.2.0",
            "env",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }
}
