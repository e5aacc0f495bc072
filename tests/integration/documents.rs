//! Checks that code shown in a document is the code that is built and tested.

use std::fmt::Write as _;
use std::path::Path;

use lantern::config::{model, server};

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

#[test]
fn every_kind_of_file_that_is_not_served_has_a_recipe() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/exporting.md")).unwrap();
    for extension in lantern::model::UNSERVED
        .iter()
        .flat_map(|kind| kind.extensions)
    {
        assert!(page.contains(&format!("`.{extension}`")), "{extension}");
    }
}

/// A row of a table.
fn row(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A default as a document shows it.
fn default(text: &str) -> String {
    match text
        .strip_prefix('(')
        .and_then(|text| text.strip_suffix(')'))
    {
        _ if text.is_empty() => String::new(),
        Some(found) => found.to_owned(),
        None => format!("`{text}`"),
    }
}

fn meaning(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
}

fn server_settings(page: &mut String) {
    *page += &row(&["key", "default", "value", "wrong", "meaning", "variable"]);
    *page += "|---|---|---|---|---|---|\n";
    for key in server::keys().filter(|key| key.is_setting()) {
        let variable = key.environment_variable();
        let variable = variable.map_or_else(String::new, |(name, _)| format!("`{name}`"));
        let name = format!("`{}`", key.name);
        let value = (key.shape)();
        *page += &row(&[
            &name,
            &default(key.default),
            &value,
            match key.weight {
                server::Weight::Safety => "stops, safety",
                server::Weight::Needed => "stops",
                server::Weight::Light => "warns",
            },
            &meaning(key.lines),
            &variable,
        ]);
    }
}

fn model_settings(page: &mut String) {
    *page += &row(&["key", "default", "value", "wrong", "meaning"]);
    *page += "|---|---|---|---|---|\n";
    for key in model::keys() {
        let name = format!("`{}`", key.name);
        *page += &row(&[
            &name,
            &default(key.default),
            &(key.shape)(),
            match key.weight {
                model::Weight::Safety => "fails, safety",
                model::Weight::Needed => "fails",
                model::Weight::Light => "warns",
            },
            &meaning(key.lines),
        ]);
    }
}

fn ignored<'k>(page: &mut String, keys: impl Iterator<Item = (&'k str, &'k str)>) {
    *page += "\n| key without effect | why |\n|---|---|\n";
    for (name, why) in keys {
        let why = why
            .trim_start_matches("has no effect")
            .trim_start_matches(':');
        writeln!(page, "| `{name}` | {} |", why.trim()).unwrap();
    }
}

/// `docs/settings.md`, from the tables of keys.
fn settings_page() -> String {
    let mut page = "# Settings

This page is written by a test from `src/config/server/keys.rs` and `src/config/model/keys.rs`: change a row there, and run
`UPDATE_DOCUMENTS=1 cargo nextest run --workspace -E 'test(settings_are_documented)'`.

## The server

In `config.properties`, as `--set KEY=VALUE`, or as a variable. Variables that start with `LANTERN_` are always read, as is
`TS_OPEN_INFERENCE_PROTOCOL`, others where the file says `enable_envvars_config=true`. A variable counts over a flag, a flag
over the file.

What a wrong value does stands under \"wrong\". It *stops* the start, as in TorchServe; or it *warns*, and the default holds, or
what TorchServe falls back to: `false` for a truth value, `log` for `metrics_mode`. A known key in other capitals is taken with a
warning, but where *safety* hangs on it: that stops the start.

"
    .to_owned();
    server_settings(&mut page);
    let without_effect = server::keys().filter_map(|key| match key.role {
        server::Role::Ignored(why) => Some((key.name, why)),
        _ => None,
    });
    ignored(&mut page, without_effect);
    page += "
## A model

In the `model-config.yaml` of its archive. Dots stand for levels: `lantern.limits.cpu` is `cpu` below `limits` below `lantern`.
A limit may be as high as the server's key `lantern_max_` of the same name.

A wrong value *fails* the model, or it *warns* and is ignored. Of TorchServe's keys with a number only one above the range fails the
model, and `batchSize` below 1; another one below it warns, and the default or the least holds; a value of another type is ignored with a
warning, as there. A known key in other capitals is taken with a warning, but where
*safety* hangs on it.

";
    model_settings(&mut page);
    ignored(&mut page, model::IGNORED.into_iter());
    page
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever runs the test asks for a new page"
)]
fn settings_are_documented_as_they_are() {
    let path = Path::new(ROOT).join("docs/settings.md");
    let page = settings_page();
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let how = "UPDATE_DOCUMENTS=1 cargo nextest run --workspace -E 'test(settings_are_documented)'";
    assert!(
        written == page,
        "docs/settings.md is not what the tables of keys say; to write it anew: {how}"
    );
}
