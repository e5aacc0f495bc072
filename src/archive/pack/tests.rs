//! Packing, and reading what was packed.
use super::super::{Location, UnpackLimits, UnpackStore};
use super::*;

/// The smallest component that exports the pipeline: an empty instance under its name.
fn component() -> Vec<u8> {
    let name = b"lantern:handler/pipeline@0.1.0";
    let mut wasm = component::HEADER.to_vec();
    // Instance section: one instance made of no exports.
    wasm.extend([0x05, 0x03, 0x01, 0x01, 0x00]);
    let mut export = vec![0x01, 0x00, u8::try_from(name.len()).unwrap()];
    export.extend(name);
    // Sort instance, index 0, no type ascription.
    export.extend([0x05, 0x00, 0x00]);
    wasm.extend([0x0b, u8::try_from(export.len()).unwrap()]);
    wasm.extend(export);
    wasm
}

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        fixture.write("h.wasm", &component());
        fixture.write("m.onnx", &vec![7; 100_000]);
        fixture.write("c.yaml", b"batchSize: 4\nuseVenv: true\n");
        fixture.write("data/labels.json", b"[1]");
        fixture.write("data/sub/deep.txt", b"x");
        fixture.write("data/__pycache__/x.pyc", b"x");
        fixture
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn spec(&self, form: PackForm) -> PackSpec {
        PackSpec {
            name: ModelName::new("digits").unwrap(),
            version: Version::new("1.0").unwrap(),
            runtime: Runtime::Wasm,
            handler: self.path("h.wasm"),
            serialized_file: Some(self.path("m.onnx")),
            model_file: None,
            requirements_file: None,
            config_file: Some(self.path("c.yaml")),
            extra_files: vec![self.path("data").display().to_string()],
            export_path: self.0.path().to_owned(),
            form,
            force: false,
        }
    }
}

const FORMS: [PackForm; 4] = [
    PackForm::Zip,
    PackForm::StoredZip,
    PackForm::Tar,
    PackForm::Directory,
];

#[test]
fn what_is_packed_can_be_unpacked() {
    for form in FORMS {
        let fixture = Fixture::new();
        let packed = pack(&fixture.spec(form)).unwrap();
        let names: Vec<_> = packed.files.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "c.yaml",
            "h.wasm",
            "labels.json",
            "m.onnx",
            "sub/deep.txt",
            MANIFEST,
        ];
        assert_eq!(names, expected, "{form:?}");
        let store = UnpackStore::open(&fixture.path("unpacked"), UnpackLimits::default()).unwrap();
        let unpacked = store
            .unpack(&Location::local(&packed.path).unwrap())
            .unwrap();
        for (name, size) in &packed.files {
            let path = unpacked.directory().join(name);
            assert_eq!(fs::metadata(path).unwrap().len(), *size, "{form:?} {name}");
        }
        assert_eq!(unpacked.contents().handler.as_str(), "h.wasm");
        assert_eq!(unpacked.contents().config.options.batch_size, Some(4));
        assert_eq!(
            packed.digest.as_deref().unwrap_or(unpacked.digest()),
            unpacked.digest()
        );
    }
}

#[test]
fn the_same_files_make_the_same_bytes() {
    for form in [PackForm::Zip, PackForm::StoredZip, PackForm::Tar] {
        let digests: Vec<_> = (0..2)
            .map(|_| pack(&Fixture::new().spec(form)).unwrap().digest)
            .collect();
        assert_eq!(digests[0], digests[1], "{form:?}");
    }
}

#[test]
fn nothing_but_the_files_decides_the_bytes() {
    use std::os::unix::fs::PermissionsExt as _;

    for form in [PackForm::Zip, PackForm::StoredZip, PackForm::Tar] {
        let digest = |extra: &[&str], mode, seconds| {
            let fixture = Fixture::new();
            for name in ["h.wasm", "data/labels.json", "data/sub/deep.txt"] {
                let file = File::options()
                    .write(true)
                    .open(fixture.path(name))
                    .unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
                file.set_modified(time).unwrap();
                let mode = fs::Permissions::from_mode(mode);
                file.set_permissions(mode).unwrap();
            }
            let mut spec = fixture.spec(form);
            let extra = extra.iter();
            spec.extra_files = extra
                .map(|name| fixture.path(name).display().to_string())
                .collect();
            let packed = pack_checked(&spec, Some(&key()), |_| Ok(())).unwrap();
            (packed.digest, packed.origin)
        };
        let first = digest(&["data/labels.json", "m.onnx"], 0o644, 1_000_000_000);
        let second = digest(&["m.onnx", "data/labels.json"], 0o750, 2_000_000_001);
        assert_eq!(first, second, "{form:?}");
    }
}

fn key() -> SigningKey {
    // The example of RFC 8410.
    let pem = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
    SigningKey::from_pem(pem.as_bytes()).unwrap()
}

#[test]
fn every_form_is_signed_alike() {
    let mut origins = Vec::new();
    for form in FORMS {
        let fixture = Fixture::new();
        let packed = pack_checked(&fixture.spec(form), Some(&key()), |_| Ok(())).unwrap();
        assert_eq!(packed.origin.signer, Some(key().signer()));
        let (last, _) = packed.files.last().unwrap();
        assert_eq!(last, SIGNATURE, "{form:?}");
        origins.push(packed.origin);
        let unsigned = Fixture::new();
        let unsigned = pack(&unsigned.spec(form)).unwrap().origin;
        assert_eq!(unsigned.signer, None);
        assert_eq!(unsigned.digest, packed.origin.digest);
    }
    assert!(origins.iter().all(|origin| *origin == origins[0]));
}

#[test]
fn no_file_is_packed_as_the_signature() {
    let fixture = Fixture::new();
    fixture.write("data/mar-inf/Signature.json", b"{}");
    let message = pack(&fixture.spec(PackForm::Tar)).unwrap_err().to_string();
    assert!(message.contains("--sign writes the signature"), "{message}");
}

#[test]
fn the_manifest_has_torchserves_members() {
    let fixture = Fixture::new();
    let packed = pack(&fixture.spec(PackForm::Directory)).unwrap();
    let manifest = fs::read_to_string(packed.path.join(MANIFEST)).unwrap();
    insta::assert_snapshot!("manifest", manifest);
}

#[test]
fn settings_are_checked_before_anything_is_written() {
    let fixture = Fixture::new();
    assert_eq!(
        pack(&fixture.spec(PackForm::Zip)).unwrap().warnings[0].rule,
        "has no effect: no Python is run"
    );
    fixture.write("c.yaml", b"batchsizes: 4\n");
    fs::remove_file(fixture.path("digits.mar")).unwrap();
    let message = pack(&fixture.spec(PackForm::Zip)).unwrap_err().to_string();
    assert!(message.contains("did you mean batchSize?"), "{message}");
    assert!(!fixture.path("digits.mar").exists());
}

#[test]
fn an_archive_is_replaced_only_with_force() {
    for form in FORMS {
        let fixture = Fixture::new();
        let mut spec = fixture.spec(form);
        pack(&spec).unwrap();
        let message = pack(&spec).unwrap_err().to_string();
        assert!(
            message.contains("already exists.\nPlease specify --force/-f"),
            "{message}"
        );
        spec.force = true;
        pack(&spec).unwrap();
    }
}

#[test]
fn missing_files_are_named_in_torchs_words() {
    let fixture = Fixture::new();
    let missing = fixture.path("nope.json");
    let expected = format!("File does not exist: {}", missing.display());
    let mut spec = fixture.spec(PackForm::Zip);
    spec.extra_files = vec![missing.display().to_string()];
    assert_eq!(pack(&spec).unwrap_err().to_string(), expected);
    spec.extra_files = Vec::new();
    spec.serialized_file = Some(missing);
    assert_eq!(pack(&spec).unwrap_err().to_string(), expected);
}

#[test]
fn wildcards_are_expanded() {
    let fixture = Fixture::new();
    fixture.write("a.txt", b"a");
    fixture.write("b.txt", b"b");
    let mut spec = fixture.spec(PackForm::Zip);
    spec.extra_files = vec![fixture.path("*.txt").display().to_string()];
    let packed = pack(&spec).unwrap();
    let names: Vec<_> = packed.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["a.txt", "b.txt", "c.yaml", "h.wasm", "m.onnx", MANIFEST]
    );
}

#[test]
fn two_files_of_one_name_are_refused() {
    let fixture = Fixture::new();
    fixture.write("data/M.onnx", b"another");
    let message = pack(&fixture.spec(PackForm::Zip)).unwrap_err().to_string();
    assert!(message.contains("must be one file"), "{message}");
}

#[test]
fn handlers_must_be_components() {
    let fixture = Fixture::new();
    fixture.write("core.wasm", b"\0asm\x01\0\0\0");
    let refused = |handler: PathBuf| {
        let spec = PackSpec {
            handler,
            ..fixture.spec(PackForm::Zip)
        };
        pack(&spec).unwrap_err().to_string()
    };
    assert!(refused("image_classifier".into()).contains("built into TorchServe"));
    assert!(refused(fixture.path("handler.py")).contains("Python is not run here"));
    assert!(refused(fixture.path("nope.wasm")).contains("File does not exist"));
    assert!(refused(fixture.path("core.wasm")).contains("core WebAssembly module"));
}
