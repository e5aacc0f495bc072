//! Leases: how long unpacked files are kept.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

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
fn archives_are_unpacked_where_no_other_user_can_write() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let open = |name: &str| UnpackStore::open(&bench.path(name), bench.limits);
    fs::create_dir(bench.path("shared")).unwrap();
    fs::set_permissions(bench.path("shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in ["shared", "fresh"] {
        let store = open(name).unwrap();
        assert!(store.root().starts_with(bench.path(name)));
        assert_eq!(store.directory().parent(), Some(store.root()));
        let mode = fs::metadata(store.root()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
    fs::write(bench.path("file"), "").unwrap();
    assert!(open("file").is_err());
    fs::set_permissions(bench.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(open("shared").is_err(), "others could rename what is in it");
}

/// Ways in which another program removes files of an archive, or cuts them.
fn damage(lease: &Unpacked) -> [PathBuf; 4] {
    let process = lease.directory().parent().unwrap().to_owned();
    let root = process.parent().unwrap().to_owned();
    [
        lease.directory().join("extra"),
        lease.directory().to_owned(),
        process,
        root,
    ]
}

fn remove_any(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn files_that_another_program_removed_come_back() {
    let bench = Bench::new();
    let store = bench.store();
    let lease = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    let extra = lease.directory().join("extra");
    assert!(lease.is_whole());
    assert!(!lease.restore().unwrap(), "there is nothing to do");
    for removed in damage(&lease) {
        remove_any(&removed);
        assert!(!lease.is_whole(), "{removed:?}");
        assert!(lease.restore().unwrap(), "{removed:?}");
        assert!(lease.is_whole() && !lease.restore().unwrap(), "{removed:?}");
        assert_eq!(fs::read_to_string(&extra).unwrap(), "x");
        // The directory is locked again: a server that starts leaves it alone.
        drop(bench.store());
        assert!(extra.is_file(), "{removed:?}");
    }
    fs::write(&extra, "").unwrap();
    assert!(!lease.is_whole(), "a file that was cut");
    assert!(lease.restore().unwrap());
    let root = store.root().to_owned();
    drop((lease, store));
    let left = files(&root);
    assert_eq!(left, [root.join("lock")]);
}

#[test]
fn a_second_registration_finds_whole_files() {
    let bench = Bench::new();
    let store = bench.store();
    let (first, second) = (
        bench.put("a.mar", &archive("x")),
        bench.put("b.mar", &archive("x")),
    );
    let first_lease = store.unpack(&first).unwrap();
    for removed in damage(&first_lease) {
        remove_any(&removed);
        let second_lease = store.unpack(&second).unwrap();
        assert!(first_lease.is_whole() && second_lease.is_whole());
    }
    // Each comes back from its own archive.
    let second_lease = store.unpack(&second).unwrap();
    fs::remove_file(first.path()).unwrap();
    remove_any(second_lease.directory());
    assert!(first_lease.restore().is_err());
    assert!(second_lease.restore().unwrap());
}

/// Whoever makes the directory anew decides what is loaded from it.
#[test]
fn nothing_comes_back_into_a_directory_of_others() {
    let bench = Bench::new();
    let store = bench.store();
    let lease = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    let root = store.root().to_owned();
    let precious = bench.path("precious");
    fs::write(&precious, "kept").unwrap();
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
    symlink(&precious, root.join("lock")).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o777)).unwrap();
    let refused = lease.restore().unwrap_err().to_string();
    assert!(refused.contains("making the directory"), "{refused}");
    // Not even where others could write for a moment only.
    fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    assert!(lease.restore().is_err());
    assert_eq!(fs::read_to_string(precious).unwrap(), "kept");
}

#[test]
fn files_come_back_from_the_same_archive_or_not_at_all() {
    let bench = Bench::new();
    let store = bench.store();
    let lease = store.unpack(&bench.put("a.mar", &archive("x"))).unwrap();
    remove_any(lease.directory());
    bench.put("a.mar", &archive("y"));
    let changed = lease.restore().unwrap_err().to_string();
    assert!(changed.contains("register the version anew"), "{changed}");
    fs::remove_file(bench.path("a.mar")).unwrap();
    assert!(lease.restore().is_err());
    bench.put("a.mar", &archive("x"));
    assert!(lease.restore().unwrap());
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
