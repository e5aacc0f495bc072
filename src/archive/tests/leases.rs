//! Leases: how long unpacked files are kept.

use super::raw::{RawEntry, zip};
use super::*;

fn archive(extra: &str) -> Vec<u8> {
    let manifest = br#"{"model": {"modelName": "m", "modelVersion": "1", "handler": "h.wasm"}}"#;
    zip(&[
        RawEntry::new("h.wasm", &component::HEADER),
        RawEntry::new("extra", extra.as_bytes()),
        RawEntry::new(MANIFEST, manifest),
    ])
}

#[test]
fn equal_archives_share_their_files() {
    let bench = Bench::new();
    let store = bench.store();
    let first = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    let second = store.unpack(&bench.put("b.mar", &archive("x"))).unwrap();
    let other = store.unpack(&bench.put("c.mar", &archive("y"))).unwrap();
    assert_eq!(first.directory(), second.directory());
    assert_ne!(first.directory(), other.directory());
    assert!(first.directory().ends_with(first.digest()));
}

#[test]
fn files_go_with_the_last_lease() {
    let bench = Bench::new();
    let store = bench.store();
    let first = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    let second = first.clone();
    let directory = first.directory().to_owned();
    drop(first);
    assert!(directory.is_dir());
    drop(second);
    assert!(!directory.exists());
    let again = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    assert!(again.directory().is_dir());
}

#[test]
fn a_lease_outlives_its_store() {
    let bench = Bench::new();
    let store = bench.store();
    let lease = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    let directory = lease.directory().to_owned();
    drop(store);
    assert!(directory.is_dir());
    drop(lease);
    assert!(!directory.parent().unwrap().exists());
}

#[test]
fn a_second_server_leaves_the_first_ones_files_alone() {
    let bench = Bench::new();
    let (first, second) = (bench.store(), bench.store());
    let location = bench.put("a.mar", &archive("x"));
    let mine = first.unpack(&location).unwrap();
    let theirs = second.unpack(&location).unwrap();
    assert_ne!(mine.directory(), theirs.directory());
    drop((theirs, second));
    let third = bench.store();
    assert!(mine.directory().join("extra").is_file());
    drop(third);
}

#[test]
fn files_of_dead_processes_are_swept() {
    let bench = Bench::new();
    let stale = bench.path("unpacked/0123");
    fs::create_dir_all(stale.join("digest")).unwrap();
    fs::write(stale.join("lock"), "").unwrap();
    let foreign = bench.path("unpacked/not-ours");
    fs::create_dir_all(&foreign).unwrap();
    let _store = bench.store();
    assert!(!stale.exists());
    assert!(
        foreign.exists(),
        "a directory without a lock is not ours to remove"
    );
}

#[test]
fn a_root_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let bench = Bench::new();
    let open = |name: &str| UnpackStore::open(&bench.path(name), bench.limits);
    fs::create_dir(bench.path("shared")).unwrap();
    fs::set_permissions(bench.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(open("shared").is_err());
    fs::create_dir(bench.path("real")).unwrap();
    symlink(bench.path("real"), bench.path("link")).unwrap();
    assert!(open("link").is_err());
    open("fresh").unwrap();
    let mode = fs::metadata(bench.path("fresh"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn many_threads_get_one_copy() {
    let bench = Bench::new();
    let store = bench.store();
    let location = bench.put("a.mar", &archive("x"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let lease = store.unpack(&location).unwrap();
                    assert!(lease.directory().join("extra").is_file());
                }
            });
        }
    });
}
