//! Reading the manifest and the settings of an archive without unpacking it.

use super::*;

const MANIFEST: &str = r#"{"model": {"modelName": "m", "modelVersion": "2.5", "serializedFile": "m.onnx", "configFile": "c.yaml"}}"#;
const CONFIG: &str = "responseTimeout: 7\n";

fn seen(location: &Location) -> Option<(String, String, Option<u64>)> {
    let summary = read_summary(location, UnpackLimits::default())?;
    let timeout = summary.config.options.response_timeout;
    Some((
        summary.manifest.name?.to_string(),
        summary.manifest.version.to_string(),
        timeout.map(|timeout| timeout.as_secs()),
    ))
}

fn expected(timeout: Option<u64>) -> (String, String, Option<u64>) {
    ("m".to_owned(), "2.5".to_owned(), timeout)
}

fn zipped(entries: &[(&str, &str)]) -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in entries {
        let options = ::zip::write::SimpleFileOptions::default();
        zip.start_file(*name, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_zip_and_a_directory_say_which_model_they_are() {
    let bench = Bench::new();
    // Its name is read even if other entries are wrong.
    let zip = zipped(&[
        ("m.onnx", "weights"),
        ("c.yaml", CONFIG),
        (crate::archive::MANIFEST, MANIFEST),
    ]);
    assert_eq!(seen(&bench.put("m.mar", &zip)), Some(expected(Some(7))));
    let wrapped = bench.path("models/only/MAR-INF");
    fs::create_dir_all(&wrapped).unwrap();
    fs::write(wrapped.join("MANIFEST.json"), MANIFEST).unwrap();
    fs::write(bench.path("models/only/c.yaml"), CONFIG).unwrap();
    assert_eq!(
        seen(&Location::local(&bench.path("models")).unwrap()),
        Some(expected(Some(7)))
    );
}

#[test]
fn what_cannot_be_told_at_once_is_not_told() {
    let bench = Bench::new();
    let large = format!("{MANIFEST}{}", " ".repeat(2 << 20));
    for (name, content) in [
        ("junk.mar", b"junk".to_vec()),
        (
            "other.tar.gz",
            zipped(&[(crate::archive::MANIFEST, MANIFEST)]),
        ),
        ("none.mar", zipped(&[("a", "b")])),
        ("bad.mar", zipped(&[(crate::archive::MANIFEST, "{")])),
        ("large.mar", zipped(&[(crate::archive::MANIFEST, &large)])),
    ] {
        assert_eq!(seen(&bench.put(name, &content)), None, "{name}");
    }
    let settings = zipped(&[("c.yaml", "a: ["), (crate::archive::MANIFEST, MANIFEST)]);
    let named = seen(&bench.put("settings.mar", &settings));
    assert_eq!(named, Some(expected(None)));
}
