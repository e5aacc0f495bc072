//! A server that is killed in the middle of a management call: the next one finds either the state before or the state after.
//!
//! inotify reports which files are created, renamed and removed while one call is served. The server is killed at the
//! first of these moments, in another run at the second, and so on.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::process::{Signal, kill_process};

use crate::support::origin::Origin;
use crate::support::{Life, Model, Place};

/// A number of moments that no call reaches.
const MOMENTS: usize = 60;

/// Watches for files that are created, removed or renamed.
fn watch(place: &Place, flags: CreateFlags) -> OwnedFd {
    let queue = inotify::init(flags | CreateFlags::CLOEXEC).unwrap();
    let hidden = place.store().join(".lantern");
    for directory in [place.store(), hidden, place.snapshot_directory()] {
        let moments = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE;
        inotify::add_watch(&queue, directory, moments).unwrap();
    }
    queue
}

/// Counts the moments that were reported.
fn passed(queue: &OwnedFd) -> usize {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(queue, &mut buffer);
    std::iter::from_fn(|| reader.next().ok().map(|_| ())).count()
}

/// Kills the server at moment number `count`, unless the caller has set the returned flag: its process may have ended then.
/// If there is no such moment, the thread ends with the test's process.
fn kill_at(place: &Place, count: usize, life: &Life) -> Arc<Mutex<bool>> {
    let (queue, id) = (watch(place, CreateFlags::empty()), life.id());
    let is_over = Arc::new(Mutex::new(false));
    let over = Arc::clone(&is_over);
    std::thread::spawn(move || {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&queue, &mut buffer);
        for _ in 0..count {
            reader.next().unwrap();
        }
        if !*over.lock() {
            kill_process(id, Signal::KILL).unwrap();
        }
    });
    is_over
}

fn plain() -> Model {
    Model::new("passthrough").named("plain").without_workers()
}

/// The models that a server lists, and the files in the store.
async fn seen(place: &Place, life: &Life) -> (BTreeSet<String>, BTreeSet<String>) {
    (
        life.versions().await,
        names(&place.store(), |name| !name.starts_with('.')),
    )
}

fn names(directory: &Path, which: fn(&str) -> bool) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| which(name)).collect()
}

/// Whether no file is left half-done. The part of an unfinished download may stay, for a resumption.
fn is_tidy(place: &Place) -> bool {
    let half_done = |name: &str| name.ends_with(".partial") || name.ends_with(".pending");
    names(&place.store().join(".lantern"), half_done).is_empty()
        && names(&place.snapshot_directory(), half_done).is_empty()
}

/// Kills servers in copies of `place` while they serve one call, and checks what the next server restores.
async fn kill_during(place: &Place, method: &str, path: &str) {
    let undisturbed = place.copy();
    let life = undisturbed.settled(&[]).await;
    let before = seen(&undisturbed, &life).await;
    let queue = watch(&undisturbed, CreateFlags::NONBLOCK);
    assert_eq!(life.ask(method, path).await.0, 200);
    let moments = passed(&queue);
    assert!((4..MOMENTS).contains(&moments), "{moments} moments");
    let after = seen(&undisturbed, &life).await;
    assert_ne!(before, after);
    life.end(Signal::KILL).await;
    for count in 1..=moments {
        let place = place.copy();
        let life = place.settled(&[]).await;
        let is_over = kill_at(&place, count, &life);
        let is_answered = life.try_ask(method, path).await.is_ok();
        *is_over.lock() = true;
        life.end(Signal::KILL).await;
        let life = place.settled(&[]).await;
        let found = seen(&place, &life).await;
        let is_one = found == after || (found == before && !is_answered);
        assert!(
            is_one,
            "killed at moment {count}: {found:?} is not {before:?} nor {after:?}"
        );
        assert!(is_tidy(&place), "killed at moment {count}");
        if found == before {
            // Files that are left do not make the same call fail.
            let (status, answer) = life.ask(method, path).await;
            assert_eq!(status, 200, "killed at moment {count}: {answer}");
            assert_eq!(seen(&place, &life).await, after);
        }
    }
}

/// A place whose server has registered what `origin` serves, or not yet.
async fn place(origin: &Origin, is_registered: bool) -> (Place, String) {
    let place = Place::new(&[]).set(&format!("allowed_urls={}", origin.url("/")));
    fs::create_dir(place.store().join(".lantern")).unwrap();
    let register = format!("/models?url={}&initial_workers=1", origin.url("/plain.mar"));
    let life = place.settled(&[]).await;
    if is_registered {
        assert_eq!(life.ask("POST", &register).await.0, 200);
    }
    life.end(Signal::TERM).await;
    (place, register)
}

#[tokio::test]
async fn a_server_killed_while_it_registers_leaves_all_or_nothing() {
    let origin = Origin::serving(plain().packed()).await;
    let (place, register) = place(&origin, false).await;
    kill_during(&place, "POST", &register).await;
}

#[tokio::test]
async fn a_server_killed_while_it_scales_leaves_the_old_or_the_new_bounds() {
    let origin = Origin::serving(plain().packed()).await;
    let (place, _) = place(&origin, true).await;
    kill_during(
        &place,
        "PUT",
        "/models/plain?min_worker=2&max_worker=4&synchronous=true",
    )
    .await;
}

#[tokio::test]
async fn a_server_killed_while_it_unregisters_leaves_all_or_nothing() {
    let origin = Origin::serving(plain().packed()).await;
    let (place, _) = place(&origin, true).await;
    kill_during(&place, "DELETE", "/models/plain").await;
}
