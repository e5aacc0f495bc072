//! What the cache gives back, and what it refuses.

use std::fs;

use wasmtime::Engine;

use super::*;

fn cache(directory: &Path) -> CodeCache {
    CodeCache::open(directory).unwrap()
}

fn id(wasm: &[u8]) -> CodeId {
    CodeId::of(Sha256::digest(wasm).into()).unwrap()
}

fn code(bytes: &[u8]) -> Code {
    Code::verified(Sealed::of("test", bytes).unwrap()).unwrap()
}

/// The bytes of the code of that name.
fn found(cache: &CodeCache, id: &CodeId) -> Option<Vec<u8>> {
    Some(cache.get(id)?.sealed().read().unwrap())
}

#[test]
fn code_comes_back_as_it_was_put_also_to_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let first = cache(directory.path());
    let id = id(b"wasm");
    assert_eq!(found(&first, &id), None);
    first.put(&id, &code(b"code")).unwrap();
    let second = cache(directory.path());
    assert_eq!(found(&second, &id).unwrap(), b"code");
    assert_eq!(found(&second, &super::tests::id(b"other")), None);
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unnoticed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let id = id(b"wasm");
    cache.put(&id, &code(&[7; 200])).unwrap();
    let path = directory.path().join("code").join(&id.0);
    let good = fs::read(&path).unwrap();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1;
        overwrite(&path, &bad);
        assert_eq!(found(&cache, &id), None, "byte {index}");
        overwrite(&path, &good[..index]);
        assert_eq!(found(&cache, &id), None, "cut at {index}");
    }
    overwrite(&path, &[&good[..], b"x"].concat());
    assert_eq!(found(&cache, &id), None, "one byte more");
    overwrite(&path, &good);
    assert!(cache.get(&id).is_some());
}

#[test]
fn code_under_another_name_or_key_is_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let [a, b] = [id(b"a"), id(b"b")];
    cache.put(&a, &code(b"code")).unwrap();
    let folder = directory.path().join("code");
    fs::copy(folder.join(&a.0), folder.join(&b.0)).unwrap();
    assert_eq!(found(&cache, &b), None);
    fs::write(directory.path().join("key"), [1; key::BYTES]).unwrap();
    assert_eq!(found(&super::tests::cache(directory.path()), &a), None);
}

#[test]
fn code_for_other_settings_has_another_name() {
    let digest = Sha256::digest(b"wasm").into();
    assert_eq!(
        CodeId::of(digest).unwrap(),
        CodeId::with(engine::identity().unwrap(), digest)
    );
    let other = engine::identity_of(&Engine::default());
    assert_ne!(CodeId::of(digest).unwrap(), CodeId::with(other, digest));
}

#[test]
fn files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let id = id(b"wasm");
    cache.put(&id, &code(b"code")).unwrap();
    let mode = |path: &str| {
        let path = directory.path().join(path);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&format!("code/{}", id.0)), 0o400);
    assert_eq!(mode("code"), 0o700);
    assert_eq!(mode("key"), 0o600);
}

#[test]
fn the_code_unused_for_longest_is_swept() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let ids: Vec<_> = (0..=FILES_LIMIT)
        .map(|index| id(&index.to_le_bytes()))
        .collect();
    for id in &ids {
        cache.put(id, &code(b"code")).unwrap();
        if id != &ids[0] {
            assert!(cache.get(&ids[0]).is_some());
        }
    }
    let files = fs::read_dir(directory.path().join("code")).unwrap();
    assert_eq!(files.count(), FILES_LIMIT);
    assert!(cache.get(&ids[0]).is_some());
}

#[test]
fn a_broken_key_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("key"), "short").unwrap();
    let first = cache(directory.path());
    let id = id(b"wasm");
    first.put(&id, &code(b"code")).unwrap();
    assert!(cache(directory.path()).get(&id).is_some());
}

#[test]
fn what_is_put_in_the_place_of_the_directory_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let (path, aside) = (root.path().join("cache"), root.path().join("aside"));
    let opened = cache(&path);
    let id = id(b"wasm");
    opened.put(&id, &code(b"code")).unwrap();
    fs::rename(&path, &aside).unwrap();
    let other = cache(&path);
    other.put(&id, &code(b"other")).unwrap();
    assert_eq!(found(&opened, &id).unwrap(), b"code");
    opened
        .put(&super::tests::id(b"next"), &code(b"next"))
        .unwrap();
    assert_eq!(fs::read_dir(aside.join("code")).unwrap().count(), 2);
}

#[test]
fn a_link_in_the_place_of_code_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path());
    let [a, b] = [id(b"a"), id(b"b")];
    cache.put(&a, &code(b"code")).unwrap();
    let path = directory.path().join("code").join(&a.0);
    let moved = path.with_file_name(&b.0);
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    assert_eq!(found(&cache, &a), None);
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}
