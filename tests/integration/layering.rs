//! Checks the direction of imports, and that every guest has a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module may import, as in `src/ARCHITECTURE.md`. `ROOTS` may import everything.
const TABLE: [(&str, &[&str]); 26] = [
    ("error", &[]),
    ("refusals", &[]),
    ("memory", &[]),
    ("budget", &["refusals", "error"]),
    ("place", &[]),
    ("hex", &[]),
    ("nanos", &[]),
    ("signing", &[]),
    ("sandbox", &[]),
    ("tensor", &["error"]),
    ("model", &["tensor", "error"]),
    ("payload", &["budget", "tensor", "nanos", "error"]),
    ("metrics", &["model", "refusals", "sandbox", "error"]),
    (
        "config",
        &[
            "listen", "metrics", "model", "place", "sandbox", "signing", "tensor", "token", "error",
        ],
    ),
    ("telemetry", &["model", "error"]),
    (
        "archive",
        &["model", "config", "hex", "place", "signing", "error"],
    ),
    ("backend", &["memory", "tensor", "model", "error"]),
    (
        "handler",
        &[
            "budget", "payload", "tensor", "model", "metrics", "config", "hex", "nanos", "place",
            "error",
        ],
    ),
    (
        "runtime",
        &[
            "handler", "backend", "sandbox", "memory", "budget", "payload", "tensor", "metrics",
            "model", "nanos", "error",
        ],
    ),
    (
        "catalog",
        &[
            "runtime",
            "fair_queue",
            "archive",
            "sandbox",
            "payload",
            "model",
            "metrics",
            "config",
            "nanos",
            "signing",
            "error",
        ],
    ),
    ("fair_queue", &["payload", "nanos"]),
    ("listen", &["budget", "refusals", "place", "error"]),
    ("token", &["model", "hex", "place", "error"]),
    (
        "tenants",
        &[
            "catalog",
            "fair_queue",
            "token",
            "config",
            "metrics",
            "model",
            "place",
            "error",
        ],
    ),
    (
        "api",
        &[
            "listen", "tenants", "token", "catalog", "budget", "payload", "tensor", "model",
            "metrics", "nanos", "refusals", "error",
        ],
    ),
    ("lib", &[]),
];
const ROOTS: [&str; 4] = ["server", "cli", "main", "fuzzing"];

/// The only modules that may use a library.
const LIBRARIES: [(&str, &[&str]); 18] = [
    ("landlock", &["sandbox"]),
    ("seccompiler", &["sandbox"]),
    ("libc", &["sandbox", "memory"]),
    ("axum", &["api"]),
    ("hyper", &["api"]),
    ("tower", &["api"]),
    ("tower_http", &["api"]),
    ("prometheus", &["metrics"]),
    ("multer", &["api"]),
    ("wasmtime", &["handler"]),
    ("ort", &["backend"]),
    ("zip", &["archive"]),
    ("reqwest", &["archive"]),
    ("object_store", &["archive"]),
    ("nvml_wrapper", &["metrics"]),
    ("tonic", &["api"]),
    ("prost", &["api"]),
    ("ring", &["signing"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The top-level module that a file of `src` belongs to.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str();
    first.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The code of a file without line comments: documentation may name any module.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// Names that follow `crate::` in `code`, those in braces included.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$')
        {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_names(group)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// The first name of each member of a group `a::b, c::{d, e}, f}`.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(identifier(group[start..at].trim()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> Option<String> {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_');
    let name = &text[..end.unwrap_or(text.len())];
    (!name.is_empty()).then(|| name.to_owned())
}

#[test]
fn modules_import_what_the_table_allows() {
    let mut breaches = Vec::new();
    for file in sources(&root().join("src")) {
        let module = module(&file);
        if ROOTS.contains(&module.as_str()) {
            continue;
        }
        let row = TABLE.iter().find(|(name, _)| *name == module);
        let (_, allowed) = row.unwrap_or_else(|| panic!("module {module} is not in the table"));
        for import in imports(&code(&file)) {
            if import != module && !allowed.contains(&import.as_str()) {
                breaches.push(format!("{} imports {import}", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn libraries_are_known_to_their_module_alone() {
    let mut breaches = Vec::new();
    for file in sources(&root().join("src")) {
        let (module, code) = (module(&file), code(&file));
        for (library, owners) in LIBRARIES {
            let uses = [
                format!("use {library}::"),
                format!(" {library}::"),
                format!("({library}::"),
            ];
            if !owners.contains(&module.as_str()) && uses.iter().any(|text| code.contains(text)) {
                breaches.push(format!("{} uses {library}", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let code =
        "use crate::a::b;\nuse crate::{c::{d, e}, f};\ncrate::g::h();\nuse $crate::i;\nmycrate::j";
    let expected = ["a", "c", "f", "g"].map(str::to_owned);
    assert_eq!(imports(code), BTreeSet::from(expected));
}

#[test]
fn every_guest_has_a_test() {
    let tests = sources(&root().join("tests/integration"));
    let tests = tests
        .into_iter()
        .chain(sources(&root().join("src/handler/tests")));
    let tests: String = tests
        .chain([root().join("src/handler/tests.rs")])
        .map(|file| code(&file))
        .collect();
    for entry in fs::read_dir(root().join("tests/guests")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            assert!(
                tests.contains(&format!("\"{name}\"")),
                "guest {name} has no test"
            );
        }
    }
}
